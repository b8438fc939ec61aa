//! `Reclaimer`: frees the oldest segment.
//!
//! In this order: records that were read since they were written are reinserted at the end of the
//! log; the head moves past the segment, on file; the segment's slots leave the index; its readers
//! finish; only then may its place be written to.
//!
//! Records in use are reinserted: read from disk since they were written, or hit in memory, or
//! still there. A budget bounds their bytes, and if the index is crowded they take at most a
//! quarter of the segment's slots. They never wait for room, so a segment can always be reclaimed;
//! new records leave them the room that they are going to take. If many wait to be written, reclaim
//! waits, too: they must not pile up. A reinserted record keeps its put time, its version and its
//! labels. To replay it is a put at its new place; therefore it is reinserted only while no
//! invalidation in force matches it.

use std::io;
use std::ops::RangeInclusive;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::blob::Blob;
use super::checksum::BodyHasher;
use super::directory::Directory;
use super::directory_entry::{BlobSummary, Change, DirectoryEntry};
use super::format::{Geometry, OpenCount, OpenRange, Position, SegmentNumber};
use super::health::count;
use super::log::Log;
use super::log_owner::{AppendedAgain, LogOwner};
use super::outlines::Outlines;
use super::record::{Record, RecordHead};
use super::rewrite_budget::{Candidates, RewriteBudget, Selection, Usage};
use super::segment_file::SegmentFile;
use super::spans::Spans;
use super::superblock_writer::SuperblockWriter;
use super::write_batch::EncodedRecord;
use crate::batch::{BATCH_BYTES, BATCH_ENTRIES, Pacer, yield_now};
use crate::failpoint::{Failpoint, failpoint};
use crate::io::AlignedBuffer;
use crate::key::KeyHash;
use crate::meter;
use crate::telemetry::tell;

/// While the index is crowded, one of so many slots may stay.
const CROWDED_SHARE: usize = 4;

/// What a record takes beside its bytes and its key, in the directory and for a frame of its own.
const LISTED_BYTES: usize = 96;

/// Attempts to reinsert a record that is touched meanwhile.
const TRIES: usize = 8;

/// What is reinserted of one segment.
struct Plan {
    selection: Selection,
    slots: usize,
    /// With their entries in the directory.
    room: usize,
}

impl Plan {
    /// Whether it keeps this record, which then counts as kept.
    fn takes(&mut self, usage: Usage, length: usize) -> bool {
        let is_taken = self.slots > 0 && self.selection.includes(usage, length);
        if is_taken {
            self.selection.take(usage, length);
            self.slots -= 1;
        }
        is_taken
    }
}

pub(super) struct Reclaimer {
    log: Arc<Log>,
    file: SegmentFile,
    outlines: Arc<Outlines>,
    owner: Weak<dyn LogOwner>,
    rewrites: RewriteBudget,
}

impl Reclaimer {
    pub(super) fn new(
        log: Arc<Log>,
        file: SegmentFile,
        outlines: Arc<Outlines>,
        owner: Weak<dyn LogOwner>,
        rewrites: RewriteBudget,
    ) -> Self {
        Self { log, file, outlines, owner, rewrites }
    }

    /// The file has another size.
    pub(super) fn fit(&mut self, geometry: Geometry) {
        self.rewrites.fit(geometry);
    }

