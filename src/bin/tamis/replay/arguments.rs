//! The arguments of `tamis replay`, and its page of help.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use clap::Args;

use super::super::cache_size::CacheSize;
use super::super::traces::Layout;

#[derive(Debug, Args)]
pub(in super::super) struct Replay {
    /// The trace
    #[arg(value_name = "TRACE")]
    pub(super) trace: PathBuf,
    #[command(flatten)]
    pub(super) layout: Layout,
    /// Sizes of the cache: bytes, or, with a decimal point, parts of the working set [default:
    /// 0.01,0.02,0.05,0.1,0.2,0.4, those that are not too small]
    #[arg(long, value_name = "SIZES", value_delimiter = ',')]
    pub(super) budgets: Vec<CacheSize>,
    /// Give the cache a disk tier, in a new folder of this directory
    #[arg(long, value_name = "DIR")]
    pub(super) l2: Option<PathBuf>,
    /// With a disk tier: the part of each size that is memory, in percent [default: 10]
    #[arg(long, value_name = "PERCENT", requires = "l2")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=99))]
    pub(super) l1_share: Option<u64>,
    /// Bytes of an object, in traces without sizes or with 1 as the size of all
    #[arg(long, value_name = "BYTES", default_value = "4096")]
    pub(super) object_bytes: NonZeroU64,
    /// Sizes that are replayed at one time [default: as many as there are cores]
    #[arg(long, value_name = "NUMBER")]
    pub(super) jobs: Option<NonZeroUsize>,
    /// Draw misses over sizes into this file, which is replaced if it is there
    #[arg(long, value_name = "FILE.svg")]
    pub(super) plot: Option<PathBuf>,
}

pub(in super::super) const REPLAY: &str = "\
Replays a trace of requests against caches of several sizes, and shows how many requests miss,
beside SIEVE, LRU and FIFO of the same sizes. A request is a get, followed on a miss by a put.

For tamis the cache itself is driven: in memory alone, or with --l2 in both tiers, with a store
in a new folder that is removed at the end, by Ctrl-C as well (a kill leaves
`tamis-replay-PROCESS`). Everything that takes room counts against its size: keys (of 8 bytes),
heads, tables, segments that are free; the index of the disk tier, which is memory as well, does
not. The other policies are simulated, and count nothing but the sizes of the objects.

Formats, plain or zstd-compressed, told apart by their first bytes:
  key-size        lines `key,size`
  csv             lines with more columns; a header names them, else they are `time,key,size`
  oracle-general  the records of libCacheSim: time u32, object u64, size u32, next request i64
A size is in bytes. Times are not used: for the cache a millisecond passes with each request.

The trace is read once to find its working set, and then once for each size, so it cannot come
through a pipe. Memory does not grow with its length: some 100 bytes for each object that a
simulated cache holds, some 250 for each that a cache in memory holds, however long its value is;
with --l2 the memory tier in full, the index, and the largest value. Up to 2,097,152 different
objects are counted exactly, more are estimated by a sample.";

pub(in super::super) const REPLAY_MORE: &str = "\
Columns: budget (memory and disk together); misses of tamis and of the others, in percent of the
requests; hits of each tier. With --l2: memory and disk of the budget, puts whose value the disk
tier did not admit, bytes that it has read and written, and these beside keys and values put
(write amplification).

JSON members: trace, format, requests, objects, bytes (the working set), is_estimated,
largest_bytes, budgets: [budget_bytes, l1_bytes, l2_bytes, requests, l1_hits, l2_hits, misses,
miss_ratio, requested_bytes, missed_bytes, byte_miss_ratio, too_large, not_admitted, put_bytes,
read_bytes, written_bytes, write_amplification, index_bytes, others: [policy (sieve, lru,
fifo), misses, miss_ratio, missed_bytes, byte_miss_ratio]].
Members that have no figure are null. An error has
one of these kinds, besides those of all commands: trace, usage, no_directory, no_room,
cache, io, plot, wrong_value, interrupted.

Examples:
  tamis replay requests.csv.zst
  tamis replay wiki.oracleGeneral.zst --budgets 0.01,0.1 --l2 /var/cache --plot misses.svg
  tamis replay log.csv --columns id=5,size=4 --budgets 1073741824,10737418240 --json

Exit codes: 0 replayed; 2 also: a size is too small for a cache; 3 the trace cannot be read, or
the store not made; 130 interrupted; others: tamis --help.";
