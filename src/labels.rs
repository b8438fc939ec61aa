//! `LabelIndex`: postings from a label to the entries that carry it.
//!
//! A posting names a key by its hash and the entry by its place in the order; it is valid while
//! the key still has the entry of that place. One tree holds them all, so that a label with one
//! entry costs one posting, and a label with a million is walked in steps without a table ever
//! being rebuilt under the lock.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};

use crate::footprint::POSTING_BYTES;
use crate::key::{KeyHash, LabelHash};
use crate::sequence::Sequence;

#[derive(Debug, Default)]
pub(crate) struct LabelIndex {
    postings: BTreeMap<(LabelHash, KeyHash), Sequence>,
}

/// Where a posting stands among all of them.
pub(crate) type PostingPlace = (LabelHash, KeyHash);

/// A posting taken out of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Posting {
    pub(crate) key: KeyHash,
    pub(crate) sequence: Sequence,
}

impl LabelIndex {
    pub(crate) fn insert(&mut self, label: LabelHash, key: KeyHash, sequence: Sequence) {
        self.postings.insert((label, key), sequence);
    }

    /// Removes the posting, if it still stands for the entry of that sequence.
    pub(crate) fn remove(&mut self, label: LabelHash, key: KeyHash, sequence: Sequence) {
        if self.postings.get(&(label, key)) == Some(&sequence) {
            self.postings.remove(&(label, key));
        }
    }

    /// Forgets them all.
    pub(crate) fn clear(&mut self) {
        self.postings.clear();
    }

    pub(crate) fn has(&self, label: LabelHash) -> bool {
        self.postings.range(Self::of(label, None)).next().is_some()
    }

    /// Visits up to `limit` postings of `label` behind the key `after`, and takes out those older
    /// than `before`. Gives the last key visited; None when the label has been walked to its end.
    pub(crate) fn take(
        &mut self,
        label: LabelHash,
        after: Option<KeyHash>,
        before: Sequence,
        limit: usize,
        taken: &mut Vec<Posting>,
    ) -> Option<KeyHash> {
        let mut last = None;
        let mut visited = 0;
        for (&(_, key), &sequence) in self.postings.range(Self::of(label, after)).take(limit) {
            visited += 1;
            last = Some(key);
            if sequence < before {
                taken.push(Posting { key, sequence });
            }
        }
        for posting in taken.iter() {
            self.postings.remove(&(label, posting.key));
        }
        last.filter(|_| visited == limit)
    }

    /// Adds those of up to `limit` postings of any label behind `after` that are older than
    /// `before` to `found`. Gives the place of the last one visited; None at the end.
    pub(crate) fn older(
        &self,
        after: Option<PostingPlace>,
        before: Sequence,
        limit: usize,
        found: &mut Vec<(LabelHash, Posting)>,
    ) -> Option<PostingPlace> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        let mut visited = 0;
        for (&(label, key), &sequence) in self.postings.range((from, Bound::Unbounded)).take(limit)
        {
            visited += 1;
            last = Some((label, key));
            if sequence < before {
                found.push((label, Posting { key, sequence }));
            }
        }
        last.filter(|_| visited == limit)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.postings.len() * POSTING_BYTES
    }

    /// The postings of `label` behind the key `after`.
    fn of(label: LabelHash, after: Option<KeyHash>) -> impl RangeBounds<(LabelHash, KeyHash)> {
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

    #[test]
    fn a_walk_takes_the_old_and_leaves_the_new_and_the_others() {
        let (label, other) = (LabelHash(7), LabelHash(8));
        let mut index = LabelIndex::default();
        for key in 0..100 {
            let sequence = if key % 10 == 0 { 500 } else { key };
            index.insert(label, KeyHash(key), Sequence(sequence));
            index.insert(other, KeyHash(key), Sequence(key));
        }
        let (mut all, mut after, mut walks) = (Vec::new(), None, 0);
        loop {
            let mut taken = Vec::new();
            after = index.take(label, after, Sequence(500), 7, &mut taken);
            all.extend(taken);
            walks += 1;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(walks, 15);
        assert_eq!(all.len(), 90);
        assert!(index.has(label) && index.has(other));
        assert_eq!(index.bytes(), 110 * POSTING_BYTES);
    }

    #[test]
    fn a_posting_of_a_newer_entry_is_not_removed_for_an_older_one() {
        let mut index = LabelIndex::default();
        index.insert(LabelHash(1), KeyHash(2), Sequence(9));
        index.remove(LabelHash(1), KeyHash(2), Sequence(8));
        assert!(index.has(LabelHash(1)));
        index.remove(LabelHash(1), KeyHash(2), Sequence(9));
        assert!(!index.has(LabelHash(1)));
    }
}
