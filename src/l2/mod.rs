//! `L2`: the disk tier. A segmented log, written by one task, read on misses in memory.
//!
//! `format`, `record`, `frame`, `directory`, `segment` and `superblock` know the bytes. `log`
//! assigns positions, `index` finds them. `segment_file` reads and writes the file, `writer` is the
//! task that writes, `segment_supply` and `reclaim` free segments, `recovery` reads the file at
//! open.
//!
//! The file always holds a prefix of the log; the order of the log is the order of effect.

mod allowance;
mod backup;
mod batch_records;
mod blob;
mod block_sharing;
mod carried;
mod checksum;
mod chunks;
#[cfg(all(any(test, feature = "cli"), target_os = "linux"))]
mod density;
mod directory;
mod directory_builder;
mod directory_entry;
mod directory_run;
mod error;
mod expiry;
mod fit;
mod footer;
mod format;
#[cfg(all(any(test, feature = "cli"), target_os = "linux"))]
mod found;
mod frame;
mod frame_writer;
mod frames;
#[cfg(any(test, feature = "simulation"))]
pub(crate) mod fuzz;
mod health;
mod image;
mod index;
mod listed_record;
mod listing;
mod log;
mod log_origin;
mod log_owner;
mod log_state;
mod name_rows;
mod open;
mod open_batch;
mod opening;
mod outline;
mod outlines;
mod place_scan;
mod places;
mod plain_records;
mod read_ahead;
mod reclaim;
mod record;
mod recovery;
mod recovery_error;
mod renewal;
mod replay;
mod replay_run;
mod replayed_expiries;
mod replayed_namespace;
mod replayed_renewals;
mod resizing;
mod restart_requests;
mod restore;
mod resume;
mod rewrite_budget;
mod room;
mod saved_position;
mod search_targets;
mod segment;
mod segment_file;
mod segment_mover;
mod segment_records;
mod segment_search;
mod segment_supply;
mod settling;
mod size_requests;
mod spans;
mod string_list;
mod superblock;
mod superblock_writer;
mod take_over;
#[cfg(test)]
pub(crate) mod tests;
mod wire;
mod write_batch;
mod writer;

use std::collections::BTreeMap;
use std::io;
use std::ops::{Range, RangeInclusive};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use bytes::Bytes;

pub(crate) use self::backup::{
    CopyError, EMPTY_BYTES, begin_unfinished, copy_store, is_unfinished,
};
pub(crate) use self::blob::{Blob, Codec, NamedGeneration};
pub(crate) use self::checksum::BodySum;
#[cfg(all(any(test, feature = "cli"), target_os = "linux"))]
pub(crate) use self::density::RecordShape;
pub(crate) use self::directory_entry::{BlobSummary, Change, Idle};
pub(crate) use self::expiry::{Expiry, ExpiryScope};
#[cfg(all(any(test, feature = "cli"), target_os = "linux"))]
pub(crate) use self::format::FORMAT_VERSION;
pub(crate) use self::format::{GenerationNumber, Geometry, Position, SegmentNumber};
#[cfg(all(any(test, feature = "cli"), target_os = "linux"))]
pub(crate) use self::found::{
    Checked, Checker, CopyProgress, Damage, FoundFacts, FoundStore, Part,
};
pub(crate) use self::health::{DiskMetrics, Health, count};
pub(crate) use self::image::{ClosedIndex, ClosedNamespace};
pub(crate) use self::index::{Index, READS_MAX, ScanCursor, Slot};
pub(crate) use self::listing::{LISTED_BYTES, ListedPiece, ListingCursor};
pub(crate) use self::log::Log;
pub(crate) use self::log_owner::{AppendedAgain, LogOwner, Restart};
pub(crate) use self::open::{open, without_disk};
pub(crate) use self::opening::Opening;
pub(crate) use self::outlines::Outlines;
#[cfg(all(any(test, feature = "cli"), target_os = "linux"))]
pub(crate) use self::outlines::SHARE as OUTLINES_SHARE;
pub(crate) use self::record::{Record, RecordHead, Renewal};
pub(crate) use self::recovery_error::RecoveryError;
pub(crate) use self::replay::Limits;
pub(crate) use self::replayed_namespace::{ExpiredRecord, RecoveredNamespace, RenewedRecord};
pub(crate) use self::restart_requests::StaysOff;
pub(crate) use self::rewrite_budget::Usage;
pub(crate) use self::room::RoomTicket;
pub(crate) use self::saved_position::{
    POSITION_BYTES_MAX, POSITION_NAME_BYTES_MAX, POSITIONS_MAX, SavedPosition, SavedPositions,
};
pub(crate) use self::search_targets::SearchTargets;
pub(crate) use self::segment_search::FoundBlobs;
pub(crate) use self::size_requests::SizeRefusal;
pub(crate) use self::string_list::{LabelHashes, Labels, Metadata};
pub(crate) use self::superblock::{CrashSafety, SuperblockError};
pub(crate) use self::write_batch::{Assigned, EncodedRecord, Off, Refusal};
pub(crate) use self::writer::WriterStart;

