//! Changes the size of a store's file: at an open, while nothing else uses it, or step by step
//! (`segment_supply`).
//!
//! Longer: the space is reserved and reads as zeroes, then a superblock names it. Shorter: the head
//! is moved until the rest fits, on file. Kept segments behind the new end are copied to free
//! places before it; their headers come last, when the bodies are durable. A superblock names the
//! new size, and only then the file is cut. So whatever was done when a process or the machine
//! ends, the store can be opened, with the old size or the new one: a copy without its header is
//! nothing, and one with it has the same contents.

use std::io;

use futures::{TryStreamExt, stream};

use super::format::{BLOCK_BYTES, Geometry, Position, SegmentNumber};
use super::places::{Move, Places};
use super::recovery_error::RecoveryError;
use super::segment_file::SegmentFile;
use super::superblock::Superblock;
use crate::failpoint::{Failpoint, failpoint};
use crate::io::{AlignedBuffer, ReadRequest};

/// Copied at once of one segment.
const PIECE_BYTES: usize = 1 << 20;

/// The file becomes shorter by so much at once.
const CUT_BYTES: u64 = if cfg!(test) { 64 << 10 } else { 64 << 20 };

/// Segments that are copied at once.
const COPIES: usize = 4;

const TRIES: usize = 3;

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

/// Has all segments from `head` on lie before the end of a smaller geometry, where they have room.
/// The superblock that is on file afterwards has the old geometry and the new head. Returns the
/// places that they have then.
pub(super) async fn gather(
    file: &SegmentFile,
    superblock: &mut Superblock,
    to: Geometry,
    (head, sealed_before): (Position, SegmentNumber),
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
    copy(file, &moves, sealed_before).await?;
    Ok(file.places.fitted(to, &moves))
}

/// Copies segments to their new places, durably. What cannot be read of one before `sealed_before`
/// becomes damage.
pub(super) async fn copy(
    file: &SegmentFile,
    moves: &[Move],
    sealed_before: SegmentNumber,
) -> io::Result<()> {
    let segment_bytes = file.geometry.segment_bytes() as usize;
    let body = match failpoint(Failpoint::HeaderMovedFirst) {
        true => 0..segment_bytes,
        false => BLOCK_BYTES..segment_bytes,
    };
    // Bounded: a piece in each turn.
    let copies = stream::iter(moves.iter().cloned().map(Ok::<_, io::Error>));
    copies
        .try_for_each_concurrent(COPIES, |moved| {
            let body = body.clone();
            async move {
                let is_sealed = moved.segment < sealed_before;
                // Bounded: a piece in each turn.
                for start in body.clone().step_by(PIECE_BYTES) {
                    let length = PIECE_BYTES.min(body.end - start);
                    copy_piece(file, &moved, (start, length), is_sealed).await?;
                }
                Ok(())
            }
        })
        .await?;
    if moves.is_empty() {
        return Ok(());
    }
    file.sync().await?;
    // Bounded: a write in each turn.
    for moved in moves {
        copy_piece(file, moved, (0, BLOCK_BYTES), false).await?;
    }
    file.sync().await
}

/// Copies a part of a segment. What cannot be read of a sealed one becomes damage.
async fn copy_piece(
    file: &SegmentFile,
    moved: &Move,
    (start, length): (usize, usize),
    is_sealed: bool,
) -> io::Result<()> {
    let _counted = file.health.count_buffer(length);
    let request = || ReadRequest::new(moved.from + start as u64, length).background();
    let mut read = file.read_counted(request()).await;
    // Bounded: by the tries.
    for _ in 1..TRIES {
        if read.is_err() {
            read = file.read_counted(request()).await;
        }
    }
    let piece = match read {
        Err(_) if is_sealed => {
            let mut blank = AlignedBuffer::with_capacity(length);
            blank.append_zeroes(length);
            blank
        }
        read => read?,
    };
    file.write(moved.to + start as u64, piece).await
}
