//! `SegmentSupply`: sees to it that there is a segment to write next, and room in the index. It
//! reclaims the oldest segments, writes headers, then the superblocks that announce them.
//! `Supplying` has it do so while frames are written: no put waits for a segment to be reclaimed
//! unless the log has no place left.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::BoxFuture;

use super::format::{Geometry, Position, SegmentNumber};
use super::health::Health;
use super::log::Log;
use super::log_owner::{LogOwner, Restart};
use super::reclaim::Reclaimer;
use super::superblock::Superblock;
use super::superblock_writer::SuperblockWriter;

/// A log that begins anew leaves so many numbers to mutations that take effect meanwhile; more if
/// they were too few.
const SEQUENCES_AHEAD: [u64; 3] = [1 << 10, 1 << 20, 1 << 30];

pub(super) struct SegmentSupply {
    log: Arc<Log>,
    owner: Weak<dyn LogOwner>,
    reclaimer: Reclaimer,
    superblocks: SuperblockWriter,
    health: Arc<Health>,
}

impl SegmentSupply {
    pub(super) fn new(
        log: Arc<Log>,
        owner: Weak<dyn LogOwner>,
        reclaimer: Reclaimer,
        superblocks: SuperblockWriter,
        health: Arc<Health>,
    ) -> Self {
        Self { log, owner, reclaimer, superblocks, health }
    }

    pub(super) fn superblocks(&mut self) -> &mut SuperblockWriter {
        &mut self.superblocks
    }

    /// Whether there is anything to do while segment `writing` is written.
    fn is_wanted(&self, writing: SegmentNumber) -> bool {
        self.superblocks.superblock().newest <= writing
            || self.log.is_index_room_wanted()
            || self.can_make_index_room(0, writing)
    }

    /// Makes room. `writing`: the segment that is written; all before it are sealed on file.
    async fn make_room(&mut self, writing: SegmentNumber) -> io::Result<()> {
        self.make_index_room(writing).await?;
        self.prepare_next(writing).await
    }

    /// Announces a segment behind the one that is being written, if there is none. It goes by what
    /// is written and not by the end of the log: positions in the announced segment may already be
    /// assigned to records in memory, and the oldest segment must not be one of those.
    async fn prepare_next(&mut self, writing: SegmentNumber) -> io::Result<()> {
        // Bounded: a segment in each turn, with writes in between.
        while self.superblocks.superblock().newest <= writing {
            let Superblock { newest, geometry, .. } = *self.superblocks.superblock();
            let (next, oldest) = (SegmentNumber(newest.0 + 1), self.oldest());
            if next.0 - oldest.0 >= u64::from(geometry.segment_count()) {
                self.reclaimer.reclaim(oldest, &mut self.superblocks).await?;
            }
            self.superblocks.write_announcement(next).await?;
            let (oldest, count) = (self.oldest(), u64::from(geometry.segment_count()));
            if next.0 + 1 - oldest.0 >= count && oldest < writing {
                self.reclaimer.expect(oldest, &self.superblocks).await;
            }
            self.log.announce(next).await;
        }
        Ok(())
    }

    /// Reclaims the oldest segments while the index is crowded, up to the one that is written.
    async fn make_index_room(&mut self, writing: SegmentNumber) -> io::Result<()> {
        let wanted = self.log.take_index_wanted();
        // Bounded: a segment in each turn.
        while self.can_make_index_room(wanted, writing) {
            self.reclaimer.reclaim(self.oldest(), &mut self.superblocks).await?;
            self.log.room_came().await;
        }
        if wanted > 0 {
            self.log.room_came().await;
        }
        Ok(())
    }

