//! `Ghosts`: the hashes of values that the disk has lost or refused lately, without the values.
//!
//! Bloom filters, each for a generation of hashes. The newest takes them; once it is full, a new
//! one begins, and the oldest goes. So a hash is remembered for three to four generations, in about
//! 11 bits for each, and nothing is ever rebuilt. A hash that was never here is found in one of
//! forty cases: then a value is admitted that would have been refused.
//!
//! The bits of a hash lie in one cache line of each filter (F. Putze et al., *Cache-, Hash- and
//! Space-Efficient Bloom Filters*, 2007). Lines are made in groups, when they are needed.
//!
//! A generation may be large. So the oldest one is given to the caller, who drops it as
//! [`Forgotten`] once he holds no lock.

use std::collections::VecDeque;
use std::mem;

use crate::batch::BATCH_ENTRIES;
use crate::disposal::{Remains, Unfreed};
use crate::key::KeyHash;

const GENERATIONS: usize = 4;

/// What a generation has room for, in percent of the records on disk.
const GENERATION_PERCENT: usize = 60;

const HASHES_MIN: usize = 64;

/// For 11 bits each.
const LINE_HASHES: usize = 46;

const PROBES: u32 = 6;

/// 64 KiB, which one insertion may have to zero.
const GROUP_LINES: usize = 1 << 10;

/// Freeing a group counts as so much work: a batch frees 256 KiB.
const GROUP_ENTRIES: usize = BATCH_ENTRIES / 4;

type Line = [u64; 8];

#[derive(Debug)]
pub(super) struct Generation {
    /// Made when they are needed, and counted from the start.
    groups: Vec<Option<Box<[Line]>>>,
    lines: usize,
    hashes: usize,
    hashes_max: usize,
}

/// Generations that are remembered no more, and count as memory until they are free. A batch is
/// freed where this is dropped, and what is left on another thread.
pub(crate) struct Forgotten(Remains);

#[derive(Debug)]
pub(super) struct Ghosts {
    /// The oldest first.
    generations: VecDeque<Generation>,
    /// Of one generation.
    hashes_limit: usize,
    bytes: usize,
}

impl Ghosts {
    pub(super) fn new(bytes_max: usize) -> Self {
        let lines = bytes_max / GENERATIONS / size_of::<Line>();
        Self { generations: VecDeque::new(), hashes_limit: lines * LINE_HASHES, bytes: 0 }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn contains(&self, hash: KeyHash) -> bool {
        let hash = Probes::of(hash);
        // Bounded: by the generations.
        self.generations.iter().any(|generation| generation.contains(hash))
    }

    /// `records`: how many the disk has now. `bytes_free`: how much memory there is. Without any
    /// for a new generation, hashes are not remembered. Gives the oldest one, if a new one took its
    /// place.
    #[must_use = "it may be large"]
    pub(super) fn insert(
        &mut self,
        hash: KeyHash,
        records: usize,
        bytes_free: usize,
    ) -> Option<Generation> {
        let mut oldest = None;
        if self.generations.back().is_none_or(Generation::is_full) {
            let hashes_max = (records.saturating_mul(GENERATION_PERCENT) / 100).max(HASHES_MIN);
            oldest = self.begin(hashes_max.min(self.hashes_limit), bytes_free);
        }
        if let Some(newest) = self.generations.back_mut().filter(|newest| !newest.is_full()) {
            newest.insert(Probes::of(hash));
        }
        oldest
    }

    fn begin(&mut self, hashes_max: usize, bytes_free: usize) -> Option<Generation> {
        if hashes_max < HASHES_MIN {
            return None;
        }
        let newest = Generation::new(hashes_max);
        if newest.bytes() > bytes_free {
            return None;
        }
        let is_oldest_over = self.generations.len() == GENERATIONS;
        let oldest = if is_oldest_over { self.generations.pop_front() } else { None };
        self.bytes -= oldest.as_ref().map_or(0, Generation::bytes);
        self.bytes += newest.bytes();
        self.generations.push_back(newest);
        oldest
    }

    /// Forgets all.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Generation> + Send + use<> {
        self.bytes = 0;
        mem::take(&mut self.generations).into_iter()
    }
}

