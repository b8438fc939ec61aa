//! `Blobs`: values that say whose they are, so that each hit can be checked whole.
//!
//! A value begins with its key's task and number and with the number of its put; random bytes from
//! a place that follows from the latter are the rest.

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

/// The longest value, in bytes. One in a thousand has it.
pub(crate) const LONGEST: usize = 1 << 20;

const USUAL_MAX: f64 = 16384.0;
const SHORTEST: f64 = 100.0;
const HEAD: usize = 16;

/// One key: which task puts it, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) task: u32,
    pub(crate) number: u32,
}

impl Key {
    /// Keys of one group have a prefix of their own.
    pub(crate) fn bytes(self) -> String {
        format!("{}{}/{}", prefix(self.group()), self.task, self.number)
    }

    pub(crate) fn group(self) -> u32 {
        self.number / 32
    }

    pub(crate) fn namespace(self) -> usize {
        self.number as usize % NAMESPACES.len()
    }
}

pub(crate) const NAMESPACES: [&str; 8] =
    ["pages", "queries", "ranges", "thumbnails", "vectors", "users", "prices", "feeds"];

pub(crate) fn prefix(group: u32) -> String {
    format!("group/{group}/")
}

pub(crate) struct Blobs(Vec<u8>);

impl Blobs {
    pub(crate) fn new(random: &mut StdRng) -> Self {
        let mut bytes = vec![0; 2 * LONGEST];
        random.fill_bytes(&mut bytes);
        // Half of each page of it compresses.
        for page in bytes.chunks_mut(4096) {
            let half = page.len() / 2;
            page[..half].fill(7);
        }
        Self(bytes)
    }

    /// The value of the put `put` of `key`, with a length drawn by chance.
    pub(crate) fn value(&self, key: Key, put: u64, random: &mut StdRng) -> Vec<u8> {
        let length = if random.random_range(0..1000) == 0 {
            LONGEST
        } else {
            usual_length(random.random_range(0.0..1.0))
        };
        let mut value = Vec::with_capacity(length);
        value.extend(key.task.to_le_bytes());
        value.extend(key.number.to_le_bytes());
        value.extend(put.to_le_bytes());
        value.extend(self.body(put, length - HEAD));
        value
    }

    fn body(&self, put: u64, length: usize) -> &[u8] {
        let start = usize::try_from(put % 1009).unwrap_or(0) * 1021;
        &self.0[start..start + length]
    }

    /// The number of the put that made this value of `key`; None if no put did.
    pub(crate) fn put_of(&self, key: Key, value: &[u8]) -> Option<u64> {
        let (head, body) = value.split_at_checked(HEAD)?;
        let put = u64::from_le_bytes(head[8..].try_into().ok()?);
        let is_own = head[..4] == key.task.to_le_bytes() && head[4..8] == key.number.to_le_bytes();
        (is_own && body.len() <= LONGEST && body == self.body(put, body.len())).then_some(put)
    }
}

/// Between the shortest and the longest usual one; each magnitude is as frequent.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a small length")]
fn usual_length(chance: f64) -> usize {
    (SHORTEST * (USUAL_MAX / SHORTEST).powf(chance)) as usize
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_value_is_known_by_its_key_and_a_changed_one_is_not() {
        let mut random = StdRng::seed_from_u64(1);
        let blobs = Blobs::new(&mut random);
        let key = Key { task: 3, number: 77 };
        for put in 0..3000 {
            let mut value = blobs.value(key, put, &mut random);
            assert!(value.len() >= 100 && value.len() <= LONGEST);
            assert_eq!(blobs.put_of(key, &value), Some(put));
            assert_eq!(blobs.put_of(Key { task: 4, ..key }, &value), None);
            let place = random.random_range(HEAD..value.len());
            value[place] ^= 1;
            assert_eq!(blobs.put_of(key, &value), None);
        }
    }
}
