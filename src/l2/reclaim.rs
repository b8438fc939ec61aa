//! Reclaim: the oldest segment gives way.
//!
//! In this order: what of it was read since it was written gets a second chance, at the end of the
//! log; the head mark moves past it, on file; its slots leave the index; its readers finish; only
//! then is its place written to.
//!
//! Second chances take a quarter of the segment at most, and of its slots where the index is what
//! has no room, and never wait for room, so that a segment can always be reclaimed. Frames that are
//! full are written in between, so that they do not pile up in memory. A record that was written
//! again is the same to everybody: the time it
//! was put, its version and its labels come along. To replay it is a put at its new place, which is
//! why it is taken only while no invalidation in force covers it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::checksum::BodyHasher;
use super::directory::Directory;
use super::entry::Change;
use super::format::{BLOCK_BYTES, OpenCount, OpenRange, Position, SegmentNumber};
use super::health::tally;
use super::medium::Medium;
use super::record::{Record, RecordHead};
use super::unit::Draft;
use super::writer::Writer;
use crate::batch::{BATCH_BYTES, BATCH_ENTRIES, Pacer, yield_now};
use crate::failpoint::{Failpoint, failpoint};
use crate::io::AlignedBuffer;
use crate::key::KeyHash;
use crate::meter;

/// The part of a segment that second chances may take.
const SECOND_CHANCES_SHARE: usize = 4;

/// What is read at once of a segment whose records get second chances.
const WINDOW_BYTES: usize = 1 << 20;

/// Some blocks of a segment, as they are on file.
struct Window {
    /// Their place in the segment.
    start: usize,
    blocks: AlignedBuffer,
}

impl Window {
    fn record(&self, place: usize, length: usize) -> Option<&[u8]> {
        let start = place.checked_sub(self.start)?;
        self.blocks.get(start..start + length)
    }
}

impl Writer {
    pub(super) async fn reclaim(&mut self, segment: SegmentNumber) -> io::Result<()> {
        let Medium { geometry, .. } = self.medium;
        let end = geometry.start_of(SegmentNumber(segment.0 + 1));
        let end = end.ok_or_else(|| io::Error::other("positions have run out"))?;
        let image = self.directory_image(segment).await;
        let health = Arc::clone(&self.medium.health);
        let _held = health.hold(image.as_deref().map_or(0, <[u8]>::len));
        let directory = self.directory(image.as_deref(), segment).await;
        if let Some(directory) = &directory {
            self.give_second_chances(directory, segment).await?;
        }
        self.superblock.head = end;
        self.write_superblock().await?;
        match &directory {
            Some(directory) => self.forget(directory, segment).await,
            None => {
                tally(&self.medium.health.tally.corruptions, 1);
                log::warn!("segment {} leaves with an unreadable directory", segment.0);
                if let Some(tenant) = self.tenant.upgrade() {
                    tenant.forget_before(end).await;
                }
            }
        }
        // Only now: whoever looks for what a prefix covers looks through all that has slots.
        self.log.leave_behind(SegmentNumber(segment.0 + 1));
        if failpoint(Failpoint::SlotsDroppedEarly) {
            let next = SegmentNumber(segment.0 + 1);
            let image = self.directory_image(next).await;
            if let Some(directory) = self.directory(image.as_deref(), next).await {
                self.forget(&directory, next).await;
            }
        }
        self.pins.released(segment).await;
        tally(&self.medium.health.tally.reclaimed_segments, 1);
        Ok(())
    }

    fn opens(&self) -> OpenRange {
        OpenRange { first: OpenCount(1), last: self.superblock.open_count }
    }

    /// None where it cannot be read.
    async fn directory_image(&self, segment: SegmentNumber) -> Option<AlignedBuffer> {
        self.medium.read_directory(segment, self.opens()).await.ok().flatten()
    }

