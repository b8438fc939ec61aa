//! `LabelIndex` beside a plain map.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::footprint::POSTING_BYTES;
use crate::rounds::rounds;

#[derive(Default)]
struct Pair {
    index: LabelIndex,
    /// (label, sequence, key)
    model: BTreeSet<(u64, u64, u64)>,
}

impl Pair {
    fn insert(&mut self, label: u64, key: u64, sequence: u64) {
        self.index.insert(LabelHash(label), KeyHash(key), Sequence(sequence));
        assert!(self.model.insert((label, sequence, key)));
    }

    fn release(&mut self, key: u64, sequence: u64) {
        let before = self.model.len();
        self.model.retain(|&(_, of, other)| (other, of) != (key, sequence));
        let released = self.index.release(KeyHash(key), Sequence(sequence));
        assert_eq!(released, before - self.model.len());
    }

    fn check(&self, label: u64, key: u64, sequence: u64, limit: usize) {
        let (label, key) = (LabelHash(label), KeyHash(key));
        let list = || self.model.range((label.0, 0, 0)..=(label.0, u64::MAX, u64::MAX));
        assert_eq!(self.index.has(label), list().next().is_some());
        let mut found = Vec::new();
        self.index.oldest(label, (&[], Sequence(sequence)), limit, &mut found);
        let found: Vec<_> = found.iter().map(|it| (label.0, it.sequence.0, it.key.0)).collect();
        let older = list().copied().take_while(|&(_, of, _)| of < sequence);
        assert_eq!(found, older.take(limit).collect::<Vec<_>>());
        // Batch by batch, with the last of each one that is left to go on from.
        let (mut walked, mut met) = (Vec::new(), Vec::new());
        loop {
            let mut found = Vec::new();
            let limit = limit.max(1);
            self.index.oldest(label, (&met, Sequence(sequence)), limit, &mut found);
            walked.extend(found.iter().map(|it| (label.0, it.sequence.0, it.key.0)));
            if found.len() < limit {
                break;
            }
            found.push(Posting { key: KeyHash(u64::MAX), sequence: Sequence(0) });
            met = found;
        }
        let older = list().copied().take_while(|&(_, of, _)| of < sequence);
        assert_eq!(walked, older.collect::<Vec<_>>());
        let mut labels: Vec<_> = self.index.of(key, Sequence(sequence)).into_iter().collect();
        labels.sort_unstable();
        let of = self.model.iter().filter(|&&(_, of, other)| (other, of) == (key.0, sequence));
        assert_eq!(labels, of.map(|&(label, ..)| LabelHash(label)).collect::<Vec<_>>());
    }

    /// All of it, by a walk.
    fn check_all(&self) {
        assert_eq!(self.index.len(), self.model.len());
        let (mut found, mut cursor) = (Vec::new(), Some(PostingCursor::default()));
        while let Some(from) = cursor {
            cursor = self.index.visit(from, 7, |_| true, &mut found);
        }
        let mut found: Vec<_> = found.iter().map(|it| (it.sequence.0, it.key.0)).collect();
        found.sort_unstable();
        let mut expected: Vec<_> = self.model.iter().map(|&(_, of, key)| (of, key)).collect();
        expected.sort_unstable();
        assert_eq!(found, expected);
        let labels: BTreeSet<_> = self.model.iter().map(|&(label, ..)| label).collect();
        assert_eq!(self.index.lists, labels.len());
        for label in labels {
            self.check(label, 0, u64::MAX, usize::MAX);
        }
    }

    fn clear(&mut self) {
        let some = self.model.first().copied().map(|(label, of, key)| (label, key, of));
        self.model.clear();
        let before = self.index.heap_bytes();
        let mut freed = 0;
        let (label, key, sequence) = some.unwrap_or_default();
        while let Some(bytes) = self.index.free_some() {
            freed += bytes;
            self.index.of(KeyHash(key), Sequence(sequence));
            self.index.oldest(LabelHash(label), (&[], Sequence(u64::MAX)), 9, &mut Vec::new());
            self.index.visit(
                PostingCursor::default(),
                9,
                |it| it.sequence.0 < sequence,
                &mut Vec::new(),
            );
        }
        assert_eq!((freed, self.index.heap_bytes(), self.index.len()), (before, 0, 0));
    }
}

