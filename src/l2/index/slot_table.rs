//! `SlotTable`: one table of the index, with some hundred slots in an array of buckets.
//!
//! # Contract
//! A map from key hash to [`Slot`], keyed by the full 64 bits. Not synchronised: the index keeps
//! each table behind its own lock; only [`SlotTable::mark_read`] changes anything through `&self`.
//! It grows and shrinks by itself and touches no other table.
//!
//! # Algorithm
//! Open addressing with buckets: linear probing over buckets of [`LANES`] slots, with the
//! deletion of Knuth, *The Art of Computer Programming* 3, section 6.4, algorithm R (the hole is
//! filled from further on, so there are no tombstones), and each bucket counts the entries
//! with their home there or earlier that lie beyond, as in Facebook's F14. A search ends
//! at the first bucket that nothing passed, so an absent hash costs about as much as a present
//! one, even at nine tenths full.
//!
//! The home bucket is the high half of the mixed hash scaled to the number of buckets, so that
//! number need not be a power of two, and the table can grow in small steps. The low bits of the
//! mixed hash have already chosen the table.
//!
//! While a log is replayed, a table *collects*: entries are only appended, bucket by bucket, in the
//! memory that they will take, and a hash may have several. [`SlotTable::settle`] then puts each
//! where it belongs (`slot_table/collecting.rs`).
//!
//! # Memory
//! Buckets come in equal chunks of 2 KiB, so a chunk that one table frees fits the next: tables
//! allocated in one piece of any size leave holes in the heap (with glibc a seventh of the whole).
//! Only tables of less than three chunks have a shorter one at the end, so that a small index stays
//! small. The pointers to the chunks lie in the table itself: elsewhere they would cost another
//! miss of cache and page table, a quarter of a lookup's time.
//!
//! Buckets are not aligned to cache lines: the gain is within the noise, while aligned allocations
//! of 2 KiB leave a fifth of the heap unused (glibc 2.36).
//!
//! # Invariants
//! Unless the table collects:
//! 1. A hash has at most one slot.
//! 2. All buckets from an entry's home up to the one before its own are full.
//! 3. `passed` of a bucket is the number of entries whose way from home goes beyond it; at 255
//!    it sticks (and may then be too high, never too low) until the table is rebuilt.
//! 4. `len <= most(buckets)`; without entries there are no buckets.
//! 5. All chunks except the last are whole.

mod collecting;

use smallvec::SmallVec;

use super::bucket::{Bucket, LANES};
use super::slot::Slot;
use crate::key::KeyHash;
use crate::l2::format::Position;

pub(crate) use self::collecting::{Settled, SpareChunks};

const _: () = assert!(size_of::<usize>() == 8, "the index counts in u64 and usize alike");

/// A key hash spread over all 64 bits, so that tiny or patterned hashes (tests have some) fill
/// tables and buckets evenly. A bijection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mixed(u64);

impl Mixed {
    pub(super) fn new(hash: KeyHash) -> Self {
        // Fold, multiply, fold: every input bit reaches both the low bits (which choose the
        // table) and the high ones (which choose the bucket).
        let folded = hash.0 ^ (hash.0 >> 32);
        let product = folded.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self(product ^ (product >> 32))
    }

    /// The low `count` bits.
    #[allow(clippy::cast_possible_truncation)] // usize has 64 bits, asserted above
    pub(super) fn low_bits(self, count: u32) -> usize {
        (self.0 & ((1 << count) - 1)) as usize
    }

    /// The high half, scaled to `0..buckets`.
    #[allow(clippy::cast_possible_truncation)] // less than `buckets`, and usize has 64 bits
    fn home(self, buckets: usize) -> usize {
        (((self.0 >> 32) * buckets as u64) >> 32) as usize
    }
}

/// Average entries of a table above which one is split. Tables then hold between half and twice
/// as many: few enough to be rebuilt in ten to twenty microseconds, enough that a table's 256
/// bytes of head count little.
pub(crate) const SHARE: usize = 512;

/// Buckets in a chunk: 2 KiB.
const CHUNK: usize = 16;
/// From this many buckets on, a table consists of whole chunks.
const WHOLE: usize = 3 * CHUNK;
/// Chunks whose pointers fit into the table: some 1200 entries. More go to the heap, for the one
/// table in many thousands that chance makes larger, or for an index out of tables.
const INLINE: usize = 12;

