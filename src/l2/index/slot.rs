//! `Slot`: the index entry of one key hash, and its packing into ten bytes.
//!
//! Positions are multiples of eight and end below 2^61, so the three low bits of the stored word
//! carry flags, and the three highest ones, too. The whole word changes at once, so `mark_read` can
//! set a bit with one atomic `or` beside readers.

use crate::l2::format::{POSITION_MAX, Position};

const VERSIONED: u64 = 0b001;
const DEAD: u64 = 0b010;
pub(super) const READ: u64 = 0b100;
const SHORTENED: u64 = 1 << 61;
const EXPIRED: u64 = 1 << 62;
/// Set after `READ`.
pub(super) const READ_AGAIN: u64 = 1 << 63;
const FLAGS: u64 = VERSIONED | DEAD | READ | SHORTENED | EXPIRED | READ_AGAIN;

const _: () = assert!(POSITION_MAX < SHORTENED);

/// More reads than that count as so many.
pub(crate) const READS_MAX: u8 = 2;

/// The position of the last record of a key hash, and the facts needed before a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Offset and order of the record in the log.
    pub(crate) position: Position,
    /// The number of 4096-byte blocks that a read of the record fetches. Zero for a tombstone.
    pub(crate) blocks: u16,
    /// The record has a version, which is stored in its head.
    pub(crate) versioned: bool,
    /// There is no value (tombstone, expired, unreadable), but the slot must stay: it shadows older
    /// records of its hash.
    pub(crate) dead: bool,
    /// Stale before its time. If nothing says since when, it is gone.
    pub(crate) expired: bool,
    /// A touch has made a deadline of its record earlier. If nothing says which, it is gone.
    pub(crate) shortened: bool,
    /// How often the record was read since it was written, up to [`READS_MAX`]: reclaim reinserts
    /// it that many times.
    pub(crate) reads: u8,
}

impl Slot {
    pub(crate) const fn new(position: Position, blocks: u16) -> Self {
        Self {
            position,
            blocks,
            versioned: false,
            dead: false,
            expired: false,
            shortened: false,
            reads: 0,
        }
    }

    pub(crate) const fn tombstone(position: Position) -> Self {
        Self { dead: true, ..Self::new(position, 0) }
    }

    /// Whether its record is a tombstone, which shadows older records in later opens, too.
    pub(crate) const fn is_tombstone(self) -> bool {
        self.dead && self.blocks == 0
    }

    /// The blocks of its record beyond the first one; zero if it is dead.
    pub(crate) fn further_blocks(self) -> u64 {
        if self.dead { 0 } else { u64::from(self.blocks).saturating_sub(1) }
    }

    pub(in crate::l2) fn to_word(self) -> u64 {
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        self.position.value()
            | flag(self.versioned, VERSIONED)
            | flag(self.dead, DEAD)
            | flag(self.expired, EXPIRED)
            | flag(self.shortened, SHORTENED)
            | flag(self.reads > 0, READ)
            | flag(self.reads > 1, READ_AGAIN)
    }

    pub(super) fn from_word(word: u64, blocks: u16) -> Self {
        Self {
            position: position_of(word),
            blocks,
            versioned: word & VERSIONED != 0,
            dead: word & DEAD != 0,
            expired: word & EXPIRED != 0,
            shortened: word & SHORTENED != 0,
            reads: u8::from(word & READ != 0) + u8::from(word & READ_AGAIN != 0),
        }
    }
}

pub(super) fn position_of(word: u64) -> Position {
    Position::from_multiple(word & !FLAGS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_flags_survives_packing() {
        let lows = (0..8).flat_map(|low| [low, low | READ_AGAIN]);
        let marked = lows.flat_map(|bits| [bits, bits | EXPIRED]);
        for bits in marked.flat_map(|bits| [bits, bits | SHORTENED]) {
            let word = POSITION_MAX | bits;
            let slot = Slot::from_word(word, 9);
            assert_eq!(slot.position, Position::LAST);
            assert_eq!(slot.blocks, 9);
            if bits & (READ | READ_AGAIN) != READ_AGAIN {
                assert_eq!(slot.to_word(), word);
            }
        }
    }
}
