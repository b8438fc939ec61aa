//! `Nodes`: the postings, in an array, linked by number.
//!
//! The postings of a label are a list in the order of their sequences. Those of keys whose hashes
//! share a bucket are a chain. Both ends of a list are found from its oldest posting: that has the
//! number of the newest one where others have the number of the next older one. The newest posting
//! has the number of the next list of its bucket, likewise. A mark tells these from other numbers.
//!
//! A posting that is removed leaves a hole, for the next one. When more than a sixteenth are holes,
//! the last posting moves into one.

use super::chunks::Chunks;
use crate::key::{KeyHash, LabelHash};
use crate::sequence::Sequence;

/// Marks the outer link of the end of a list.
const END: u32 = 1 << 31;

/// No posting.
pub(super) const NONE: u32 = END - 1;

/// In place of the next posting of the chain: a hole.
const HOLE: u32 = u32::MAX;

/// Holes beside one in sixteen.
const HOLES_MIN: usize = 8;

/// Eight bytes of an alignment that wastes none.
#[derive(Debug, Clone, Copy)]
struct Word([u8; 8]);

impl Word {
    fn new(value: u64) -> Self {
        Self(value.to_le_bytes())
    }

    fn get(self) -> u64 {
        u64::from_le_bytes(self.0)
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    label: Word,
    key: Word,
    sequence: Word,
    /// The next older and newer posting of the label. Of a hole: of the holes.
    older: u32,
    newer: u32,
    /// The next one of the chain of its key.
    next: u32,
}

const _: () = assert!(size_of::<Node>() == 36);

impl Node {
    pub(super) fn label(&self) -> LabelHash {
        LabelHash(self.label.get())
    }

    pub(super) fn key(&self) -> KeyHash {
        KeyHash(self.key.get())
    }

    pub(super) fn sequence(&self) -> Sequence {
        Sequence(self.sequence.get())
    }

    pub(super) fn next_of_chain(&self) -> u32 {
        self.next
    }

    /// The next newer posting of the label, unless this is the newest.
    pub(super) fn newer(&self) -> Option<u32> {
        (self.newer & END == 0).then_some(self.newer)
    }

    fn older(&self) -> Option<u32> {
        (self.older & END == 0).then_some(self.older)
    }

    /// Whether its links lead to one of so many places, or mark an end.
    fn is_sound(&self, places: u32) -> bool {
        if self.next == HOLE {
            return is_link(self.older, places) && is_link(self.newer, places);
        }
        let is_end = |link: u32| link & END != 0 && is_link(link & !END, places);
        let is_within = |link: u32| link < places || is_end(link);
        is_link(self.next, places) && is_within(self.older) && is_within(self.newer)
    }

