//! Checks of settings against their ranges.

use std::ops::RangeInclusive;

use crate::error::CacheError;
use crate::write_rate::WriteRate;

/// Beyond any addressable memory.
pub(crate) const L1_BYTES_MAX: usize = 1 << 46;

/// Each segment takes memory.
pub(super) const SEGMENTS_MAX: u64 = 1 << 20;

pub(crate) const NAMESPACE_BYTES_MAX: usize = 255;

const L1_BYTES_MIN: usize = 64 << 10;

/// # Errors
/// It is out of its range.
pub(crate) fn check_l1_bytes_max(bytes: usize) -> Result<(), CacheError> {
    within("l1_bytes_max", bytes, L1_BYTES_MIN..=L1_BYTES_MAX)
}

pub(super) fn check_write_rate(rate: Option<WriteRate>) -> Result<(), CacheError> {
    let Some(WriteRate { bytes_per_second, burst_bytes }) = rate else { return Ok(()) };
    if bytes_per_second > 0 && burst_bytes > 0 {
        return Ok(());
    }
    let reason = format!(
        "{bytes_per_second} bytes a second, bursts of {burst_bytes}: each must be 1 or more"
    );
    Err(CacheError::InvalidConfig { field: "l2_write_rate_max", reason })
}

pub(super) fn check_status_socket(is_wanted: bool, has_path: bool) -> Result<(), CacheError> {
    if !is_wanted || has_path {
        return Ok(());
    }
    let reason = "the socket lies in the directory of the disk tier: set l2_path, or leave it out";
    Err(CacheError::InvalidConfig { field: "l2_status_socket", reason: reason.to_owned() })
}

pub(super) fn within(
    field: &'static str,
    value: usize,
    range: RangeInclusive<usize>,
) -> Result<(), CacheError> {
    if range.contains(&value) {
        return Ok(());
    }
    let reason = format!("{value} is not within {} to {}", range.start(), range.end());
    Err(CacheError::InvalidConfig { field, reason })
}

/// What is wrong with a setting of one namespace.
pub(super) fn of_namespace(name: &str, error: CacheError) -> CacheError {
    match error {
        CacheError::InvalidConfig { field, reason } => {
            // Bounded: a name that is too long is not told in full.
            let name: String = name.chars().take(64).collect();
            CacheError::InvalidConfig { field, reason: format!("of {name:?}: {reason}") }
        }
        other => other,
    }
}
