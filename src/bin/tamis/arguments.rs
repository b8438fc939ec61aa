//! The command line, and its pages of help.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tamis::{StoreAccess, StoreReadError, StoreReader};

use super::bench::{BENCH, BENCH_MORE, Bench};
use super::number::within;
use super::replay::{REPLAY, REPLAY_MORE, Replay};

const EXIT_CODES: &str = "\
Exit codes:
  0  done, and nothing was found to be damaged
  1  damage was found
  2  the command line makes no sense
  3  the store cannot be read: there is none, it is something else or of another version, or the
     operating system refuses it; or it cannot be copied; or a trace cannot be read, or a device
     not measured
  4  a cache has the store open
  5  no cache has the store open, of `stat`
  130  interrupted: bench and replay remove what they have made

Sizes are in bytes unless a unit stands beside them (KiB = 1024 bytes). Times are in UTC; with
--json in milliseconds since 1970. With --json an error is an object {\"error\": {\"kind\",
\"message\", \"owner\"}} on the standard output; messages go to the standard error in any
case.";

/// Looks at the stores of tamis caches, copies them and watches their caches, from outside; and
/// measures what a cache would do on a device, or with a trace of requests.
///
/// A store is the directory that a cache's configuration calls l2_path. No command writes to one
/// that there is: not even what an open of the cache would write. Commands that read a store hold a
/// shared lock on it, so that no cache opens it meanwhile; a store that a cache has open is
/// refused, unless --live is given. `stat` asks a running cache, which must allow it.
#[derive(Debug, Parser)]
#[command(name = "tamis", version, after_long_help = EXIT_CODES)]
#[command(disable_help_subcommand = false, arg_required_else_help = true)]
pub(super) struct Arguments {
    /// Write JSON instead of text: one object, or one object a line
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what a store is: its superblock, segments and namespaces
    #[command(long_about = INSPECT, after_long_help = INSPECT_MORE)]
    Inspect(Store),
    /// Read every record of a store and check every checksum
    #[command(long_about = VERIFY, after_long_help = VERIFY_MORE)]
    Verify(Store),
    /// List the entries of a store
    #[command(long_about = DUMP, after_long_help = DUMP_MORE)]
    Dump(Dump),
    /// Show the largest namespaces and entries of a store
    #[command(long_about = TOP, after_long_help = TOP_MORE)]
    Top(Top),
    /// Watch a running cache: a line a second
    #[command(long_about = STAT, after_long_help = STAT_MORE)]
    Stat(Stat),
    /// Estimate the budgets that a cache needs
    #[command(long_about = SIZE, after_long_help = SIZE_MORE)]
    Size(Size),
    /// Copy a store to another directory
    #[command(long_about = BACKUP, after_long_help = BACKUP_MORE)]
    Backup(Backup),
    /// Verify a backup, and copy it to where a cache is to open it
    #[command(long_about = RESTORE, after_long_help = RESTORE_MORE)]
    Restore(Restore),
    /// Measure what a device can do for a cache
    #[command(long_about = BENCH, after_long_help = BENCH_MORE)]
    Bench(Bench),
    /// Replay a trace of requests, to see how large a cache has to be
    #[command(long_about = REPLAY, after_long_help = REPLAY_MORE)]
    Replay(Replay),
}

#[derive(Debug, Args)]
pub(super) struct Store {
    /// The directory of the store
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Show the store although a cache has it open, as of its last sealed segment
    ///
    /// No lock is asked for. Segments that the cache overwrites meanwhile are left out.
    #[arg(long)]
    live: bool,
}

impl Store {
    pub(super) fn open(&self) -> Result<StoreReader, StoreReadError> {
        let access = if self.live { StoreAccess::Live } else { StoreAccess::Alone };
        StoreReader::open(&self.directory, access)
    }
}

#[derive(Debug, Args)]
pub(super) struct Dump {
    #[command(flatten)]
    pub(super) store: Store,
    /// Only entries of this namespace; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(super) namespace: Vec<String>,
    /// Only entries whose keys begin with this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(super) prefix: OsString,
    /// Only entries that carry this tag; several tags and dependencies: any of them
    #[arg(long, value_name = "TAG")]
    pub(super) tag: Vec<String>,
    /// Only entries that depend on this
    #[arg(long, value_name = "NAME")]
    pub(super) dependency: Vec<String>,
    /// Leave out what is only in the records: much faster
    ///
    /// Then the times of writing and expiry, tags and dependencies are missing, but for entries
    /// that were touched or expired before their time.
    #[arg(long)]
    pub(super) brief: bool,
}

#[derive(Debug, Args)]
pub(super) struct Top {
    #[command(flatten)]
    pub(super) store: Store,
    /// How many of each
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 10)]
    pub(super) count: usize,
}