use self::batch_records::PendingRecord;
use self::format::{BLOCK_BYTES, OpenRange};
use self::image::ImageSettings;
use self::outline::Outline;
use self::places::lost;
use self::record::RecordLengths;
use self::rewrite_budget::RewriteBudget;
use self::segment_file::SegmentFile;
use self::segment_search::SegmentSearch;
use self::take_over::take_over;
use self::writer::Writer;
use crate::failpoint::{Failpoint, failpoint};
use crate::io::{Disk, ReadRequest, TaskRunner};
use crate::key::KeyHasher;
use crate::limiter::Permit;

/// Blocks that hold most heads: a head may begin at the end of a block.
const HEAD_BLOCKS: usize = 2;

/// Blocks that hold every head: key, metadata and labels have their limits.
const HEAD_BLOCKS_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    Head,
    Whole,
}

pub(crate) struct L2 {
    pub(crate) log: Arc<Log>,
    file: SegmentFile,
    opens: OpenRange,
    outlines: Arc<Outlines>,
}

/// A store that was read. It waits for its owner before anything is written.
pub(crate) struct Opened {
    pub(crate) l2: L2,
    pub(crate) hasher: KeyHasher,
    pub(crate) namespaces: BTreeMap<Box<str>, RecoveredNamespace>,
    /// Live records.
    pub(crate) records: u64,
    /// Segments dropped because of damage.
    pub(crate) dropped: u64,
    /// The saved positions that were found.
    pub(crate) positions: SavedPositions,
    /// They were read from an image of the index.
    pub(crate) is_from_image: bool,
    #[cfg(all(any(test, feature = "cli"), target_os = "linux"))]
    pub(crate) open_segment: OpenSegment,
    pub(crate) start: WriterStart,
}

/// The segment in which the log goes on.
#[cfg(all(any(test, feature = "cli"), target_os = "linux"))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenSegment {
    pub(crate) number: u64,
    pub(crate) records: u32,
    /// Of its frames.
    pub(crate) used_bytes: u64,
}

/// A record as it was read, from the log's memory or from the device.
#[derive(Debug)]
pub(crate) struct FetchedRecord {
    pub(crate) position: Position,
    pub(crate) head: Bytes,
    pub(crate) body: Bytes,
}

impl From<PendingRecord> for FetchedRecord {
    fn from(PendingRecord { position, head, body }: PendingRecord) -> Self {
        Self { position, head, body }
    }
}

/// A segment is sealed at this part of the index budget: while open it cannot be reclaimed.
const INDEX_SHARE: usize = 8;

impl L2 {
    pub(crate) fn health(&self) -> &Health {
        &self.file.health
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.file.geometry
    }