type Chunk = Box<[Bucket]>;

#[derive(Default)]
pub(super) struct SlotTable {
    /// The buckets in order; all chunks but the last have [`CHUNK`] of them.
    chunks: SmallVec<[Chunk; INLINE]>,
    buckets: usize,
    len: usize,
    /// The number of low bits of the mixed hash that all entries share. The index uses it (see
    /// there); the lock of the entries guards it, too.
    pub(super) depth: u32,
    /// Entries lie in no order, and all buckets before the last one in use are full.
    collects: bool,
}

impl SlotTable {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Slots that a scan passes, in use or not.
    pub(super) fn slots(&self) -> usize {
        self.buckets * LANES
    }

    /// Frees all entries and their memory.
    pub(super) fn clear(&mut self) {
        self.chunks = SmallVec::new();
        (self.buckets, self.len, self.collects) = (0, 0, false);
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let pointers = if self.chunks.spilled() { self.chunks.capacity() } else { 0 };
        self.buckets * size_of::<Bucket>() + pointers * size_of::<Chunk>()
    }

    pub(super) fn get(&self, hash: KeyHash, mixed: Mixed) -> Option<Slot> {
        let (bucket, lane) = self.find(hash, mixed)?;
        Some(self.bucket(bucket).slot(lane))
    }

    pub(super) fn insert(&mut self, hash: KeyHash, mixed: Mixed, slot: Slot) -> Option<Slot> {
        if let Some((bucket, lane)) = self.find(hash, mixed) {
            let old = self.bucket(bucket).slot(lane);
            self.bucket_mut(bucket).set(lane, hash, slot);
            return Some(old);
        }
        if self.len == Self::most(self.buckets) {
            self.rebuild(Self::fitting(self.len + 1));
        }
        self.add(hash, mixed, slot);
        None
    }

    /// Adds a hash if it is absent. Returns whether it was.
    pub(super) fn insert_new(&mut self, hash: KeyHash, mixed: Mixed, slot: Slot) -> bool {
        if self.find(hash, mixed).is_some() {
            return false;
        }
        if self.len == Self::most(self.buckets) {
            // Many more are to come, up to the share of a table. A third more is within a slot's
            // budget.
            let more = (self.len / 3).min(SHARE.saturating_sub(self.len));
            self.rebuild(Self::fitting(self.len + more.max(1)));
        }
        self.add(hash, mixed, slot);
        true
    }

    /// Appends an entry to a table that collects.
    fn append(&mut self, hash: KeyHash, slot: Slot) {
        let at = self.len / LANES;
        if at == self.buckets {
            self.lengthen();
        }
        self.bucket_mut(at).push(hash, slot);
        self.len += 1;
    }

    /// Adds buckets: as many as there are, up to a chunk.
    fn lengthen(&mut self) {
        let last = self.buckets % CHUNK;
        if last == 0 && self.buckets > 0 {
            self.chunks.push(new_chunk(CHUNK));
            self.buckets += CHUNK;
            return;
        }
        let longer = (2 * last).clamp(1, CHUNK);
        let chunk = self.chunks.pop().map(Vec::from).unwrap_or_default();
        let more = (chunk.len()..longer).map(|_| Bucket::new());
        // Bounded: by a chunk of a table.
        self.chunks.push(chunk.into_iter().chain(more).collect());
        self.buckets += longer - last;
    }

    /// Loads the bucket in which a hash belongs.
    pub(super) fn prefetch(&self, mixed: Mixed) {
        if self.buckets > 0 {
            self.bucket(mixed.home(self.buckets)).prefetch();
        }
    }

    pub(super) fn replace_if(
        &mut self,
        hash: KeyHash,
        mixed: Mixed,
        position: Position,
        slot: Slot,
    ) -> bool {
        let Some((bucket, lane)) = self.find_at(hash, mixed, position) else {
            return false;
        };
        self.bucket_mut(bucket).set(lane, hash, slot);
        true
    }

    pub(super) fn remove_if(&mut self, hash: KeyHash, mixed: Mixed, position: Position) -> bool {
        let Some((bucket, lane)) = self.find_at(hash, mixed, position) else {
            return false;
        };
        let home = mixed.home(self.buckets);
        self.bucket_mut(bucket).take(lane);
        self.len -= 1;
        self.uncount_way(home, bucket);
        self.fill_hole(bucket);
        // The margin prevents repeated rebuilds of a table that only fluctuates.
        let fitting = Self::fitting(self.len + self.len / 16);
        if fitting < self.buckets {
            self.rebuild(fitting);
        }
        true
    }