#[derive(Debug, Args)]
pub(super) struct Stat {
    /// The directory of the store
    #[arg(value_name = "DIR")]
    pub(super) directory: PathBuf,
    /// The time between two lines
    #[arg(long, short = 'i', value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub(super) interval: Duration,
    /// Only one line
    #[arg(short = '1', conflicts_with = "count")]
    pub(super) once: bool,
    /// Only so many lines
    #[arg(long, short = 'n', value_name = "NUMBER")]
    pub(super) count: Option<u64>,
    /// Instead of lines, show the namespaces in use
    #[arg(long, conflicts_with_all = ["config", "once", "count", "interval"])]
    pub(super) namespaces: bool,
    /// Instead of lines, show the configuration of the cache
    #[arg(long, conflicts_with_all = ["once", "count", "interval"])]
    pub(super) config: bool,
}

#[derive(Debug, Args)]
pub(super) struct Size {
    /// Entries that the cache is to hold
    #[arg(long, value_name = "NUMBER")]
    pub(super) entries: u64,
    /// Mean length of a key, in bytes
    #[arg(long, value_name = "BYTES", value_parser = length(65_535))]
    pub(super) key: usize,
    /// Mean length of a value, in bytes
    #[arg(long, value_name = "BYTES", value_parser = length(1 << 28))]
    pub(super) value: usize,
    /// Mean length of a value on disk, if it is compressed
    #[arg(long, value_name = "BYTES", value_parser = length(1 << 28))]
    pub(super) stored: Option<usize>,
    /// Tags and dependencies of an entry
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = length(1024))]
    pub(super) labels: usize,
    /// Mean length of a tag or dependency, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 16, value_parser = length(65_535))]
    pub(super) label: usize,
    /// Percent of the entries that memory is to hold as well
    #[arg(long, value_name = "PERCENT", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(super) l1_share: u32,
    /// The entries have no ttl
    #[arg(long)]
    pub(super) no_ttl: bool,
}

#[derive(Debug, Args)]
pub(super) struct Backup {
    #[command(flatten)]
    pub(super) store: Store,
    /// The directory of the copy, which must have no store; it is made if it is missing
    #[arg(value_name = "TO")]
    pub(super) to: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The directory of the backup
    #[arg(value_name = "FROM")]
    pub(super) from: PathBuf,
    /// The directory of the copy, which must have no store; it is made if it is missing
    #[arg(value_name = "TO")]
    pub(super) to: PathBuf,
    /// Copy it although parts are damaged
    ///
    /// Segments that have lost their headers are left out with all older ones. Other damage is
    /// copied: `tamis verify --help` tells what it means.
    #[arg(long)]
    pub(super) damaged: bool,
}

/// A tenth of a second to an hour.
fn interval(text: &str) -> Result<Duration, String> {
    within(0.1..=3600.0)(text).map(Duration::from_secs_f64)
}

/// A length or a number up to a limit.
fn length(max: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| {
        let length = text.parse().map_err(|error| format!("{error}"))?;
        if length <= max { Ok(length) } else { Err(format!("it is more than {max}")) }
    }
}

const INSPECT: &str = "\
Shows what a store is.

Reads the superblock, the headers and directories of all segments, and the image of the index
if a close has left one. That takes as much memory as the index of the cache: some 32 bytes
for each entry and 52 for each label of it.

The superblock: format version, id, crash-safety mode, how the last owner left the store
(clean, unclean, void), what the next open would find, the number of opens, sizes. A store
whose next open would begin empty is shown with all that is in its file.

Segments in use, oldest first: number in the log, place in the file, whether it is sealed,
records of all kinds, entries that are live, bytes of these and of all other records (dead:
overwritten, invalidated, expired; and marks). Namespaces: entries, bytes of their records,
different labels, labels of all entries.

Write amplification is not on file. The log tells how many bytes it has taken since the store
was created; how many of them were reinsertions, only a running cache counts
(l2_reinserted_bytes beside l2_write_bytes in its statistics).";

const INSPECT_MORE: &str = "\
JSON members: path, format_version, store_id, crash_safety (cold, process, power), state
(clean, unclean, void, unfinished), next_open (warm, empty_cold, empty_other_boot, empty_void,
empty_marked, empty_unfinished), opens, created_unix_ms, file_bytes, store_bytes,
segment_bytes, segment_count, log_bytes, live, segments_dropped, entries, entry_bytes, labels,
segments: [number, place, offset, sealed, records, live_entries, live_bytes, dead_bytes],
namespaces: [name, entries, bytes, labels, postings]. Members that are not known are null.

Examples:
  tamis inspect /var/cache/pages
  tamis inspect --live --json /var/cache/pages | jq .state

Exit codes: 0 shown; 1 shown, but segments are damaged; others: tamis --help.";

