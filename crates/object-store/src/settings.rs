//! `Settings`: the numbers of a store, their defaults and ranges.

use std::ops::RangeInclusive;
use std::time::Duration;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// What the builder sets.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) block_bytes: u64,
    pub(crate) request_bytes_max: u64,
    pub(crate) requests_max: usize,
    pub(crate) staleness: Duration,
    /// None: absences are not cached.
    pub(crate) absence: Option<Duration>,
    pub(crate) read_ahead: u64,
    pub(crate) unknown_writes: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            block_bytes: 256 * KIB,
            request_bytes_max: 8 * MIB,
            requests_max: 8,
            staleness: Duration::ZERO,
            absence: None,
            read_ahead: 0,
            unknown_writes: Duration::from_secs(300),
        }
    }
}

/// A setting out of its range.
pub(crate) struct OutOfRange {
    pub(crate) setting: &'static str,
    pub(crate) value: u64,
    pub(crate) range: RangeInclusive<u64>,
}

impl Settings {
    pub(crate) fn check(&self) -> Result<(), OutOfRange> {
        let within = |setting, value, range: RangeInclusive<u64>| {
            if range.contains(&value) { Ok(()) } else { Err(OutOfRange { setting, value, range }) }
        };
        within("block_bytes", self.block_bytes, 64 * KIB..=4 * MIB)?;
        within("request_bytes_max", self.request_bytes_max, self.block_bytes..=256 * MIB)?;
        within("requests_max", self.requests_max as u64, 1..=64)?;
        within("read_ahead", self.read_ahead, 0..=256 * MIB)
    }

    /// How many blocks of `block_bytes` one request, and one window of an answer, has at the most.
    pub(crate) fn window(&self, block_bytes: u64) -> u64 {
        (self.request_bytes_max / block_bytes).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_within_their_ranges() {
        assert!(Settings::default().check().is_ok());
        let bad = [
            Settings { block_bytes: 64 * KIB - 1, ..Settings::default() },
            Settings { block_bytes: 4 * MIB + 1, ..Settings::default() },
            Settings { request_bytes_max: 255 * KIB, ..Settings::default() },
            Settings { requests_max: 0, ..Settings::default() },
            Settings { requests_max: 65, ..Settings::default() },
            Settings { read_ahead: 257 * MIB, ..Settings::default() },
        ];
        for settings in bad {
            assert!(settings.check().is_err(), "{settings:?}");
        }
        assert_eq!(Settings::default().window(256 * KIB), 32);
        assert_eq!(Settings::default().window(16 * MIB), 1);
    }
}
