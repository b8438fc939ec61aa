//! Takes over a file for a log that has no record in it yet: whatever the file holds is void.
//!
//! The log comes from a cache that could not open the file earlier, and has worked without it. So
//! its keys are hashed with a key of its own, and nothing that is on file can be compared with what
//! it has changed. The store gets a new identity, to which every checksum is tied: no older
//! structure of the file is good from then on. It stays void until the log begins.

use super::directory_builder::DirectoryBuilder;
use super::format::{BLOCK_BYTES, GenerationNumber, OpenCount, SegmentNumber, StoreId};
use super::log::{Log, LogStart};
use super::opening::Opening;
use super::recovery_error::RecoveryError;
use super::resizing::cut;
use super::resume::start_of;
use super::saved_position::SavedPositions;
use super::segment_file::SegmentFile;
use super::superblock::{Superblock, SuperblockError};
use crate::failpoint::{Failpoint, failpoint};
use crate::io::ReadRequest;
use crate::timer::Timer;

/// The open count of a store that was taken over, which counts from its new identity on.
pub(super) const OPEN_COUNT: OpenCount = OpenCount(1);

/// Where the log would begin. It begins behind all that the cache has numbered by then.
pub(super) const SEGMENT: SegmentNumber = SegmentNumber(0);

/// The log, as it is until then. None if there are too few positions.
pub(super) fn empty_log(file: &SegmentFile, timer: Timer, index_share: usize) -> Option<Log> {
    Some(Log::new(LogStart {
        geometry: file.geometry,
        key: file.key,
        open_count: OPEN_COUNT,
        tail: file.geometry.start_of(SEGMENT)?.after(BLOCK_BYTES as u64)?,
        directory: DirectoryBuilder::new(SEGMENT, file.geometry),
        newest: SEGMENT,
        head: SEGMENT,
        timer,
        index_share,
        positions: SavedPositions::default(),
    }))
}

/// Writes the superblock of a store that is void, and gives the file the configured size. A file
/// that is no store of this version is refused and not changed.
pub(super) async fn take_over(
    file: &SegmentFile,
    opening: &Opening,
) -> Result<Superblock, RecoveryError> {
    let length = file.disk.length();
    if length < 2 * BLOCK_BYTES as u64 {
        return Err(RecoveryError::Short { length });
    }
    let request = ReadRequest::new(0, 2 * BLOCK_BYTES).background();
    let blocks = file.disk.read(request).await?;
    let (first, second) = blocks.split_at(BLOCK_BYTES);
    let found = match Superblock::choose(first, second) {
        Ok(found) => Some(found),
        Err(SuperblockError::Blank) => None,
        Err(error) => return Err(error.into()),
    };
    let geometry = opening.geometry;
    let expected = found.map_or(0, |(found, _)| found.geometry.file_bytes());
    if length < expected {
        return Err(RecoveryError::CutOff { length, expected });
    }
    let needed = geometry.file_bytes();
    if length < needed {
        let resized = file.disk.resize(needed).await;
        resized.map_err(|source| RecoveryError::Grow { needed: needed - length, source })?;
        file.disk.sync().await?;
    }
    let (mut write_counter, mut newest) = (0, SEGMENT);
    if let Some(chosen) = found {
        let (found, _) = chosen;
        file.keep_superblock(&chosen).await?;
        // No number of a segment is ever used twice, even if this store is taken over twice.
        let end = start_of(found.geometry, SegmentNumber(found.newest.0 + 1))?;
        let is_as_large = found.geometry.segment_bytes() == geometry.segment_bytes();
        // Positions go on, too, if segments have another size.
        newest = if is_as_large { found.newest } else { geometry.segment_of(end) };
        write_counter = found.write_counter;
    }
    let none = start_of(geometry, SegmentNumber(newest.0 + 1))?;
    let superblock = Superblock {
        write_counter: write_counter + 1,
        store_id: StoreId(opening.store_id),
        hash_key: opening.hash_key,
        geometry,
        created_ns: opening.now_ns,
        open_count: OPEN_COUNT,
        crash_safety: opening.crash_safety,
        clean: false,
        void: true,
        boot_id: opening.boot_id,
        newest,
        head: none,
        tail: none,
        generation_floor: GenerationNumber(0),
    };
    if !failpoint(Failpoint::TakenOverUnvoided) {
        file.write_superblock(&superblock).await?;
    }
    cut(file).await?;
    Ok(superblock)
}