const DUMP: &str = "\
Lists the entries of a store that a get would find now: neither expired nor overwritten nor
invalidated ones. In no order.

Finds the entries as `inspect` does, then reads the beginning of each record, 4 or 8 KiB; with
--brief only the directories. Values are not read.";

const DUMP_MORE: &str = "\
Columns, separated by tabs: namespace, key, bytes of the record, time of writing, time of
expiry, time after which it is gone (the end of its stale window), version, tags,
dependencies. A dash stands for what it does not have or --brief does not tell. Commas
separate tags. Control characters are escaped.

JSON: an object a line, with the members namespace, key (or key_hex, if the key is no UTF-8),
bytes, written_unix_ms, expires_unix_ms, gone_unix_ms, stale (true within its stale window),
absent (it is a cached absence), version, tags, dependencies; null where it has none or
--brief does not tell.

Examples:
  tamis dump /var/cache/pages --namespace pages --prefix /blog/
  tamis dump /var/cache/pages --tag product:7 --json | jq -r .key
  tamis dump /var/cache/pages --brief | sort -t$'\\t' -k3 -n | tail

Exit codes: 0 listed; 1 listed, but segments are damaged, whose entries are missing; others:
tamis --help.";

const VERIFY: &str = "\
Reads every record of every segment in use, and checks every checksum of the store:
superblocks, segment headers, directories, frames, heads and bodies of records, padding, and
the image of the index behind the segments. A line for each part that is damaged, and one for
the whole.

Reads the file once, from the oldest segment to the newest, in pieces of a mebibyte. Memory:
the directory of one segment and a few MiB, whatever the size of the store. On a terminal the
standard error shows the progress, the rate and the time that is left.

Of a store that was closed every damaged byte that counts is found. Of one that was not, a
record at the very end may have been torn by the end of the process, which is no damage. What
is not in use, such as reclaimed segments, is not read. With --live only sealed segments are
checked; those that their owner overwrites meanwhile are counted, and never taken for damage.";

const VERIFY_MORE: &str = "\
Columns, separated by tabs: what is damaged (superblock, segment_header, directory, frame,
record, segment, index_image), number of the segment, offset in the file, namespace, key, how
it shows. A dash stands for what is not known or has none. Namespace and key of a record whose
head is damaged come from the directory; in a segment without one they are given as far as
they can be read, and may be damaged themselves.

What the damage means: a get of a damaged record finds nothing. A segment with a damaged
header or directory is dropped by the next open, with all older ones. A damaged frame costs
nothing as long as its segment has its directory. A damaged superblock is written again by the
next open. Without its image the index is read from the directories. A segment is named
`segment` if the device could not read all of it.

JSON: an object a line: {\"damage\": {part, segment, offset, namespace, key (or key_hex),
reason}} for each, then {\"report\": {segments, records (good ones), damaged, overwritten,
index_image}}.

Examples:
  tamis verify /var/cache/pages
  tamis verify --live --json /var/cache/pages | jq -r 'select(.damage).damage.segment'

Exit codes: 0 nothing is damaged; 1 damage was found; others: tamis --help.";

const TOP: &str = "\
Shows the namespaces with the most bytes on disk and with the most entries, and the largest
entries.

Reads what `inspect` reads. Only live entries count, with the bytes of their records: key,
metadata and labels included, values as compressed. Which namespaces are busiest, a store does
not know; its cache tells, while it runs: tamis stat --namespaces.";

const TOP_MORE: &str = "\
JSON members: by_bytes and by_entries: [name, entries, bytes], largest: [namespace, key (or
key_hex), bytes], segments_dropped.

Examples:
  tamis top /var/cache/pages
  tamis top -n 3 --json /var/cache/pages | jq '.largest[0]'

Exit codes: 0 shown; 1 shown, but segments are damaged, whose entries are missing; others:
  tamis --help.";

const STAT: &str = "\
Watches a cache that is running: a line a second, of what it has done since the line before.

The cache must have a status socket: l2_status_socket(true) in its configuration. Only the
user of its process and root may ask there. Nothing is changed, and a cache that is stopped or
full of work is told from one that has ended.

Columns: gets in a second; percent of them that were hits in memory (l1) and on disk (l2);
puts that stored an entry, and entries evicted from memory, in a second; reads of the file
and their bytes in a second; time of a get from disk, the median and the 99th percentile in
milliseconds; bytes written to the file in a second; write amplification (wamp: these bytes
over those that are no reinsertions); bytes in use in memory and on disk; errors (of the
device, of checksums, of fetches) and values that the disk did not take (drops) in the
interval; the state of the disk tier, with the reason if it is degraded.

--namespaces shows each namespace in use, the largest first; --config the configuration that
the cache was opened with.";

