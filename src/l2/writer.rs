//! `Writer`: the one task that writes: units, directories, headers, superblocks.
//!
//! One unit is in flight at a time, so that what is on file is always a prefix of the log.
//! Whenever a segment has been sealed, the next one is made ready behind the one that is in use:
//! the oldest gives way if it must, its header is written, then the superblocks that announce it.
//!
//! How the oldest segment goes is `reclaim`'s. A write that fails for good turns L2 off and voids
//! the store.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::{BoxFuture, Either, select};

use super::entry::BlobSummary;
use super::format::{BLOCK_BYTES, Position, SegmentNumber, align};
use super::log::Log;
use super::medium::Medium;
use super::pins::Pins;
use super::superblock::Superblock;
use super::unit::{Draft, Job, Seal, Unit};
use crate::batch::{BATCH_BYTES, Pacer};
use crate::io::{AlignedBuffer, TaskRunner};
use crate::key::KeyHash;

/// How long a record waits for company.
const UNIT_AGE: Duration = Duration::from_secs(1);

/// How long to wait between attempts to void a store whose device fails.
const VOID_INTERVAL: Duration = Duration::from_secs(1);

/// Who holds slots for records, and lets go of them when their segment is reclaimed.
pub(crate) trait Tenant: Send + Sync {
    /// The record at `position` leaves the log. Its slot goes if it still holds that position.
    fn forget(&self, namespace: &str, key: (&[u8], KeyHash), position: Position);

    /// Whatever lies before `position` leaves the log, and nobody can say what that was.
    fn forget_before(&self, position: Position) -> BoxFuture<'_, ()>;

    /// Whether the index is so full that the oldest segments are to go: it has no room for so many
    /// bytes, or little more than that.
    fn is_index_crowded(&self, wanted: usize) -> bool;

    /// Whether a slot stands for the record at `position`.
    fn holds(&self, namespace: &str, key: KeyHash, position: Position) -> bool;

    /// Whether the blob at `position`, which is about to leave the log, is worth being kept.
    fn deserves_second_chance(&self, position: Position, blob: &BlobSummary<'_>) -> bool;

    /// Takes the same blob, with the record that it had there, into the log once more, if nothing
    /// has happened to it. False where it has, or the log has no room.
    fn append_again(&self, position: Position, blob: &BlobSummary<'_>, draft: Draft) -> bool;
}

pub(crate) struct Writer {
    pub(crate) log: Arc<Log>,
    pub(crate) medium: Medium,
    pub(crate) lane: Arc<dyn TaskRunner>,
    pub(crate) superblock: Superblock,
    pub(crate) pins: Arc<Pins>,
    pub(crate) tenant: Weak<dyn Tenant>,
    /// What the block in which the log ends holds so far.
    pub(crate) tail_block: Vec<u8>,
    /// The segment that is being written. All before it are sealed on file.
    pub(crate) writing: SegmentNumber,
}

/// Tells whoever waits, should the writer panic or its lane break down.
struct Guard {
    log: Arc<Log>,
    health: Arc<super::health::Health>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.log.is_closed() {
            self.health.degrade("the writer has gone".to_owned());
            self.log.turn_off();
            self.log.tell_all_at_once();
        }
    }
}

impl Writer {
    /// Writes until the log is closed or the device fails.
    pub(crate) async fn run(mut self) {
        let _guard = Guard { log: Arc::clone(&self.log), health: Arc::clone(&self.medium.health) };
        if let Err(error) = self.serve().await {
            log::error!("the disk tier is turned off: {error}");
            self.medium.health.degrade(error.to_string());
            self.log.turn_off();
            self.log.tell_all().await;
            self.void().await;
        }
    }

    async fn serve(&mut self) -> io::Result<()> {
        self.make_ready(self.writing).await?;
        // Bounded: a job in each turn, with waits in between.
        loop {
            self.make_index_room().await?;
            let Some(job) = self.job().await else { continue };
            match job {
                Job::Frame(unit) => self.write_unit(&unit).await?,
                Job::Seal(seal) => {
                    self.write_directory(&seal).await?;
                    self.log.done().await;
                    self.writing = SegmentNumber(seal.segment.0 + 1);
                    self.make_ready(self.writing).await?;
                    continue;
                }
                Job::Close { tail } => {
                    self.log.refuse_room().await;
                    self.finish(tail).await?;
                    self.log.done().await;
                    return Ok(());
                }
                Job::Fail => return Err(io::Error::other("the log refuses what it has room for")),
            }
            self.log.done().await;
        }
    }

    /// None: room in the index is wanted.
    async fn job(&self) -> Option<Job> {
        // Bounded: it waits in each turn.
        loop {
            let knew_open = self.log.is_open();
            if let Some(job) = self.log.job(false) {
                return Some(job);
            }
            if self.log.index_wanted.load(Ordering::Acquire) > 0 {
                return None;
            }
            let work = std::pin::pin!(self.log.work(knew_open));
            if !knew_open {
                work.await;
                continue;
            }
            if let Either::Right(_) = select(work, self.lane.sleep(UNIT_AGE)).await {
                if let Some(job) = self.log.job(true) {
                    return Some(job);
                }
            }
        }
    }

