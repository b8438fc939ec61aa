//! `Buckets`: finds chains of postings by hash. Linear hashing: buckets split and merge one by one,
//! so nothing is ever rebuilt.

use std::marker::PhantomData;

use super::chunks::Chunks;
use super::nodes::{NONE, Nodes};

/// Buckets that are split or merged at once, so that the processor fetches several chains at the
/// same time.
const STEP: usize = 16;

/// How the members of a bucket are linked.
pub(super) trait Chain {
    fn hash(nodes: &Nodes, member: u32) -> u64;
    fn next(nodes: &Nodes, member: u32) -> u32;
    fn set_next(nodes: &mut Nodes, member: u32, next: u32);
}

/// About one member for each bucket.
#[derive(Debug)]
pub(super) struct Buckets<C> {
    firsts: Chunks<u32>,
    chain: PhantomData<C>,
}

/// Where a member is linked: by the bucket, or by the member before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) member: u32,
    bucket: u32,
    before: Option<u32>,
}

impl<C> Default for Buckets<C> {
    fn default() -> Self {
        Self { firsts: Chunks::default(), chain: PhantomData }
    }
}

impl<C: Chain> Buckets<C> {
    /// The first member of a bucket that is the wanted one.
    pub(super) fn find(
        &self,
        nodes: &Nodes,
        hash: u64,
        is_wanted: impl Fn(u32) -> bool,
    ) -> Option<Found> {
        let bucket = self.bucket(hash)?;
        let (mut before, mut member) = (None, self.firsts[bucket]);
        // Bounded: by the members of one bucket.
        while member != NONE {
            if is_wanted(member) {
                return Some(Found { member, bucket, before });
            }
            before = Some(member);
            member = C::next(nodes, member);
        }
        None
    }

    /// The first member of the bucket of a hash.
    pub(super) fn first(&self, hash: u64) -> u32 {
        self.bucket(hash).map_or(NONE, |bucket| self.firsts[bucket])
    }

    /// Adds a member; `members` with it.
    pub(super) fn add(&mut self, nodes: &mut Nodes, member: u32, members: usize) {
        // Bounded: by a step, once for as many members.
        while members > self.firsts.len() {
            // Bounded: by a step.
            (0..STEP).for_each(|_| self.split(nodes));
        }
        self.add_within(nodes, member);
    }

    /// Makes room for more members, before the first one. False once there is enough.
    pub(super) fn reserve(&mut self, members: usize) -> bool {
        // Bounded: by a step.
        (0..STEP).for_each(|_| self.firsts.push(NONE));
        self.firsts.len() < members
    }

    /// Adds a member for which there is room.
    pub(super) fn add_within(&mut self, nodes: &mut Nodes, member: u32) {
        let hash = C::hash(nodes, member);
        if let Some(bucket) = self.bucket(hash) {
            C::set_next(nodes, member, self.firsts[bucket]);
            self.firsts[bucket] = member;
        }
    }

    /// Links to another member in place of the one that was found.
    pub(super) fn link(&mut self, nodes: &mut Nodes, found: Found, member: u32) {
        match found.before {
            None => self.firsts[found.bucket] = member,
            Some(before) => C::set_next(nodes, before, member),
        }
    }

    /// Merges buckets if there are many more than members.
    pub(super) fn shrink(&mut self, nodes: &mut Nodes, members: usize) {
        if self.firsts.len() > members + members / 8 + 2 * STEP {
            // Bounded: by a step.
            (0..STEP).for_each(|_| self.merge(nodes));
        }
    }

    fn split(&mut self, nodes: &mut Nodes) {
        let child = self.end();
        self.firsts.push(NONE);
        let Some(parent) = parent(child) else { return };
        let (mut member, mut links) = (self.firsts[parent], [NONE, NONE]);
        // Bounded: by the members of one bucket.
        while member != NONE {
            let next = C::next(nodes, member);
            let leaves = self.bucket(C::hash(nodes, member)) == Some(child);
            let link = &mut links[usize::from(leaves)];
            C::set_next(nodes, member, *link);
            *link = member;
            member = next;
        }
        [self.firsts[parent], self.firsts[child]] = links;
    }

    fn merge(&mut self, nodes: &mut Nodes) {
        let Some(child) = self.end().checked_sub(1) else { return };
        let Some((parent, mut member)) = parent(child).zip(self.firsts.pop()) else { return };
        // Bounded: by the members of one bucket.
        while member != NONE {
            let next = C::next(nodes, member);
            C::set_next(nodes, member, self.firsts[parent]);
            self.firsts[parent] = member;
            member = next;
        }
    }

    fn end(&self) -> u32 {
        u32::try_from(self.firsts.len()).unwrap_or(NONE)
    }

    /// None without any bucket.
    fn bucket(&self, hash: u64) -> Option<u32> {
        let depth = self.end().checked_ilog2()?;
        let bucket = low_bits(hash, depth + 1);
        Some(if bucket < self.end() { bucket } else { low_bits(hash, depth) })
    }

    pub(super) fn free_chunk(&mut self) -> Option<usize> {
        self.firsts.free_chunk()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.firsts.heap_bytes()
    }

    /// The number of buckets.
    pub(super) fn len(&self) -> usize {
        self.firsts.len()
    }

    pub(super) fn store_chunk(&self, first: u32, to: &mut impl FnMut(&[u8])) -> usize {
        let chunk = self.firsts.chunk(first);
        // Bounded: by a chunk.
        chunk.iter().for_each(|first| to(&first.to_le_bytes()));
        chunk.len()
    }

    pub(super) fn add_chunk(&mut self, first: usize, end: u32, chunk: Vec<u32>) -> bool {
        self.firsts.add_chunk(first, end, chunk)
    }
}

/// The bucket that was split to make this one.
fn parent(child: u32) -> Option<u32> {
    Some(child - (1 << child.checked_ilog2()?))
}

/// The low bits of the mixed hash: tests have hashes with few bits.
#[allow(clippy::cast_possible_truncation)] // at most 32 bits
fn low_bits(hash: u64, count: u32) -> u32 {
    let mixed = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    (mixed & ((1 << count) - 1)) as u32
}