    pub(super) fn mark_read(&self, hash: KeyHash, mixed: Mixed, position: Position) -> bool {
        let Some((bucket, lane)) = self.find_at(hash, mixed, position) else {
            return false;
        };
        self.bucket(bucket).mark_read(lane)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (KeyHash, Slot)> + '_ {
        self.chunks.iter().flatten().flat_map(Bucket::iter)
    }

    /// Deepens the table by one bit and returns the entries that have it set, as a new table.
    pub(super) fn split(&mut self) -> SlotTable {
        let bit = self.depth;
        let leaves = |mixed: Mixed| mixed.low_bits(bit + 1) >> bit == 1;
        let leaving = self.iter().filter(|&(hash, _)| leaves(Mixed::new(hash))).count();
        let mut parent = SlotTable::with_buckets(Self::fitting(self.len - leaving), bit + 1);
        let mut child = SlotTable::with_buckets(Self::fitting(leaving), bit + 1);
        (parent.collects, child.collects) = (self.collects, self.collects);
        // Bounded: by the entries of one table.
        for (hash, slot) in self.iter() {
            let mixed = Mixed::new(hash);
            let table = if leaves(mixed) { &mut child } else { &mut parent };
            if self.collects {
                table.append(hash, slot);
            } else {
                table.add(hash, mixed, slot);
            }
        }
        *self = parent;
        child
    }

    /// The most entries for so many buckets: eleven twelfths of the slots. Beyond that, searches
    /// quickly get long. A single bucket may be full.
    const fn most(buckets: usize) -> usize {
        buckets * LANES - buckets * LANES / 12
    }

    /// The buckets that a table of `len` entries is built with. A small one is filled to 0.84,
    /// so that it grows by a ninth; from [`WHOLE`] on it has as few chunks as fit.
    const fn fitting(len: usize) -> usize {
        let roomy = (len * 100).div_ceil(LANES * 84);
        if roomy < WHOLE {
            return roomy;
        }
        (len * 12).div_ceil(LANES * 11).next_multiple_of(CHUNK)
    }

    /// An empty table for so many entries.
    pub(super) fn with_room(len: usize, depth: u32) -> Self {
        Self::with_buckets(Self::fitting(len), depth)
    }

    fn with_buckets(buckets: usize, depth: u32) -> Self {
        let sizes = (0..buckets).step_by(CHUNK).map(|start| CHUNK.min(buckets - start));
        // Bounded: by the buckets of one table.
        let chunks = sizes.map(new_chunk).collect();
        Self { chunks, buckets, len: 0, depth, collects: false }
    }

    fn rebuild(&mut self, buckets: usize) {
        let mut table = SlotTable::with_buckets(buckets, self.depth);
        // Loops rather than iterators: they take half the time.
        // Bounded: by the entries of one table.
        for chunk in &self.chunks {
            // Bounded: by a chunk.
            for bucket in chunk {
                // Bounded: by a bucket.
                for lane in bucket.lanes() {
                    let hash = bucket.hash(lane);
                    table.add(hash, Mixed::new(hash), bucket.slot(lane));
                }
            }
        }
        *self = table;
    }

    /// Adds a hash that is known to be absent, where there is known to be room.
    #[inline]
    pub(super) fn add(&mut self, hash: KeyHash, mixed: Mixed, slot: Slot) {
        debug_assert!(self.len < Self::most(self.buckets), "no room");
        let mut at = mixed.home(self.buckets);
        // Bounded: by the buckets of one table.
        while self.bucket(at).is_full() {
            self.bucket_mut(at).count_passing();
            at = self.after(at);
        }
        self.bucket_mut(at).push(hash, slot);
        self.len += 1;
    }

    fn find(&self, hash: KeyHash, mixed: Mixed) -> Option<(usize, usize)> {
        let mut at = mixed.home(self.buckets);
        // Counts that stick may never end the search.
        // Bounded: by the buckets of one table.
        for _ in 0..self.buckets {
            let bucket = self.bucket(at);
            if let Some(lane) = bucket.find(hash) {
                return Some((at, lane));
            }
            if bucket.nothing_passed() {
                return None;
            }
            at = self.after(at);
        }
        None
    }

