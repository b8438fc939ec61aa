//! `Carried`: the saved positions of the log, which each of its segments repeats.
//!
//! So the segment in which the log ends has them all: an open finds them whatever else it leaves
//! out, and reclaim need not keep any. They are due when a segment begins, and are appended before
//! the first record that leaves room for them; what is repeated later in the log says the same of
//! the mutations before.

use super::format::BLOCK_BYTES;
use super::record::{Record, RecordLengths};
use super::saved_position::{SavedPosition, SavedPositions};
use crate::failpoint::{Failpoint, failpoint};

/// Beside the records and their entries in the directory: rows of its table of pages, and what is
/// missing to a whole block.
const BESIDE_BYTES: usize = 128 + BLOCK_BYTES;

#[derive(Default)]
pub(super) struct Carried {
    positions: SavedPositions,
    is_due: bool,
}

impl Carried {
    /// Those of a log that is opened, and those that the segment has in which it ends.
    pub(super) fn new(positions: SavedPositions, of_segment: &SavedPositions) -> Self {
        Self { is_due: positions != *of_segment, positions }
    }

    pub(super) fn is_due(&self) -> bool {
        self.is_due
    }

    pub(super) fn begin_segment(&mut self) {
        self.is_due = !self.positions.is_empty() && !failpoint(Failpoint::PositionNotCarried);
    }

    /// One was appended.
    pub(super) fn set(&mut self, position: SavedPosition<'_>) {
        self.positions.set(position);
    }

    /// The log begins anew, without a record.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Those that are due, once so many bytes are enough for them: then they are not due any more.
    pub(super) fn take_due(&mut self, room: usize) -> SavedPositions {
        let encoded = |position| Record::SavedPosition(position).lengths().ok();
        // An entry of the directory is no longer than its record.
        let both = |lengths: RecordLengths| 2 * lengths.padded();
        // Bounded: by the most there are.
        let bytes: usize = self.positions.iter().filter_map(encoded).map(both).sum();
        if !self.is_due || bytes + BESIDE_BYTES > room {
            return SavedPositions::default();
        }
        self.is_due = false;
        self.positions.clone()
    }
}