    /// `index_wanted`: so many bytes are to become free in the index.
    pub(super) async fn reclaim(
        &mut self,
        segment: SegmentNumber,
        index_wanted: usize,
        superblocks: &mut SuperblockWriter,
    ) -> io::Result<()> {
        let next = SegmentNumber(segment.0 + 1);
        let end = self.file.geometry.start_of(next);
        let end = end.ok_or_else(|| io::Error::other("positions have run out"))?;
        let opens = opens(superblocks);
        let image = self.read_image(segment, opens).await;
        let health = Arc::clone(&self.file.health);
        let _counted = health.count_buffer(image.as_deref().map_or(0, <[u8]>::len));
        let directory = self.decode(image.as_deref(), segment, opens).await;
        let mut reinserted_bytes = 0;
        if let Some(directory) = &directory {
            let mut rewrites = self.rewrites.clone();
            rewrites.refund(self.owner.upgrade().map_or(0, |owner| owner.take_refused_bytes()));
            let plan = self.plan(directory, segment, index_wanted, &mut rewrites).await;
            self.log.keep_room(plan.room);
            let bytes = self.reinsert(plan, directory, segment, opens).await;
            rewrites.spend(bytes);
            reinserted_bytes = bytes;
            self.rewrites = rewrites;
            self.log.keep_room(0);
            self.log.room_came().await;
        }
        superblocks.write_head(end).await?;
        match &directory {
            Some(directory) => self.forget(directory, segment).await,
            None => {
                // It was readable when room was kept for its records.
                self.log.keep_room(0);
                count(&self.file.health.metrics.corruptions, 1);
                if let Some(owner) = self.owner.upgrade() {
                    owner.forget_before(end).await;
                }
            }
        }
        // Only now: a search for the records of a prefix visits every segment that has slots.
        self.log.advance_head(next);
        self.outlines.forget(segment);
        if failpoint(Failpoint::SlotsDroppedEarly) {
            let image = self.read_image(next, opens).await;
            if let Some(directory) = self.decode(image.as_deref(), next, opens).await {
                self.forget(&directory, next).await;
            }
        }
        self.file.places.release(segment).await;
        count(&self.file.health.metrics.reclaimed_segments, 1);
        if directory.is_none() {
            tell!(warn, "reclaim", segment = segment.0, "its directory cannot be read");
        }
        let segment = segment.0;
        tell!(debug, "reclaim", segment, reinserted_bytes, "a segment is reclaimed");
        Ok(())
    }

    /// Segments leave the log whose records have left the index. Waits for their readers.
    pub(super) async fn leave(&self, segments: RangeInclusive<SegmentNumber>) {
        let mut steps = Pacer::default();
        for segment in segments.start().0..=segments.end().0 {
            steps.entry().await;
            self.outlines.forget(SegmentNumber(segment));
            self.file.places.release(SegmentNumber(segment)).await;
        }
    }

    /// None if it cannot be read.
    async fn read_image(&self, segment: SegmentNumber, opens: OpenRange) -> Option<AlignedBuffer> {
        self.file.read_directory(segment, opens).await.ok().flatten()
    }

