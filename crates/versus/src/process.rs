//! What this process has used.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::Error;

/// CPU time of all threads so far, kernel time included.
pub(crate) fn cpu_time() -> Result<Duration, Error> {
    Ok(Duration::try_from(clock_gettime(ClockId::ProcessCPUTime))?)
}

/// CPU time of the calling thread so far.
pub(crate) fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