#[test]
fn an_index_equals_a_plain_map_after_any_operation() {
    for seed in 0..rounds(60, 9) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut pair = Pair::default();
        let keys = [3, 40, 4000][usize::try_from(seed % 3).unwrap()];
        let labels = [1, 5, 1000][usize::try_from(seed / 3 % 3).unwrap()];
        // What each key has, and the range of sequences.
        let mut held: BTreeMap<u64, u64> = BTreeMap::new();
        let (mut first, mut last) = (1 << 40, 1 << 40);
        for step in 0..rounds(3000, 200) {
            let key = random.random_range(0..keys);
            let grows = step / rounds(700, 50) % 2 == 0;
            match random.random_range(0..100) {
                0..60 if grows => {
                    let sequence = if random.random_range(0..4) == 0 {
                        first -= 8;
                        first
                    } else {
                        last += 8;
                        last
                    };
                    let mut those = BTreeSet::new();
                    for _ in 0..random.random_range(0..4) {
                        those.insert(random.random_range(0..labels));
                    }
                    for label in those {
                        pair.insert(label, key, sequence);
                    }
                    if let Some(before) = held.insert(key, sequence) {
                        pair.release(key, before);
                    }
                }
                0..80 => {
                    if let Some((key, sequence)) = held.pop_first() {
                        pair.release(key, sequence);
                    }
                    if let Some(sequence) = held.remove(&key) {
                        pair.release(key, sequence + 1);
                        pair.release(key, sequence);
                    }
                }
                80..99 => {
                    let of = held.get(&key).copied();
                    let sequence = of.unwrap_or_else(|| random.random_range(first..=last));
                    let limit = random.random_range(0..20);
                    pair.check(random.random_range(0..labels), key, sequence, limit);
                }
                _ if random.random_range(0..20) == 0 => {
                    pair.clear();
                    held.clear();
                }
                _ => pair.check_all(),
            }
        }
        pair.check_all();
    }
}

#[test]
fn postings_move_down_only_so_a_walk_downwards_meets_those_that_stay() {
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..rounds(20, 1) {
        let mut pair = Pair::default();
        let count = random.random_range(100..rounds(3000, 300));
        for key in 0..count {
            pair.insert(key % 7, key, key);
        }
        let (mut found, mut cursor) = (Vec::new(), Some(PostingCursor::default()));
        while let Some(from) = cursor {
            cursor = pair.index.visit(from, 10, |it| it.sequence.0 < count, &mut found);
            for _ in 0..random.random_range(0..20) {
                let key = random.random_range(0..count);
                if key % 3 > 0 {
                    pair.release(key, key);
                }
            }
        }
        let found: BTreeSet<_> = found.iter().map(|posting| posting.key.0).collect();
        assert!((0..count).step_by(3).all(|key| found.contains(&key)));
        pair.check_all();
    }
}

#[test]
fn postings_that_are_linked_at_once_equal_as_many_insertions() {
    for seed in 0..rounds(60, 3) {
        let mut random = StdRng::seed_from_u64(seed);
        let labels = [1, 5, 1000][random.random_range(0..3)];
        let (mut pair, mut unlinked) = (Pair::default(), UnlinkedPostings::default());
        for sequence in (0..random.random_range(0..rounds(3000, 300))).rev() {
            let (label, key) = (random.random_range(0..labels), random.random());
            unlinked.push(LabelHash(label), KeyHash(key), Sequence(sequence));
            pair.model.insert((label, sequence, key));
        }
        pair.index = futures::executor::block_on(unlinked.link());
        pair.check_all();
        let each = pair.index.heap_bytes() / pair.index.len().max(100);
        assert!(each <= POSTING_BYTES, "{each} bytes");
        // It goes on like any other.
        while let Some(&(_, sequence, key)) = pair.model.first() {
            pair.release(key, sequence);
            pair.insert(1, key, 5000 + sequence);
            if pair.model.len() % 500 == 0 {
                pair.check_all();
            }
            pair.release(key, 5000 + sequence);
        }
        pair.check_all();
    }
}

/// Whatever postings came and went.
#[test]
fn a_posting_takes_what_the_budget_counts() {
    let (mut index, mut most) = (LabelIndex::default(), 0.0_f64);
    let mut check = |index: &LabelIndex| {
        if index.len() > 5000 {
            let each = index.heap_bytes() as f64 / index.len() as f64;
            assert!(each <= POSTING_BYTES as f64, "{each} bytes for {} postings", index.len());
            most = most.max(each);
        }
    };
    for key in 0..100_000 {
        // As many labels as postings.
        index.insert(LabelHash(key), KeyHash(key), Sequence(key));
        check(&index);
    }
    // The newest go first, then from both sides.
    for key in (80_000..100_000).rev().chain((0..40_000).flat_map(|key| [key, 79_999 - key])) {
        index.release(KeyHash(key), Sequence(key));
        check(&index);
    }
    assert_eq!(index.len(), 0);
    assert!(index.heap_bytes() < 2000, "{}", index.heap_bytes());
    println!("at most {most} bytes");
}

#[test]
fn no_call_visits_more_than_a_few() {
    // Every key has the same label, and each step is counted by the chunk that it may move.
    let mut index = LabelIndex::default();
    for key in 0..20_000 {
        index.insert(LabelHash(1), KeyHash(key), Sequence(key));
    }
    let mut found = Vec::new();
    let ((), work) = crate::meter::measured(|| {
        index.oldest(LabelHash(1), (&[], Sequence(u64::MAX)), 256, &mut found);
    });
    assert_eq!((found.len(), work.entries), (256, 256));
    let ((), work) = crate::meter::measured(|| {
        index.visit(PostingCursor::default(), 256, |_| false, &mut found);
    });
    assert_eq!((found.len(), work.entries), (256, 256));
}
