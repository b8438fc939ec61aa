//! `TwoTiers`: one trace through a cache with memory and disk.
//!
//! A request is a get, followed by a put on a miss, as with memory alone. Values are random bytes,
//! so that compression gains nothing, and each is checked when it is read. Device reads and writes
//! are those of the cache, overhead included; write amplification is their ratio to the keys and
//! values put.

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use tamis::{BlobCache, BlobCacheConfig, BlobCacheStats, CacheError, CacheTier};

use crate::replay::{LATENCY_NS_MAX, Requests, record};
use crate::segments::segment_bytes;
use crate::trace::Trace;
use crate::traces::Request;
use crate::values::Values;

/// The minimum size of a store: a few segments.
const L2_BYTES_MIN: u64 = 1 << 20;

#[derive(Debug, Clone, Copy)]
pub(crate) struct TwoTiers {
    pub(crate) l1_bytes: u64,
    pub(crate) l2_bytes: u64,
    pub(crate) second_chances: bool,
    /// Of all objects, in a trace of keys alone.
    pub(crate) object_bytes: Option<u64>,
    pub(crate) threads: NonZeroUsize,
}

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) elapsed: Duration,
    pub(crate) tally: Tally,
    pub(crate) stats: BlobCacheStats,
}

/// Counts and latencies, in nanoseconds.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) put_bytes: u64,
    pub(crate) l1: Histogram<u64>,
    pub(crate) l2: Histogram<u64>,
    pub(crate) misses: Histogram<u64>,
    pub(crate) puts: Histogram<u64>,
}

type Failure = Box<dyn Error + Send + Sync>;

impl TwoTiers {
    /// Bytes of a request's object. One without any takes room, too.
    fn bytes_of(&self, request: Request) -> u64 {
        self.object_bytes.unwrap_or(request.size).max(1)
    }

    pub(crate) fn replay(
        &self,
        trace: &Trace,
        directory: &Path,
        progress: &ProgressBar,
    ) -> Result<Outcome, Failure> {
        let largest = trace.requests.iter().map(|request| self.bytes_of(*request)).max();
        let l2_bytes = self.l2_bytes.max(L2_BYTES_MIN);
        let values = Values::new(largest.unwrap_or(0).min(self.l1_bytes.max(l2_bytes)));
        let config = BlobCacheConfig::builder()
            .l1_bytes_max(usize::try_from(self.l1_bytes)?)
            .l2_path(directory)
            .l2_bytes_max(l2_bytes)
            .l2_segment_bytes(u32::try_from(segment_bytes(l2_bytes, values.largest()))?)
            .l2_second_chances(self.second_chances)
            .build()?;
        let cache = block_on(BlobCache::open(config))?;
        let requests = Requests::new(&trace.requests, progress);
        let start = Instant::now();
        let tallies = thread::scope(|scope| {
            let part = || {
                let tally = block_on(self.replay_part(&cache, &requests, &values));
                tally.inspect_err(|_| requests.stop())
            };
            let threads: Vec<_> = (0..self.threads.get()).map(|_| scope.spawn(part)).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, Result<Tally, Failure>>| {
                thread.join().unwrap_or_else(|_| Err("a replaying thread panicked".into()))
            };
            threads.into_iter().map(join).collect::<Result<Vec<_>, _>>()
        })?;
        block_on(cache.sync())?;
        let elapsed = start.elapsed();
        let mut tally = Tally::new()?;
        for part in &tallies {
            tally.add(part)?;
        }
        let stats = cache.stats();
        block_on(cache.close())?;
        Ok(Outcome { elapsed, tally, stats })
    }

    async fn replay_part(
        &self,
        cache: &BlobCache,
        requests: &Requests<'_>,
        values: &Values,
    ) -> Result<Tally, Failure> {
        let mut tally = Tally::new()?;
        while let Some(chunk) = requests.take() {
            for &request in chunk {
                let (key, bytes) = (request.key.to_le_bytes(), self.bytes_of(request));
                let start = Instant::now();
                let hit = cache.get("trace", key).await;
                let latency = start.elapsed();
                if let Some(hit) = hit {
                    // A present object keeps its first size.
                    if hit.value() != values.of(request.key, hit.value().len() as u64) {
                        return Err(format!("object {} is not what was put", request.key).into());
                    }
                    let is_in_memory = hit.tier() == CacheTier::L1;
                    record(if is_in_memory { &mut tally.l1 } else { &mut tally.l2 }, latency);
                    continue;
                }
                record(&mut tally.misses, latency);
                // No cache takes it.
                if bytes > values.largest() {
                    continue;
                }
                let value = values.of(request.key, bytes);
                let start = Instant::now();
                match cache.put("trace", key, value).await {
                    Ok(()) => {
                        record(&mut tally.puts, start.elapsed());
                        tally.put_bytes += key.len() as u64 + bytes;
                    }
                    Err(CacheError::BlobTooLarge { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(tally)
    }
}

impl Tally {
    fn new() -> Result<Self, Failure> {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3);
        let (l1, l2, misses, puts) = (histogram()?, histogram()?, histogram()?, histogram()?);
        Ok(Self { put_bytes: 0, l1, l2, misses, puts })
    }

    fn add(&mut self, other: &Self) -> Result<(), Failure> {
        self.put_bytes += other.put_bytes;
        self.l1.add(&other.l1)?;
        self.l2.add(&other.l2)?;
        self.misses.add(&other.misses)?;
        self.puts.add(&other.puts)?;
        Ok(())
    }
}
