//! `Blobs`: keys and values that are pure functions of a number, so that every read can be checked.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::Error;

/// Random bytes that values are slices of, at any offset: all differ, and none compresses.
const POOL_BYTES: u64 = 64 << 20;

/// The longest value.
const VALUE_BYTES_MAX: u64 = 1 << 20;

/// The length of all keys.
pub(crate) const KEY_BYTES: u64 = 32;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    pool: Bytes,
    least: u64,
    most: u64,
}

impl Blobs {
    /// Values of one size, of up to 1 MiB.
    pub(crate) fn of(value_bytes: u64) -> Self {
        Self::between(value_bytes, value_bytes)
    }

    /// Values of all sizes from `least` to `most` bytes alike, up to 1 MiB.
    pub(crate) fn between(least: u64, most: u64) -> Self {
        let mut pool = vec![0; usize::try_from(POOL_BYTES + VALUE_BYTES_MAX).unwrap_or(0)];
        StdRng::seed_from_u64(7).fill_bytes(&mut pool);
        // The first clone of such bytes allocates: none of the measured ones is to be the first.
        let pool = Bytes::from(pool);
        let _shared = pool.clone();
        Self { pool, least, most: most.min(VALUE_BYTES_MAX) }
    }

    /// The mean size of a value.
    pub(crate) fn mean_bytes(&self) -> u64 {
        u64::midpoint(self.least, self.most)
    }

    /// The key of a number.
    pub(crate) fn key(number: u64) -> String {
        format!("thumbnails/{number:021}")
    }

    /// The value of a number. Takes no copy.
    pub(crate) fn value(&self, number: u64) -> Bytes {
        // An odd multiplier: offsets repeat only after a full period.
        let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let start = (scattered >> 8) % POOL_BYTES;
        let length = self.least + (scattered >> 40) % (self.most - self.least + 1);
        let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX);
        self.pool.slice(at(start)..at(start + length))
    }

    /// An error if `found` does not have the length, the head and the tail of a number's value.
    pub(crate) fn check(&self, number: u64, found: &[u8]) -> Result<(), Error> {
        let value = self.value(number);
        let edge = value.len().min(8);
        let is_same = found.len() == value.len()
            && found[..edge] == value[..edge]
            && found[found.len() - edge..] == value[value.len() - edge..];
        if is_same {
            Ok(())
        } else {
            Err(format!("{} has another value", Self::key(number)).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Blobs, KEY_BYTES};

    #[test]
    fn values_differ_and_are_checked() {
        let blobs = Blobs::between(1024, 65536);
        assert_eq!(Blobs::key(u64::MAX).len() as u64, KEY_BYTES);
        let mut total = 0;
        for number in 0..1000 {
            let value = blobs.value(number);
            assert!((1024..=65536).contains(&value.len()));
            total += value.len() as u64;
            assert!(blobs.check(number, &value).is_ok());
            assert!(blobs.check(number + 1, &value).is_err());
            assert!(blobs.check(number, &value[1..]).is_err());
        }
        let mean = total / 1000;
        assert!(mean.abs_diff(blobs.mean_bytes()) < 3000, "{mean}");
    }
}