const STAT_MORE: &str = "\
JSON: an object a line, with the members pid, uptime_seconds (of the cache), interval_seconds,
gets_per_second, l1_hit_pct, l2_hit_pct, puts_per_second, evictions_per_second,
l2_reads_per_second, l2_read_bytes_per_second, l2_get_p50_seconds, l2_get_p99_seconds,
l2_write_bytes_per_second, write_amplification, l1_bytes, l2_bytes, errors, drops, state (off,
healthy, degraded), reason, figures (all of them, since the open, under their names for
exporters). Null is what did not happen or the cache does not tell. With --namespaces: name,
figures, quota (l1_bytes_max, l2_bytes_max); with --config: an object with the settings.

An error has one of these kinds, besides those of all commands: no_owner (no cache has the
store open), owner_dead (nor has the last one closed it), no_socket, silent (the cache has not
answered for 5 seconds), busy (it serves as many clients as it allows).

Examples:
  tamis stat /var/cache/pages
  tamis stat -1 --interval 10 --json /var/cache/pages | jq .l1_hit_pct
  tamis stat --namespaces /var/cache/pages

Exit codes: 0 shown; 3 also: the cache does not answer; 4 a cache has the store open and has no
status socket; 5 no cache has the store open, or the one that was watched has ended; others:
tamis --help.";

const SIZE: &str = "\
Estimates l1_bytes_max, l2_bytes_max and l2_index_bytes_max for a number of entries, by the
formulas with which the cache counts itself. Reads no store.

Memory holds a share of the entries, the disk all of them, once. Overwritten and expired
entries stay on disk until their segment is reused: add as much as there is of them. Entries
with an idle ttl ask for an eighth of the index budget more.";

const SIZE_MORE: &str = "\
JSON members, in bytes but for l2_segments: l1_entry_bytes, l1_bytes_max, l2_entry_bytes,
l2_bytes_max, l2_segment_bytes, l2_segments, index_entry_bytes, l2_index_bytes_max,
default_index_bytes_max (what the cache takes if l2_index_bytes_max is not set).

Examples:
  tamis size --entries 10000000 --key 40 --value 2000 --labels 2
  tamis size --entries 1000000 --key 20 --value 60000 --stored 15000 --l1-share 5 --json

Exit codes: 0 estimated; 2 no store takes such entries, or the command line makes no sense.";

const BACKUP: &str = "\
Copies a store to another directory. The copy is a store that was closed, as BlobCache::backup
makes it: a cache opens it warm, with any l2_bytes_max, in the mode Process or Power.

It has everything up to the end of the log. With --live a cache may have the store open: the
copy ends with the last sealed segment, and may lack entries that the cache was just moving
to a newer one. What it lacks is a miss, never an older value than the newest one of the
sealed segments. BlobCache::backup, by the cache itself, lacks nothing.

A store whose next open would begin empty is refused, since its copy would not. Segments are
copied as they are, damage included: `tamis restore` verifies them.

Until the copy is whole and on its device every open refuses it. If the command is
interrupted it is left so, and the next backup to the directory replaces it. A store that is
there already is never changed. On a terminal the standard error shows the progress.";

const BACKUP_MORE: &str = "\
JSON: {\"copy\": {directory, segments, bytes, damaged (null), flush_after_open (false)}}. An
error has one of these kinds, besides those of all commands: target_exists, target_in_use,
no_room, empty (the store's next open begins empty), nothing_sealed, moving (with --live: it
was overwritten faster than it could be copied, in eight attempts).

Examples:
  tamis backup /var/cache/pages /backup/pages
  tamis backup --live --json /var/cache/pages /backup/pages

Exit codes: 0 copied; 1 the store is damaged as a whole, or a segment has lost its header; 3
also: the copy cannot be made; 4 also: the other directory is in use; others: tamis --help.";

const RESTORE: &str = "\
Verifies a store as `tamis verify` does, and copies it to another directory as `tamis backup`
does. Nothing is copied if a part is damaged, unless --damaged is given.

The copy knows nothing of what was changed since the backup. A cache that opens it may serve
what is out of date, until ttls end it: flush what may have changed once it is open.";

const RESTORE_MORE: &str = "\
JSON: an object a line: {\"damage\": ...} as of `tamis verify`, then {\"copy\": {directory,
segments, bytes, damaged (parts), flush_after_open (true)}}. Errors are those of `tamis
backup`.

Examples:
  tamis restore /backup/pages /var/cache/pages
  tamis restore --damaged --json /backup/pages /var/cache/pages | jq .copy.damaged

Exit codes: 0 copied, with --damaged although damage was found; 1 damage was found, and
nothing was copied; 3 also: the copy cannot be made; 4 also: the other directory is in use;
others: tamis --help.";