impl Generation {
    fn new(hashes_max: usize) -> Self {
        let lines = hashes_max.div_ceil(LINE_HASHES);
        let groups = vec![None; lines.div_ceil(GROUP_LINES)];
        Self { groups, lines, hashes: 0, hashes_max }
    }

    pub(super) fn bytes(&self) -> usize {
        let list = self.groups.capacity() * size_of::<Option<Box<[Line]>>>();
        list + self.lines * size_of::<Line>()
    }

    fn is_full(&self) -> bool {
        self.hashes >= self.hashes_max
    }

    fn contains(&self, hash: Probes) -> bool {
        let (group, line) = hash.place(self.lines);
        let line = self.groups[group].as_deref().map(|lines| lines[line]);
        line.is_some_and(|line| hash.bits().all(|(word, bit)| line[word] & bit != 0))
    }

    fn insert(&mut self, hash: Probes) {
        let (group, line) = hash.place(self.lines);
        let lines_here = (self.lines - group * GROUP_LINES).min(GROUP_LINES);
        let lines = self.groups[group]
            .get_or_insert_with(|| vec![Line::default(); lines_here].into_boxed_slice());
        let mut is_new = false;
        // Bounded: by the probes of one hash.
        for (word, bit) in hash.bits() {
            is_new |= lines[line][word] & bit == 0;
            lines[line][word] |= bit;
        }
        self.hashes += usize::from(is_new);
    }
}

impl Forgotten {
    /// `unfreed`: the bytes of the generations.
    pub(super) fn new(
        generations: impl Iterator<Item = Generation> + Send + 'static,
        mut unfreed: Unfreed,
    ) -> Self {
        let groups = generations.flat_map(|it| it.groups.into_iter().flatten());
        Self(Remains::new(groups.map(move |group| {
            unfreed.freed(size_of_val(&*group));
            drop(group);
            GROUP_ENTRIES
        })))
    }
}

impl Drop for Forgotten {
    fn drop(&mut self) {
        self.0.free_some();
    }
}

/// The places of a hash's bits, independent of those in other tables.
#[derive(Debug, Clone, Copy)]
struct Probes {
    line: u32,
    bits: u64,
}

