//! `Bucket`: the bytes that may be written now, under a [`WriteRate`].

use std::time::Duration;

use crate::clock::Timestamp;
use crate::write_rate::WriteRate;

const NANOS: u128 = Duration::from_secs(1).as_nanos();

#[derive(Debug)]
pub(super) struct Bucket {
    rate: WriteRate,
    /// Units of a byte by a nanosecond over a second; below zero it owes.
    level: i128,
    /// When and after how many written bytes that was the level.
    at: Timestamp,
    written: u64,
}

impl Bucket {
    /// Full.
    pub(super) fn new(rate: WriteRate, now: Timestamp) -> Self {
        Self { rate, level: units(u128::from(rate.burst_bytes)), at: now, written: 0 }
    }

    /// Whether anything is left, now that `written` bytes were written since the cache was opened.
    /// A clock that steps back fills nothing; one that steps forward fills no more than the burst.
    pub(super) fn has_bytes(&mut self, now: Timestamp, written: u64) -> bool {
        let elapsed = now.saturating_since(self.at).as_nanos();
        let filled = elapsed.saturating_mul(u128::from(self.rate.bytes_per_second));
        let drained = units(u128::from(written.saturating_sub(self.written)));
        let level = self.level.saturating_add_unsigned(filled).saturating_sub(drained);
        self.level = level.min(units(u128::from(self.rate.burst_bytes)));
        (self.at, self.written) = (now, self.written.max(written));
        self.level > 0
    }
}

fn units(bytes: u128) -> i128 {
    i128::try_from(bytes.saturating_mul(NANOS)).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn at(nanos: u64) -> Timestamp {
        Timestamp(nanos)
    }

    #[test]
    fn it_fills_up_to_the_burst_and_owes_what_was_written_beyond() {
        let mut bucket = Bucket::new(WriteRate::new(10).burst_bytes(100), at(0));
        let second = 1_000_000_000;
        assert!(bucket.has_bytes(at(0), 99));
        assert!(!bucket.has_bytes(at(0), 100));
        assert!(bucket.has_bytes(at(1), 100), "a part of a byte");
        assert!(!bucket.has_bytes(at(second), 1000));
        // It owes 890 and gets 10 a second.
        assert!(!bucket.has_bytes(at(90 * second), 1000));
        assert!(bucket.has_bytes(at(90 * second + 1), 1000));
        // It counts as written before the bucket has filled, however much that was.
        assert!(bucket.has_bytes(at(100_000 * second), 2000));
        assert!(bucket.has_bytes(at(100_000 * second), 2099));
        assert!(!bucket.has_bytes(at(100_000 * second), 2100));
        // Backwards, and forwards again.
        assert!(!bucket.has_bytes(at(0), 2100));
        assert!(bucket.has_bytes(at(second), 2100));
    }

    #[test]
    fn what_is_written_while_it_has_bytes_stays_within_the_rate() {
        for seed in 0..2000 {
            let mut random = StdRng::seed_from_u64(seed);
            let rate = WriteRate::new(random.random_range(1..1 << 30));
            let rate = rate.burst_bytes(random.random_range(1..1 << 30));
            let (mut now, mut written, mut admitted) = (0, 0, 0);
            let mut bucket = Bucket::new(rate, at(now));
            for _ in 0..200 {
                now += random.random_range(0..4_000_000_000);
                if bucket.has_bytes(at(now), written) {
                    let bytes = random.random_range(1..1 << 28);
                    written += bytes;
                    admitted += 1;
                    let whole = u128::from(rate.bytes_per_second) * u128::from(now) / NANOS;
                    let most = whole + u128::from(rate.burst_bytes) + u128::from(bytes) + 1;
                    assert!(u128::from(written) <= most, "seed {seed}");
                }
            }
            assert!(admitted > 0, "seed {seed}");
        }
    }

    #[test]
    fn the_largest_numbers_saturate() {
        let rate = WriteRate::new(u64::MAX).burst_bytes(u64::MAX);
        let mut bucket = Bucket::new(rate, at(0));
        assert!(bucket.has_bytes(at(u64::MAX), 1));
        assert!(bucket.has_bytes(at(u64::MAX), u64::MAX));
    }
}
