//! What the process takes, and how long its calls take.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::Failure;
use crate::verb::Verb;

const VERBS: usize = Verb::ALL.len();

/// From a microsecond to ten minutes, to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 2)
        .unwrap_or_else(|error| unreachable!("the bounds are right: {error}"))
}

/// The latencies of one task, by verb, since they were taken last.
pub(crate) struct Latencies(Mutex<[Histogram<u64>; VERBS]>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Mutex::new(std::array::from_fn(|_| histogram())))
    }
}

impl Latencies {
    pub(crate) fn record(&self, verb: Verb, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1);
        let mut histograms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        histograms[verb.place()].saturating_record(micros);
    }

    /// Adds them to `sums`, and begins anew.
    pub(crate) fn take(&self, sums: &mut [Histogram<u64>; VERBS]) -> Result<(), Failure> {
        let mut histograms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (sum, histogram) in sums.iter_mut().zip(histograms.iter_mut()) {
            sum.add(&*histogram)?;
            histogram.reset();
        }
        Ok(())
    }
}

/// Percentiles of one verb, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Spread {
    pub(crate) calls: u64,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) worst: u64,
}

impl Spread {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            calls: histogram.len(),
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            worst: histogram.max(),
        }
    }
}

/// What this process has now.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Resources {
    pub(crate) resident: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
    /// Threads that the kernel has lent to rings for requests that would block.
    pub(crate) kernel_threads: usize,
}

impl Resources {
    pub(crate) fn now() -> Result<Self, Failure> {
        let status = fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let figure = line.and_then(|line| line.split_whitespace().next());
        let resident = figure.ok_or("no memory figures")?.parse::<u64>()? << 10;
        // One of them is the listing's own.
        let descriptors = fs::read_dir("/proc/self/fd")?.count() - 1;
        let (mut threads, mut kernel_threads) = (0, 0);
        for task in fs::read_dir("/proc/self/task")? {
            // One may have ended since it was listed.
            let Ok(name) = fs::read_to_string(task?.path().join("comm")) else { continue };
            if name.starts_with("iou-") {
                kernel_threads += 1;
            } else {
                threads += 1;
            }
        }
        Ok(Self { resident, descriptors, threads, kernel_threads })
    }
}
