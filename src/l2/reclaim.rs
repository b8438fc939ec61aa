//! `Reclaimer`: frees the oldest segment.
//!
//! In this order: records that were read since they were written are reinserted at the end of the
//! log; the head moves past the segment, on file; the segment's slots leave the index; its readers
//! finish; only then may its place be written to.
//!
//! Reinserted records take at most a quarter of the segment, and at most a quarter of its slots if
//! the index is crowded. They never wait for room, so a segment can always be reclaimed. If many
//! wait to be written, reclaim waits, too: they must not pile up. A reinserted record keeps
//! its put time, its version and its labels. To replay it is a put at its new place; therefore it
//! is reinserted only while no invalidation in force matches it.

use std::io;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::checksum::BodyHasher;
use super::directory::Directory;
use super::directory_entry::Change;
use super::format::{BLOCK_BYTES, OpenCount, OpenRange, Position, SegmentNumber};
use super::health::{CountedBuffer, count};
use super::log::Log;
use super::log_owner::LogOwner;
use super::outlines::Outlines;
use super::read_pins::ReadPins;
use super::record::{Record, RecordHead};
use super::segment_file::SegmentFile;
use super::superblock_writer::SuperblockWriter;
use super::write_batch::EncodedRecord;
use crate::batch::{BATCH_BYTES, BATCH_ENTRIES, Pacer, yield_now};
use crate::failpoint::{Failpoint, failpoint};
use crate::io::AlignedBuffer;
use crate::key::KeyHash;
use crate::meter;

/// Reinserted records may take one part in this many of a segment.
const REINSERTED_SHARE: usize = 4;

/// Bytes of a segment that are read at once to reinsert records.
const WINDOW_BYTES: usize = 1 << 20;

struct Window<'a> {
    /// Their offset in the segment.
    start: usize,
    blocks: AlignedBuffer,
    _counted: CountedBuffer<'a>,
}

impl Window<'_> {
    fn record(&self, offset: usize, length: usize) -> Option<&[u8]> {
        let start = offset.checked_sub(self.start)?;
        self.blocks.get(start..start + length)
    }
}

struct Allowance {
    bytes: usize,
    slots: usize,
}

pub(super) struct Reclaimer {
    log: Arc<Log>,
    file: SegmentFile,
    pins: Arc<ReadPins>,
    outlines: Arc<Outlines>,
    owner: Weak<dyn LogOwner>,
}

impl Reclaimer {
    pub(super) fn new(
        log: Arc<Log>,
        file: SegmentFile,
        pins: Arc<ReadPins>,
        outlines: Arc<Outlines>,
        owner: Weak<dyn LogOwner>,
    ) -> Self {
        Self { log, file, pins, outlines, owner }
    }

