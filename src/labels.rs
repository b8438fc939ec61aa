//! `LabelIndex`: postings from a label to the entries that carry it, and back.
//!
//! A posting holds a key hash and an entry's sequence; it is valid while the key still has the
//! entry of that sequence. One tree holds all postings, so that a label with one entry costs one
//! posting, and a label with a million is walked in batches, with no table rebuilt under the lock.
//! A second tree leads from a key to its labels, for mutations that replace a record on disk and
//! know only its key.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeBounds};

use smallvec::SmallVec;

use crate::footprint::POSTING_BYTES;
use crate::key::{KeyHash, LabelHash};
use crate::meter;
use crate::sequence::Sequence;

#[derive(Debug, Default)]
pub(crate) struct LabelIndex {
    postings: BTreeMap<(LabelHash, KeyHash), Sequence>,
    /// The same pairs, reversed.
    labels: BTreeSet<(KeyHash, LabelHash)>,
}

pub(crate) type LabelPlace = (KeyHash, LabelHash);

pub(crate) type EntryLabels = SmallVec<[LabelHash; 8]>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Posting {
    pub(crate) key: KeyHash,
    pub(crate) sequence: Sequence,
}

impl LabelIndex {
    pub(crate) fn insert(&mut self, label: LabelHash, key: KeyHash, sequence: Sequence) {
        self.postings.insert((label, key), sequence);
        self.labels.insert((key, label));
    }

    /// The labels of a key's entry of that sequence.
    pub(crate) fn of(&self, key: KeyHash, sequence: Sequence) -> EntryLabels {
        let all = (key, LabelHash(0))..=(key, LabelHash(u64::MAX));
        let labels = self.labels.range(all).map(|&(_, label)| label);
        // Another namespace may have a key of the same hash.
        // Bounded: by the labels of one entry.
        labels.filter(|&label| self.postings.get(&(label, key)) == Some(&sequence)).collect()
    }

    pub(crate) fn release(&mut self, key: KeyHash, sequence: Sequence) {
        // Bounded: by the labels of one entry.
        for label in self.of(key, sequence) {
            self.postings.remove(&(label, key));
            self.labels.remove(&(key, label));
        }
    }

    /// Each item frees one posting.
    pub(crate) fn pieces(self) -> impl Iterator<Item = usize> + Send {
        let postings = self.postings.into_iter().map(|_| 1);
        postings.chain(self.labels.into_iter().map(|_| 0))
    }

    pub(crate) fn has(&self, label: LabelHash) -> bool {
        self.postings.range(Self::from(label, None)).next().is_some()
    }

    /// Visits up to `limit` postings of `label` after the key `after`, and appends those older than
    /// `before` to `found`. Returns the last key visited; None at the end.
    pub(crate) fn walk(
        &self,
        label: LabelHash,
        after: Option<KeyHash>,
        before: Sequence,
        limit: usize,
        found: &mut Vec<Posting>,
    ) -> Option<KeyHash> {
        let mut last = None;
        let mut visited = 0;
        for (&(_, key), &sequence) in self.postings.range(Self::from(label, after)).take(limit) {
            visited += 1;
            meter::entries(1);
            last = Some(key);
            if sequence < before {
                found.push(Posting { key, sequence });
            }
        }
        last.filter(|_| visited == limit)
    }

    /// Visits up to `limit` postings of any label after `after`, and appends those older than
    /// `before` to `found`. Returns the cursor of the last one visited; None at the end.
    pub(crate) fn older(
        &self,
        after: Option<LabelPlace>,
        before: Sequence,
        limit: usize,
        found: &mut Vec<Posting>,
    ) -> Option<LabelPlace> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        let mut visited = 0;
        for &(key, label) in self.labels.range((from, Bound::Unbounded)).take(limit) {
            visited += 1;
            meter::entries(1);
            last = Some((key, label));
            let sequence = self.postings.get(&(label, key)).copied().unwrap_or_default();
            if sequence < before {
                found.push(Posting { key, sequence });
            }
        }
        last.filter(|_| visited == limit)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.postings.len() * POSTING_BYTES
    }

    /// The postings of `label` after the key `after`.
    fn from(label: LabelHash, after: Option<KeyHash>) -> impl RangeBounds<(LabelHash, KeyHash)> {
        let from = match after {
            None => Bound::Included((label, KeyHash(0))),
            Some(key) => Bound::Excluded((label, key)),
        };
        (from, Bound::Included((label, KeyHash(u64::MAX))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(index: &mut LabelIndex, key: u64, sequence: u64, labels: &[u64]) {
        for &label in labels {
            index.insert(LabelHash(label), KeyHash(key), Sequence(sequence));
        }
    }

    #[test]
    fn a_walk_finds_only_older_postings_of_its_label() {
        let mut index = LabelIndex::default();
        for key in 0..100 {
            insert(&mut index, key, if key % 10 == 0 { 500 } else { key }, &[7, 8]);
        }
        let (mut met, mut after, mut walks) = (Vec::new(), None, 0);
        loop {
            let mut found = Vec::new();
            after = index.walk(LabelHash(7), after, Sequence(500), 7, &mut found);
            met.extend(found.iter().map(|posting| posting.key.0));
            walks += 1;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(walks, 15);
        assert_eq!(met, (0..100).filter(|key| key % 10 != 0).collect::<Vec<_>>());
        assert_eq!(index.bytes(), 200 * POSTING_BYTES);
    }

    #[test]
    fn labels_are_released_with_their_entry() {
        let mut index = LabelIndex::default();
        let of = |index: &LabelIndex, key, sequence| {
            let labels = index.of(KeyHash(key), Sequence(sequence));
            labels.iter().map(|label| label.0).collect::<Vec<_>>()
        };
        insert(&mut index, 2, 9, &[1, 2]);
        insert(&mut index, 3, 1, &[1]);
        // Of another namespace.
        insert(&mut index, 2, 5, &[3]);
        assert_eq!(of(&index, 2, 9), [1, 2]);
        assert_eq!(of(&index, 2, 5), [3]);
        index.release(KeyHash(2), Sequence(8));
        assert_eq!(index.bytes(), 4 * POSTING_BYTES, "no such entry");
        index.release(KeyHash(2), Sequence(9));
        assert!(!index.has(LabelHash(2)));
        assert!(index.has(LabelHash(1)) && index.has(LabelHash(3)));
        index.release(KeyHash(2), Sequence(5));
        index.release(KeyHash(3), Sequence(1));
        assert_eq!((index.bytes(), index.labels.len()), (0, 0));
    }

    #[test]
    fn older_postings_of_any_label_are_found() {
        let mut index = LabelIndex::default();
        for key in 0..10 {
            insert(&mut index, key, key, &[1, 2, 3]);
        }
        let (mut after, mut all) = (None, Vec::new());
        loop {
            let mut found = Vec::new();
            after = index.older(after, Sequence(5), 4, &mut found);
            all.extend(found.iter().map(|posting| posting.key.0));
            if after.is_none() {
                break;
            }
        }
        all.dedup();
        assert_eq!(all, [0, 1, 2, 3, 4]);
    }
}