    fn to_bytes(self) -> [u8; StoredNode::BYTES] {
        let mut bytes = [0; StoredNode::BYTES];
        bytes[..8].copy_from_slice(&self.label.0);
        bytes[8..16].copy_from_slice(&self.key.0);
        bytes[16..24].copy_from_slice(&self.sequence.0);
        bytes[24..28].copy_from_slice(&self.older.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.newer.to_le_bytes());
        bytes[32..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// A node as an image has it.
pub(crate) struct StoredNode(Node);

impl StoredNode {
    pub(crate) const BYTES: usize = 36;

    /// None if its links lead to no place among so many.
    pub(super) fn read(bytes: &[u8; Self::BYTES], places: u32) -> Option<Self> {
        let word = |at: usize| Some(Word(*bytes.get(at..)?.first_chunk()?));
        let link = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let (label, key, sequence) = (word(0)?, word(8)?, word(16)?);
        let node =
            Node { label, key, sequence, older: link(24)?, newer: link(28)?, next: link(32)? };
        node.is_sound(places).then_some(Self(node))
    }
}

/// Whether a link leads to one of so many places, or to none.
pub(super) fn is_link(number: u32, places: u32) -> bool {
    number < places || number == NONE
}

#[derive(Debug)]
pub(super) struct Nodes {
    all: Chunks<Node>,
    /// The first hole.
    hole: u32,
    holes: usize,
}

impl Default for Nodes {
    fn default() -> Self {
        Self { all: Chunks::default(), hole: NONE, holes: 0 }
    }
}

impl Nodes {
    /// The number of postings. None are known as long as chunks with holes are missing.
    pub(super) fn len(&self) -> usize {
        self.all.len().saturating_sub(self.holes)
    }

    /// The numbers of postings are below this one.
    pub(super) fn end(&self) -> u32 {
        u32::try_from(self.all.len()).unwrap_or(NONE)
    }

    /// The posting of that number. None: a hole.
    pub(super) fn at(&self, number: u32) -> Option<&Node> {
        Some(&self.all[number]).filter(|node| node.next != HOLE)
    }

    pub(super) fn node(&self, number: u32) -> &Node {
        &self.all[number]
    }

    /// Adds a posting that is in no list and no chain.
    pub(super) fn add(&mut self, label: LabelHash, key: KeyHash, sequence: Sequence) -> u32 {
        let node = Node {
            label: Word::new(label.0),
            key: Word::new(key.0),
            sequence: Word::new(sequence.0),
            older: NONE,
            newer: NONE,
            next: NONE,
        };
        if self.hole != NONE {
            let number = self.hole;
            self.take_hole(number);
            self.all[number] = node;
            return number;
        }
        let number = self.end();
        // They would take some hundred GiB.
        assert!(number < NONE, "one namespace has 2^31 postings");
        self.all.push(node);
        number
    }

    /// Copies a posting that is in no list and no chain to an earlier place.
    pub(super) fn move_back(&mut self, from: u32, to: u32) {
        self.all[to] = self.all[from];
    }

    /// Drops the last posting, which is in no list and no chain.
    pub(super) fn pop(&mut self) {
        self.all.pop();
    }

    /// Leaves a hole in place of a posting that is in no list and no chain.
    pub(super) fn remove(&mut self, number: u32) {
        let first = self.hole;
        let node = &mut self.all[number];
        (node.next, node.newer, node.older) = (HOLE, first, NONE);
        if first != NONE {
            self.all[first].older = number;
        }
        self.hole = number;
        self.holes += 1;
    }

    fn take_hole(&mut self, number: u32) {
        let Node { newer, older, .. } = self.all[number];
        match older {
            NONE => self.hole = newer,
            older => self.all[older].newer = newer,
        }
        if newer != NONE {
            self.all[newer].older = older;
        }
        self.holes -= 1;
    }

    /// Whether too many are holes.
    pub(super) fn is_sparse(&self) -> bool {
        self.holes > self.all.len() / 16 + HOLES_MIN
    }

    /// Drops the last place. If it had a posting, that moves into a hole: returns both numbers, of
    /// which nothing links to the new one yet.
    pub(super) fn drop_last(&mut self) -> Option<(u32, u32)> {
        let last = self.end().checked_sub(1)?;
        if self.at(last).is_none() {
            self.take_hole(last);
            self.all.pop();
            return None;
        }
        let hole = self.hole;
        if hole == NONE {
            return None;
        }
        self.take_hole(hole);
        // Bounded: one.
        self.all.pop().into_iter().for_each(|node| self.all[hole] = node);
        Some((last, hole))
    }

    pub(super) fn set_next_of_chain(&mut self, number: u32, next: u32) {
        self.all[number].next = next;
    }

    /// The newest posting of the list that begins with this one.
    pub(super) fn newest(&self, oldest: u32) -> u32 {
        self.all[oldest].older & !END
    }

    /// The first posting of the next list of the bucket.
    pub(super) fn next_list(&self, oldest: u32) -> u32 {
        self.all[self.newest(oldest)].newer & !END
    }

    pub(super) fn set_next_list(&mut self, oldest: u32, next: u32) {
        let newest = self.newest(oldest);
        self.all[newest].newer = END | next;
    }

    /// Makes a list of one posting.
    pub(super) fn begin_list(&mut self, number: u32) {
        let node = &mut self.all[number];
        (node.older, node.newer) = (END | number, END | NONE);
    }

    /// Adds a posting to the list as its newest.
    pub(super) fn push_newest(&mut self, oldest: u32, number: u32) {
        let newest = self.newest(oldest);
        let next_list = self.all[newest].newer;
        self.all[newest].newer = number;
        (self.all[number].older, self.all[number].newer) = (newest, next_list);
        self.all[oldest].older = END | number;
    }

    /// Adds a posting as the oldest; the list begins with it from now on.
    pub(super) fn push_oldest(&mut self, oldest: u32, number: u32) {
        let newest = self.newest(oldest);
        (self.all[number].older, self.all[number].newer) = (END | newest, oldest);
        self.all[oldest].older = number;
    }

    pub(super) fn is_inside(&self, number: u32) -> bool {
        let node = &self.all[number];
        node.older().is_some() && node.newer().is_some()
    }

    /// Takes a posting that is at neither end out of its list.
    pub(super) fn unlink_inside(&mut self, number: u32) {
        let Node { older, newer, .. } = self.all[number];
        self.all[older].newer = newer;
        self.all[newer].older = older;
    }

    /// Takes a posting at an end out of the list that begins with `oldest`. Returns what the list
    /// begins with now: NONE if it is empty. Its bucket has to link to that.
    pub(super) fn unlink_end(&mut self, oldest: u32, number: u32) -> Option<u32> {
        let node = self.all[number];
        match (node.older(), node.newer()) {
            (None, None) => None,
            (None, Some(newer)) => {
                self.all[newer].older = node.older;
                Some(newer)
            }
            (Some(older), _) => {
                self.all[older].newer = node.newer;
                self.all[oldest].older = END | older;
                Some(oldest)
            }
        }
    }

    /// Links the neighbours of a posting that has moved to it. `oldest`: of its list.
    pub(super) fn relink(&mut self, oldest: u32, number: u32) {
        let node = self.all[number];
        if let Some(older) = node.older() {
            self.all[older].newer = number;
        }
        match node.newer() {
            Some(newer) => self.all[newer].older = number,
            None => self.all[oldest].older = END | number,
        }
    }

    pub(super) fn is_oldest(&self, number: u32) -> bool {
        self.all[number].older().is_none()
    }

    pub(super) fn free_chunk(&mut self) -> Option<usize> {
        (self.hole, self.holes) = (NONE, 0);
        self.all.free_chunk()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.all.heap_bytes()
    }

    /// Places, holes, and the first hole.
    pub(super) fn shape(&self) -> (usize, usize, u32) {
        (self.all.len(), self.holes, self.hole)
    }

    pub(super) fn of_chunks(hole: u32, holes: usize) -> Self {
        Self { all: Chunks::default(), hole, holes }
    }

    pub(super) fn store_chunk(&self, first: u32, to: &mut impl FnMut(&[u8])) -> usize {
        let chunk = self.all.chunk(first);
        // Bounded: by a chunk.
        chunk.iter().for_each(|node| to(&node.to_bytes()));
        chunk.len()
    }

    pub(super) fn add_chunk(&mut self, first: usize, end: u32, chunk: Vec<StoredNode>) -> bool {
        // Bounded: by a chunk.
        self.all.add_chunk(first, end, chunk.into_iter().map(|StoredNode(node)| node).collect())
    }
}
