//! Opens the disk tier: what is made of a file, or of none.

use std::sync::Arc;

use parking_lot::Mutex;

use super::checksum::ChecksumKey;
use super::format::{BLOCK_BYTES, OpenCount, OpenRange, StoreId};
use super::health::Health;
use super::image::ImageSettings;
use super::log::{Log, LogStart};
use super::opening::Opening;
use super::outlines::Outlines;
use super::places::Places;
use super::recovery::Reached;
use super::recovery_error::RecoveryError;
use super::restore::{Restored, read_superblock, restore};
use super::rewrite_budget::RewriteBudget;
use super::segment_file::SegmentFile;
use super::superblock::SuperblockCopy;
use super::take_over::{self, empty_log};
use super::writer::WriterStart;
use super::{INDEX_SHARE, L2, Opened};
use crate::io::Disk;
use crate::timer::Timer;

pub(crate) async fn open(
    disk: Arc<dyn Disk>,
    opening: &Opening,
    timer: Timer,
) -> Result<Opened, RecoveryError> {
    let file = new_file(disk, opening);
    let length = file.disk.length();
    if length < 2 * BLOCK_BYTES as u64 {
        return Err(RecoveryError::Short { length });
    }
    let superblock = read_superblock(&file, opening).await?;
    let expected = superblock.geometry.file_bytes();
    if length < expected && !superblock.is_blank() {
        return Err(RecoveryError::CutOff { length, expected });
    }
    let restored = restore(file, superblock, opening).await?;
    let Restored { file, superblock, hasher, reached, tail, directory, tail_block } = restored;
    let Reached { namespaces, records, outlines, dropped, is_from_image, positions, .. } = reached;
    let writing = file.geometry.segment_of(tail);
    let Opening { key_hash_bits, helpers, .. } = *opening;
    let image_settings = ImageSettings { key_hash_bits, helpers };
    let head = file.geometry.segment_of(superblock.head);
    let percent_max = opening.write_amplification_pct_max;
    let rewrites = RewriteBudget::new(file.geometry, percent_max, head == writing);
    #[cfg(all(any(test, feature = "cli"), target_os = "linux"))]
    let open_segment = super::OpenSegment {
        number: writing.0,
        records: directory.entries(),
        used_bytes: u64::from(file.geometry.offset_in_segment(tail)) - BLOCK_BYTES as u64,
    };
    let log = Log::new(LogStart {
        geometry: file.geometry,
        key: file.key,
        open_count: superblock.open_count,
        tail,
        directory,
        newest: superblock.newest,
        head,
        timer,
        index_share: opening.limits.index_bytes_max / INDEX_SHARE,
        positions: positions.clone(),
    });
    let l2 = L2 {
        log: Arc::new(log),
        opens: OpenRange { first: OpenCount(1), last: superblock.open_count },
        outlines: Arc::new(outlines),
        file,
    };
    Ok(Opened {
        l2,
        hasher,
        namespaces,
        records,
        dropped,
        positions,
        is_from_image,
        #[cfg(all(any(test, feature = "cli"), target_os = "linux"))]
        open_segment,
        start: WriterStart {
            superblock,
            tail_block,
            writing,
            image_settings,
            rewrites,
            is_off: false,
        },
    })
}

fn new_file(disk: Arc<dyn Disk>, opening: &Opening) -> SegmentFile {
    SegmentFile {
        disk,
        geometry: opening.geometry,
        places: Arc::new(Places::new(opening.geometry)),
        key: ChecksumKey::new(StoreId(opening.store_id)),
        health: Arc::new(Health::default()),
        crash_safety: opening.crash_safety,
        next_copy: Arc::new(Mutex::new(SuperblockCopy::First)),
    }
}

/// A tier that is off for a reason, because its disk could not be opened, and has no record. It
/// may begin once a disk was taken over ([`L2::take_over`]).
pub(crate) fn without_disk(
    disk: Arc<dyn Disk>,
    opening: &Opening,
    timer: Timer,
    reason: String,
) -> Option<L2> {
    let file = new_file(disk, opening);
    let log = empty_log(&file, timer, opening.limits.index_bytes_max / INDEX_SHARE)?;
    file.health.degrade(reason);
    log.turn_off();
    Some(L2 {
        log: Arc::new(log),
        opens: OpenRange { first: OpenCount(1), last: take_over::OPEN_COUNT },
        outlines: Arc::new(Outlines::new(opening.limits.index_bytes_max)),
        file,
    })
}
