//! Where the log continues after recovery, and what is written before it does.
//!
//! The log continues in the torn segment exactly at the end E of its good frames, so the records
//! kept do not depend on how often a process was killed. That is safe for these reasons.
//!
//! - All before E stays. The next write batch writes the block of E again with an identical prefix,
//!   so each of its sectors holds that prefix whichever write it shows, and the open syncs.
//! - At E lies at most one torn frame T, with nothing behind it: one batch is in flight at a time,
//!   and a good frame behind E would have been damage. A request that was in flight when its
//!   process was killed is done before the file's lock is granted, so T no longer changes.
//! - T never verifies later, even if sectors of new frames are mixed into it, and even if another
//!   put of a value brings bytes that T lacks (a body's sum has no seed). Before anything else is
//!   written to the segment, and before the open returns, the block of E is written with zeros from
//!   E on. That erases the checksum of T, which lies within one sector, and no other frame has it:
//!   all later ones are sealed with a higher open count.
//! - Nor does the directory of a torn seal: the new one could bring the bytes that it lacks, and it
//!   would end the segment at E, before later acknowledged records. So the last block of the
//!   segment, with its footer, is blank before the log continues. Frames never reach that block.
//! - The last good frame is on the device before anything is judged by it: in Power mode all of it
//!   is written again, since a sync of it may have failed, after which the kernel may show what the
//!   device does not have.
//! - The next frame begins at E. There is no gap that a later open could take for the end; the rest
//!   of T behind the new frames has their position in no header, or an older open count.
//! - In Power mode each of these writes is synced before the next. In Process mode a power
//!   loss empties a store that was not closed, and a close syncs. A change to Power syncs first.
//!
//! The same holds for an announced segment with only a torn first frame; its first block is that of
//! E.

use std::io;
use std::ops::Range;

use super::directory_builder::DirectoryBuilder;
use super::format::{BLOCK_BYTES, Geometry, OpenCount, Position, SegmentNumber};
use super::recovery_error::RecoveryError;
use super::segment_file::SegmentFile;
use super::superblock::{CrashSafety, Superblock};
use crate::failpoint::{Failpoint, failpoint};
use crate::io::AlignedBuffer;

/// Written again at once of the last frame.
const PIECE_BYTES: usize = 1 << 20;

/// The last segment in use.
pub(super) struct Tail {
    pub(super) segment: SegmentNumber,
    /// None: sealed.
    pub(super) unsealed: Option<Unsealed>,
}

/// The good part of a segment that is not sealed.
pub(super) struct Unsealed {
    /// Where the last good frame begins.
    pub(super) last: Position,
    /// Where the good frames end.
    pub(super) end: Position,
    pub(super) directory: DirectoryBuilder,
    /// The bytes of the block of `end` before `end`.
    pub(super) block: Vec<u8>,
    /// A frame before or behind the end was whole once and is damaged now.
    pub(super) is_damaged: bool,
}

pub(super) struct Started {
    pub(super) superblock: Superblock,
    pub(super) tail: Position,
    pub(super) directory: DirectoryBuilder,
    pub(super) tail_block: Vec<u8>,
}

/// Writes the result of recovery. The log continues where the good frames end; after damage it
/// continues in a new segment, once the damaged one is sealed.
pub(super) async fn start(
    file: &SegmentFile,
    mut superblock: Superblock,
    tail: Option<Tail>,
    head: Position,
) -> Result<Started, RecoveryError> {
    let SegmentFile { geometry, key, .. } = *file;
    let was_clean = superblock.clean;
    superblock.clean = false;
    superblock.void = false;
    superblock.write_counter += 1;
    superblock.head = head;
    let Some(Tail { segment, unsealed }) = tail else {
        let is_new = superblock.open_count == OpenCount(1);
        let next = superblock.newest.0 + u64::from(!is_new);
        superblock.head = start_of(geometry, SegmentNumber(next))?;
        file.places.release_before(SegmentNumber(next));
        return fresh_segment(file, superblock, SegmentNumber(next)).await;
    };
    file.places.release_before(geometry.segment_of(head));
    if let Some(Unsealed { last, mut end, directory, block, is_damaged }) = unsealed {
        if !was_clean {
            keep(file, segment, last..end).await?;
        }
        let is_gap_left = failpoint(Failpoint::TailAppendedAfterTear) && !was_clean;
        if is_gap_left {
            end = position(end.value().next_multiple_of(BLOCK_BYTES as u64))?;
        }
        let is_sealed = is_damaged || (failpoint(Failpoint::TornSegmentSealed) && !was_clean);
        if !is_sealed || (is_gap_left && geometry.segment_of(end) == segment) {
            if !was_clean {
                wipe(file, end, &block).await?;
            }
            file.write_superblock(&superblock).await?;
            announce_again(file, &superblock, segment).await?;
            file.sync().await?;
            return Ok(Started { superblock, tail: end, directory, tail_block: block });
        }
        let mut image = AlignedBuffer::with_capacity(directory.encoded_len());
        let written = directory.write(key, superblock.open_count, end, &mut image).await;
        written.map_err(io::Error::other)?;
        let segment_end = file.places.offset_in_use(segment)? + u64::from(geometry.segment_bytes());
        let offset = segment_end - image.len() as u64;
        file.write(offset, image).await?;
    }
    fresh_segment(file, superblock, SegmentNumber(segment.0 + 1)).await
}

