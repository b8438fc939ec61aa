//! Changes the size of a store's file: at an open, while nothing else uses it, or step by step
//! (`segment_supply`).
//!
//! Longer: the space is reserved and reads as zeroes, then a superblock names it. Shorter: the head
//! is moved until the rest fits, on file. Kept segments behind the new end are copied to free
//! places before it; their headers come last, when the bodies are durable. A superblock names the
//! new size, and only then the file is cut. So whatever was done when a process or the machine
//! ends, the store can be opened, with the old size or the new one: a copy without its header is
//! nothing, and one with it has the same contents.
//!
//! Of a segment that is not sealed only that is copied which is written. What lies behind it, at
//! either place, is left of others, as in any segment that has just begun.

use std::io;
use std::ops::Range;

use futures::{TryStreamExt, stream};

use super::format::{BLOCK_BYTES, Geometry, OpenCount, Position, SegmentNumber};
use super::places::{Move, Places};
use super::recovery_error::RecoveryError;
use super::segment::SegmentHeader;
use super::segment_file::SegmentFile;
use super::superblock::Superblock;
use crate::failpoint::{Failpoint, failpoint};
use crate::io::{AlignedBuffer, ReadRequest};

/// Copied at once of one segment.
pub(super) const PIECE_BYTES: usize = if cfg!(test) { 8 << 10 } else { 1 << 20 };

/// The file becomes shorter by so much at once.
const CUT_BYTES: u64 = if cfg!(test) { 64 << 10 } else { 64 << 20 };

/// Segments that are copied at once.
const COPIES: usize = 4;

const TRIES: usize = 3;

/// What is on file of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    /// From its beginning on, in whole blocks.
    pub(super) bytes: usize,
    pub(super) is_sealed: bool,
}

impl Written {
    /// If everything before `end` is on file.
    pub(super) fn of(segment: SegmentNumber, geometry: Geometry, end: Position) -> Self {
        let (last, offset) = (geometry.segment_of(end), geometry.offset_in_segment(end) as usize);
        let is_sealed = segment < last;
        let bytes = match is_sealed {
            true => geometry.segment_bytes() as usize,
            false if segment == last => offset.next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES),
            false => BLOCK_BYTES,
        };
        Self { bytes, is_sealed }
    }
}

/// Makes the file longer, for a geometry that no superblock names yet.
///
/// # Errors
/// `Grow` if there is no room, or the operating system refuses that length. Then the segments are
/// as they were; an image behind them may be lost.
pub(super) async fn grow(
    file: &SegmentFile,
    from: Geometry,
    to: Geometry,
) -> Result<(), RecoveryError> {
    let (present, needed) = (file.disk.length(), to.file_bytes());
    let refused = |source| RecoveryError::Grow { needed: needed.saturating_sub(present), source };
    if present < needed {
        // With the image of the index still there, which stays if there is no room.
        file.disk.resize(needed).await.map_err(refused)?;
    }
    if present > from.file_bytes() {
        // What lies behind the segments may be left of others.
        file.disk.resize(from.file_bytes()).await.map_err(refused)?;
        file.disk.resize(needed).await.map_err(refused)?;
    }
    file.sync().await?;
    Ok(())
}

/// Cuts off what lies behind the segments, in pieces: writes wait while the file system frees
/// blocks.
pub(super) async fn cut(file: &SegmentFile) -> io::Result<()> {
    let end = file.places.file_bytes();
    // Bounded: a piece in each turn.
    while let length @ 1.. = file.disk.length().saturating_sub(end) {
        file.disk.resize(end + length.saturating_sub(CUT_BYTES)).await?;
    }
    Ok(())
}

/// Has all segments from `head` on, in a log that ends at `end`, lie before the end of a smaller
/// geometry, where they have room. The superblock that is on file afterwards has the old geometry
/// and the new head. Returns the places that they have then.
pub(super) async fn gather(
    file: &SegmentFile,
    superblock: &mut Superblock,
    to: Geometry,
    (head, end): (Position, Position),
) -> io::Result<Places> {
    superblock.head = superblock.head.max(head);
    superblock.clean &= superblock.head <= superblock.tail;
    superblock.write_counter += 1;
    if failpoint(Failpoint::ShrunkBeforeMoved) {
        superblock.geometry = to;
    }
    file.write_superblock(superblock).await?;
    file.places.release_before(superblock.geometry.segment_of(head));
    let moves = file.places.moves(to.segment_count())?;
    copy(file, &moves, (superblock, end)).await?;
    Ok(file.places.fitted(to, &moves))
}

