//! Opens a store: reads its superblock, surveys what it has, gives it its size, and writes where
//! the log goes on. The result is on file before the store is used.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::checksum::ChecksumKey;
use super::directory_builder::DirectoryBuilder;
use super::fit::Fit;
use super::format::{
    BLOCK_BYTES, GenerationNumber, Geometry, OpenCount, Position, SegmentNumber, StoreId,
};
use super::opening::Opening;
use super::outlines::Outlines;
use super::place_scan::find_places;
use super::places::Places;
use super::recovery::{Reached, survey};
use super::recovery_error::RecoveryError;
use super::resizing::{cut, gather, grow};
use super::resume::{Started, Tail, start, start_of};
use super::saved_position::SavedPositions;
use super::segment_file::SegmentFile;
use super::superblock::{CrashSafety, Superblock, SuperblockError};
use crate::batch::Pacer;
use crate::key::KeyHasher;
use crate::telemetry::tell;

/// A store that is ready for its log.
pub(crate) struct Restored {
    pub(super) file: SegmentFile,
    pub(crate) superblock: Superblock,
    pub(crate) hasher: KeyHasher,
    pub(crate) reached: Reached,
    pub(crate) tail: Position,
    pub(crate) directory: DirectoryBuilder,
    pub(crate) tail_block: Vec<u8>,
}

/// Reads the superblock; a store whose creation was never finished is created again.
pub(crate) async fn read_superblock(
    file: &SegmentFile,
    opening: &Opening,
) -> Result<Superblock, RecoveryError> {
    let request = crate::io::ReadRequest::new(0, 2 * BLOCK_BYTES).background();
    let blocks = file.disk.read(request).await?;
    let (first, second) = blocks.split_at(BLOCK_BYTES);
    match Superblock::choose(first, second) {
        Ok(chosen) => {
            file.keep_superblock(&chosen).await?;
            Ok(chosen.0)
        }
        Err(SuperblockError::Blank) => Ok(blank(opening)),
        Err(error) => Err(error.into()),
    }
}

fn blank(opening: &Opening) -> Superblock {
    Superblock {
        write_counter: 0,
        store_id: StoreId(opening.store_id),
        hash_key: opening.hash_key,
        geometry: opening.geometry,
        created_ns: opening.now_ns,
        open_count: OpenCount(0),
        crash_safety: opening.crash_safety,
        clean: false,
        void: true,
        boot_id: opening.boot_id,
        newest: SegmentNumber(0),
        head: Position::FIRST,
        tail: Position::FIRST,
        generation_floor: GenerationNumber(0),
    }
}

/// Restores the store of `superblock`: warm if its mode and its last end allow it, and as much of
/// it as fits.
pub(crate) async fn restore(
    mut file: SegmentFile,
    found: Superblock,
    opening: &Opening,
) -> Result<Restored, RecoveryError> {
    file.geometry = found.geometry;
    file.key = ChecksumKey::new(found.store_id);
    file.places = Arc::new(find_places(&file, &found).await?);
    let mut fit = Fit::new(&found, opening);
    let mut reached = match fit {
        Fit::Kept(geometry) if opening.is_warm(&found) => {
            survey(&file, found, opening, geometry.segment_count()).await?
        }
        _ => nothing(&found, opening),
    };
    if reached.records == 0 && found.geometry.segment_bytes() != opening.geometry.segment_bytes() {
        fit = Fit::Anew;
    }
    let (length, segments) = (file.disk.length(), file.places.in_use());
    let mut superblock = match fit {
        Fit::Kept(geometry) => resize(&mut file, found, geometry, &reached).await?,
        Fit::Anew => {
            discard(reached).await;
            reached = nothing(&found, opening);
            if opening.is_warm(&found) && !found.is_blank() {
                reached.dropped = segments;
            }
            begin_anew(&mut file, &found, opening).await?
        }
    };
    if opening.crash_safety == CrashSafety::Power && found.crash_safety != CrashSafety::Power {
        // From now on the store claims that the records found survive a power loss.
        file.sync().await?;
    }
    superblock.crash_safety = opening.crash_safety;
    superblock.boot_id = opening.boot_id;
    superblock.open_count = OpenCount(superblock.open_count.0 + 1);
    let hasher = KeyHasher::new(superblock.hash_key, opening.key_hash_bits);
    let started = start(&file, superblock, reached.tail.take(), reached.head).await?;
    let Started { superblock, tail, directory, tail_block } = started;
    // An image is cut off piece by piece, while the cache is used.
    let surplus = length.saturating_sub(file.geometry.file_bytes());
    let is_image = file.geometry == found.geometry && surplus <= opening.image_bytes_max();
    if !is_image {
        cut(&file).await?;
    }
    Ok(Restored { file, superblock, hasher, reached, tail, directory, tail_block })
}

fn nothing(superblock: &Superblock, opening: &Opening) -> Reached {
    Reached {
        namespaces: BTreeMap::new(),
        records: 0,
        outlines: Outlines::new(opening.limits.index_bytes_max),
        tail: None,
        head: superblock.head,
        dropped: 0,
        is_from_image: false,
        positions: SavedPositions::default(),
    }
}

/// Frees what was found, in steps.
async fn discard(mut reached: Reached) {
    let mut steps = Pacer::default();
    while reached.namespaces.pop_first().is_some() {
        steps.entry().await;
    }
}

/// Gives a store another size of its file. Returns the superblock to go on with.
async fn resize(
    file: &mut SegmentFile,
    mut superblock: Superblock,
    to: Geometry,
    reached: &Reached,
) -> Result<Superblock, RecoveryError> {
    let from = superblock.geometry;
    if to == from {
        return Ok(superblock);
    }
    let (before, after) = (from.segment_count(), to.segment_count());
    tell!(info, "recovery", before, after, "the disk tier has another number of segments now");
    if before < after {
        grow(file, from, to).await?;
        file.places = Arc::new(file.places.fitted(to, &[]));
    } else {
        let places = match &reached.tail {
            Some(Tail { segment, unsealed }) => {
                let end = match unsealed {
                    Some(unsealed) => unsealed.end,
                    None => start_of(from, SegmentNumber(segment.0 + 1))?,
                };
                gather(file, &mut superblock, to, (reached.head, end)).await?
            }
            // The log begins anew behind all that was ever numbered.
            None => Places::new(to),
        };
        file.places = Arc::new(places);
    }
    (file.geometry, superblock.geometry) = (to, to);
    Ok(superblock)
}

/// Has the store begin anew under another identity, so that nothing in the file belongs to it.
async fn begin_anew(
    file: &mut SegmentFile,
    found: &Superblock,
    opening: &Opening,
) -> Result<Superblock, RecoveryError> {
    let (present, needed) = (file.disk.length(), opening.geometry.file_bytes());
    if present < needed {
        let resized = file.disk.resize(needed).await;
        let missing = needed - present;
        resized.map_err(|source| RecoveryError::Grow { needed: missing, source })?;
        file.sync().await?;
    }
    let mut superblock = blank(opening);
    superblock.write_counter = found.write_counter;
    let number = found.write_counter.to_le_bytes();
    // Bounded: eight.
    for (byte, other) in superblock.store_id.0.iter_mut().zip(number) {
        // Also another one if the random numbers repeat.
        *byte ^= other;
    }
    file.geometry = superblock.geometry;
    file.key = ChecksumKey::new(superblock.store_id);
    file.places = Arc::new(Places::new(superblock.geometry));
    Ok(superblock)
}
