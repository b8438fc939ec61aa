//! `Run`: one trace through one cache.
//!
//! A request is a get, followed by a put on a miss. Every get and put is timed: two or three clock
//! reads per request, about 50 ns, are part of the throughput; one is part of each latency. A value
//! is created before its put is timed. An object larger than the cache is refused, as it should be.

use std::collections::TryReserveError;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use hdrhistogram::{AdditionError, CreationError, Histogram};
use indicatif::ProgressBar;
use tamis::{
    BlobCache, BlobCacheNamespace, BlobCachePolicy, BlobCachePut, CacheError, L1Admission,
};
use thiserror::Error;

use crate::arguments::Charge;
use crate::budget::Budget;
use crate::trace::Trace;
use crate::traces::Request;

/// Requests that a thread takes at a time: few, so that their order stays almost the same.
const CHUNK_REQUESTS: usize = 64;

/// Chunks between updates of the progress bar.
const PROGRESS_CHUNKS: usize = 8;

/// Longer latencies are recorded as this value.
pub(crate) const LATENCY_NS_MAX: u64 = 60_000_000_000;

#[derive(Debug, Error)]
pub(crate) enum ReplayError {
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error("no memory for an object: {0}")]
    Memory(#[from] TryReserveError),
    #[error(transparent)]
    Creation(#[from] CreationError),
    #[error(transparent)]
    Addition(#[from] AdditionError),
    #[error("a replaying thread panicked")]
    Panicked,
}

#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) budget: Budget,
    pub(crate) charge: Charge,
    /// None for the cache's default.
    pub(crate) shards: Option<usize>,
    pub(crate) threads: NonZeroUsize,
}

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) shards: usize,
    /// Objects held at the end.
    pub(crate) objects: usize,
    pub(crate) elapsed: Duration,
    pub(crate) tally: Tally,
}

/// Counts and latencies, in nanoseconds.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) misses: u64,
    pub(crate) hit_latencies: Histogram<u64>,
    pub(crate) put_latencies: Histogram<u64>,
}

impl Run {
    pub(crate) fn replay(
        &self,
        trace: &Trace,
        progress: &ProgressBar,
    ) -> Result<Outcome, ReplayError> {
        let config = match self.charge {
            Charge::Payload => self.budget.config(self.shards)?,
            Charge::Memory => self.budget.config_of_memory(self.shards)?,
        };
        let cache = block_on(BlobCache::open(config))?;
        let policy = BlobCachePolicy::default().l1_admission(L1Admission::Always);
        let namespace = cache.namespace("trace").with_policy(policy);
        let requests = Requests::new(&trace.requests, progress);
        let start = Instant::now();
        let tallies = thread::scope(|scope| {
            let part = || {
                let tally = block_on(self.replay_part(&namespace, &requests));
                tally.inspect_err(|_| requests.stop())
            };
            let threads: Vec<_> = (0..self.threads.get()).map(|_| scope.spawn(part)).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, Result<Tally, ReplayError>>| {
                thread.join().unwrap_or(Err(ReplayError::Panicked))
            };
            threads.into_iter().map(join).collect::<Result<Vec<_>, _>>()
        })?;
        let elapsed = start.elapsed();
        let mut tally = Tally::new()?;
        for part in &tallies {
            tally.add(part)?;
        }
        let (shards, objects) = (cache.config().shard_count(), cache.stats().entries());
        Ok(Outcome { shards, objects, elapsed, tally })
    }

    /// One thread: takes chunks until none are left.
    async fn replay_part(
        &self,
        cache: &BlobCacheNamespace,
        requests: &Requests<'_>,
    ) -> Result<Tally, ReplayError> {
        let mut tally = Tally::new()?;
        while let Some(chunk) = requests.take() {
            for request in chunk {
                let key = request.key.to_le_bytes();
                let start = Instant::now();
                let hit = cache.get(key).await;
                let latency = start.elapsed();
                if hit.is_some() {
                    record(&mut tally.hit_latencies, latency);
                    continue;
                }
                tally.misses += 1;
                let Some(put) = self.put(request)? else { continue };
                let start = Instant::now();
                match cache.put(key, put).await {
                    Ok(()) => record(&mut tally.put_latencies, start.elapsed()),
                    Err(CacheError::BlobTooLarge { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(tally)
    }

    /// The value for a request. None if it is larger than the cache, which would refuse it.
    fn put(&self, request: &Request) -> Result<Option<BlobCachePut>, TryReserveError> {
        if self.charge == Charge::Payload {
            let weight = self.budget.weight(request.size);
            return Ok(Some(BlobCachePut::copy_from_slice(&weight.to_le_bytes())));
        }
        if request.size > self.budget.capacity() {
            return Ok(None);
        }
        let mut value = Vec::new();
        let size = usize::try_from(request.size).unwrap_or(usize::MAX);
        value.try_reserve_exact(size)?;
        value.resize(size, 0u8);
        Ok(Some(BlobCachePut::from(value)))
    }
}

impl Tally {
    fn new() -> Result<Self, CreationError> {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3);
        Ok(Self { misses: 0, hit_latencies: histogram()?, put_latencies: histogram()? })
    }

    fn add(&mut self, other: &Self) -> Result<(), AdditionError> {
        self.misses += other.misses;
        self.hit_latencies.add(&other.hit_latencies)?;
        self.put_latencies.add(&other.put_latencies)
    }
}

pub(crate) fn record(latencies: &mut Histogram<u64>, latency: Duration) {
    latencies.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
}

/// The requests left to replay, taken in order.
pub(crate) struct Requests<'a> {
    all: &'a [Request],
    /// The next chunk.
    next: AtomicUsize,
    progress: &'a ProgressBar,
}

impl<'a> Requests<'a> {
    pub(crate) fn new(all: &'a [Request], progress: &'a ProgressBar) -> Self {
        Self { all, next: AtomicUsize::new(0), progress }
    }

    pub(crate) fn take(&self) -> Option<&[Request]> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let from = number.checked_mul(CHUNK_REQUESTS).filter(|from| *from < self.all.len())?;
        if number % PROGRESS_CHUNKS == 0 {
            self.progress.set_position(from as u64);
        }
        let to = self.all.len().min(from + CHUNK_REQUESTS);
        Some(&self.all[from..to])
    }

    /// Ends the replay: no more requests are taken.
    pub(crate) fn stop(&self) {
        self.next.store(self.all.len(), Ordering::Relaxed);
    }
}