    /// After the device has failed, and with the store void on file: has the log begin anew behind
    /// all that was ever numbered, without any record. None if the cache has ended.
    pub(super) async fn restart(&mut self) -> io::Result<Option<SegmentNumber>> {
        let Some(owner) = self.owner.upgrade() else { return Ok(None) };
        let Superblock { geometry, newest, .. } = *self.superblocks.superblock();
        owner.forget_before(start_of(geometry, newest.0 + 1)?).await;
        // Not from the head on file, which may have moved already.
        self.reclaimer.leave(self.log.head_segment()..=newest).await;
        // Bounded: three.
        for ahead in SEQUENCES_AHEAD {
            let passed = owner.last_sequence().saturating_add(ahead);
            let passed = passed / u64::from(geometry.segment_bytes());
            let next = SegmentNumber(self.superblocks.superblock().newest.0.max(passed) + 1);
            let failed_before = self.health.failed_syncs();
            self.superblocks.write_restart(next).await?;
            let start = start_of(geometry, next.0)?;
            // Dropped without the locks.
            let mut directory = None;
            let restarted = owner.restart(start, &mut || {
                directory = self.log.restart(next);
                if directory.is_some() {
                    self.health.restarted(failed_before);
                }
                directory.is_some()
            });
            match restarted {
                Restart::Done => {
                    self.log.room_came().await;
                    return Ok(Some(next));
                }
                Restart::Ended => return Ok(None),
                Restart::Overtaken => {}
            }
        }
        Err(io::Error::other("there are too many mutations meanwhile"))
    }

    fn can_make_index_room(&self, wanted: usize, writing: SegmentNumber) -> bool {
        let is_crowded = || self.owner.upgrade().is_some_and(|it| it.is_index_crowded(wanted));
        self.oldest() < writing && !self.log.is_close_requested() && is_crowded()
    }

    fn oldest(&self) -> SegmentNumber {
        let Superblock { geometry, head, .. } = *self.superblocks.superblock();
        geometry.segment_of(head)
    }
}

fn start_of(geometry: Geometry, segment: u64) -> io::Result<Position> {
    geometry.start_of(SegmentNumber(segment)).ok_or_else(run_out)
}

fn run_out() -> io::Error {
    io::Error::other("positions have run out")
}

type Work = BoxFuture<'static, (Box<SegmentSupply>, io::Result<()>)>;

/// A supply at rest, or at work beside other work of its task.
pub(super) struct Supplying {
    /// None while it works.
    resting: Option<Box<SegmentSupply>>,
    working: Option<Work>,
}

impl Supplying {
    pub(super) fn new(supply: SegmentSupply) -> Self {
        Self { resting: Some(Box::new(supply)), working: None }
    }

    /// Sets the supply to work if it rests and there is anything to do.
    pub(super) fn begin(&mut self, writing: SegmentNumber) {
        let wanted = self.resting.take_if(|supply| supply.is_wanted(writing));
        let work = |mut supply: Box<SegmentSupply>| async move {
            let result = supply.make_room(writing).await;
            (supply, result)
        };
        self.working = wanted.map(|supply| work(supply).boxed()).or_else(|| self.working.take());
    }

    pub(super) fn is_at_work(&self) -> bool {
        self.working.is_some()
    }

    /// Awaits `other` and goes on supplying meanwhile. An error is that of either.
    pub(super) async fn beside<T>(
        &mut self,
        other: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let (mut other, mut supplied) = (pin!(other), Ok(()));
        let done = poll_fn(|context| {
            if let Poll::Ready(Err(error)) = self.poll(context) {
                supplied = Err(error);
            }
            other.as_mut().poll(context)
        });
        let done = done.await;
        supplied.and(done)
    }

    /// The same, but None if the supply ends its work first.
    pub(super) async fn until<T>(
        &mut self,
        other: impl Future<Output = T>,
    ) -> io::Result<Option<T>> {
        let mut other = pin!(other);
        poll_fn(|context| match self.poll(context) {
            Poll::Ready(ended) => Poll::Ready(ended.map(|()| None)),
            Poll::Pending => other.as_mut().poll(context).map(|output| Ok(Some(output))),
        })
        .await
    }

    /// Awaits the end of its work. Gives the supply whether it has failed or not.
    pub(super) async fn rest(&mut self) -> (io::Result<()>, Option<&mut SegmentSupply>) {
        let ended = match self.is_at_work() {
            true => poll_fn(|context| self.poll(context)).await,
            false => Ok(()),
        };
        (ended, self.resting.as_deref_mut())
    }

    /// Ready when its work ends.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(work) = &mut self.working else { return Poll::Pending };
        let (supply, result) = ready!(work.poll_unpin(context));
        self.working = None;
        self.resting = Some(supply);
        Poll::Ready(result)
    }
}