    pub(super) async fn reclaim(
        &self,
        segment: SegmentNumber,
        superblocks: &mut SuperblockWriter,
    ) -> io::Result<()> {
        let next = SegmentNumber(segment.0 + 1);
        let end = self.file.geometry.start_of(next);
        let end = end.ok_or_else(|| io::Error::other("positions have run out"))?;
        let opens = OpenRange { first: OpenCount(1), last: superblocks.superblock().open_count };
        let image = self.read_image(segment, opens).await;
        let _counted = self.file.health.count_buffer(image.as_deref().map_or(0, <[u8]>::len));
        let directory = self.decode(image.as_deref(), segment, opens).await;
        if let Some(directory) = &directory {
            self.reinsert(directory, segment, opens).await;
        }
        superblocks.write_head(end).await?;
        match &directory {
            Some(directory) => self.forget(directory, segment).await,
            None => {
                count(&self.file.health.metrics.corruptions, 1);
                log::warn!("the directory of segment {} cannot be read", segment.0);
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
        self.pins.released(segment).await;
        count(&self.file.health.metrics.reclaimed_segments, 1);
        Ok(())
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

    /// Appends the records that deserve it to the log again.
    async fn reinsert(&self, directory: &Directory<'_>, segment: SegmentNumber, opens: OpenRange) {
        let start = self.file.geometry.start_of(segment);
        let mut allowance = self.allowance(directory, segment).await;
        let mut window = None;
        for (number, entry) in (1..).zip(directory.entries()) {
            meter::entries(1);
            if number % BATCH_ENTRIES == 0 {
                yield_now().await;
            }
            let (offset, length) = (entry.offset as usize, entry.length as usize);
            let position = start.and_then(|start| start.after(offset as u64));
            let Some((owner, position)) = self.owner.upgrade().zip(position) else { break };
            let Change::Blob(blob) = entry.change else { continue };
            let has_room = length <= allowance.bytes && allowance.slots > 0;
            if !has_room || !owner.deserves_reinsertion(position, &blob) {
                continue;
            }
            let known = window.as_ref().and_then(|it: &Window<'_>| it.record(offset, length));
            if known.is_none() {
                let Ok(read) = self.read_window(segment, offset, length).await else { break };
                window = Some(read);
            }
            let record = window.as_ref().and_then(|it| it.record(offset, length));
            let Some(record) = record else { break };
            let Some(encoded) = self.encode_again(record, position, opens).await else {
                count(&self.file.health.metrics.corruptions, 1);
                continue;
            };
            if owner.append_again(position, &blob, encoded) {
                allowance.bytes -= length;
                allowance.slots -= 1;
                count(&self.file.health.metrics.reinserted, 1);
                count(&self.file.health.metrics.reinserted_bytes, length);
            }
            // Reinserted records must not pile up in memory meanwhile.
            if self.log.is_crowded() {
                drop(owner);
                // An error ends the loop, like all appending.
                let _ = self.log.written(self.log.tail()).await;
            }
        }
    }

    async fn allowance(&self, directory: &Directory<'_>, segment: SegmentNumber) -> Allowance {
        let bytes = self.file.geometry.segment_bytes() as usize / REINSERTED_SHARE;
        let is_crowded = self.owner.upgrade().is_some_and(|it| it.is_index_crowded(0));
        let slots = if is_crowded {
            self.slots(directory, segment).await / REINSERTED_SHARE
        } else {
            usize::MAX
        };
        Allowance { bytes, slots }
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

    /// The blocks of a record, and some of those behind it.
    async fn read_window(
        &self,
        segment: SegmentNumber,
        offset: usize,
        length: usize,
    ) -> io::Result<Window<'_>> {
        let start = offset / BLOCK_BYTES * BLOCK_BYTES;
        let end = (offset + length).next_multiple_of(BLOCK_BYTES).max(start + WINDOW_BYTES);
        let end = end.min(self.file.geometry.segment_bytes() as usize);
        let blocks = self.file.read(segment, start, end - start).await?;
        let _counted = self.file.health.count_buffer(blocks.len());
        Ok(Window { start, blocks, _counted })
    }

    /// The record, encoded for its new place. None if it is damaged.
    async fn encode_again(
        &self,
        record: &[u8],
        position: Position,
        opens: OpenRange,
    ) -> Option<EncodedRecord> {
        let head = RecordHead::decode(record, self.file.key, position, opens).ok()?;
        let body = head.body(record).ok()?;
        let Record::Blob(blob) = &head.record else { return None };
        let (mut sum, mut copy) = (BodyHasher::new(), Vec::with_capacity(body.len()));
        let mut steps = Pacer::default();
        for piece in body.chunks(BATCH_BYTES) {
            steps.bytes(piece.len()).await;
            sum.update(piece);
            copy.extend_from_slice(piece);
        }
        sum.verify(blob.body).ok()?;
        EncodedRecord::new(&head.record, Bytes::from(copy)).ok()
    }

    /// Removes the slots of the segment's records.
    async fn forget(&self, directory: &Directory<'_>, segment: SegmentNumber) {
        let start = self.file.geometry.start_of(segment);
        for (number, entry) in (1..).zip(directory.entries()) {
            meter::entries(1);
            let position = start.and_then(|start| start.after(u64::from(entry.offset)));
            let Some((owner, position)) = self.owner.upgrade().zip(position) else { return };
            match entry.change {
                Change::Blob(blob) => {
                    let key = (blob.key, KeyHash(blob.hash));
                    owner.forget(blob.namespace.name, key, position);
                }
                Change::Tombstone { namespace, hash } => {
                    owner.forget(namespace.name, (&[], KeyHash(hash)), position);
                }
                _ => {}
            }
            if number % BATCH_ENTRIES == 0 {
                yield_now().await;
            }
        }
    }
}