/// Writes a frame again, up to the block of its end. In Power mode its sync may have failed in the
/// process before: then it was read from the kernel's memory, the device has not all of it, and no
/// later sync would cover what it lacks. Only one frame is in flight at a time.
async fn keep(
    file: &SegmentFile,
    segment: SegmentNumber,
    frame: Range<Position>,
) -> Result<(), RecoveryError> {
    if file.crash_safety != CrashSafety::Power || failpoint(Failpoint::LastFrameNotKept) {
        return Ok(());
    }
    let geometry = file.geometry;
    let start = file.places.offset_in_use(segment)?;
    let block = |at: Position| geometry.offset_in_segment(at) as usize / BLOCK_BYTES * BLOCK_BYTES;
    let end = block(frame.end);
    // Bounded: a piece in each turn.
    for from in (block(frame.start)..end).step_by(PIECE_BYTES) {
        let (offset, length) = (start + from as u64, PIECE_BYTES.min(end - from));
        let piece = file.read_certain(offset, length).await?;
        file.write(offset, piece).await?;
    }
    Ok(())
}

/// Ensures that a torn frame at `end`, and a torn directory, never verify. `block`: what its block
/// holds before `end`.
async fn wipe(file: &SegmentFile, end: Position, block: &[u8]) -> Result<(), RecoveryError> {
    if failpoint(Failpoint::TearLeft) {
        return Ok(());
    }
    let geometry = file.geometry;
    let segment = file.places.offset_in_use(geometry.segment_of(end))?;
    let last = segment + u64::from(geometry.segment_bytes()) - BLOCK_BYTES as u64;
    let offset = file.places.offset_at(end, geometry)? / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
    let mut blank = AlignedBuffer::with_capacity(BLOCK_BYTES);
    blank.append_zeroes(BLOCK_BYTES);
    file.write(last, blank).await?;
    let mut buffer = AlignedBuffer::with_capacity(BLOCK_BYTES);
    buffer.append(block);
    buffer.append_zeroes(BLOCK_BYTES - block.len());
    file.write(offset, buffer).await?;
    Ok(())
}

/// Writes the headers of announced segments behind the tail that have lost theirs. An open that
/// read the index from its image has not missed them.
async fn announce_again(
    file: &SegmentFile,
    superblock: &Superblock,
    tail: SegmentNumber,
) -> io::Result<()> {
    // Bounded: two.
    for number in (tail.0 + 1..=superblock.newest.0).map(SegmentNumber) {
        if file.places.offset(number).is_none() {
            file.write_header(superblock, number).await?;
        }
    }
    Ok(())
}

/// Announces a segment in which the log begins or continues.
async fn fresh_segment(
    file: &SegmentFile,
    mut superblock: Superblock,
    number: SegmentNumber,
) -> Result<Started, RecoveryError> {
    let geometry = file.geometry;
    // An announced segment keeps its header: a crash before the superblock is on file must find
    // that header, not one of an unrecorded open.
    let tail = start_of(geometry, number)?
        .after(BLOCK_BYTES as u64)
        .ok_or_else(|| io::Error::other("positions have run out"))?;
    let is_lost = file.places.offset(number).is_none();
    if is_lost || number > superblock.newest || superblock.open_count == OpenCount(1) {
        file.write_header(&superblock, number).await?;
    } else {
        wipe(file, tail, &[]).await?;
    }
    superblock.newest = superblock.newest.max(number);
    file.write_superblock(&superblock).await?;
    file.sync().await?;
    let directory = DirectoryBuilder::new(number, geometry);
    Ok(Started { superblock, tail, directory, tail_block: Vec::new() })
}

pub(super) fn start_of(geometry: Geometry, segment: SegmentNumber) -> Result<Position, io::Error> {
    geometry.start_of(segment).ok_or_else(|| io::Error::other("positions have run out"))
}

pub(super) fn position(offset: u64) -> Result<Position, io::Error> {
    Position::new(offset).ok_or_else(|| io::Error::other("positions have run out"))
}
