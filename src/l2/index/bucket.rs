//! `Bucket`: seven slots in the space of two cache lines.
//!
//! # Contract
//! Holds up to [`LANES`] key hashes with their slots, and two counts. The table decides which
//! hash belongs here. A lane is read and written only while it is in use.
//!
//! # Layout
//! Seven times 18 bytes (hash, position with flags, blocks) and two bytes of counts are 128. The
//! first half has the hashes and the counts, which decide a search, and three of the block counts
//! to fill it; only a hit needs the second. A bucket may start anywhere in a cache line (see
//! `slot_table` for why).
//!
//! # Invariants
//! Lanes below `count` are in use, in no order; the contents of the others have no meaning.

use std::sync::atomic::{AtomicU64, Ordering};

use super::slot::{READ, READ_AGAIN, Slot, position_of};
use crate::key::KeyHash;
use crate::l2::format::Position;

/// Slots in a bucket: as many as two cache lines hold.
pub(super) const LANES: usize = 7;
/// Slots whose block count lies in the bucket's first half, filling what the counts leave.
const FRONT: usize = 3;

const _: () = assert!(size_of::<Bucket>() == 128);

#[repr(C)]
pub(super) struct Bucket {
    hashes: [u64; LANES],
    count: u8,
    /// Entries with their home here or earlier that lie beyond. Sticks at its maximum, because
    /// later counts are lost.
    passed: u8,
    blocks_front: [u16; FRONT],
    /// Positions with flags (see `slot`). Atomic for the read bits alone: they are set under the
    /// shared lock, everything else changes under the exclusive one.
    words: [AtomicU64; LANES],
    blocks_back: [u16; LANES - FRONT],
}

impl Bucket {
    pub(super) fn new() -> Self {
        Self {
            hashes: [0; LANES],
            count: 0,
            passed: 0,
            blocks_front: [0; FRONT],
            words: [const { AtomicU64::new(0) }; LANES],
            blocks_back: [0; LANES - FRONT],
        }
    }

    pub(super) fn is_full(&self) -> bool {
        usize::from(self.count) == LANES
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (KeyHash, Slot)> + '_ {
        self.lanes().map(|lane| (self.hash(lane), self.slot(lane)))
    }

    pub(super) fn lanes(&self) -> std::ops::Range<usize> {
        0..usize::from(self.count)
    }

    pub(super) fn find(&self, hash: KeyHash) -> Option<usize> {
        // Branches on purpose: the processor predicts a lane and fetches the second half while the
        // first is still being fetched. Lanes in use come first, so a stale match in an unused lane
        // never hides a live one.
        // Bounded: by the lanes of a bucket.
        let lane = self.hashes.iter().position(|&other| other == hash.0)?;
        (lane < usize::from(self.count)).then_some(lane)
    }

    /// Loads all lines of the processor's cache in which it lies: up to three.
    #[inline]
    pub(super) fn prefetch(&self) {
        let last = self.words[LANES - 1].load(Ordering::Relaxed);
        std::hint::black_box((self.hashes[0], self.count, last));
    }

    pub(super) fn hash(&self, lane: usize) -> KeyHash {
        KeyHash(self.hashes[lane])
    }

    pub(super) fn position(&self, lane: usize) -> Position {
        // Relaxed, here and below: the word stands alone and orders no other access.
        position_of(self.words[lane].load(Ordering::Relaxed))
    }

    pub(super) fn slot(&self, lane: usize) -> Slot {
        let blocks = match lane.checked_sub(FRONT) {
            None => self.blocks_front[lane],
            Some(back) => self.blocks_back[back],
        };
        Slot::from_word(self.words[lane].load(Ordering::Relaxed), blocks)
    }

    pub(super) fn set(&mut self, lane: usize, hash: KeyHash, slot: Slot) {
        self.hashes[lane] = hash.0;
        *self.words[lane].get_mut() = slot.to_word();
        match lane.checked_sub(FRONT) {
            None => self.blocks_front[lane] = slot.blocks,
            Some(back) => self.blocks_back[back] = slot.blocks,
        }
    }

    pub(super) fn mark_read(&self, lane: usize) -> bool {
        let word = &self.words[lane];
        // Stored only if clear: set bits cost readers no exclusive cache line.
        let marks = word.load(Ordering::Relaxed) & (READ | READ_AGAIN);
        if marks == READ | READ_AGAIN {
            return true;
        }
        if marks == 0 && word.fetch_or(READ, Ordering::Relaxed) & READ == 0 {
            return false;
        }
        word.fetch_or(READ_AGAIN, Ordering::Relaxed);
        true
    }

    pub(super) fn push(&mut self, hash: KeyHash, slot: Slot) {
        let lane = usize::from(self.count);
        self.count += 1;
        self.set(lane, hash, slot);
    }

    /// Removes all slots.
    pub(super) fn clear(&mut self) {
        (self.count, self.passed) = (0, 0);
    }

    /// Removes a slot; the last one moves into its lane.
    pub(super) fn take(&mut self, lane: usize) -> (KeyHash, Slot) {
        let removed = (self.hash(lane), self.slot(lane));
        let last = usize::from(self.count) - 1;
        if lane != last {
            self.set(lane, self.hash(last), self.slot(last));
        }
        self.count -= 1;
        removed
    }

    /// Whether no entry passed this bucket.
    pub(super) fn nothing_passed(&self) -> bool {
        self.passed == 0
    }

    pub(super) fn count_passing(&mut self) {
        self.passed = self.passed.saturating_add(1);
    }

    pub(super) fn uncount_passing(&mut self) {
        if self.passed < u8::MAX {
            self.passed -= 1;
        }
    }

    #[cfg(test)]
    pub(super) fn passed(&self) -> u8 {
        self.passed
    }
}
