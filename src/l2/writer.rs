//! `Writer`: the task that works off the log's jobs, one at a time.
//!
//! One write batch is in flight at a time, so the file always holds a prefix of the log. Once it
//! has sealed a segment, another one is prepared behind the segment that is now in use, beside the
//! batches that are written meanwhile.
//!
//! At a close it writes the clean mark, then an image of the index.
//!
//! A write that fails for good turns L2 off and voids the store. Once the device accepts that, the
//! log begins anew, behind all that was ever numbered and without any record: nothing of the old
//! store can be served again, so that is safe.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures::future::{Either, select};

use super::format::SegmentNumber;
use super::frame_writer::FrameWriter;
use super::health::Health;
use super::image::{ImageSettings, ImageWriter};
use super::log::Log;
use super::log_owner::LogOwner;
use super::outlines::Outlines;
use super::reclaim::Reclaimer;
use super::rewrite_budget::RewriteBudget;
use super::segment_file::SegmentFile;
use super::segment_supply::{SegmentSupply, Supplying};
use super::size_requests::SizeRefusal;
use super::superblock::Superblock;
use super::superblock_writer::SuperblockWriter;
use super::write_batch::Job;
use crate::io::TaskRunner;
use crate::telemetry::tell;

/// How long a record waits for others to share its frame.
const WRITE_BATCH_AGE: Duration = Duration::from_secs(1);

/// How long to wait between attempts to void a store whose device fails.
const VOID_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait before the log begins anew, after the first failure and at most.
const RESTART_AFTER: Duration = Duration::from_secs(1);
const RESTART_AFTER_MAX: Duration = Duration::from_secs(64);

pub(crate) struct Writer {
    log: Arc<Log>,
    health: Arc<Health>,
    frames: FrameWriter,
    supplying: Supplying,
    images: ImageWriter,
    outlines: Arc<Outlines>,
    runner: Arc<dyn TaskRunner>,
    owner: Weak<dyn LogOwner>,
    /// The segment that is being written. All before it are sealed on file.
    writing: SegmentNumber,
    backoff: Backoff,
    begins_off: bool,
    _guard: Guard,
}

pub(crate) struct WriterStart {
    pub(super) superblock: Superblock,
    /// The bytes of the log in the block in which it ends.
    pub(super) tail_block: Vec<u8>,
    pub(super) writing: SegmentNumber,
    pub(super) image_settings: ImageSettings,
    pub(super) rewrites: RewriteBudget,
    /// The log is off, in a store that is void.
    pub(super) is_off: bool,
}

/// How long to wait before the log begins anew: longer after failures that follow each other.
struct Backoff {
    wait: Duration,
    begun: Instant,
}

impl Backoff {
    fn new() -> Self {
        Self { wait: RESTART_AFTER, begun: Instant::now() }
    }

    fn next(&mut self) -> Duration {
        let wait = self.wait;
        self.wait = (2 * wait).min(RESTART_AFTER_MAX);
        wait
    }

    /// The log works.
    fn begin(&mut self) {
        self.begun = Instant::now();
    }

    /// It has failed.
    fn end(&mut self) {
        if self.begun.elapsed() > RESTART_AFTER_MAX {
            self.wait = RESTART_AFTER;
        }
    }
}

/// Tells all waiting callers if the writer panics, was refused, or its runner breaks down.
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
        self.log.restarts.end();
    }
}

impl Writer {
    pub(super) fn new(
        start: WriterStart,
        log: &Arc<Log>,
        file: &SegmentFile,
        outlines: &Arc<Outlines>,
        runner: Arc<dyn TaskRunner>,
        owner: Weak<dyn LogOwner>,
    ) -> Self {
        let WriterStart { superblock, tail_block, writing, image_settings, rewrites, is_off } =
            start;
        let log = Arc::clone(log);
        let (count, its_log) = (superblock.open_count, || Arc::clone(&log));
        let reclaimer = Reclaimer::new(
            its_log(),
            file.clone(),
            Arc::clone(outlines),
            Weak::clone(&owner),
            rewrites,
        );
        let superblocks = SuperblockWriter::new(file.clone(), superblock);
        let supply = SegmentSupply::new(
            its_log(),
            Weak::clone(&owner),
            reclaimer,
            superblocks,
            file.clone(),
        );
        Self {
            frames: FrameWriter::new(its_log(), file.clone(), count, tail_block),
            supplying: Supplying::new(supply),
            images: ImageWriter::new(file.clone(), image_settings),
            outlines: Arc::clone(outlines),
            _guard: Guard { log: its_log(), health: Arc::clone(&file.health) },
            log,
            health: Arc::clone(&file.health),
            runner,
            owner,
            writing,
            backoff: Backoff::new(),
            begins_off: is_off,
        }
    }

    /// Writes until the log is closed. After a failure of the device it begins anew. A log that is
    /// off begins first, in a store that is void.
    pub(crate) async fn run(mut self) {
        if self.begins_off && self.restart().await.is_none() {
            return;
        }
        // Bounded: a failure in each turn, and a pause.
        while let Err(error) = self.serve().await {
            self.backoff.end();
            self.health.degrade(error.to_string());
            self.log.turn_off();
            self.log.tell_all().await;
            tell!(error, "degradation", %error, "the disk tier is turned off");
            if self.void().await.is_none() || self.restart().await.is_none() {
                return;
            }
        }
    }

