//! `SegmentSupply`: sees to it that there is a segment to write next, and room in the index. It
//! reclaims the oldest segments, writes headers, then the superblocks that announce them.
//! `Supplying` has it do so while frames are written: no put waits for a segment to be reclaimed
//! unless the log has no place left.
//!
//! It also changes the size of the file, one step at a time, with its other work in between. For a
//! smaller one it reclaims the oldest segments until the rest fits, and moves those that lie behind
//! the new end (`SegmentMover`): beside the writes, but for the last piece of a segment that is not
//! sealed, and its header, which are copied between two of them. Then a superblock has the new
//! size, and the file is cut.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::BoxFuture;

use super::format::{Geometry, SegmentNumber};
use super::log::Log;
use super::log_owner::{LogOwner, Restart};
use super::reclaim::Reclaimer;
use super::recovery_error::RecoveryError;
use super::resizing::{cut, grow};
use super::resume::start_of;
use super::segment_file::SegmentFile;
use super::segment_mover::SegmentMover;
use super::size_requests::{SizeRefusal, SizeRequest};
use super::superblock::Superblock;
use super::superblock_writer::SuperblockWriter;
use crate::batch::yield_now;
use crate::failpoint::{Failpoint, failpoint};
use crate::telemetry::tell;

/// A log that begins anew leaves so many numbers to mutations that take effect meanwhile; more if
/// they were too few.
const SEQUENCES_AHEAD: [u64; 3] = [1 << 10, 1 << 20, 1 << 30];

pub(super) struct SegmentSupply {
    log: Arc<Log>,
    owner: Weak<dyn LogOwner>,
    reclaimer: Reclaimer,
    superblocks: SuperblockWriter,
    file: SegmentFile,
    mover: SegmentMover,
    moved: Moved,
}

/// How far a shrink has moved segments: none before `first` lies behind so many places.
struct Moved {
    places: u32,
    first: SegmentNumber,
}

impl SegmentSupply {
    pub(super) fn new(
        log: Arc<Log>,
        owner: Weak<dyn LogOwner>,
        reclaimer: Reclaimer,
        superblocks: SuperblockWriter,
        file: SegmentFile,
    ) -> Self {
        let mover = SegmentMover::new(Arc::clone(&log), file.clone());
        let moved = Moved { places: 0, first: SegmentNumber(0) };
        Self { log, owner, reclaimer, superblocks, file, mover, moved }
    }

    pub(super) fn superblocks(&mut self) -> &mut SuperblockWriter {
        &mut self.superblocks
    }

    /// Whether there is anything to do while segment `writing` is written. The file may have
    /// another size only if it `may_resize`.
    fn is_wanted(&self, writing: SegmentNumber, may_resize: bool) -> bool {
        self.superblocks.superblock().newest <= writing
            || self.log.is_index_room_wanted()
            || self.can_make_index_room(0, writing)
            || (may_resize && self.log.sizes().latest().is_some())
    }

    /// Makes room. `writing`: the segment that is written; all before it are sealed on file.
    async fn make_room(&mut self, writing: SegmentNumber, may_resize: bool) -> io::Result<()> {
        // First: a move takes a place that a new segment may need.
        let wanted = self.log.sizes().latest();
        self.mover.settle(wanted.map_or(0, |request| request.segments)).await;
        self.make_index_room(writing).await?;
        self.prepare_next(writing).await?;
        match self.log.sizes().latest().filter(|_| may_resize) {
            Some(request) => {
                self.log.sizes().take_new();
                self.resize(request, writing).await
            }
            None => Ok(()),
        }
    }

    /// The next step of a change of size.
    async fn resize(&mut self, request: SizeRequest, writing: SegmentNumber) -> io::Result<()> {
        let Superblock { geometry: from, .. } = *self.superblocks.superblock();
        let (before, after) = (from.segment_count(), request.segments);
        let to = Geometry::new(from.segment_bytes(), after).ok_or_else(run_out)?;
        self.file.places.keep_before(after);
        if after < before && !self.shrink(after, writing).await? {
            return Ok(());
        }
        if after > before {
            if let Err(error) = grow(&self.file, from, to).await {
                let refusal = refusal(&error).ok_or_else(|| io::Error::other(error))?;
                self.file.places.keep_before(before);
                self.log.sizes().answer(request, Err(refusal)).await;
                return Ok(());
            }
        }
        if after != before {
            self.superblocks.write_geometry(to).await?;
            self.file.places.set_count(after);
            self.reclaimer.fit(to);
            if let Err(error) = cut(&self.file).await {
                tell!(
                    warn, "resize", %error,
                    "the file of the disk tier stays longer until the next open"
                );
            }
            self.file.sync().await?;
            if let Some(owner) = self.owner.upgrade() {
                owner.resized(self.file.places.file_bytes());
            }
            tell!(
                info,
                "resize",
                before,
                after,
                "the disk tier has another number of segments now"
            );
        }
        self.log.sizes().answer(request, Ok(())).await;
        Ok(())
    }

    /// The next step towards so many segments. True: there are no more, at the first places.
    async fn shrink(&mut self, after: u32, writing: SegmentNumber) -> io::Result<bool> {
        let (newest, oldest) = (self.superblocks.superblock().newest, self.oldest());
        if newest.0 + 1 - oldest.0 > u64::from(after) && oldest < writing {
            self.reclaim_oldest(0).await?;
            self.log.room_came().await;
            return Ok(false);
        }
        match self.first_behind(after).await {
            None => Ok(newest.0 + 1 - oldest.0 <= u64::from(after)),
            Some(_) if failpoint(Failpoint::ShrunkBeforeMoved) => Ok(true),
            Some(segment) => {
                let state = (writing, self.superblocks.superblock());
                self.mover.copy(segment, after, state).await.map(|()| false)
            }
        }
    }