    /// What it lists. None where there is none, or it is damaged.
    async fn directory<'a>(
        &self,
        image: Option<&'a [u8]>,
        segment: SegmentNumber,
    ) -> Option<Directory<'a>> {
        let Medium { geometry, key, .. } = self.medium;
        Directory::read(image?, key, segment, self.opens(), geometry).await.ok()
    }

    async fn give_second_chances(
        &mut self,
        directory: &Directory<'_>,
        segment: SegmentNumber,
    ) -> io::Result<()> {
        let geometry = self.medium.geometry;
        let mut left = geometry.segment_bytes() as usize / SECOND_CHANCES_SHARE;
        let is_crowded = self.tenant.upgrade().is_some_and(|it| it.is_index_crowded(0));
        let mut left_slots = match is_crowded {
            true => self.slots(directory, segment).await / SECOND_CHANCES_SHARE,
            false => usize::MAX,
        };
        let start = geometry.start_of(segment);
        let health = Arc::clone(&self.medium.health);
        let (mut window, mut _held) = (None, None);
        for (number, listed) in (1..).zip(directory.entries().flatten()) {
            meter::entries(1);
            if number % BATCH_ENTRIES == 0 {
                yield_now().await;
            }
            let (place, length) = (listed.entry.place as usize, listed.entry.length as usize);
            let position = start.and_then(|start| start.after(place as u64));
            let Some((tenant, position)) = self.tenant.upgrade().zip(position) else { break };
            let Change::Blob(blob) = listed.entry.change else { continue };
            if length > left || left_slots == 0 || !tenant.deserves_second_chance(position, &blob) {
                continue;
            }
            let record = match window
                .as_ref()
                .and_then(|window: &Window| window.record(place, length))
            {
                Some(record) => record,
                None => {
                    let Ok(read) = self.read_window(segment, place, length).await else { break };
                    _held = Some(health.hold(read.blocks.len()));
                    match window.insert(read).record(place, length) {
                        Some(record) => record,
                        None => break,
                    }
                }
            };
            let Some(again) = self.again(record, position).await else {
                tally(&self.medium.health.tally.corruptions, 1);
                continue;
            };
            if tenant.append_again(position, &blob, again) {
                left -= length;
                left_slots -= 1;
                tally(&self.medium.health.tally.reinserted, 1);
                tally(&self.medium.health.tally.reinserted_bytes, length);
            }
            // What is written again does not pile up in memory meanwhile.
            if self.log.is_crowded() {
                drop(tenant);
                self.write_frames().await?;
            }
        }
        Ok(())
    }

    /// How many of its records have a slot.
    async fn slots(&self, directory: &Directory<'_>, segment: SegmentNumber) -> usize {
        let start = self.medium.geometry.start_of(segment);
        let (mut slots, mut steps) = (0, Pacer::default());
        for listed in directory.entries().flatten() {
            steps.entry().await;
            let position = start.and_then(|start| start.after(u64::from(listed.entry.place)));
            let Some((tenant, position)) = self.tenant.upgrade().zip(position) else { return 0 };
            let (namespace, hash) = match listed.entry.change {
                Change::Blob(blob) => (blob.namespace, blob.hash),
                Change::Tombstone { namespace, hash } => (namespace, hash),
                _ => continue,
            };
            slots += usize::from(tenant.holds(namespace.name, KeyHash(hash), position));
        }
        slots
    }

    /// The blocks of a record, and some of those behind it.
    async fn read_window(
        &self,
        segment: SegmentNumber,
        place: usize,
        length: usize,
    ) -> io::Result<Window> {
        let start = place / BLOCK_BYTES * BLOCK_BYTES;
        let end = (place + length).next_multiple_of(BLOCK_BYTES).max(start + WINDOW_BYTES);
        let end = end.min(self.medium.geometry.segment_bytes() as usize);
        let blocks = self.medium.read(segment, start, end - start).await?;
        Ok(Window { start, blocks })
    }

    /// The record as it is to be written again. None where it is damaged.
    async fn again(&self, record: &[u8], position: Position) -> Option<Draft> {
        let head = RecordHead::decode(record, self.medium.key, position, self.opens()).ok()?;
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
        Draft::new(&head.record, Bytes::from(copy)).ok()
    }

    async fn forget(&self, directory: &Directory<'_>, segment: SegmentNumber) {
        let start = self.medium.geometry.start_of(segment);
        for (number, listed) in (1..).zip(directory.entries().flatten()) {
            meter::entries(1);
            let position = start.and_then(|start| start.after(u64::from(listed.entry.place)));
            let Some((tenant, position)) = self.tenant.upgrade().zip(position) else { return };
            match listed.entry.change {
                Change::Blob(blob) => {
                    let key = (blob.key, KeyHash(blob.hash));
                    tenant.forget(blob.namespace.name, key, position);
                }
                Change::Tombstone { namespace, hash } => {
                    tenant.forget(namespace.name, (&[], KeyHash(hash)), position);
                }
                _ => {}
            }
            if number % BATCH_ENTRIES == 0 {
                yield_now().await;
            }
        }
    }
}