    /// Writes the frames that wait, up to what has to be done before more can be written.
    pub(super) async fn write_frames(&mut self) -> io::Result<()> {
        // Bounded: a write in each turn.
        while let Some(Job::Frame(unit)) = self.log.job(true) {
            self.write_unit(&unit).await?;
            self.log.done().await;
        }
        Ok(())
    }

    /// Writes a frame behind the last one, with what the last block holds before it.
    async fn write_unit(&mut self, unit: &Unit) -> io::Result<()> {
        let offset = self.medium.geometry.file_offset(unit.position);
        let before = usize::try_from(offset % BLOCK_BYTES as u64).unwrap_or(0);
        let length = unit.end.value() - unit.position.value();
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mut buffer = AlignedBuffer::with_capacity(before + length);
        buffer.append(self.tail_block.get(..before).unwrap_or_default());
        buffer.append(&unit.header);
        let mut steps = Pacer::default();
        for record in &unit.records {
            steps.entry().await;
            for piece in record.head.chunks(BATCH_BYTES).chain(record.body.chunks(BATCH_BYTES)) {
                steps.bytes(piece.len()).await;
                buffer.append(piece);
            }
            let bytes = record.head.len() + record.body.len();
            buffer.append_zeroes(align(bytes) - bytes);
        }
        let last_block = buffer.len() / BLOCK_BYTES * BLOCK_BYTES;
        self.tail_block = buffer.get(last_block..).unwrap_or_default().to_vec();
        buffer.pad_to_block();
        self.medium.write(offset - before as u64, buffer).await
    }

    async fn write_directory(&self, seal: &Seal) -> io::Result<()> {
        let Medium { geometry, key, .. } = self.medium;
        let mut image = Vec::new();
        seal.directory
            .write(key, self.superblock.open_count, seal.end, &mut image)
            .await
            .map_err(io::Error::other)?;
        // Once more to be written from.
        let _held = self.medium.health.hold(2 * image.len());
        let end = geometry.file_offset_of_segment(seal.segment);
        let start = end + u64::from(geometry.segment_bytes()) - image.len() as u64;
        self.medium.write(start, AlignedBuffer::copy_from_slice(&image)).await
    }

    /// Announces a segment behind the one that is being written, if there is none. Not by where the
    /// log has come to: what it has dealt in the announced segment waits in memory yet, and the
    /// oldest segment must not be one of those.
    async fn make_ready(&mut self, writing: SegmentNumber) -> io::Result<()> {
        let Medium { geometry, .. } = self.medium;
        // Bounded: a segment in each turn, with writes in between.
        while self.superblock.newest <= writing {
            let next = SegmentNumber(self.superblock.newest.0 + 1);
            let oldest = geometry.segment_of(self.superblock.head);
            if next.0 - oldest.0 >= u64::from(geometry.segment_count()) {
                self.reclaim(oldest).await?;
            }
            self.medium.write_header(&self.superblock, next).await?;
            self.superblock.newest = next;
            self.write_superblock().await?;
            self.log.announce(next).await;
        }
        Ok(())
    }

    /// Reclaims the oldest segments while the index is crowded, up to the one that is written.
    async fn make_index_room(&mut self) -> io::Result<()> {
        let wanted = self.log.index_wanted.swap(0, Ordering::AcqRel);
        // Bounded: a segment in each turn.
        loop {
            let oldest = self.medium.geometry.segment_of(self.superblock.head);
            let is_crowded = self.tenant.upgrade().is_some_and(|it| it.is_index_crowded(wanted));
            if !is_crowded || oldest >= self.writing || self.log.is_left() {
                break;
            }
            self.reclaim(oldest).await?;
            self.log.room_came().await;
        }
        if wanted > 0 {
            self.log.room_came().await;
        }
        Ok(())
    }

    async fn finish(&mut self, tail: Position) -> io::Result<()> {
        self.medium.sync().await?;
        self.superblock.clean = true;
        self.superblock.tail = tail;
        self.write_superblock().await?;
        self.medium.sync().await
    }

    /// Says on file that nothing is to be served from it, as soon as the device lets it.
    async fn void(&mut self) {
        self.superblock.void = true;
        self.superblock.clean = false;
        // Bounded: a write in each turn, with a pause.
        loop {
            if self.write_superblock().await.is_ok() && self.medium.sync().await.is_ok() {
                self.medium.health.set_voided();
                return;
            }
            // Whoever closes waits for this task, and holds the tenant.
            if self.tenant.strong_count() == 0 || self.log.is_left() {
                return;
            }
            let left = std::pin::pin!(self.log.left());
            select(left, self.lane.sleep(VOID_INTERVAL)).await;
        }
    }

    pub(super) async fn write_superblock(&mut self) -> io::Result<()> {
        self.superblock.write_counter += 1;
        self.medium.write_superblock(&self.superblock).await
    }
}