    /// The oldest segment that is to be moved. Those before it are not again: segments that are
    /// moved or new get places before the end, or are newer.
    async fn first_behind(&mut self, after: u32) -> Option<SegmentNumber> {
        if self.moved.places != after {
            self.moved = Moved { places: after, first: SegmentNumber(0) };
        }
        // Bounded: a batch in each turn, then a yield.
        loop {
            let (found, more) = self.file.places.behind(self.moved.first, after);
            self.moved.first = found.or(more).unwrap_or(self.moved.first);
            if found.is_some() || more.is_none() {
                return found;
            }
            yield_now().await;
        }
    }

    /// `index_wanted`: so many bytes are to become free in the index.
    async fn reclaim_oldest(&mut self, index_wanted: usize) -> io::Result<()> {
        let oldest = self.oldest();
        self.mover.forget(oldest);
        self.reclaimer.reclaim(oldest, index_wanted, &mut self.superblocks).await
    }

    /// Announces a segment behind the one that is being written, if there is none. It goes by what
    /// is written and not by the end of the log: positions in the announced segment may already be
    /// assigned to records in memory, and the oldest segment must not be one of those.
    async fn prepare_next(&mut self, writing: SegmentNumber) -> io::Result<()> {
        // Bounded: a segment in each turn, with writes in between.
        while self.superblocks.superblock().newest <= writing {
            let Superblock { newest, geometry, .. } = *self.superblocks.superblock();
            let (next, oldest) = (SegmentNumber(newest.0 + 1), self.oldest());
            if next.0 - oldest.0 >= self.segments_max(geometry, newest) {
                self.reclaim_oldest(0).await?;
            }
            self.superblocks.write_announcement(next).await?;
            let (oldest, count) = (self.oldest(), self.segments_max(geometry, newest));
            if next.0 + 1 - oldest.0 >= count && oldest < writing {
                self.reclaimer.expect(oldest, &self.superblocks).await;
            }
            self.log.announce(next).await;
        }
        Ok(())
    }

    /// The most segments that may be in use: not more than are, while the file becomes shorter.
    fn segments_max(&self, geometry: Geometry, newest: SegmentNumber) -> u64 {
        let in_use = newest.0 + 1 - self.oldest().0;
        let count = u64::from(geometry.segment_count()) - u64::from(self.mover.is_moving());
        let latest = self.log.sizes().latest();
        latest.map_or(count, |request| count.min(in_use.max(request.segments.into())))
    }

    /// Reclaims the oldest segments while the index is crowded, up to the one that is written.
    async fn make_index_room(&mut self, writing: SegmentNumber) -> io::Result<()> {
        let wanted = self.log.take_index_wanted();
        // Bounded: a segment in each turn.
        while self.can_make_index_room(wanted, writing) {
            self.reclaim_oldest(wanted).await?;
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
        self.file.places.keep_before(geometry.segment_count());
        self.mover.settle(0).await;
        owner.forget_before(start_of(geometry, SegmentNumber(newest.0 + 1))?).await;
        // Not from the head on file, which may have moved already.
        self.reclaimer.leave(self.log.head_segment()..=newest).await;
        // Bounded: three.
        for ahead in SEQUENCES_AHEAD {
            let passed = owner.last_sequence().saturating_add(ahead);
            let passed = passed / u64::from(geometry.segment_bytes());
            let next = SegmentNumber(self.superblocks.superblock().newest.0.max(passed) + 1);
            let failed_before = self.file.health.failed_syncs();
            self.superblocks.write_restart(next).await?;
            let start = start_of(geometry, next)?;
            // Dropped without the locks.
            let mut directory = None;
            let restarted = owner.restart(start, &mut || {
                directory = self.log.restart(next);
                if directory.is_some() {
                    self.file.health.restarted(failed_before);
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

/// Why the file stays as it is. None: it may not be what it was.
fn refusal(error: &RecoveryError) -> Option<SizeRefusal> {
    let RecoveryError::Grow { needed, source } = error else { return None };
    Some(match error.no_room() {
        Some((needed_bytes, available_bytes)) => {
            SizeRefusal::NoRoom { needed_bytes, available_bytes }
        }
        None => SizeRefusal::Refused {
            needed_bytes: *needed,
            kind: source.kind(),
            errno: source.raw_os_error(),
        },
    })
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
    pub(super) fn begin(&mut self, writing: SegmentNumber, may_resize: bool) {
        let wanted = self.resting.take_if(|supply| {
            !supply.mover.is_pause_wanted() && supply.is_wanted(writing, may_resize)
        });
        let work = |mut supply: Box<SegmentSupply>| async move {
            let result = supply.make_room(writing, may_resize).await;
            (supply, result)
        };
        self.working = wanted.map(|supply| work(supply).boxed()).or_else(|| self.working.take());
    }

    /// Does what has to be done while nothing else is written. False if there is nothing.
    pub(super) async fn pause(&mut self, writing: SegmentNumber) -> io::Result<bool> {
        match self.resting.as_deref_mut().filter(|supply| supply.mover.is_pause_wanted()) {
            Some(supply) => {
                let state = (writing, supply.superblocks.superblock());
                supply.mover.finish_open(state).await.map(|()| true)
            }
            None => Ok(false),
        }
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
