//! Resident memory and processor time of this process.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::Error;

/// Resident memory, in bytes.
pub(crate) fn resident() -> Result<u64, Error> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kib: u64 = line.ok_or("no Rss")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

/// Processor time of all threads so far, kernel time included.
pub(crate) fn processor_time() -> Result<Duration, Error> {
    Ok(Duration::try_from(clock_gettime(ClockId::ProcessCPUTime))?)
}
