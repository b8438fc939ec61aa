//! `LogOrigin`: where a log begins. `Phase`: whether it takes records. `Appended`,
//! `UnsealedDirectory`: what its state answers.

use std::sync::Arc;

use super::checksum::ChecksumKey;
use super::directory_builder::DirectoryBuilder;
use super::format::{Geometry, OpenCount, Position, SegmentNumber};
use super::saved_position::SavedPositions;
use super::search_targets::SegmentTargets;
use super::write_batch::{Assigned, Refusal, Seal};

pub(super) struct LogOrigin {
    pub(super) geometry: Geometry,
    pub(super) key: ChecksumKey,
    pub(super) open_count: OpenCount,
    /// Where the first frame goes.
    pub(super) tail: Position,
    /// The entries of the segment of `tail` so far.
    pub(super) directory: DirectoryBuilder,
    /// The newest segment that is prepared.
    pub(super) newest: SegmentNumber,
    pub(super) index_share: usize,
    /// The saved positions that were found.
    pub(super) positions: SavedPositions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    Closing,
    Closed,
    Off,
}

pub(super) struct Appended {
    pub(super) result: Result<Assigned, Refusal>,
    /// The writer has something to do, and may not know yet.
    pub(super) wakes_writer: bool,
}

/// The directory of a segment that is not sealed on file yet.
pub(super) enum UnsealedDirectory<T> {
    Sealing(Arc<Seal>),
    /// A part of it. None: it has nothing of the targets.
    Open(Option<(SegmentTargets, T)>),
}
