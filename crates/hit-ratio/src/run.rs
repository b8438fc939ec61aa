//! `Tiers`: one trace through a cache with memory and disk.
//!
//! Memory and file together have the size of the reference's cache. All overheads count against
//! them but the index's memory, which is reported.

use std::path::Path;

use futures::executor::block_on;
use tamis::BlobCacheConfigBuilder;

use crate::Failure;
use crate::driven::Driven;
pub(crate) use crate::driven::REQUEST_TIME;
use crate::trace::Trace;
use crate::values::Values;

/// The smallest budget of memory.
const L1_BYTES_MIN: u64 = 64 << 10;

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
        let tiers = (self.l1_bytes, self.l2_bytes);
        let values = Values::new(trace.largest);
        let mut driven = Driven::in_both_tiers(tiers, values, store.path(), settings)?;
        let (tally, stats) = block_on(async {
            for &request in &trace.requests {
                driven.request(request).await?;
            }
            Ok::<_, Failure>(driven.finish().await?)
        })?;
        let percent = |count: u64| 100.0 * count as f64 / tally.requests as f64;
        Ok(Outcome {
            misses: percent(tally.misses),
            l1_hits: percent(tally.l1_hits),
            written: stats.l2_write_bytes() as f64 / tally.missed_bytes as f64,
            written_bytes: stats.l2_write_bytes(),
            not_admitted: percent(stats.l2_not_admitted()),
        })
    }
}
