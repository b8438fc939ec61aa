//! `List`: one SIEVE queue, its nodes in a slab, linked by number.
//!
//! The slab grows by chunks, so no insertion moves more than one of them, and freed nodes are
//! reused before new ones.

use std::hint::black_box;
use std::ptr;
use std::sync::Arc;

use crate::entry::Entry;
use crate::meter;

/// Nodes of a full chunk of the slab. The last chunk grows up to it, so that a short list takes
/// little memory.
const CHUNK: usize = 256;

/// No node.
const NONE: u32 = u32::MAX;

/// Owns the entries. Called under a list's lock.
pub(crate) trait EntryOwner {
    /// Whether the entry can never be served again.
    fn is_dead(&self, entry: &Entry) -> bool;

    /// An entry is about to be evicted. It stays linked until this returns.
    fn leaves(&self, entry: &Entry);
}

/// The entry at which the hand stopped.
#[derive(Debug)]
pub(crate) enum Victim {
    /// It was unlinked.
    Evicted(Arc<Entry>),
    /// It was dead already. Its owner removes it.
    Dead(Arc<Entry>),
}

#[derive(Debug)]
pub(super) struct List {
    chunks: Vec<Vec<Node>>,
    /// The newest entry.
    head: u32,
    /// The oldest one.
    tail: u32,
    /// Where the hand continues; NONE: it is past the head.
    hand: u32,
    /// The first of the nodes that hold no entry, linked by `older`.
    free: u32,
}

#[derive(Debug, Clone)]
struct Node {
    entry: Option<Arc<Entry>>,
    /// Its number among all insertions.
    insertion: u64,
    newer: u32,
    older: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { chunks: Vec::new(), head: NONE, tail: NONE, hand: NONE, free: NONE }
    }
}

impl List {
    /// Frees the list in pieces: each item frees a chunk, and is its number of nodes.
    pub(super) fn pieces(self) -> impl Iterator<Item = usize> + Send {
        self.chunks.into_iter().map(|chunk| chunk.len())
    }

    /// Links the entry at the head. A hand past the head meets it next.
    pub(super) fn push(&mut self, entry: &Arc<Entry>, insertion: u64) {
        let number = self.free_node();
        self.link(number, entry, insertion);
    }

    fn link(&mut self, number: u32, entry: &Arc<Entry>, insertion: u64) {
        let older = self.head;
        *self.node(number) = Node { entry: Some(Arc::clone(entry)), insertion, newer: NONE, older };
        match older {
            NONE => self.tail = number,
            older => self.node(older).newer = number,
        }
        self.head = number;
        if self.hand == NONE {
            self.hand = number;
        }
        entry.node.link(number);
    }

    /// Unlinks the entry; false if it was unlinked before, or its list was taken apart.
    pub(super) fn remove(&mut self, entry: &Entry) -> bool {
        match entry.node.unlink() {
            Some(number) if self.holds(number, entry) => {
                self.unlink(number);
                true
            }
            _ => false,
        }
    }

    /// Fetches in tasks may go on while the lists of an abandoned cache are taken apart: then a
    /// node is that of another entry, or none.
    fn holds(&self, number: u32, entry: &Entry) -> bool {
        let chunk = self.chunks.get(number as usize / CHUNK);
        let node = chunk.and_then(|chunk| chunk.get(number as usize % CHUNK));
        let held = node.and_then(|node| node.entry.as_deref());
        held.is_some_and(|held| ptr::eq(held, entry))
    }

    /// Links the entry at the head in place of another one, in whose node it stays: a walk meets
    /// the entries of a key once, however often it is put. False if the other one was unlinked
    /// before, or its list was taken apart.
    pub(super) fn replace(&mut self, old: &Entry, entry: &Arc<Entry>, insertion: u64) -> bool {
        let is_replaced = self.swap(old, entry, insertion);
        if !is_replaced {
            self.push(entry, insertion);
        }
        is_replaced
    }

    /// The same, but links nothing if the other one was unlinked before, or its list taken apart.
    pub(super) fn swap(&mut self, old: &Entry, entry: &Arc<Entry>, insertion: u64) -> bool {
        let number = old.node.unlink().filter(|number| self.holds(*number, old));
        let Some(number) = number else { return false };
        // Dropped by its owner, who holds it.
        drop(self.take(number));
        self.link(number, entry, insertion);
        true
    }

    /// Moves the hand over the entries inserted before `until`, as long as `steps` last: clears and
    /// spares visited entries, and unlinks the first other one. It stops at a dead entry, visited
    /// or not, because that cannot be hit again.
    pub(super) fn advance(
        &mut self,
        until: u64,
        steps: &mut usize,
        owner: &dyn EntryOwner,
    ) -> Option<Victim> {
        while *steps > 0 && self.next_insertion() < until {
            *steps -= 1;
            meter::entries(1);
            let number = self.hand;
            let newer = self.node(number).newer;
            self.prefetch(newer);
            let Some(entry) = &self.node(number).entry else {
                self.hand = newer;
                continue;
            };
            if owner.is_dead(entry) {
                let entry = Arc::clone(entry);
                self.hand = newer;
                return Some(Victim::Dead(entry));
            }
            if entry.hits.take_visited() {
                self.hand = newer;
                continue;
            }
            let entry = self.unlink(number)?;
            owner.leaves(&entry);
            entry.node.unlink();
            return Some(Victim::Evicted(entry));
        }
        None
    }

