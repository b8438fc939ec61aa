//! Targets that try to break the decoders of the format with any bytes. A target panics on a fault,
//! and on nothing else.
//!
//! The first byte of an input says whether its checksums are set right before it is decoded: what
//! lies behind a checksum must hold without it.

mod directory;
mod frame;
mod record;
mod superblock;

use std::sync::Arc;

use parking_lot::Mutex;

pub(crate) use self::directory::directory;
pub(crate) use self::frame::frame;
pub(crate) use self::record::record;
pub(crate) use self::superblock::superblock;
use super::checksum::ChecksumKey;
use super::format::{
    BLOCK_BYTES, Geometry, OpenCount, OpenRange, Position, SegmentNumber, StoreId,
};
use super::health::Health;
pub(crate) use super::image::fuzz::image;
use super::places::Places;
use super::segment_file::SegmentFile;
use super::superblock::{CrashSafety, SuperblockCopy};
use crate::io::SimulatedDisk;

/// In the first byte of an input: the checksums are set right.
pub(in crate::l2) const SEALED: u8 = 1;

/// The same for the checksums of bodies.
pub(in crate::l2) const BODIES_SEALED: u8 = 2;

pub(in crate::l2) const STORE: StoreId = StoreId([7; 16]);
pub(in crate::l2) const OPEN: OpenCount = OpenCount(3);
pub(in crate::l2) const OPENS: OpenRange = OpenRange { first: OpenCount(2), last: OpenCount(4) };

/// The segment that everything belongs to.
pub(in crate::l2) const SEGMENT: SegmentNumber = SegmentNumber(1);

pub(in crate::l2) fn key() -> ChecksumKey {
    ChecksumKey::new(STORE)
}

/// The smallest store.
pub(in crate::l2) fn geometry() -> Geometry {
    Geometry::new(16 << 10, 2).expect("the least of both")
}

/// Where the frames of the segment begin.
pub(in crate::l2) fn frames_at() -> u64 {
    let places = Places::in_turn(geometry(), SEGMENT);
    places.offset(SEGMENT).expect("it has a place") + BLOCK_BYTES as u64
}

/// A place in the segment.
pub(in crate::l2) fn position(offset: usize) -> Position {
    let start = geometry().start_of(SEGMENT).expect("the second segment");
    start.after(offset as u64).expect("a multiple of 8")
}

/// A store on a disk of its own, with some bytes at an offset.
pub(in crate::l2) fn file_with(offset: u64, bytes: &[u8], length: u64) -> SegmentFile {
    let disk = SimulatedDisk::new(0, length);
    disk.overwrite(offset, bytes);
    SegmentFile {
        disk: Arc::new(disk),
        geometry: geometry(),
        places: Arc::new(Places::in_turn(geometry(), SEGMENT)),
        key: key(),
        health: Arc::new(Health::default()),
        crash_safety: CrashSafety::Process,
        next_copy: Arc::new(Mutex::new(SuperblockCopy::First)),
    }
}
