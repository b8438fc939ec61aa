//! The command line, and its pages of help.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tamis::{StoreAccess, StoreReadError, StoreReader};

const EXIT_CODES: &str = "\
Exit codes:
  0  done, and nothing was found to be damaged
  1  damage was found
  2  the command line makes no sense
  3  the store cannot be read: there is none, it is something else or of another version, or the
     operating system refuses it
  4  a cache has the store open

Sizes are in bytes unless a unit stands beside them (KiB = 1024 bytes). Times are in UTC; with
--json in milliseconds since 1970. With --json an error is an object {\"error\": {\"kind\",
\"message\", \"owner\"}} on the standard output; messages go to the standard error in any
case.";

/// Looks at the stores of tamis caches, from outside.
///
/// A store is the directory that a cache's configuration calls l2_path. No command writes to it:
/// not even what an open of the cache would write. Commands that read a store hold a shared lock on
/// it, so that no cache opens it meanwhile; a store that a cache has open is refused, unless --live
/// is given.
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
    /// List the entries of a store
    #[command(long_about = DUMP, after_long_help = DUMP_MORE)]
    Dump(Dump),
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
