//! `Miniature`: what a disk tier would do under one policy, for a sample of the keys.
//!
//! Hashes and sizes without values: a log of a size in proportion to the sample, with the same
//! reinsertion within the same bound on what is written. A sample by hash behaves like the whole
//! (C. Waldspurger et al., *Cache Modeling and Optimization using Miniature Simulations*, USENIX
//! ATC 2017).

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::ghosts::Ghosts;
use crate::key::KeyHash;
use crate::l2::READS_MAX;

/// A record may take this share of the log, and so much of the budget for rewriting may be saved.
const SHARE: u64 = 8;

/// Memory for ghosts: enough for three times as many hashes as there are records.
const GHOST_BYTES_MAX: usize = 8 << 10;

/// The hash is its own hash.
#[derive(Debug, Default)]
struct Unhashed(u64);

impl Hasher for Unhashed {
    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("keys are whole hashes")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

#[derive(Debug)]
pub(super) struct Miniature {
    takes_all: bool,
    /// The oldest first.
    log: VecDeque<(KeyHash, u64)>,
    /// How often each was found since it was written.
    found: HashMap<u64, u8, BuildHasherDefault<Unhashed>>,
    ghosts: Ghosts,
    bytes: u64,
    bytes_max: u64,
    records_max: usize,
    /// Bytes that may be rewritten.
    saved: u64,
    percent_max: u64,
    /// Records have left to make room.
    is_full: bool,
    misses: u64,
}

impl Miniature {
    pub(super) fn new(
        takes_all: bool,
        (bytes_max, records_max): (u64, usize),
        percent_max: u32,
    ) -> Self {
        Self {
            takes_all,
            log: VecDeque::new(),
            found: HashMap::default(),
            ghosts: Ghosts::new(GHOST_BYTES_MAX),
            bytes: 0,
            bytes_max,
            records_max,
            saved: bytes_max / SHARE,
            percent_max: percent_max.into(),
            is_full: false,
            misses: 0,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    pub(super) fn records(&self) -> usize {
        self.log.len()
    }

    pub(super) fn misses(&self) -> u64 {
        self.misses
    }

    /// What is long ago counts less.
    pub(super) fn age(&mut self) {
        self.misses /= 2;
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.log.capacity() * size_of::<(KeyHash, u64)>()
            + self.found.capacity() * (size_of::<(u64, u8)>() + 1)
            + self.ghosts.bytes()
    }

    /// A get of the key from disk, and a put if it is not there.
    pub(super) fn access(&mut self, hash: KeyHash, bytes: u64) {
        if bytes > self.bytes_max / SHARE {
            return;
        }
        if let Some(found) = self.found.get_mut(&hash.0) {
            *found = READS_MAX.min(*found + 1);
            return;
        }
        self.misses += 1;
        self.saved += bytes * self.percent_max / 100;
        self.saved = self.saved.min(self.bytes_max / SHARE);
        let is_known = self.ghosts.contains(hash);
        if self.is_full && !is_known && !self.takes_all {
            self.remember(hash);
            return;
        }
        self.make_room(bytes);
        self.append(hash, bytes, u8::from(is_known));
    }

    fn append(&mut self, hash: KeyHash, bytes: u64, found: u8) {
        self.saved = self.saved.saturating_sub(bytes);
        self.bytes += bytes;
        self.log.push_back((hash, bytes));
        self.found.insert(hash.0, found);
    }

    fn remember(&mut self, hash: KeyHash) {
        // A generation is a kilobyte or two.
        drop(self.ghosts.insert(hash, self.log.len(), usize::MAX));
    }

    fn make_room(&mut self, bytes: u64) {
        // Bounded: by what is saved for rewriting, and by the records.
        while self.bytes + bytes > self.bytes_max || self.log.len() >= self.records_max {
            let Some((oldest, length)) = self.log.pop_front() else { return };
            self.is_full = true;
            self.bytes -= length;
            match self.found.remove(&oldest.0) {
                Some(found) if found > 0 && length + bytes <= self.saved => {
                    self.append(oldest, length, found - 1);
                }
                _ => self.remember(oldest),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> KeyHash {
        KeyHash(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn misses(miniature: &mut Miniature, keys: impl Iterator<Item = u64>) -> u64 {
        let before = miniature.misses();
        keys.for_each(|key| miniature.access(hash(key), 100));
        miniature.misses() - before
    }

    #[test]
    fn bounds_hold_under_any_accesses() {
        for (takes_all, percent_max) in [(true, 100), (true, 133), (false, 133), (true, 400)] {
            let mut miniature = Miniature::new(takes_all, (100_000, 300), percent_max);
            for number in 0..200_000_u64 {
                let key = hash(number % (1 + number % 1000)).0 % 2000;
                miniature.access(hash(key), 1 + key * key % 20_000);
                assert!(miniature.bytes <= 100_000 && miniature.records() <= 300);
                assert_eq!(miniature.found.len(), miniature.records());
            }
            assert!(miniature.is_full() && miniature.memory_bytes() < 64 << 10);
        }
    }

    #[test]
    fn what_is_known_alone_is_better_under_a_scan() {
        let scan = |round: u64| (0..1000).map(move |key| 1_000_000 + round * 1000 + key);
        let (mut all, mut known) =
            (Miniature::new(true, (10_000, 1000), 130), Miniature::new(false, (10_000, 1000), 130));
        let mut last = (0, 0);
        for round in 0..20 {
            let keys = || scan(round).flat_map(|key| [key, key % 80]);
            last = (misses(&mut all, keys()), misses(&mut known, keys()));
        }
        assert!(last.0 > 1200 && last.1 < 1100, "{last:?}");
    }

    #[test]
    fn all_is_better_if_each_key_comes_twice() {
        let keys = || (0..100_000).flat_map(|key| [key, key.max(50) - 50]);
        let (mut all, mut known) =
            (Miniature::new(true, (10_000, 1000), 130), Miniature::new(false, (10_000, 1000), 130));
        assert!(misses(&mut all, keys()) < 101_000);
        assert!(misses(&mut known, keys()) > 150_000);
    }
}