    /// None if there is no image, or it is damaged.
    async fn decode<'a>(
        &self,
        image: Option<&'a [u8]>,
        segment: SegmentNumber,
        opens: OpenRange,
    ) -> Option<Directory<'a>> {
        let SegmentFile { geometry, key, .. } = self.file;
        Directory::read(image?, key, segment, opens, geometry).await.ok()
    }

    /// Appends the records of the plan to the log again, and returns their bytes.
    async fn reinsert(
        &self,
        mut plan: Plan,
        directory: &Directory<'_>,
        segment: SegmentNumber,
        opens: OpenRange,
    ) -> usize {
        let Some(start) = self.file.geometry.start_of(segment) else { return 0 };
        let mut spans = Spans::new(&self.file, segment, directory.entries(), |entry| {
            let position = start.after(u64::from(entry.offset));
            let (Some((owner, position)), Change::Blob(blob)) =
                (self.owner.upgrade().zip(position), &entry.change)
            else {
                return false;
            };
            let usage = owner.usage(position, blob);
            usage.is_some_and(|usage| plan.takes(usage, entry.length as usize))
        });
        let (mut bytes, mut steps) = (0, Pacer::default());
        // Bounded: a read in each turn.
        while let Some((span, Ok(blocks))) = spans.next().await {
            for entry in span.entries() {
                steps.entry().await;
                let position = start.after(u64::from(entry.offset));
                let Some((position, record)) = position.zip(blocks.record(entry)) else {
                    return bytes;
                };
                bytes += self.append_again(entry, record, position, opens).await;
            }
        }
        bytes
    }

    /// Appends a record again, unless it is damaged or has changed, and returns its bytes.
    async fn append_again(
        &self,
        entry: &DirectoryEntry<'_>,
        record: &[u8],
        position: Position,
        opens: OpenRange,
    ) -> usize {
        let Change::Blob(listed) = entry.change else { return 0 };
        let Some((blob, body)) = self.copy_good(record, position, opens).await else {
            count(&self.file.health.metrics.corruptions, 1);
            return 0;
        };
        let mut appended = AppendedAgain::Renewed;
        // Bounded: by the tries. Touches may come between, however often it is asked for the last.
        for _ in 0..TRIES {
            appended = self.try_again((&listed, &blob), &body, position);
            if appended != AppendedAgain::Renewed {
                break;
            }
            yield_now().await;
        }
        let is_appended = appended == AppendedAgain::Done;
        let bytes = if is_appended { entry.length as usize } else { 0 };
        count(&self.file.health.metrics.reinserted, usize::from(is_appended));
        count(&self.file.health.metrics.reinserted_bytes, bytes);
        // Reinserted records must not pile up in memory meanwhile.
        if self.log.is_crowded() {
            // An error ends all appending.
            let _ = self.log.written(self.log.tail()).await;
        }
        bytes
    }

    /// With the deadlines that it has now.
    fn try_again(
        &self,
        (listed, blob): (&BlobSummary<'_>, &Blob<'_>),
        body: &Bytes,
        position: Position,
    ) -> AppendedAgain {
        let Some(owner) = self.owner.upgrade() else { return AppendedAgain::Refused };
        let renewed = owner.renewed(position, listed);
        let renewed = renewed.filter(|_| !failpoint(Failpoint::RenewalNotReinserted));
        let blob = renewed.map_or(*blob, |life| blob.with_life(&life));
        let listed = listed.of(&blob);
        match EncodedRecord::new(&Record::Blob(blob), body.clone()) {
            // With the deadlines of a touch it may be too long for any segment.
            Ok(encoded) if self.log.fits(encoded.lengths(), &Change::Blob(listed)) => {
                owner.append_again(position, &listed, renewed, encoded)
            }
            _ => AppendedAgain::Refused,
        }
    }

    /// Keeps room in the segment that is written next for what this one, the next to be reclaimed,
    /// would reinsert now: otherwise new records may have taken it by then.
    pub(super) async fn expect(&self, segment: SegmentNumber, superblocks: &SuperblockWriter) {
        let opens = opens(superblocks);
        let image = self.read_image(segment, opens).await;
        let _counted = self.file.health.count_buffer(image.as_deref().map_or(0, <[u8]>::len));
        let directory = self.decode(image.as_deref(), segment, opens).await;
        let Some(directory) = directory else { return self.log.keep_room(0) };
        let plan = self.plan(&directory, segment, 0, &mut self.rewrites.clone()).await;
        self.log.keep_room(plan.room);
    }

    /// Decides before any record is read or moved. The budget earns the bytes of the segment.
    async fn plan(
        &self,
        directory: &Directory<'_>,
        segment: SegmentNumber,
        index_wanted: usize,
        rewrites: &mut RewriteBudget,
    ) -> Plan {
        let start = self.file.geometry.start_of(segment);
        let (mut candidates, mut steps) = (Candidates::new(), Pacer::default());
        let (mut bytes, mut listed, mut used) = (0, 0, 0);
        for entry in directory.entries() {
            steps.entry().await;
            let (offset, length) = (u64::from(entry.offset), entry.length as usize);
            bytes += length;
            let position = start.and_then(|start| start.after(offset));
            let Some((owner, position)) = self.owner.upgrade().zip(position) else { break };
            let Change::Blob(blob) = entry.change else { continue };
            if let Some(usage) = owner.usage(position, &blob) {
                candidates.add(usage, length);
                listed += blob.key.len() + LISTED_BYTES;
                used += length;
            }
        }
        rewrites.earn(bytes);
        let selection = candidates.select(rewrites.bytes_left());
        // If all stayed, who waits for the bytes would wait for ever.
        let index_wanted = if failpoint(Failpoint::WantedIndexRoomKept) { 0 } else { index_wanted };
        let is_crowded = self.owner.upgrade().is_some_and(|it| it.is_index_crowded(index_wanted));
        let slots = if is_crowded {
            self.slots(directory, segment).await / CROWDED_SHARE
        } else {
            usize::MAX
        };
        // The share of those that are selected.
        let listed = (listed as u128 * selection.bytes() as u128).div_ceil(used.max(1) as u128);
        let room = selection.bytes() + usize::try_from(listed).unwrap_or(usize::MAX / 2);
        Plan { selection, slots, room }
    }

    async fn slots(&self, directory: &Directory<'_>, segment: SegmentNumber) -> usize {
        let start = self.file.geometry.start_of(segment);
        let (mut slots, mut steps) = (0, Pacer::default());
        for entry in directory.entries() {
            steps.entry().await;
            let position = start.and_then(|start| start.after(u64::from(entry.offset)));
            let Some((owner, position)) = self.owner.upgrade().zip(position) else { return 0 };
            let (namespace, hash) = match entry.change {
                Change::Blob(blob) => (blob.namespace, blob.hash),
                Change::Tombstone { namespace, hash } => (namespace, hash),
                _ => continue,
            };
            slots += usize::from(owner.holds(namespace.name, KeyHash(hash), position));
        }
        slots
    }

    /// The record, with a copy of its body. None if it is damaged.
    async fn copy_good<'a>(
        &self,
        record: &'a [u8],
        position: Position,
        opens: OpenRange,
    ) -> Option<(Blob<'a>, Bytes)> {
        let head = RecordHead::decode(record, self.file.key, position, opens).ok()?;
        let body = head.body(record).ok()?;
        let Record::Blob(blob) = head.record else { return None };
        let (mut sum, mut copy) = (BodyHasher::new(), Vec::with_capacity(body.len()));
        let mut steps = Pacer::default();
        for piece in body.chunks(BATCH_BYTES) {
            steps.bytes(piece.len()).await;
            sum.update(piece);
            copy.extend_from_slice(piece);
        }
        sum.verify(blob.body).ok()?;
        Some((blob, Bytes::from(copy)))
    }

    /// Removes the slots of the segment's records.
    async fn forget(&self, directory: &Directory<'_>, segment: SegmentNumber) {
        let start = self.file.geometry.start_of(segment);
        let mut records = 0;
        for (number, entry) in (1..).zip(directory.entries()) {
            meter::entries(1);
            let position = start.and_then(|start| start.after(u64::from(entry.offset)));
            let Some((owner, position)) = self.owner.upgrade().zip(position) else { return };
            match entry.change {
                Change::Blob(blob) => {
                    let key = (blob.key, KeyHash(blob.hash));
                    owner.forget(blob.namespace.name, key, position, Some(&blob));
                }
                Change::Tombstone { namespace, hash } => {
                    owner.forget(namespace.name, (&[], KeyHash(hash)), position, None);
                }
                _ => {}
            }
            records = number;
            if number % BATCH_ENTRIES == 0 {
                yield_now().await;
            }
        }
        if let Some(owner) = self.owner.upgrade() {
            owner.reclaimed(records);
        }
    }
}

fn opens(superblocks: &SuperblockWriter) -> OpenRange {
    OpenRange { first: OpenCount(1), last: superblocks.superblock().open_count }
}