    /// The length of the file without an image.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file.places.file_bytes()
    }

    #[cfg(test)]
    pub(crate) fn file_offset(&self, position: Position) -> u64 {
        self.file.places.offset_at(position, self.geometry()).expect("a segment in use")
    }

    #[cfg(test)]
    pub(crate) fn pins_held(&self) -> u32 {
        self.file.places.pins_held()
    }

    pub(crate) fn outlines(&self) -> Arc<Outlines> {
        Arc::clone(&self.outlines)
    }

    /// Bytes written since the store was opened, and those of records that wait.
    pub(crate) fn bytes_written(&self) -> u64 {
        let written = self.health().metrics.write_bytes.load(Ordering::Relaxed);
        written.saturating_add(self.log.waiting_bytes() as u64)
    }

    /// Bytes of the log from its oldest segment to its end.
    pub(crate) fn bytes_in_use(&self) -> u64 {
        let oldest = self.geometry().start_of(self.log.head_segment());
        self.log.tail().value().saturating_sub(oldest.map_or(0, Position::value))
    }

    /// # Errors
    /// Of the device. Then the tier is turned off.
    pub(crate) async fn sync(&self) -> io::Result<()> {
        self.file.sync().await.inspect_err(|_| {
            // One that began before the log did says nothing about it.
            if self.health().failed_syncs() != self.health().failed_before_restart() {
                self.log.fail();
            }
        })
    }

    /// Voids the store of `disk`, which is the one that this tier could not open. The writer then
    /// begins the log in it.
    pub(crate) async fn take_over(
        &self,
        disk: Arc<dyn Disk>,
        opening: &Opening,
    ) -> Result<WriterStart, RecoveryError> {
        let file = SegmentFile { disk, ..self.file.clone() };
        let superblock = take_over(&file, opening).await?;
        self.log.advance_head(superblock.newest);
        Ok(WriterStart {
            writing: superblock.newest,
            superblock,
            tail_block: Vec::new(),
            image_settings: ImageSettings {
                key_hash_bits: opening.key_hash_bits,
                helpers: opening.helpers,
            },
            rewrites: RewriteBudget::new(
                opening.geometry,
                opening.write_amplification_pct_max,
                true,
            ),
            is_off: true,
        })
    }

    /// Has a log that is off go on at once, if the device allows it, and does not wait until it
    /// would be tried anyway.
    pub(crate) async fn restart(&self) -> Result<(), StaysOff> {
        self.log.request_restart(|| !self.health().is_off()).await
    }

    /// The task that writes until the log is closed.
    pub(crate) fn writer(
        &self,
        start: WriterStart,
        runner: Arc<dyn TaskRunner>,
        owner: Weak<dyn LogOwner>,
    ) -> Writer {
        Writer::new(start, &self.log, &self.file, &self.outlines, runner, owner)
    }

    /// The most memory that [`Self::fetch`] takes at one time.
    pub(crate) fn bytes_to_read(&self, slot: Slot, extent: Extent) -> usize {
        let most = usize::from(slot.blocks);
        let blocks = if extent == Extent::Head { most.min(HEAD_BLOCKS_MAX) } else { most };
        blocks * BLOCK_BYTES
    }

    /// The record of a slot, from memory if it is not on file yet. None if `is_wanted` is false,
    /// which is asked after the segment is pinned. `permit` covers the memory of the read, and is
    /// held until the device is done.
    pub(crate) async fn fetch(
        &self,
        slot: Slot,
        extent: Extent,
        permit: &Arc<Permit>,
        is_wanted: impl Fn() -> bool,
    ) -> io::Result<Option<FetchedRecord>> {
        if let Some(record) = self.log.pending_record(slot.position) {
            return Ok(Some(record.into()));
        }
        let most = usize::from(slot.blocks);
        let blocks = if extent == Extent::Head { most.min(HEAD_BLOCKS) } else { most };
        let request = |blocks| self.request(slot.position, blocks, permit);
        let segment = self.geometry().segment_of(slot.position);
        let _pin = failpoint(Failpoint::PinInFuture).then(|| self.file.places.pin(segment));
        // The pin belongs to the request: a caller's future that waits must not hold it.
        let first = request(blocks);
        if !is_wanted() {
            return Ok(None);
        }
        let mut record = self.read(first?, slot.position).await?;
        let lengths = RecordLengths::peek(&record).map_err(damaged)?;
        let missing = lengths.head().saturating_sub(record.len()).div_ceil(BLOCK_BYTES);
        if missing > 0 && blocks < most {
            drop(record);
            let more = most.min(blocks + missing);
            let second = request(more);
            if !is_wanted() {
                return Ok(None);
            }
            record = self.read(second?, slot.position).await?;
        }
        let body = match extent {
            Extent::Head => lengths.head()..lengths.head(),
            Extent::Whole => lengths.body_range(),
        };
        if body.end > record.len() {
            return Err(damaged(error::DecodeError::Truncated));
        }
        let head = record.slice(..body.start);
        Ok(Some(FetchedRecord { position: slot.position, head, body: record.slice(body) }))
    }

    /// A request for blocks from a position on, which pins the segment until it is done.
    fn request(
        &self,
        position: Position,
        blocks: usize,
        permit: &Arc<Permit>,
    ) -> io::Result<ReadRequest> {
        let geometry = self.geometry();
        let segment = geometry.segment_of(position);
        let (start, pin) = self.file.places.pin(segment).ok_or_else(lost)?;
        let block = geometry.offset_in_segment(position) as usize / BLOCK_BYTES * BLOCK_BYTES;
        let request = ReadRequest::new(start + block as u64, blocks * BLOCK_BYTES);
        Ok(request.pinned(Arc::new((pin, Arc::clone(permit)))))
    }

    fn offset_in_block(&self, position: Position) -> usize {
        self.geometry().offset_in_segment(position) as usize % BLOCK_BYTES
    }

    /// The bytes of a request's blocks, from a position on.
    async fn read(&self, request: ReadRequest, position: Position) -> io::Result<Bytes> {
        let length = request.length;
        let read = self.file.disk.read(request).await;
        count(&self.health().metrics.reads, 1);
        match &read {
            Ok(_) => count(&self.health().metrics.read_bytes, length),
            Err(_) => count(&self.health().metrics.io_errors, 1),
        }
        Ok(read?.into_bytes().slice(self.offset_in_block(position)..))
    }

    /// Whether this process was forked from the one that owns the store.
    pub(crate) fn is_foreign(&self) -> bool {
        self.file.disk.is_foreign()
    }

    /// The segments in use, oldest first.
    pub(crate) fn segments(&self) -> RangeInclusive<u64> {
        self.log.head_segment().0..=self.log.segment().0
    }

    pub(crate) fn positions_of(&self, segment: SegmentNumber) -> Option<Range<Position>> {
        let end = self.geometry().start_of(SegmentNumber(segment.0 + 1))?;
        Some(self.geometry().start_of(segment)?..end)
    }

    /// Searches a segment. None: it has nothing of the targets.
    ///
    /// # Errors
    /// What it has is not known, although it is in use.
    pub(crate) async fn search(
        &self,
        segment: SegmentNumber,
        targets: &Arc<SearchTargets>,
    ) -> io::Result<Option<SegmentSearch>> {
        let Some(start) = self.geometry().start_of(segment) else { return Ok(None) };
        if self.is_reclaimed(segment) {
            return Ok(None);
        }
        if let Some(unsealed) = self.log.unsealed(segment, targets) {
            return Ok(unsealed.map(|(targets, listing)| {
                let health = Arc::clone(&self.file.health);
                SegmentSearch::unsealed(start, targets, listing, health)
            }));
        }
        let Some(outline) = self.outline_of(segment).await? else { return Ok(None) };
        let targets = targets.in_rows(|namespace| outline.row_of(namespace));
        if targets.is_empty() {
            return Ok(None);
        }
        Ok(Some(SegmentSearch::sealed(start, targets, self.file.clone(), outline)))
    }

    /// Of a segment that is sealed on file. None: it has left the log.
    async fn outline_of(&self, segment: SegmentNumber) -> io::Result<Option<Arc<Outline>>> {
        match self.outlines.find(segment, &self.file, self.opens).await {
            Ok(Some(outline)) => Ok(Some(outline)),
            _ if self.is_reclaimed(segment) => Ok(None),
            Ok(None) => Err(damaged(error::DecodeError::Magic)),
            Err(error) => Err(error),
        }
    }

    /// Whether a segment has left the log.
    pub(crate) fn is_reclaimed(&self, segment: SegmentNumber) -> bool {
        segment < self.log.head_segment()
    }

    pub(crate) fn decode<'a>(&self, record: &'a FetchedRecord) -> io::Result<RecordHead<'a>> {
        RecordHead::decode(&record.head, self.file.key, record.position, self.opens)
            .map_err(damaged)
    }
}

fn damaged(error: error::DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