    fn find_at(&self, hash: KeyHash, mixed: Mixed, position: Position) -> Option<(usize, usize)> {
        let (bucket, lane) = self.find(hash, mixed)?;
        (self.bucket(bucket).position(lane) == position).then_some((bucket, lane))
    }

    /// Restores invariant 2 after a slot of bucket `hole` became free: as long as an entry
    /// further on passed the bucket with the hole, it moves there and leaves the next hole.
    fn fill_hole(&mut self, mut hole: usize) {
        // Bounded: by the buckets of one table.
        while !self.bucket(hole).nothing_passed() {
            let Some((from, lane)) = self.find_passer(hole) else {
                return;
            };
            let (hash, slot) = self.bucket_mut(from).take(lane);
            self.bucket_mut(hole).push(hash, slot);
            self.uncount_way(hole, from);
            hole = from;
        }
    }

    /// The nearest entry that lies behind bucket `over` and passed it on its way from home.
    fn find_passer(&self, over: usize) -> Option<(usize, usize)> {
        let mut at = over;
        // Bounded: by the buckets of one table.
        for distance in 1..self.buckets {
            // The way from `over` to a passer is passed by that passer itself.
            if self.bucket(at).nothing_passed() {
                return None;
            }
            at = self.after(at);
            let bucket = self.bucket(at);
            let passed = |&lane: &usize| self.way(bucket.hash(lane), at) >= distance;
            if let Some(lane) = bucket.lanes().find(passed) {
                return Some((at, lane));
            }
        }
        None
    }

    /// How many buckets an entry that lies in bucket `at` has passed.
    fn way(&self, hash: KeyHash, at: usize) -> usize {
        let home = Mixed::new(hash).home(self.buckets);
        if at >= home { at - home } else { at + self.buckets - home }
    }

    /// An entry no longer passes the buckets from `start` up to the one before `end`.
    fn uncount_way(&mut self, start: usize, end: usize) {
        let mut at = start;
        // Bounded: by the buckets of one table.
        while at != end {
            self.bucket_mut(at).uncount_passing();
            at = self.after(at);
        }
    }

    fn bucket(&self, at: usize) -> &Bucket {
        &self.chunks[at / CHUNK][at % CHUNK]
    }

    fn bucket_mut(&mut self, at: usize) -> &mut Bucket {
        &mut self.chunks[at / CHUNK][at % CHUNK]
    }

    fn after(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets { 0 } else { bucket + 1 }
    }
}

fn new_chunk(buckets: usize) -> Chunk {
    // Bounded: by a chunk of a table.
    (0..buckets).map(|_| Bucket::new()).collect()
}

#[cfg(test)]
impl SlotTable {
    pub(super) fn check(&self) {
        assert!(!self.collects);
        let mut seen = std::collections::HashSet::new();
        let mut passing = vec![0_usize; self.buckets];
        for at in 0..self.buckets {
            for (hash, _) in self.bucket(at).iter() {
                assert!(seen.insert(hash), "{hash:?} is there twice");
                let mut passed = Mixed::new(hash).home(self.buckets);
                while passed != at {
                    assert!(self.bucket(passed).is_full(), "{hash:?} passed a free slot");
                    passing[passed] += 1;
                    passed = self.after(passed);
                }
            }
        }
        for (at, &passing) in passing.iter().enumerate() {
            let counted = self.bucket(at).passed();
            let sticks = counted == u8::MAX && passing <= self.len;
            assert!(usize::from(counted) == passing || sticks, "{counted} for {passing}");
        }
        assert_eq!(seen.len(), self.len);
        assert!(self.len <= Self::most(self.buckets));
        assert!(self.len > 0 || self.buckets == 0);
        let sizes: Vec<usize> = self.chunks.iter().map(|chunk| chunk.len()).collect();
        assert_eq!(sizes.iter().sum::<usize>(), self.buckets);
        assert!(sizes.iter().rev().skip(1).all(|&size| size == CHUNK));
    }

    /// How many buckets all entries together, and the unluckiest one, have passed.
    pub(super) fn ways(&self) -> (usize, usize) {
        (0..self.buckets)
            .flat_map(|at| self.bucket(at).iter().map(move |(hash, _)| self.way(hash, at)))
            .fold((0, 0), |(sum, most), way| (sum + way, most.max(way)))
    }
}
