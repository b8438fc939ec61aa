//! `Writer`: the task that works off the log's jobs, one at a time.
//!
//! One write batch is in flight at a time, so the file always holds a prefix of the log. After it
//! has sealed a segment, it prepares another one behind the segment that is now in use: it reclaims
//! the oldest if it must, writes the header, then the superblocks that announce it.
//!
//! A write that fails for good turns L2 off and voids the store.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::{Either, select};

use super::format::SegmentNumber;
use super::frame_writer::FrameWriter;
use super::health::Health;
use super::log::Log;
use super::log_owner::LogOwner;
use super::read_pins::ReadPins;
use super::reclaim::Reclaimer;
use super::segment_file::SegmentFile;
use super::superblock::Superblock;
use super::write_batch::Job;
use crate::io::TaskRunner;

/// How long a record waits for others to share its frame.
const WRITE_BATCH_AGE: Duration = Duration::from_secs(1);

/// How long to wait between attempts to void a store whose device fails.
const VOID_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct Writer {
    log: Arc<Log>,
    file: SegmentFile,
    frames: FrameWriter,
    reclaimer: Reclaimer,
    runner: Arc<dyn TaskRunner>,
    owner: Weak<dyn LogOwner>,
    /// The segment that is being written. All before it are sealed on file.
    writing: SegmentNumber,
}

pub(crate) struct WriterStart {
    pub(super) superblock: Superblock,
    /// The bytes of the log in the block in which it ends.
    pub(super) tail_block: Vec<u8>,
    pub(super) writing: SegmentNumber,
}

/// Tells all waiting callers if the writer panics or its runner breaks down.
struct Guard {
    log: Arc<Log>,
    health: Arc<Health>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.log.is_closed() {
            self.health.degrade("the task that writes to disk has ended".to_owned());
            self.log.turn_off();
            self.log.tell_all_at_once();
        }
    }
}

impl Writer {
    pub(super) fn new(
        start: WriterStart,
        log: &Arc<Log>,
        file: &SegmentFile,
        pins: &Arc<ReadPins>,
        runner: Arc<dyn TaskRunner>,
        owner: Weak<dyn LogOwner>,
    ) -> Self {
        let WriterStart { superblock, tail_block, writing } = start;
        let log = Arc::clone(log);
        Self {
            frames: FrameWriter::new(Arc::clone(&log), file.clone(), superblock, tail_block),
            reclaimer: Reclaimer::new(
                Arc::clone(&log),
                file.clone(),
                Arc::clone(pins),
                Weak::clone(&owner),
            ),
            log,
            file: file.clone(),
            runner,
            owner,
            writing,
        }
    }

    /// Writes until the log is closed or the device fails.
    pub(crate) async fn run(mut self) {
        let _guard = Guard { log: Arc::clone(&self.log), health: Arc::clone(&self.file.health) };
        if let Err(error) = self.serve().await {
            log::error!("the disk tier is turned off: {error}");
            self.file.health.degrade(error.to_string());
            self.log.turn_off();
            self.log.tell_all().await;
            self.void().await;
        }
    }

    async fn serve(&mut self) -> io::Result<()> {
        self.prepare_next().await?;
        // Bounded: a job in each turn, with waits in between.
        loop {
            self.make_index_room().await?;
            let Some(job) = self.next_job().await else { continue };
            match job {
                Job::Write(batch) => self.frames.write_batch(&batch).await?,
                Job::Seal(seal) => {
                    self.frames.write_directory(&seal).await?;
                    self.log.done().await;
                    self.writing = SegmentNumber(seal.segment.0 + 1);
                    self.prepare_next().await?;
                    continue;
                }
                Job::Close { tail } => {
                    self.log.wake_room().await;
                    self.frames.write_close(tail).await?;
                    self.log.done().await;
                    return Ok(());
                }
                Job::Fail => return Err(io::Error::other("the log refuses what it has room for")),
            }
            self.log.done().await;
        }
    }

    /// None: room in the index is wanted.
    async fn next_job(&self) -> Option<Job> {
        // Bounded: it waits in each turn.
        loop {
            let knew_open = self.log.is_open();
            if let Some(job) = self.log.job(false) {
                return Some(job);
            }
            if self.log.is_index_room_wanted() {
                return None;
            }
            let work = std::pin::pin!(self.log.work(knew_open));
            if !knew_open {
                work.await;
                continue;
            }
            if let Either::Right(_) = select(work, self.runner.sleep(WRITE_BATCH_AGE)).await {
                if let Some(job) = self.log.job(true) {
                    return Some(job);
                }
            }
        }
    }

    /// Announces a segment behind the one that is being written, if there is none. It goes by what
    /// is written and not by the end of the log: positions in the announced segment may already be
    /// assigned to records in memory, and the oldest segment must not be one of those.
    async fn prepare_next(&mut self) -> io::Result<()> {
        let geometry = self.file.geometry;
        // Bounded: a segment in each turn, with writes in between.
        while self.frames.superblock().newest <= self.writing {
            let next = SegmentNumber(self.frames.superblock().newest.0 + 1);
            let oldest = geometry.segment_of(self.frames.superblock().head);
            if next.0 - oldest.0 >= u64::from(geometry.segment_count()) {
                self.reclaimer.reclaim(oldest, &mut self.frames).await?;
            }
            self.frames.write_announcement(next).await?;
            self.log.announce(next).await;
        }
        Ok(())
    }

    /// Reclaims the oldest segments while the index is crowded, up to the one that is written.
    async fn make_index_room(&mut self) -> io::Result<()> {
        let wanted = self.log.take_index_wanted();
        // Bounded: a segment in each turn.
        loop {
            let oldest = self.file.geometry.segment_of(self.frames.superblock().head);
            let is_crowded = self.owner.upgrade().is_some_and(|it| it.is_index_crowded(wanted));
            if !is_crowded || oldest >= self.writing || self.log.is_close_requested() {
                break;
            }
            self.reclaimer.reclaim(oldest, &mut self.frames).await?;
            self.log.room_came().await;
        }
        if wanted > 0 {
            self.log.room_came().await;
        }
        Ok(())
    }

    /// Marks the store as void as soon as the device accepts it.
    async fn void(&mut self) {
        // Bounded: a write in each turn, with a pause.
        while self.frames.write_void().await.is_err() {
            // A caller that closes waits for this task, and holds the owner.
            if self.owner.strong_count() == 0 || self.log.is_close_requested() {
                return;
            }
            let closing = std::pin::pin!(self.log.close_requested());
            select(closing, self.runner.sleep(VOID_INTERVAL)).await;
        }
    }
}
