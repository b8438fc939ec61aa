//! Output: sizes, the machine's load, and progress.

use std::fs;
use std::thread::available_parallelism;

use indicatif::{ProgressBar, ProgressStyle};

use crate::Error;

/// Formats bytes as MiB.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Cores and load of this machine, needed to interpret any figure.
pub(crate) fn load() -> String {
    let cores = available_parallelism().map_or(1, usize::from);
    let told = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let averages: Vec<_> = told.split_whitespace().take(3).collect();
    format!("{cores} cores, load averages {}", averages.join(", "))
}

/// Drawn on stderr if that is a terminal.
pub(crate) fn progress(message: &str, length: u64) -> Result<ProgressBar, Error> {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {percent} % {per_sec} {eta}")?;
    Ok(ProgressBar::new(length).with_style(style).with_message(message.to_owned()))
}
