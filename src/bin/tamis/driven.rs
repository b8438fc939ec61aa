//! `Driven`: a cache that a trace is replayed against.
//!
//! A request is a get, followed by a put on a miss. An object keeps the size that it was put with.
//! Time moves by a constant for each request, so that the speed of a machine changes nothing.
//!
//! Shared with `crates/hit-ratio`.

use std::path::Path;
use std::time::{Duration, SystemTime};

use futures::executor::block_on;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCacheConfigBuilder, BlobCachePolicy, BlobCachePut,
    BlobCacheStats, CacheError, CacheTier, Clock, L1Admission, L2Compression,
};
use thiserror::Error;

use super::segments::segment_bytes;
use super::traces::Request;
use super::values::Values;

/// Between two requests.
pub(crate) const REQUEST_TIME: Duration = Duration::from_millis(1);

#[derive(Debug, Error)]
pub(crate) enum DriveError {
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error("object {key} is not what was put")]
    Wrong { key: u64 },
}

/// What the requests came to. Bytes are those of values, without their keys.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    pub(crate) l1_hits: u64,
    pub(crate) l2_hits: u64,
    pub(crate) misses: u64,
    pub(crate) requested_bytes: u64,
    pub(crate) missed_bytes: u64,
    /// Of what was put, with keys.
    pub(crate) put_bytes: u64,
    /// Larger than the cache takes.
    pub(crate) too_large: u64,
}

/// What stands for the values of a trace.
#[derive(Debug)]
enum Content {
    /// Values as long as those of the trace.
    Full(Values, u64),
    /// A number, which is what the cache counts the value with. Little memory, however large the
    /// values of the trace are.
    Weights { overhead: u64 },
}

impl Content {
    /// None if no cache takes it.
    fn put(&self, Request { key, size }: Request) -> Option<BlobCachePut> {
        match self {
            Self::Full(_, most) if size > *most => None,
            Self::Full(values, _) => Some(values.of(key, size).into()),
            Self::Weights { overhead } => {
                let weight = size.saturating_add(*overhead).to_le_bytes();
                let policy = BlobCachePolicy::default().l1_admission(L1Admission::Always);
                Some(BlobCachePut::copy_from_slice(&weight).with_policy(policy))
            }
        }
    }

    fn is_of(&self, key: u64, value: &[u8]) -> bool {
        match self {
            Self::Full(values, _) => value == values.of(key, value.len() as u64),
            Self::Weights { .. } => value.len() == size_of::<u64>(),
        }
    }
}

/// What an entry counts whose value is its weight.
fn weight(_key: &[u8], value: &[u8]) -> usize {
    let weight = value.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
    usize::try_from(weight).unwrap_or(usize::MAX)
}

#[derive(Debug)]
pub(crate) struct Driven {
    cache: BlobCache,
    clock: Clock,
    content: Content,
    tally: Tally,
}

impl Driven {
    /// Memory alone. It counts an entry as it counts real ones: a value, and so many bytes beside.
    #[allow(dead_code, reason = "one of the two who share this has a disk tier always")]
    pub(crate) fn in_memory(l1_bytes: u64, overhead: u64) -> Result<Self, CacheError> {
        let config = BlobCacheConfig::builder()
            .l1_bytes_max(usize::try_from(l1_bytes).unwrap_or(usize::MAX))
            .l1_charge(weight)
            .build()?;
        let cache = block_on(BlobCache::open(config))?;
        let (clock, content) = (Clock::system(), Content::Weights { overhead });
        Ok(Self { cache, clock, content, tally: Tally::default() })
    }

    /// Both tiers, in an empty folder.
    pub(crate) fn in_both_tiers(
        (l1_bytes, l2_bytes): (u64, u64),
        values: Values,
        folder: &Path,
        settings: impl FnOnce(BlobCacheConfigBuilder) -> BlobCacheConfigBuilder,
    ) -> Result<Self, CacheError> {
        let largest = values.largest();
        let clock = Clock::manual(SystemTime::UNIX_EPOCH);
        let segment = u32::try_from(segment_bytes(l2_bytes, largest)).unwrap_or(u32::MAX);
        let config = BlobCacheConfig::builder()
            .clock(clock.clone())
            .l1_bytes_max(usize::try_from(l1_bytes).unwrap_or(usize::MAX))
            .l2_path(folder)
            .l2_bytes_max(l2_bytes)
            .l2_segment_bytes(segment)
            .l2_compression(L2Compression::Off);
        let cache = block_on(BlobCache::open(settings(config).build()?))?;
        let most = largest.min(l1_bytes.max(l2_bytes));
        let content = Content::Full(values, most);
        Ok(Self { cache, clock, content, tally: Tally::default() })
    }

    pub(crate) async fn request(&mut self, request: Request) -> Result<(), DriveError> {
        self.clock.advance(REQUEST_TIME);
        let Request { key, size } = request;
        let name = key.to_le_bytes();
        self.tally.requests += 1;
        self.tally.requested_bytes = self.tally.requested_bytes.saturating_add(size);
        if let Some(hit) = self.cache.get("trace", name).await {
            if !self.content.is_of(key, hit.value()) {
                return Err(DriveError::Wrong { key });
            }
            match hit.tier() {
                CacheTier::L1 => self.tally.l1_hits += 1,
                _ => self.tally.l2_hits += 1,
            }
            return Ok(());
        }
        self.tally.misses += 1;
        self.tally.missed_bytes = self.tally.missed_bytes.saturating_add(size);
        let Some(put) = self.content.put(request) else {
            self.tally.too_large += 1;
            return Ok(());
        };
        match self.cache.put("trace", name, put).await {
            Ok(()) => self.tally.put_bytes += name.len() as u64 + size,
            Err(CacheError::BlobTooLarge { .. }) => self.tally.too_large += 1,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// What it came to, with all that was put on the device. The cache is closed in any case.
    pub(crate) async fn finish(self) -> Result<(Tally, BlobCacheStats), CacheError> {
        let synced = self.cache.sync().await;
        let stats = self.cache.stats();
        self.cache.close().await?;
        synced?;
        Ok((self.tally, stats))
    }
}