impl Probes {
    fn of(hash: KeyHash) -> Self {
        let mixed = (hash.0 ^ (hash.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let bits = (mixed ^ (mixed >> 32)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self { line: (mixed >> 32) as u32, bits }
    }

    /// The group, and the line in it.
    fn place(self, lines: usize) -> (usize, usize) {
        let line = ((u64::from(self.line) * lines as u64) >> 32) as usize;
        (line / GROUP_LINES, line % GROUP_LINES)
    }

    /// Words of a line, each with one bit.
    fn bits(self) -> impl Iterator<Item = (usize, u64)> {
        (0..PROBES).map(move |probe| {
            let number = self.bits >> (10 * probe);
            ((number >> 6 & 7) as usize, 1 << (number & 63))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disposal::Freeing;
    use crate::meter::measured;

    fn hash(number: u64) -> KeyHash {
        KeyHash(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    #[test]
    fn hashes_are_remembered_for_three_generations() {
        for records in [0, 1000, 100_000] {
            let mut ghosts = Ghosts::new(64 << 20);
            let generation = (records * 60 / 100).max(HASHES_MIN) as u64;
            for number in 0..10 * generation {
                drop(ghosts.insert(hash(number), records, usize::MAX));
                let oldest = number.saturating_sub(3 * generation - 1);
                assert!([oldest, number].iter().all(|&number| ghosts.contains(hash(number))));
            }
            let found = (0..5 * generation).filter(|&number| ghosts.contains(hash(number))).count();
            assert!(found as u64 <= generation / 4, "{found} of {generation} * 5");
            let strangers = (1 << 40..(1 << 40) + 40_000).filter(|&it| ghosts.contains(hash(it)));
            let strangers = strangers.count();
            assert!(strangers <= 2000, "{strangers} of 40000");
        }
    }

    #[test]
    fn a_hash_that_comes_again_takes_no_room() {
        let mut ghosts = Ghosts::new(1 << 20);
        (0..64).for_each(|number| drop(ghosts.insert(hash(number), 0, usize::MAX)));
        for _ in 0..10_000 {
            drop(ghosts.insert(hash(1 << 30), 0, usize::MAX));
        }
        assert!((0..64).all(|number| ghosts.contains(hash(number))));
    }

    #[test]
    fn bytes_are_counted_and_bounded() {
        for bytes_max in [0, 1000, 100_000, 4 << 20] {
            let mut ghosts = Ghosts::new(bytes_max);
            for number in 0..300_000 {
                drop(ghosts.insert(hash(number), 1 << 20, usize::MAX));
                if number % 997 == 0 {
                    let counted: usize = ghosts.generations.iter().map(Generation::bytes).sum();
                    assert_eq!(ghosts.bytes(), counted);
                    // The lists of groups come on top.
                    assert!(ghosts.bytes() <= bytes_max + bytes_max / 1000 + 64, "{bytes_max}");
                }
            }
            assert_eq!(ghosts.contains(hash(299_999)), bytes_max >= 1000);
        }
    }

    #[test]
    fn without_memory_for_more_the_latest_are_kept() {
        let mut ghosts = Ghosts::new(1 << 20);
        (0..640).for_each(|number| drop(ghosts.insert(hash(number), 0, usize::MAX)));
        let bytes = ghosts.bytes();
        (640..10_000).for_each(|number| drop(ghosts.insert(hash(number), 0, 100)));
        assert_eq!(ghosts.bytes(), bytes);
        assert!((450..640).all(|number| ghosts.contains(hash(number))));
    }

    #[test]
    fn the_oldest_generation_is_given_to_the_caller() {
        let mut ghosts = Ghosts::new(1 << 20);
        let mut given = 0;
        for number in 0..64_000 {
            let (before, oldest) = (ghosts.bytes(), ghosts.insert(hash(number), 0, usize::MAX));
            // All are of one size.
            assert!(oldest.is_none_or(|oldest| oldest.bytes() > 0 && ghosts.bytes() == before));
        }
        for number in 0..640 {
            given += usize::from(ghosts.insert(hash(number), 0, usize::MAX).is_some());
        }
        assert!((9..=10).contains(&given), "{given}");
    }

    #[test]
    fn a_large_generation_is_freed_in_batches_and_counts_until_it_is_free() {
        let freeing = Freeing::default();
        let large = || {
            let mut generation = Generation::new(20 * GROUP_LINES * LINE_HASHES);
            (0..10_000).for_each(|number| generation.insert(Probes::of(hash(number))));
            assert!(generation.groups.iter().all(Option::is_some));
            let unfreed = freeing.count(generation.bytes());
            Forgotten::new([generation].into_iter(), unfreed)
        };
        let forgotten = large();
        assert!(freeing.bytes() >= 20 << 16);
        let ((), work) = measured(|| drop(forgotten));
        assert_eq!(work.entries, BATCH_ENTRIES);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while freeing.bytes() > 0 && std::time::Instant::now() < end {
            std::thread::yield_now();
        }
        assert_eq!(freeing.bytes(), 0);
    }

    #[test]
    fn a_small_generation_is_free_at_once() {
        let freeing = Freeing::default();
        let mut generation = Generation::new(HASHES_MIN);
        generation.insert(Probes::of(hash(1)));
        let unfreed = freeing.count(generation.bytes());
        drop(Forgotten::new([generation].into_iter(), unfreed));
        assert_eq!(freeing.bytes(), 0);
    }
}
