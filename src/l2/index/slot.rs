//! What the index knows of one key hash, and how it is packed into ten bytes.
//!
//! Positions are multiples of eight, so the three low bits of the stored word are free and carry
//! the flags. The whole word changes at once, which is what lets `mark_read` set its bit with one
//! atomic `or` while other readers look.

use crate::l2::format::Position;

const VERSIONED: u64 = 0b001;
const DEAD: u64 = 0b010;
pub(super) const READ: u64 = 0b100;
const FLAGS: u64 = VERSIONED | DEAD | READ;

/// Where the last record of a key hash lies, and what must be known before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Place and order of the record in the log.
    pub(crate) position: Position,
    /// Count of 4096-byte blocks that the record's bytes touch: what a read has to fetch. Zero for
    /// a tombstone. The index gives no value a meaning.
    pub(crate) blocks: u16,
    /// The record carries a CAS version (kept in its header, not here).
    pub(crate) versioned: bool,
    /// There is no value (tombstone, expired, unreadable), but the slot still shadows older
    /// records of its hash and so must stay.
    pub(crate) dead: bool,
    /// Read since it was written: earns the record its second chance at reclaim.
    pub(crate) read: bool,
}

impl Slot {
    /// A slot with no flag set.
    pub(crate) const fn new(position: Position, blocks: u16) -> Self {
        Self { position, blocks, versioned: false, dead: false, read: false }
    }

    /// The slot of a tombstone.
    pub(crate) const fn tombstone(position: Position) -> Self {
        Self { dead: true, ..Self::new(position, 0) }
    }

    /// Whether its record is a tombstone, which shadows whatever is older, for every other open as
    /// well.
    pub(crate) const fn is_tombstone(self) -> bool {
        self.dead && self.blocks == 0
    }

    /// The position with the flags in its low bits.
    pub(super) fn to_word(self) -> u64 {
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        self.position.value()
            | flag(self.versioned, VERSIONED)
            | flag(self.dead, DEAD)
            | flag(self.read, READ)
    }

    pub(super) fn from_word(word: u64, blocks: u16) -> Self {
        Self {
            position: position_of(word),
            blocks,
            versioned: word & VERSIONED != 0,
            dead: word & DEAD != 0,
            read: word & READ != 0,
        }
    }
}

/// The position of a stored word, its flags masked off.
pub(super) fn position_of(word: u64) -> Position {
    Position::from_multiple(word & !FLAGS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_flags_survives_packing() {
        for bits in 0..8 {
            let word = 0xFFFF_FFFF_FFFF_FFF8 | bits;
            let slot = Slot::from_word(word, 9);
            assert_eq!(slot.position, Position::from_multiple(!7));
            assert_eq!(slot.to_word(), word);
            assert_eq!(slot.blocks, 9);
        }
    }
}
