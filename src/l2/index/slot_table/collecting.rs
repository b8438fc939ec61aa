//! A table that collects: entries in no order, until all are put where they belong at once, while
//! the table lies in the processor's cache.

use std::mem;

use super::{CHUNK, Chunk, INLINE, Mixed, SHARE, Slot, SlotTable, WHOLE, new_chunk};
use crate::key::KeyHash;
use crate::l2::format::Position;
use crate::l2::index::bucket::{Bucket, LANES};

/// With so many entries a table is settled at once. Different hashes fill tables evenly, up to
/// twice their share and a little; so by far most of the entries are shadowed.
const COLLECTED_MAX: usize = 4 * SHARE;

/// What the entries of settled tables are.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    pub(crate) slots: usize,
    pub(crate) live: usize,
    /// Blocks of live records beyond their first ones.
    pub(crate) further_blocks: u64,
    /// Records shadowed by newer ones.
    pub(crate) shadowed: Vec<Position>,
}

/// Chunks of a table that was settled, for the next one: memory changes hands, and none is freed.
#[derive(Default)]
pub(crate) struct SpareChunks(Vec<Chunk>);

impl SlotTable {
    /// Appends an entry; its hash may have others. Adds to `shadowed` those that this drops: no
    /// table gets large, however often few keys were overwritten.
    pub(in crate::l2::index) fn collect(
        &mut self,
        hash: KeyHash,
        slot: Slot,
        shadowed: &mut Vec<Position>,
    ) {
        if self.collects && self.len >= COLLECTED_MAX {
            let mut settled = Settled::default();
            self.settle(&mut SpareChunks::default(), &mut settled);
            shadowed.append(&mut settled.shadowed);
        }
        if !self.collects {
            self.begin_to_collect();
        }
        self.append(hash, slot);
    }

    /// Loads the bucket to which the next entry is appended.
    pub(in crate::l2::index) fn prefetch_end(&self) {
        let at = self.len / LANES;
        if at < self.buckets {
            self.bucket(at).prefetch();
        }
    }

    /// Ends collecting: of each hash the newest entry stays.
    pub(in crate::l2::index) fn settle(&mut self, spare: &mut SpareChunks, settled: &mut Settled) {
        if !self.collects {
            // Bounded: by the entries of one table.
            self.iter().for_each(|(_, slot)| settled.add(slot));
            return;
        }
        let (depth, fitting) = (self.depth, Self::fitting(self.len));
        let collected = mem::replace(self, spare.table(fitting, depth));
        // Bounded: by the entries of one table.
        for bucket in collected.chunks.iter().flatten() {
            // Bounded: by a bucket.
            for lane in bucket.lanes() {
                self.insert_newest(bucket.hash(lane), bucket.slot(lane), settled);
            }
        }
        spare.keep(collected);
        let fitting = Self::fitting(self.len + self.len / 16);
        if fitting < self.buckets {
            self.rebuild(fitting);
        }
    }

    /// Adds an entry unless there is a newer one of its hash.
    fn insert_newest(&mut self, hash: KeyHash, slot: Slot, settled: &mut Settled) {
        let mixed = Mixed::new(hash);
        let Some((bucket, lane)) = self.find(hash, mixed) else {
            settled.add(slot);
            return self.add(hash, mixed, slot);
        };
        let other = self.bucket(bucket).slot(lane);
        let is_newer = slot.position > other.position;
        settled.shadowed.push(if is_newer { other.position } else { slot.position });
        if is_newer {
            settled.remove(other);
            settled.add(slot);
            self.bucket_mut(bucket).set(lane, hash, slot);
        }
    }

    fn begin_to_collect(&mut self) {
        let mut collecting = Self::with_buckets(self.len.div_ceil(LANES), self.depth);
        collecting.collects = true;
        // Bounded: by the entries of one table.
        self.iter().for_each(|(hash, slot)| collecting.append(hash, slot));
        *self = collecting;
    }
}

impl Settled {
    fn add(&mut self, slot: Slot) {
        self.slots += 1;
        self.live += usize::from(!slot.dead);
        self.further_blocks += slot.further_blocks();
    }

    fn remove(&mut self, slot: Slot) {
        self.slots -= 1;
        self.live -= usize::from(!slot.dead);
        self.further_blocks -= slot.further_blocks();
    }
}

impl SpareChunks {
    /// An empty table.
    fn table(&mut self, buckets: usize, depth: u32) -> SlotTable {
        if buckets < WHOLE {
            return SlotTable::with_buckets(buckets, depth);
        }
        let mut table = SlotTable::with_buckets(0, depth);
        table.buckets = buckets;
        // Bounded: by the chunks of one table.
        for _ in 0..buckets / CHUNK {
            table.chunks.push(match self.0.pop() {
                Some(mut chunk) => {
                    // Bounded: by a chunk.
                    chunk.iter_mut().for_each(Bucket::clear);
                    chunk
                }
                None => new_chunk(CHUNK),
            });
        }
        table
    }

    fn keep(&mut self, table: SlotTable) {
        // Bounded: by the chunks of one table.
        let whole = table.chunks.into_iter().filter(|chunk| chunk.len() == CHUNK);
        // Bounded: by the chunks of one table.
        self.0.extend(whole.take(INLINE.saturating_sub(self.0.len())));
    }
}
