//! `LabelIndex`: postings from a label to the entries that carry it, and back, for one generation
//! of a namespace.
//!
//! A posting holds a key hash and an entry's sequence; it is valid while the key still has the
//! entry of that sequence. It is found by its label, for invalidations, and by its key, for
//! mutations that replace a record on disk and know only its key.
//!
//! Every call takes a bounded number of steps, whatever the number of postings: they lie in an
//! array that grows by chunks ([`Nodes`]), and are linked by number into a list for each label and
//! a chain for each bucket of key hashes ([`Buckets`]).
//!
//! The postings of a label come in the order of their sequences, upwards or downwards.

mod buckets;
mod chunks;
mod nodes;
mod stored;
#[cfg(test)]
mod tests;
mod unlinked;

use smallvec::SmallVec;

use self::buckets::{Buckets, Chain, Found};
use self::nodes::{NONE, Nodes};
pub(crate) use self::stored::{LabelIndexOfChunks, PostingsPart, PostingsShape, StoredChunk};
pub(crate) use self::unlinked::UnlinkedPostings;
use crate::key::{KeyHash, LabelHash};
use crate::meter;
use crate::sequence::Sequence;

#[derive(Debug, Default)]
pub(crate) struct LabelIndex {
    nodes: Nodes,
    keys: Buckets<ByKey>,
    labels: Buckets<ByLabel>,
    /// How many labels have postings.
    lists: usize,
    /// How many postings were ever added.
    added: u64,
}

/// Each posting is a member.
#[derive(Debug)]
struct ByKey;

/// The oldest posting of each label is a member, and stands for all.
#[derive(Debug)]
struct ByLabel;

pub(crate) type EntryLabels = SmallVec<[LabelHash; 8]>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Posting {
    pub(crate) key: KeyHash,
    pub(crate) sequence: Sequence,
}

/// The progress of [`LabelIndex::visit`], downwards. The default is the start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PostingCursor(Option<u32>);

impl LabelIndex {
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// How many labels have postings.
    #[cfg(all(any(test, feature = "cli"), feature = "disk", target_os = "linux"))]
    pub(crate) fn different(&self) -> usize {
        self.lists
    }

    pub(crate) fn insert(&mut self, label: LabelHash, key: KeyHash, sequence: Sequence) {
        self.added += 1;
        let number = self.nodes.add(label, key, sequence);
        let postings = self.nodes.len();
        self.keys.add(&mut self.nodes, number, postings);
        self.list_posting(number, label, sequence);
    }

    /// Adds a posting to the list of its label.
    fn list_posting(&mut self, number: u32, label: LabelHash, sequence: Sequence) {
        let Some(found) = self.list(label) else {
            self.nodes.begin_list(number);
            self.lists += 1;
            return self.labels.add(&mut self.nodes, number, self.lists);
        };
        let oldest = found.member;
        let newest = self.nodes.newest(oldest);
        if sequence >= self.nodes.node(newest).sequence() {
            self.nodes.push_newest(oldest, number);
        } else {
            debug_assert!(sequence <= self.nodes.node(oldest).sequence(), "out of order");
            self.nodes.push_oldest(oldest, number);
            self.labels.link(&mut self.nodes, found, number);
        }
    }

    /// The labels of a key's entry of that sequence.
    pub(crate) fn of(&self, key: KeyHash, sequence: Sequence) -> EntryLabels {
        let mut labels = EntryLabels::new();
        let mut number = self.keys.first(key.0);
        // Bounded: by the postings of one bucket.
        while number != NONE {
            let node = self.nodes.node(number);
            if node.key() == key && node.sequence() == sequence {
                labels.push(node.label());
            }
            number = node.next_of_chain();
        }
        labels
    }

    /// Removes the postings of a key's entry of that sequence. Returns their number.
    pub(crate) fn release(&mut self, key: KeyHash, sequence: Sequence) -> usize {
        let mut released = 0;
        // Bounded: by the labels of one entry.
        while let Some(found) = self.posting(key, sequence) {
            self.remove(found);
            released += 1;
        }
        released
    }

    /// As long as this stays the same, no label has got its first posting.
    pub(crate) fn added(&self) -> u64 {
        self.added
    }

    pub(crate) fn has(&self, label: LabelHash) -> bool {
        self.list(label).is_some()
    }

    /// Appends up to `limit` of the oldest postings of `label` to `found`, if they are older than
    /// `before`. Once they are released, the next call finds others. If they stay, those that were
    /// `met` last say where to go on, as long as one of them is left.
    pub(crate) fn oldest(
        &self,
        label: LabelHash,
        (met, before): (&[Posting], Sequence),
        limit: usize,
        found: &mut Vec<Posting>,
    ) {
        // Bounded: by a batch.
        let last = met.iter().rev().find_map(|posting| self.number(label, *posting));
        let mut next = match last {
            Some(last) => self.nodes.node(last).newer(),
            None => self.list(label).map(|list| list.member),
        };
        // Bounded: by the limit.
        for _ in 0..limit {
            let Some(node) = next.map(|number| self.nodes.node(number)) else { return };
            if node.sequence() >= before {
                return;
            }
            meter::entries(1);
            found.push(Posting { key: node.key(), sequence: node.sequence() });
            next = node.newer();
        }
    }

