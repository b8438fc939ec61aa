//! `Trial`: which of two policies serves the requests of late better, on a sample of the keys.
//!
//! One miniature takes every value, the other only those that it has lost or refused lately. They
//! see the same requests, so what both miss alike does not blur the comparison.

use super::miniature::Miniature;
use crate::key::KeyHash;

/// The records that a miniature should hold.
const RECORDS: usize = 512;

/// It holds at most so many times as many.
const RECORDS_FACTOR: usize = 2;

/// The most memory that a trial takes.
pub(super) const MEMORY_BYTES_MAX: usize = 144 << 10;

/// Accesses after which the misses are compared, for each record.
const ACCESSES: u64 = 4;

/// A policy replaces the other if it has so many percent of its misses, or fewer.
const BETTER_PERCENT: u64 = 99;

/// Accesses by whose size the first sample is chosen.
const FIRST_ACCESSES: u64 = 64;

/// A sample takes hashes below it, of 2^32.
const EVERYTHING: u64 = 1 << 32;

#[derive(Debug)]
pub(super) struct Trial {
    disk_bytes: u64,
    percent_max: u32,
    sample: u64,
    /// None until the size of values is known.
    miniatures: Option<[Miniature; 2]>,
    /// Since the last comparison, and bytes of their values.
    accesses: u64,
    bytes: u64,
}

impl Trial {
    pub(super) fn new(disk_bytes: u64, percent_max: u32) -> Self {
        let sample = EVERYTHING;
        Self { disk_bytes, percent_max, sample, miniatures: None, accesses: 0, bytes: 0 }
    }

    /// The disk has another size: begins anew.
    pub(super) fn resize(&mut self, disk_bytes: u64) {
        self.disk_bytes = disk_bytes;
        self.miniatures = None;
        (self.accesses, self.bytes) = (0, 0);
    }

    /// Hashes whose upper half is below it are in the sample.
    pub(super) fn sample(&self) -> u64 {
        self.sample
    }

    pub(super) fn memory_bytes(&self) -> usize {
        // Bounded: two.
        self.miniatures.iter().flatten().map(Miniature::memory_bytes).sum()
    }

    /// A value of the sample was read from disk, or put. When a policy turns out to be better:
    /// whether that is to take values only if they are known.
    pub(super) fn access(&mut self, hash: KeyHash, bytes: u64) -> Option<bool> {
        self.accesses += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        let Some(miniatures) = &mut self.miniatures else {
            if self.accesses >= FIRST_ACCESSES {
                self.fit_sample();
            }
            return None;
        };
        // Bounded: two.
        for miniature in &mut *miniatures {
            miniature.access(hash, bytes);
        }
        let [all, known] = miniatures;
        let records = all.records().clamp(RECORDS / 8, RECORDS);
        if self.accesses < ACCESSES * records as u64 {
            return None;
        }
        let is_full = all.is_full() && known.is_full();
        let (of_all, of_known) = (all.misses(), known.misses());
        all.age();
        known.age();
        self.fit_sample();
        match is_full {
            true if of_known * 100 < of_all * BETTER_PERCENT => Some(true),
            true if of_all * 100 < of_known * BETTER_PERCENT => Some(false),
            _ => None,
        }
    }

    /// Begins anew if values have another size by now.
    fn fit_sample(&mut self) {
        let records = (self.disk_bytes / (self.bytes / self.accesses).max(1)).max(1);
        let wanted = (EVERYTHING * RECORDS as u64 / records).clamp(1, EVERYTHING);
        (self.accesses, self.bytes) = (0, 0);
        let fits = wanted / 2 <= self.sample && self.sample / 2 <= wanted;
        if self.miniatures.is_none() || !fits {
            self.sample = wanted;
            let bytes_max = scaled(self.disk_bytes, self.sample, EVERYTHING);
            let limits = (bytes_max, RECORDS * RECORDS_FACTOR);
            let miniature = |takes_all| Miniature::new(takes_all, limits, self.percent_max);
            self.miniatures = Some([miniature(true), miniature(false)]);
        }
    }
}

/// `count * part / whole`.
pub(super) fn scaled(count: u64, part: u64, whole: u64) -> u64 {
    let scaled = u128::from(count) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> KeyHash {
        KeyHash(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Keys of the sample only, as the caller would pass them.
    fn feed(trial: &mut Trial, keys: impl Iterator<Item = u64>, bytes: u64) -> Option<bool> {
        let mut last = None;
        for key in keys {
            if hash(key).0 >> 32 < trial.sample() {
                last = trial.access(hash(key), bytes).or(last);
            }
        }
        last
    }

    /// Most requests are of keys that never come again, every other is one of `hot`.
    fn scanned(hot: u64, from: u64) -> impl Iterator<Item = u64> {
        (from..from + 1_000_000).flat_map(move |key| [key + (1 << 40), key % hot])
    }

    /// Each key comes twice, and then never again.
    fn twice(apart: u64, from: u64) -> impl Iterator<Item = u64> {
        (from + apart..from + 1_000_000).flat_map(move |key| [key, key - apart])
    }

    #[test]
    fn it_finds_the_better_policy_and_changes_its_mind() {
        for (disk_bytes, records) in [(1 << 20, 1 << 10), (64 << 20, 1 << 16)] {
            let mut trial = Trial::new(disk_bytes, 130);
            let scan = || scanned(records * 3 / 4, 0);
            assert_eq!(feed(&mut trial, scan(), 1024), Some(true), "{disk_bytes}");
            let pairs = twice(records / 4, 1 << 41);
            assert_eq!(feed(&mut trial, pairs, 1024), Some(false), "{disk_bytes}");
            assert_eq!(feed(&mut trial, scan(), 1024), Some(true), "{disk_bytes}");
        }
    }

    #[test]
    fn the_sample_fits_the_size_that_the_disk_has() {
        let mut trial = Trial::new(16 << 20, 130);
        for disk_bytes in [16 << 20, 64 << 20, 4 << 20] {
            trial.resize(disk_bytes);
            feed(&mut trial, scanned(1000, 0).take(200_000), 1024);
            let wanted = EVERYTHING * RECORDS as u64 / (disk_bytes / 1024);
            assert_eq!(trial.sample(), wanted.min(EVERYTHING), "{disk_bytes}");
            let full = trial.miniatures.as_ref().map_or(0, |[all, _]| all.records());
            assert!((RECORDS / 2..=RECORDS * RECORDS_FACTOR).contains(&full), "{full}");
        }
    }

    #[test]
    fn the_sample_fits_values_of_any_size() {
        let disk_bytes = 16 << 20;
        let mut trial = Trial::new(disk_bytes, 130);
        for bytes in [100, 16 << 10, 1 << 20, 500] {
            feed(&mut trial, scanned(1000, 0).take(1_500_000), bytes);
            let records = trial.miniatures.as_ref().map_or(0, |[all, _]| all.records());
            assert!(records <= RECORDS * RECORDS_FACTOR);
            let wanted = usize::try_from(disk_bytes / bytes).map_or(RECORDS, |it| it.min(RECORDS));
            assert!(records >= wanted / 4 && records <= wanted * 3, "{bytes}: {records}");
            assert!(trial.memory_bytes() <= MEMORY_BYTES_MAX, "{}", trial.memory_bytes());
        }
    }
}
