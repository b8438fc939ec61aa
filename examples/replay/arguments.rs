//! `Arguments`: the command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::budget::Mode;
use crate::cache_size::CacheSize;
use crate::traces::Layout;

/// The smallest budget of memory.
const L1_BYTES_MIN: u64 = 64 << 10;

/// Replays request traces against the cache, and prints misses, throughput and latencies.
///
/// A request is a get, followed by a put on a miss. Without a trace, those of the folder
/// `TAMIS_TRACES` are replayed; without that variable a seeded workload, which is generated: Zipf's
/// law with scans.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// Traces, plain or zstd-compressed: one request per line, `key,size` or `time,key,size`, with
    /// a header or not, or libCacheSim's oracleGeneral; or folders of .csv and .csv.zst.
    pub(crate) traces: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) layout: Layout,

    /// The unit of cache sizes: objects, or their bytes.
    #[arg(long, value_enum, default_value = "byte")]
    pub(crate) mode: Mode,

    /// Cache sizes: objects or bytes, or, with a decimal point, fractions of the working set. With
    /// a disk tier: those of memory. [default: 0.01,0.1]
    #[arg(long, value_delimiter = ',')]
    cache_size: Vec<CacheSize>,

    /// Numbers of lists into which the SIEVE queue is divided. [default: the cache's own]
    #[arg(long, value_delimiter = ',')]
    pub(crate) shards: Vec<usize>,

    /// The charge of an object: its size only, as in simulators, or its memory.
    #[arg(long, value_enum, default_value = "payload")]
    pub(crate) charge: Charge,

    /// Threads that share the requests of a trace. With several, their order is not exact.
    #[arg(long, default_value = "1")]
    pub(crate) threads: NonZeroUsize,

    /// Adds a disk tier in a temporary directory, inside this directory if given. Values then have
    /// the sizes of the trace, and sizes count memory and file.
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "DIRECTORY")]
    #[allow(clippy::option_option, reason = "whether it is there, and whether it says where")]
    pub(crate) l2: Option<Option<PathBuf>>,

    /// Sizes of the disk tier, in the same form as cache sizes. [default: 0.3 with --cache-size]
    #[arg(long, value_delimiter = ',', requires = "l2")]
    l2_size: Vec<CacheSize>,

    /// Instead of both: sizes of memory and disk together. [default: 0.1,0.4]
    #[arg(long, value_delimiter = ',', requires = "l2")]
    #[arg(conflicts_with_all = ["cache_size", "l2_size"])]
    total_size: Vec<CacheSize>,

    /// With these: how many times as large as memory the disk is.
    #[arg(long, value_delimiter = ',', default_value = "10", requires = "l2")]
    ratio: Vec<u64>,

    /// With a disk tier: bytes of an object whose size the trace lacks.
    #[arg(long, default_value = "4096", requires = "l2")]
    pub(crate) object_bytes: u64,

    /// Whether read records are reinserted when their segment is reused.
    #[arg(long, value_delimiter = ',', default_value = "true", requires = "l2")]
    pub(crate) second_chances: Vec<bool>,

    /// Requests of the generated workload. [default: 1000000; with a disk tier, 200000]
    #[arg(long)]
    pub(crate) requests: Option<NonZeroUsize>,

    /// The seed of that workload.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// Known misses of other caches. [default: reference.csv beside each trace, if there]
    #[arg(long)]
    pub(crate) reference: Option<PathBuf>,
}

impl Arguments {
    /// Sizes of the cache, or of memory.
    pub(crate) fn cache_sizes(&self) -> Vec<CacheSize> {
        or_default(&self.cache_size, &[CacheSize::parts(1, 100), CacheSize::parts(1, 10)])
    }

    /// Bytes of memory and of disk, for each run over two tiers.
    pub(crate) fn tiers(&self, working_set: u64) -> Vec<(u64, u64)> {
        if self.cache_size.is_empty() && self.l2_size.is_empty() {
            let default = [CacheSize::parts(1, 10), CacheSize::parts(4, 10)];
            let totals = or_default(&self.total_size, &default);
            let divided = |total: CacheSize, ratio: u64| {
                let bytes = total.of(working_set);
                let of_memory = (bytes / ratio.saturating_add(1)).max(L1_BYTES_MIN);
                (of_memory, bytes.saturating_sub(of_memory))
            };
            let of_total =
                |total| self.ratio.iter().map(move |&ratio| divided(total, ratio)).collect();
            return totals.into_iter().flat_map::<Vec<_>, _>(of_total).collect();
        }
        let of_disk = or_default(&self.l2_size, &[CacheSize::parts(3, 10)]);
        let beside = |of_memory: CacheSize| {
            let of_memory = of_memory.of(working_set).max(L1_BYTES_MIN);
            of_disk.iter().map(move |of_disk| (of_memory, of_disk.of(working_set)))
        };
        self.cache_sizes().into_iter().flat_map(beside).collect()
    }

    /// Requests of the generated workload; fewer with a disk tier, which is slower.
    pub(crate) fn requests(&self) -> usize {
        let default = if self.l2.is_some() { 200_000 } else { 1_000_000 };
        self.requests.map_or(default, NonZeroUsize::get)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Charge {
    /// Only its size. Values are tiny, whatever the trace says.
    Payload,
    /// Key, value and overhead. Values have the sizes of the trace.
    Memory,
}

fn or_default(given: &[CacheSize], default: &[CacheSize]) -> Vec<CacheSize> {
    if given.is_empty() { default.to_vec() } else { given.to_vec() }
}