    /// The place of a posting.
    fn number(&self, label: LabelHash, Posting { key, sequence }: Posting) -> Option<u32> {
        let is_it = |number| {
            let node = self.nodes.node(number);
            node.key() == key && node.sequence() == sequence && node.label() == label
        };
        self.keys.find(&self.nodes, key.0, is_it).map(|found| found.member)
    }

    /// Visits up to `limit` places of postings and appends those that are wanted to `found`.
    /// Returns where to continue; None at the end. Postings that are added meanwhile may be missed.
    pub(crate) fn visit(
        &self,
        cursor: PostingCursor,
        limit: usize,
        is_wanted: impl Fn(Posting) -> bool,
        found: &mut Vec<Posting>,
    ) -> Option<PostingCursor> {
        // Downwards, because postings move to lower places only.
        let mut number = cursor.0.map_or(self.nodes.end(), |number| number.min(self.nodes.end()));
        // Bounded: by the limit.
        for _ in 0..limit {
            number = number.checked_sub(1)?;
            meter::entries(1);
            let node = self.nodes.at(number);
            let posting = node.map(|node| Posting { key: node.key(), sequence: node.sequence() });
            found.extend(posting.filter(|posting| is_wanted(*posting)));
        }
        Some(PostingCursor(Some(number)))
    }

    /// Frees a piece of an index that changes no more. Returns its bytes; None if nothing is left.
    pub(crate) fn free_some(&mut self) -> Option<usize> {
        self.lists = 0;
        // Lookups may go on: the last way to a posting is freed before any posting.
        let freed = self.keys.free_chunk().or_else(|| self.labels.free_chunk());
        freed.or_else(|| self.nodes.free_chunk())
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.nodes.heap_bytes() + self.keys.heap_bytes() + self.labels.heap_bytes()
    }

    fn list(&self, label: LabelHash) -> Option<Found> {
        let is_it = |oldest| self.nodes.node(oldest).label() == label;
        self.labels.find(&self.nodes, label.0, is_it)
    }

    fn posting(&self, key: KeyHash, sequence: Sequence) -> Option<Found> {
        let is_it = |number| {
            let node = self.nodes.node(number);
            node.key() == key && node.sequence() == sequence
        };
        self.keys.find(&self.nodes, key.0, is_it)
    }

    fn remove(&mut self, found: Found) {
        let number = found.member;
        let next = self.nodes.node(number).next_of_chain();
        self.keys.link(&mut self.nodes, found, next);
        if self.nodes.is_inside(number) {
            self.nodes.unlink_inside(number);
        } else {
            self.unlink_end(number);
        }
        self.nodes.remove(number);
        // One would not keep up with a limit that sinks.
        // Bounded: two.
        for _ in 0..2 {
            if self.nodes.is_sparse() {
                self.drop_last();
            }
        }
        let postings = self.nodes.len();
        self.keys.shrink(&mut self.nodes, postings);
        self.labels.shrink(&mut self.nodes, self.lists);
    }

    fn unlink_end(&mut self, number: u32) {
        let Some(list) = self.list(self.nodes.node(number).label()) else { return };
        let next_list = self.nodes.next_list(list.member);
        match self.nodes.unlink_end(list.member, number) {
            None => {
                self.lists -= 1;
                self.labels.link(&mut self.nodes, list, next_list);
            }
            Some(oldest) => self.labels.link(&mut self.nodes, list, oldest),
        }
    }

    /// Drops the last place of a posting.
    fn drop_last(&mut self) {
        let Some((from, to)) = self.nodes.drop_last() else { return };
        let (label, key) = (self.nodes.node(to).label(), self.nodes.node(to).key());
        if let Some(found) = self.keys.find(&self.nodes, key.0, |number| number == from) {
            self.keys.link(&mut self.nodes, found, to);
        }
        let oldest = if self.nodes.is_oldest(to) {
            if let Some(found) = self.labels.find(&self.nodes, label.0, |number| number == from) {
                self.labels.link(&mut self.nodes, found, to);
            }
            to
        } else if self.nodes.is_inside(to) {
            // No end of the list has moved.
            NONE
        } else {
            self.list(label).map_or(NONE, |list| list.member)
        };
        self.nodes.relink(oldest, to);
    }
}

impl Chain for ByKey {
    fn hash(nodes: &Nodes, member: u32) -> u64 {
        nodes.node(member).key().0
    }

    fn next(nodes: &Nodes, member: u32) -> u32 {
        nodes.node(member).next_of_chain()
    }

    fn set_next(nodes: &mut Nodes, member: u32, next: u32) {
        nodes.set_next_of_chain(member, next);
    }
}

impl Chain for ByLabel {
    fn hash(nodes: &Nodes, member: u32) -> u64 {
        nodes.node(member).label().0
    }

    fn next(nodes: &Nodes, member: u32) -> u32 {
        nodes.next_list(member)
    }

    fn set_next(nodes: &mut Nodes, member: u32, next: u32) {
        nodes.set_next_list(member, next);
    }
}