    /// Moves the hand back to the oldest entry.
    pub(super) fn start_again(&mut self) {
        self.hand = self.tail;
    }

    /// The same if the hand is past the head.
    pub(super) fn start_again_if_passed(&mut self) {
        if self.is_passed() {
            self.start_again();
        }
    }

    pub(super) fn is_passed(&self) -> bool {
        self.hand == NONE
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head == NONE
    }

    /// The insertion number of the entry that the hand would meet next; the highest number if it is
    /// past the head.
    pub(super) fn next_insertion(&self) -> u64 {
        if self.hand == NONE {
            return u64::MAX;
        }
        let node = &self.chunks[self.hand as usize / CHUNK][self.hand as usize % CHUNK];
        node.insertion
    }

    /// Reads the node, if it is one, so that the processor waits for it and for the caller's next
    /// access at once.
    fn prefetch(&self, number: u32) {
        let chunk = self.chunks.get(number as usize / CHUNK);
        black_box(chunk.map(|chunk| chunk[number as usize % CHUNK].insertion));
    }

    /// Adds the entries of up to `nodes_max` nodes from `from` on to `found`, until that has `most`
    /// and there is another. Returns the number of nodes passed, and the node to continue with;
    /// None at the end of the slab.
    pub(super) fn visit(
        &self,
        from: usize,
        nodes_max: usize,
        most: usize,
        found: &mut Vec<Arc<Entry>>,
    ) -> (usize, Option<usize>) {
        let nodes = self.nodes();
        let end = from.saturating_add(nodes_max).min(nodes);
        let mut number = from;
        while number < end {
            let node = &self.chunks[number / CHUNK][number % CHUNK];
            if node.entry.is_some() && found.len() == most {
                break;
            }
            if let Some(entry) = &node.entry {
                meter::entries(1);
                found.push(Arc::clone(entry));
            }
            number += 1;
        }
        (number - from.min(number), (number < nodes).then_some(number))
    }

    fn node(&mut self, number: u32) -> &mut Node {
        &mut self.chunks[number as usize / CHUNK][number as usize % CHUNK]
    }

    /// The number of nodes, with or without an entry.
    fn nodes(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    /// A node that holds no entry.
    fn free_node(&mut self) -> u32 {
        if self.free != NONE {
            let number = self.free;
            self.free = self.node(number).older;
            return number;
        }
        let number = u32::try_from(self.nodes()).unwrap_or(NONE);
        // The smallest entry takes over 200 bytes: this is a list of more than 800 GiB.
        assert!(number < NONE, "one SIEVE list holds 2^32 entries");
        let empty = Node { entry: None, insertion: 0, newer: NONE, older: NONE };
        match self.chunks.last_mut().filter(|last| last.len() < CHUNK) {
            Some(last) => last.push(empty),
            None => self.chunks.push(vec![empty]),
        }
        number
    }

    /// Unlinks the node, and frees it.
    fn unlink(&mut self, number: u32) -> Option<Arc<Entry>> {
        let entry = self.take(number);
        let free = self.free;
        let node = self.node(number);
        node.older = free;
        node.newer = NONE;
        self.free = number;
        if self.head == NONE {
            // The list is empty: free the slab, which the priority may not need again.
            *self = Self::default();
        }
        entry
    }

    /// Unlinks the node, and moves the hand off it, towards the head.
    fn take(&mut self, number: u32) -> Option<Arc<Entry>> {
        let Node { newer, older, .. } = *self.node(number);
        match newer {
            NONE => self.head = older,
            newer => self.node(newer).older = older,
        }
        match older {
            NONE => self.tail = newer,
            older => self.node(older).newer = newer,
        }
        if self.hand == number {
            self.hand = newer;
        }
        self.node(number).entry.take()
    }
}

#[cfg(test)]
mod tests {
    use std::mem;

    use super::*;
    use crate::clock::Timestamp;
    use crate::key::{HashedKey, KeyHash};
    use crate::modes::L1Admission;
    use crate::namespace::Generation;
    use crate::policy::BlobCachePolicy;

    fn entry() -> Arc<Entry> {
        let key = HashedKey { bytes: b"key", hash: KeyHash(7) };
        let life = BlobCachePolicy::default().lifetime("n", key.bytes, Timestamp(1));
        Arc::new(Entry::new(Generation::nowhere("n"), key, &life, (0, L1Admission::Auto), None))
    }

    #[test]
    fn entries_of_a_list_that_was_taken_apart_unlink_no_others() {
        let [first, second, third, new, newer] = [(); 5].map(|()| entry());
        let mut list = List::default();
        [&first, &second, &third].into_iter().zip(0..).for_each(|(old, at)| list.push(old, at));
        assert_eq!(mem::take(&mut list).pieces().sum::<usize>(), 3);
        list.push(&new, 3);
        assert!(!list.remove(&first), "its node is that of another entry");
        assert!(!list.remove(&second), "its node is gone");
        assert!(!list.replace(&third, &newer, 4));
        assert!(list.remove(&new) && list.remove(&newer) && list.is_empty());
    }
}