    async fn serve(&mut self) -> io::Result<()> {
        let Self { log, frames, supplying, images, outlines, runner, owner, writing, .. } = self;
        let mut is_longer = true;
        // Bounded: a job in each turn, with waits in between.
        loop {
            // An image is cut off first: both change the length of the file.
            supplying.begin(*writing, !is_longer);
            if supplying.pause(*writing).await? {
                continue;
            }
            let can_make_room = !supplying.is_at_work();
            let job = if is_longer {
                let cut = async { Ok(images.cut_piece_off().await) };
                is_longer = supplying.beside(cut).await?;
                log.job(true)
            } else {
                supplying.until(next_job(log, &**runner, can_make_room)).await?.flatten()
            };
            match job {
                None => {}
                Some(Job::Write(batch)) => supplying.beside(frames.write_batches(batch)).await?,
                Some(Job::Seal(seal)) => {
                    let outline = supplying.beside(frames.write_directory(&seal)).await?;
                    let owner = owner.upgrade();
                    let fits = |bytes| owner.is_some_and(|owner| owner.has_index_room(bytes));
                    outlines.keep(outline, fits);
                    *writing = SegmentNumber(seal.segment.0 + 1);
                    log.settle(log.finish()).await;
                }
                Some(Job::Close { tail, index }) => {
                    log.wake_room().await;
                    let (supplied, supply) = supplying.rest().await;
                    supplied?;
                    let lost = || io::Error::other("the supply of segments was lost");
                    let superblocks = supply.ok_or_else(lost)?.superblocks();
                    // Bounded: a piece in each turn.
                    while images.cut_piece_off().await {}
                    log.sizes().refuse(SizeRefusal::Closed);
                    superblocks.write_close(tail).await?;
                    if let Some(index) = index {
                        images.write(superblocks.superblock(), &index).await;
                        index.free_contents();
                    }
                    log.settle(log.finish()).await;
                    log.sizes().tell_all().await;
                    return Ok(());
                }
                Some(Job::Fail) => {
                    return Err(io::Error::other("a sync has failed, or the log is inconsistent"));
                }
            }
        }
    }

    /// Marks the store as void as soon as the device accepts it. None if the cache ends before.
    async fn void(&mut self) -> Option<()> {
        let Self { supplying, log, runner, owner, .. } = self;
        let (_supplied, Some(supply)) = supplying.rest().await else { return None };
        // Bounded: a write in each turn, with a pause.
        while let Err(error) = supply.superblocks().write_void().await {
            log.restarts.end_attempt(Some(error.to_string())).await;
            pause(log, &**runner, owner, VOID_INTERVAL).await?;
        }
        Some(())
    }

    /// Begins anew in a store that is void. Failures that follow each other make the pause before
    /// longer. None if the cache ends before.
    async fn restart(&mut self) -> Option<()> {
        let Self { supplying, log, health, runner, owner, writing, backoff, .. } = self;
        let (_supplied, Some(supply)) = supplying.rest().await else { return None };
        // Bounded: an attempt in each turn, with a pause.
        loop {
            pause(log, &**runner, owner, backoff.next()).await?;
            match supply.restart().await {
                Ok(segment) => {
                    *writing = segment?;
                    backoff.begin();
                    log.restarts.end_attempt(None).await;
                    let restarts = health.metrics.restarts.load(Ordering::Relaxed);
                    let done = "the disk tier works again, and has begun anew without entries";
                    tell!(warn, "degradation", restarts, "{done}");
                    return Some(());
                }
                Err(error) => {
                    log.restarts.end_attempt(Some(error.to_string())).await;
                    tell!(warn, "degradation", %error, "the disk tier stays off");
                }
            }
        }
    }
}

/// Until the time has passed or a caller asks for a restart. None if the cache ends meanwhile: a
/// caller that closes waits for the writer and holds the owner.
async fn pause(
    log: &Log,
    runner: &dyn TaskRunner,
    owner: &Weak<dyn LogOwner>,
    time: Duration,
) -> Option<()> {
    let is_over = || owner.strong_count() == 0 || log.is_close_requested();
    if !is_over() {
        let asked = std::pin::pin!(log.asked_to_go_on());
        select(asked, runner.sleep(time)).await;
    }
    (!is_over()).then_some(())
}

/// None: room in the index, or another size, is wanted.
async fn next_job(log: &Log, runner: &dyn TaskRunner, can_make_room: bool) -> Option<Job> {
    // Bounded: it waits in each turn.
    loop {
        let knew_open = log.is_open();
        if let Some(job) = log.job(false) {
            return Some(job);
        }
        if can_make_room && log.is_supply_wanted() {
            return None;
        }
        let work = std::pin::pin!(log.work(knew_open, can_make_room));
        if !knew_open {
            work.await;
            continue;
        }
        if let Either::Right(_) = select(work, runner.sleep(WRITE_BATCH_AGE)).await {
            if let Some(job) = log.job(true) {
                return Some(job);
            }
        }
    }
}
