//! `Tiers`: one trace through a cache with memory and disk.
//!
//! A request is a get, followed by a put on a miss. Values are noise, so compression gains nothing.
//! Memory and file together have the size of the reference's cache. All overheads count against
//! them but the index's memory, which is reported.

use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::executor::block_on;
use tamis::{BlobCache, BlobCacheConfig, BlobCacheConfigBuilder, CacheError, Clock};

use crate::Failure;
use crate::segments::segment_bytes;
use crate::trace::Trace;

/// The smallest budget of memory.
const L1_BYTES_MIN: u64 = 64 << 10;

/// Between two requests.
pub(crate) const REQUEST_TIME: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(crate) struct Tiers {
    l1_bytes: u64,
    l2_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// In percent of the requests, like the hits in memory.
    pub(crate) misses: f64,
    pub(crate) l1_hits: f64,
    /// Bytes written to the device for each byte missed.
    pub(crate) written: f64,
    pub(crate) written_bytes: u64,
    pub(crate) not_admitted: f64,
}

impl Tiers {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "sizes far below 2^53"
    )]
    pub(crate) fn new(trace: &Trace, part: f64, ratio: u64) -> Self {
        let total = (trace.working_set as f64 * part) as u64;
        let l1_bytes = (total / (ratio + 1)).max(L1_BYTES_MIN);
        Self { l1_bytes, l2_bytes: total - l1_bytes }
    }

    pub(crate) fn replay(&self, trace: &Trace, folder: Option<&Path>) -> Result<Outcome, Failure> {
        self.replay_with(trace, folder, |config| config)
    }

    /// With other settings, and a clock that moves by [`REQUEST_TIME`] for each request.
    #[allow(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    pub(crate) fn replay_with(
        &self,
        trace: &Trace,
        folder: Option<&Path>,
        settings: impl FnOnce(BlobCacheConfigBuilder) -> BlobCacheConfigBuilder,
    ) -> Result<Outcome, Failure> {
        let store = match folder {
            None => tempfile::tempdir()?,
            Some(folder) => tempfile::tempdir_in(folder)?,
        };
        let clock = Clock::manual(SystemTime::UNIX_EPOCH);
        let config = BlobCacheConfig::builder()
            .clock(clock.clone())
            .l1_bytes_max(usize::try_from(self.l1_bytes)?)
            .l2_path(store.path())
            .l2_bytes_max(self.l2_bytes)
            .l2_segment_bytes(u32::try_from(segment_bytes(self.l2_bytes, trace.largest))?);
        let config = settings(config).build()?;
        let values = noise(usize::try_from(trace.largest)?);
        let (mut misses, mut missed_bytes) = (0_u64, 0_u64);
        let cache = block_on(BlobCache::open(config))?;
        block_on(async {
            for &(key, size) in &trace.requests {
                clock.advance(REQUEST_TIME);
                let name = key.to_le_bytes();
                if cache.get("trace", name).await.is_some() {
                    continue;
                }
                misses += 1;
                missed_bytes += size;
                let value = values.slice(..usize::try_from(size)?);
                match cache.put("trace", name, value).await {
                    Ok(()) | Err(CacheError::BlobTooLarge { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok::<_, Failure>(())
        })?;
        let stats = cache.stats();
        block_on(cache.close())?;
        let percent = |count: u64| 100.0 * count as f64 / trace.requests.len() as f64;
        Ok(Outcome {
            misses: percent(misses),
            l1_hits: percent(stats.hits() - stats.l2_hits()),
            written: stats.l2_write_bytes() as f64 / missed_bytes as f64,
            written_bytes: stats.l2_write_bytes(),
            not_admitted: percent(stats.l2_not_admitted()),
        })
    }
}

/// Bytes that do not compress.
pub(crate) fn noise(bytes: usize) -> Bytes {
    let mut state = 1_u64;
    let byte = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(byte).take(bytes).collect()
}
