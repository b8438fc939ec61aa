//! `Values`: values that do not compress, each a function of its number and its length, so that
//! whatever is read back can be checked.
//!
//! Shared with `examples/replay` and `crates/hit-ratio`.

use bytes::Bytes;

/// Slices start within this range.
const SPREAD_BYTES: u64 = 1 << 20;

/// An odd number, so that as many numbers as there are starts have different ones.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// No cache takes a larger value to disk.
const VALUE_BYTES_MAX: u64 = 256 << 20;

/// Random bytes; every value is a slice of them. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Values {
    bytes: Bytes,
    largest: u64,
}

impl Values {
    /// For values of up to `largest` bytes, or of up to 256 MiB.
    pub(crate) fn new(largest: u64) -> Self {
        let largest = largest.min(VALUE_BYTES_MAX);
        let words = (largest + SPREAD_BYTES).div_ceil(8);
        let mut random = Random::new(1);
        let bytes = (0..words).flat_map(|_| random.next().to_le_bytes()).collect::<Vec<_>>();
        Self { bytes: bytes.into(), largest }
    }

    /// Bytes of the largest.
    pub(crate) fn largest(&self) -> u64 {
        self.largest
    }

    pub(crate) fn of(&self, number: u64, bytes: u64) -> Bytes {
        let start = usize::try_from(number.wrapping_mul(STEP) % SPREAD_BYTES).unwrap_or(0);
        let end = start.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX));
        self.bytes.slice(start..end.min(self.bytes.len()))
    }
}

/// SplitMix64: a number for each number, all different, and none like the one before.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mixed(self.0)
    }
}

/// The same number for a number, with all its bits in each bit.
pub(crate) fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