/// Copies segments to their new places, durably.
async fn copy(
    file: &SegmentFile,
    moves: &[Move],
    (superblock, end): (&Superblock, Position),
) -> io::Result<()> {
    if moves.is_empty() {
        return Ok(());
    }
    // Bounded: by the segments, once at open.
    let copies = stream::iter(moves.iter().cloned().map(Ok::<_, io::Error>));
    copies
        .try_for_each_concurrent(COPIES, |moved| async move {
            let Written { bytes, is_sealed } = Written::of(moved.segment, file.geometry, end);
            copy_body(file, &moved, first_copied()..bytes, is_sealed).await
        })
        .await?;
    file.sync().await?;
    // Bounded: a write in each turn.
    for moved in moves {
        write_header(file, moved, superblock).await?;
    }
    file.sync().await
}

/// Where the copy of a segment begins: behind its header, which comes last.
pub(super) fn first_copied() -> usize {
    if failpoint(Failpoint::HeaderMovedFirst) { 0 } else { BLOCK_BYTES }
}

/// Copies a part of a segment, in whole blocks. What cannot be read of a sealed one becomes damage.
/// A bit that flips on the way must not: at the end of the log it would pass for a tear, and undo
/// what was acknowledged.
pub(super) async fn copy_body(
    file: &SegmentFile,
    moved: &Move,
    part: Range<usize>,
    is_sealed: bool,
) -> io::Result<()> {
    // Bounded: a piece in each turn.
    for start in part.clone().step_by(PIECE_BYTES) {
        let length = PIECE_BYTES.min(part.end - start);
        let _counted = file.health.count_buffer(2 * length);
        let piece = match file.read_certain(moved.from + start as u64, length).await {
            Err(_) if is_sealed => read_by_blocks(file, moved.from + start as u64, length).await,
            read => read?,
        };
        write(file, moved.to + start as u64, piece).await?;
    }
    Ok(())
}

/// The copy of a segment counts from now on. Its header is the same, unless that cannot be read:
/// then it is one of the first open, as all frames are of that or a later one.
pub(super) async fn write_header(
    file: &SegmentFile,
    moved: &Move,
    superblock: &Superblock,
) -> io::Result<()> {
    let (store_id, number) = (superblock.store_id, moved.segment);
    let found = read(file, moved.from, BLOCK_BYTES).await.ok();
    let found = found.and_then(|block| SegmentHeader::identify(&block, store_id).ok());
    let found = found.filter(|header| header.number == number);
    let first = SegmentHeader { store_id, number, open_count: OpenCount(1) };
    let header = found.unwrap_or(first).encode();
    write(file, moved.to, AlignedBuffer::copy_from_slice(&header)).await
}

async fn write(file: &SegmentFile, offset: u64, piece: AlignedBuffer) -> io::Result<()> {
    if failpoint(Failpoint::CopiedUnsynced) {
        return file.disk.write(offset, piece).await.0;
    }
    file.write(offset, piece).await
}

async fn read(file: &SegmentFile, offset: u64, length: usize) -> io::Result<AlignedBuffer> {
    let request = || ReadRequest::new(offset, length).background();
    let mut read = file.read_counted(request()).await;
    // Bounded: by the tries.
    for _ in 1..TRIES {
        if read.is_err() {
            read = file.read_counted(request()).await;
        }
    }
    read
}

/// Reads what can be read of a piece; the rest is blank.
async fn read_by_blocks(file: &SegmentFile, offset: u64, length: usize) -> AlignedBuffer {
    let mut piece = AlignedBuffer::with_capacity(length);
    // Bounded: by the blocks of a piece, each with a read.
    for start in (0..length).step_by(BLOCK_BYTES) {
        match file.read_certain(offset + start as u64, BLOCK_BYTES).await {
            Ok(block) => piece.append(&block),
            Err(_) => piece.append_zeroes(BLOCK_BYTES),
        }
    }
    piece
}
