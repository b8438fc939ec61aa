//! What this process has used.

use std::fs;
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

/// The most memory that was ever resident, and the memory that is resident now, in bytes.
pub(crate) fn memory() -> Result<(u64, u64), Error> {
    let status = fs::read_to_string("/proc/self/status")?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib: u64 = line.ok_or("no memory figures")?.trim().trim_end_matches(" kB").parse()?;
        Ok::<_, Error>(kib << 10)
    };
    Ok((bytes("VmHWM:")?, bytes("VmRSS:")?))
}
