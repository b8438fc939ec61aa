//! `measure`: what the flash is spared, and what that costs in hits.
//!
//! Each trace three times, with 10 % of the working set, 1:10: with the defaults, with
//! `L2Admission::OnSecondSight`, and with a write rate of half of what the defaults have written,
//! spread over the time of the trace.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use tamis::{L2Admission, WriteRate};

use crate::Failure;
use crate::run::{Outcome, REQUEST_TIME, Tiers};
use crate::trace::Trace;

const PART: f64 = 0.1;

const RATIO: u64 = 10;

/// Of the bytes that the defaults write.
const RATE_PERCENT: u64 = 50;

const BURST: Duration = Duration::from_secs(10);

/// A table with a line for each trace.
pub(crate) fn measure(traces: &[Trace], folder: Option<&Path>) -> Result<String, Failure> {
    let mut table = "| trace | misses | on second sight | writes saved | half the rate | writes \
                     saved |\n| --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for trace in traces {
        let tiers = Tiers::new(trace, PART, RATIO);
        let usual = tiers.replay(trace, folder)?;
        let sight =
            |config: tamis::BlobCacheConfigBuilder| config.l2_admission(L2Admission::OnSecondSight);
        let sight = tiers.replay_with(trace, folder, sight)?;
        let rate = half_of(&usual, trace);
        let limited = tiers.replay_with(trace, folder, |config| config.l2_write_rate_max(rate))?;
        let saved = |outcome: &Outcome| {
            let left = 100 * outcome.written_bytes / usual.written_bytes.max(1);
            100_u64.saturating_sub(left)
        };
        let _ = writeln!(
            table,
            "| {} | {:.1} | {:.1} | {} % | {:.1} | {} % |",
            trace.name,
            usual.misses,
            sight.misses,
            saved(&sight),
            limited.misses,
            saved(&limited)
        );
    }
    Ok(table)
}

fn half_of(usual: &Outcome, trace: &Trace) -> WriteRate {
    let length = REQUEST_TIME.as_millis() * trace.requests.len() as u128;
    let seconds = u64::try_from(length / 1000).unwrap_or(u64::MAX).max(1);
    let rate = (usual.written_bytes * RATE_PERCENT / 100 / seconds).max(1);
    WriteRate::new(rate).burst_bytes(rate.saturating_mul(BURST.as_secs()))
}
