//! `Log`: the open log. It locks its state, and wakes tasks once the lock is free.
//!
//! Records collect in the open write batch. It closes when it is full, when a caller waits for one
//! of its records, or when it is about a second old; the writer then writes it as one frame while
//! the next batch collects. One frame is in flight at a time.
//!
//! Positions are assigned inside the commit section only, so the order of the log is the order of
//! effect. The lock of the state is a leaf. No task is woken and no value dropped under it: callers
//! are woken in batches, or all at once if the writer has failed. Readers find a record here until
//! its batch is on file.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;

use futures::task::AtomicWaker;
use parking_lot::Mutex;

use super::allowance::Allowance;
use super::batch_records::PendingRecord;
use super::checksum::ChecksumKey;
use super::directory_builder::{DirectoryBuilder, ListedRun, Listing};
use super::directory_entry::Change;
use super::format::{Geometry, OpenCount, Position, SegmentNumber};
use super::image::ClosedIndex;
use super::log_origin::{Appended, LogOrigin, UnsealedDirectory};
use super::log_state::LogState;
use super::record::RecordLengths;
use super::restart_requests::{RestartRequests, StaysOff};
use super::room::{RoomQueue, RoomTicket};
use super::saved_position::SavedPositions;
use super::search_targets::{SearchTargets, SegmentTargets};
use super::size_requests::{SizeRefusal, SizeRequests};
use super::write_batch::{Assigned, EncodedRecord, Job, Off, Refusal, WriteBatch, fits_segment};
use crate::batch::{BATCH_ENTRIES, yield_now};
use crate::disposal::Remains;
use crate::failpoint::{Failpoint, failpoint};
use crate::meter;
use crate::timer::Timer;
use crate::waiters::Waiters;
use crate::wake::discard;

pub(crate) struct Log {
    geometry: Geometry,
    state: Arc<Mutex<LogState>>,
    writer: AtomicWaker,
    /// Bytes of room in the index that the writer has not been asked for yet.
    index_wanted: AtomicUsize,
    /// The oldest segment in use; the writer moves it.
    head: AtomicU64,
    is_close_requested: AtomicBool,
    /// Callers that wait for everything before a position to be on file.
    waiters: Waiters<Position>,
    closers: Waiters,
    room: Arc<RoomQueue>,
    pub(super) restarts: RestartRequests,
    sizes: SizeRequests,
}

pub(crate) struct LogStart {
    pub(crate) geometry: Geometry,
    pub(crate) key: ChecksumKey,
    pub(crate) open_count: OpenCount,
    pub(crate) tail: Position,
    pub(crate) directory: DirectoryBuilder,
    pub(crate) newest: SegmentNumber,
    pub(crate) head: SegmentNumber,
    pub(crate) timer: Timer,
    /// The share of the index budget that one segment may use.
    pub(crate) index_share: usize,
    pub(crate) positions: SavedPositions,
}

impl Log {
    pub(crate) fn new(start: LogStart) -> Self {
        let LogStart { geometry, key, open_count, tail, directory, newest, .. } = start;
        let LogStart { index_share, positions, .. } = start;
        let origin = LogOrigin {
            geometry,
            key,
            open_count,
            tail,
            directory,
            newest,
            index_share,
            positions,
        };
        let state = Arc::new(Mutex::new(LogState::new(origin)));
        Self {
            geometry,
            room: Arc::new(RoomQueue::new(start.timer, Arc::clone(&state))),
            state,
            writer: AtomicWaker::new(),
            index_wanted: AtomicUsize::new(0),
            head: AtomicU64::new(start.head.0),
            is_close_requested: AtomicBool::new(false),
            waiters: Waiters::default(),
            closers: Waiters::default(),
            restarts: RestartRequests::default(),
            sizes: SizeRequests::default(),
        }
    }

    pub(crate) fn fits(&self, lengths: RecordLengths, change: &Change<'_>) -> bool {
        fits_segment(self.geometry, lengths, change)
    }

    /// Appends a record. Called inside the commit section.
    pub(crate) fn append(
        &self,
        record: EncodedRecord,
        change: &Change<'_>,
    ) -> Result<Assigned, Refusal> {
        self.append_within(Allowance::New, record, change)
    }

    /// New records leave so many bytes of the newest segment to reinserted ones.
    pub(super) fn keep_room(&self, bytes: usize) {
        self.state.lock().keep_room(bytes);
    }

    /// Appends a record of reclaim, which cannot wait for room, and bounds how much it appends.
    /// Called inside the commit section.
    pub(crate) fn append_again(
        &self,
        record: EncodedRecord,
        change: &Change<'_>,
    ) -> Result<Assigned, Refusal> {
        self.append_within(Allowance::Reinserted, record, change)
    }

    fn append_within(
        &self,
        allowance: Allowance,
        mut record: EncodedRecord,
        change: &Change<'_>,
    ) -> Result<Assigned, Refusal> {
        let appended = self.state.lock().append(allowance, &mut record, change);
        let Appended { result, wakes_writer } = appended;
        if wakes_writer {
            self.writer.wake();
        }
        result
    }

    /// Resolves when there may be room for `bytes`: at once if there is and no caller waits. Pass
    /// as `refused` the place of the last call if the log has refused the record since. Resolves
    /// when the log has ended, too.
    pub(crate) async fn room(&self, bytes: usize, refused: Option<RoomTicket>) -> RoomTicket {
        RoomQueue::enter(&self.room, bytes, refused).await
    }

    /// The end of all assigned positions: every later record lies behind it.
    pub(crate) fn tail(&self) -> Position {
        self.state.lock().end()
    }

    /// The same. None unless the log takes all mutations.
    pub(super) fn running_tail(&self) -> Option<Position> {
        let state = self.state.lock();
        state.is_running().then(|| state.end())
    }

    /// Everything before it is on file, likewise.
    pub(super) fn running_end_on_file(&self) -> Option<Position> {
        let state = self.state.lock();
        state.is_running().then(|| state.written())
    }

    pub(crate) fn segment(&self) -> SegmentNumber {
        self.state.lock().segment()
    }

    pub(crate) fn head_segment(&self) -> SegmentNumber {
        SegmentNumber(self.head.load(Ordering::Acquire))
    }

    #[cfg(test)]
    pub(crate) fn waiting_callers(&self) -> usize {
        self.waiters.len() + self.closers.len() + self.room.len() + self.sizes.waiting()
    }

    /// Of records.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.state.lock().waiting_bytes()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.state.lock().memory_bytes()
    }

    /// The record at a position that is not on file yet.
    pub(crate) fn pending_record(&self, position: Position) -> Option<PendingRecord> {
        self.state.lock().pending_record(position)
    }

    /// If the segment is not sealed on file yet: its entries, and the targets that it has rows of,
    /// if any.
    pub(super) fn unsealed(
        &self,
        segment: SegmentNumber,
        targets: &Arc<SearchTargets>,
    ) -> Option<Option<(SegmentTargets, Listing)>> {
        self.unsealed_part(segment, targets, DirectoryBuilder::listing)
    }

    /// The same for one run of its entries, or the last one.
    pub(super) fn unsealed_run(
        &self,
        (segment, number): (SegmentNumber, usize),
        targets: &Arc<SearchTargets>,
    ) -> Option<Option<(SegmentTargets, ListedRun)>> {
        self.unsealed_part(segment, targets, |directory| directory.run(number))
    }

    fn unsealed_part<T>(
        &self,
        segment: SegmentNumber,
        targets: &Arc<SearchTargets>,
        part: impl Fn(&DirectoryBuilder) -> T,
    ) -> Option<Option<(SegmentTargets, T)>> {
        let found = self.state.lock().unsealed_directory(segment, targets, &part)?;
        Some(match found {
            UnsealedDirectory::Open(found) => found,
            UnsealedDirectory::Sealing(seal) => {
                let targets = targets.in_rows(|namespace| seal.directory.row_of(namespace));
                let found = !targets.is_empty();
                found.then(|| (targets, part(&seal.directory)))
            }
        })
    }

    /// Resolves once everything before `end` is on file.
    pub(crate) async fn written(&self, end: Position) -> Result<(), Off> {
        {
            let mut state = self.state.lock();
            if let Some(answer) = state.is_written(end) {
                return answer;
            }
            state.hurry();
        }
        self.writer.wake();
        self.waiters.until(end, || self.state.lock().is_written(end)).await
    }

    /// Accepts no more records. The writer writes the rest, and wakes those that wait for room. It
    /// writes an image of `index`, which belongs to it from now on.
    pub(crate) fn close(&self, mut index: Option<Arc<dyn ClosedIndex>>) {
        self.state.lock().close(&mut index);
        // Whatever is left is dropped without the lock.
        drop(index);
        self.is_close_requested.store(true, Ordering::Release);
        self.writer.wake();
    }

    /// What was written may not be on the device: the writer turns the tier off.
    pub(crate) fn fail(&self) {
        self.state.lock().fail();
        self.writer.wake();
    }

    /// Resolves once the writer has finished what was left to do at [`Self::close`].
    pub(crate) async fn closed(&self) -> Result<(), Off> {
        self.closers.until((), || self.state.lock().closed()).await
    }

    /// Asks the writer to have a log that is off go on now. Resolves once that has succeeded or
    /// failed, or if it `is_on`.
    pub(super) async fn request_restart(&self, is_on: impl Fn() -> bool) -> Result<(), StaysOff> {
        let attempt = self.restarts.ask();
        self.writer.wake();
        self.restarts.made(attempt, is_on).await
    }

    /// Asks the writer for room in the index, which has too little for so many bytes or will soon.
    pub(crate) fn want_index_room(&self, bytes: usize) {
        if self.index_wanted.fetch_max(bytes.max(1), Ordering::AcqRel) == 0 {
            self.writer.wake();
        }
    }

    /// Has the writer give the file so many segments. Resolves when it has. If it is dropped, the
    /// writer goes on.
    pub(crate) async fn set_segments(&self, segments: u32) -> Result<(), SizeRefusal> {
        let number = self.sizes.ask(segments)?;
        self.writer.wake();
        self.sizes.answer_to(number).await
    }

    /// Whether a segment is in use that can be reclaimed, now or once it is sealed on file.
    pub(crate) fn can_make_index_room(&self) -> bool {
        let head = self.head_segment();
        self.state.lock().can_make_index_room(head)
    }

    #[cfg(test)]
    pub(crate) fn is_locked(&self) -> bool {
        self.state.is_locked()
    }
}

impl Log {
    /// The next job, until it is finished. `is_old`: also a batch that no caller waits for.
    pub(super) fn job(&self, is_old: bool) -> Option<Job> {
        let mut state = self.state.lock();
        let job = state.next_job(is_old);
        if failpoint(Failpoint::AcknowledgedOutOfOrder) {
            state.acknowledge_early();
            drop(state);
            self.waiters.wake_all_at_once();
        }
        job
    }

    /// The batch behind the present job, if there is one.
    pub(super) fn second_batch(&self) -> Option<Arc<WriteBatch>> {
        self.state.lock().second_batch()
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.lock().is_open()
    }

    /// Resolves when there is a job, a batch was opened, or room in the index or another size is
    /// wanted. The latter only if it `can_make_room`.
    pub(super) async fn work(&self, knew_open: bool, can_make_room: bool) {
        poll_fn(|context| {
            self.writer.register(context.waker());
            let is_supply_wanted = can_make_room && self.is_supply_wanted();
            let is_work = is_supply_wanted || self.state.lock().has_work(knew_open);
            if is_work { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    pub(super) fn sizes(&self) -> &SizeRequests {
        &self.sizes
    }

    /// Whether the supply has anything new to do.
    pub(super) fn is_supply_wanted(&self) -> bool {
        self.is_index_room_wanted() || self.sizes.is_new()
    }

    pub(super) fn is_index_room_wanted(&self) -> bool {
        self.index_wanted.load(Ordering::Acquire) > 0
    }

    /// The bytes of room in the index that are wanted; the writer makes room for them now.
    pub(super) fn take_index_wanted(&self) -> usize {
        self.index_wanted.swap(0, Ordering::AcqRel)
    }

    /// Whether so many bytes wait to be written that a put has to wait.
    pub(super) fn is_crowded(&self) -> bool {
        self.state.lock().is_crowded()
    }

    /// Everything before `head` leaves the log.
    pub(super) fn advance_head(&self, head: SegmentNumber) {
        self.head.store(head.0, Ordering::Release);
    }

    pub(super) async fn announce(&self, newest: SegmentNumber) {
        self.state.lock().extend_to(newest);
        self.room_came().await;
    }

    pub(super) async fn room_came(&self) {
        self.state.lock().count_room_event();
        self.wake_room().await;
    }

    /// Wakes the callers that there is room for; all of them, if the log is closing.
    pub(super) async fn wake_room(&self) {
        // Bounded: a batch in each turn, then a pause.
        while self.room.wake_batch() {
            yield_now().await;
        }
    }

    /// Everything before it is on file.
    pub(super) fn end_on_file(&self) -> Position {
        self.state.lock().written()
    }

    /// The first job is done, and on file. To be settled.
    pub(super) fn finish(&self) -> Finished {
        let mut state = self.state.lock();
        let job = state.finish_job();
        Finished { written: state.written(), job }
    }

    /// Wakes those that waited for the job, and frees its records.
    pub(super) async fn settle(&self, Finished { written, job }: Finished) {
        if failpoint(Failpoint::WokenUnderLock) {
            let _held = self.state.lock();
            self.waiters.wake_all_at_once();
        }
        self.waiters.wake_up_to(written).await;
        self.wake_room().await;
        match job {
            Some(Job::Close { .. }) => self.closers.wake_all().await,
            Some(Job::Write(batch)) => drop_records(batch).await,
            Some(Job::Seal(_) | Job::Fail) | None => {}
        }
    }

    /// The writer has failed: accepts no more records. Wakes no caller.
    pub(super) fn turn_off(&self) {
        let abandoned = self.state.lock().turn_off();
        self.sizes.refuse(SizeRefusal::Off);
        drop(Remains::new(abandoned.into_bodies().map(|body| {
            discard(body);
            1
        })));
    }

    /// After it was turned off: goes on at the start of `segment`, which is empty, without anything
    /// before. Called inside the commit section. None if it was closed; otherwise what it drops.
    pub(super) fn restart(&self, segment: SegmentNumber) -> Option<DirectoryBuilder> {
        let directory = self.state.lock().restart(segment)?;
        self.advance_head(segment);
        self.sizes.accept();
        Some(directory)
    }

    pub(super) async fn tell_all(&self) {
        self.waiters.wake_all().await;
        self.wake_room().await;
        self.closers.wake_all().await;
        self.sizes.tell_all().await;
    }

    /// The same without awaiting, for a writer that was dropped.
    pub(super) fn tell_all_at_once(&self) {
        self.waiters.wake_all_at_once();
        // Bounded: by the waiting callers, once the tier has ended.
        while self.room.wake_batch() {}
        self.closers.wake_all_at_once();
        self.sizes.tell_all_at_once();
    }

    pub(super) fn is_close_requested(&self) -> bool {
        self.is_close_requested.load(Ordering::Acquire)
    }

    /// Resolves once the log was asked to close or to go on. For the writer when it has nothing to
    /// write.
    pub(super) async fn asked_to_go_on(&self) {
        poll_fn(|context| {
            self.writer.register(context.waker());
            let is_asked = self.is_close_requested() || self.restarts.is_asked();
            if is_asked { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Whether the log was closed, and nothing is left to write.
    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed() == Some(Ok(()))
    }
}

/// A job that is done, before those that wait for it know.
#[must_use = "callers wait for it"]
pub(super) struct Finished {
    written: Position,
    job: Option<Job>,
}

/// Drops the records of a batch in steps, because their values may be the callers' own types.
async fn drop_records(batch: Arc<WriteBatch>) {
    let Some(batch) = Arc::into_inner(batch) else { return };
    let mut bodies = batch.records.into_bodies();
    while bodies.len() > 0 {
        bodies.by_ref().take(BATCH_ENTRIES).for_each(|body| {
            meter::entries(1);
            discard(body);
        });
        yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::super::blob::{Blob, NamedGeneration};
    use super::super::checksum::BodySum;
    use super::super::format::{BLOCK_BYTES, GenerationNumber, StoreId};
    use super::super::record::Record;
    use super::*;

    const SEGMENT_BYTES: usize = 1 << 20;

    fn log() -> Log {
        let geometry = Geometry::new(1 << 20, 16).expect("a geometry");
        Log::new(LogStart {
            geometry,
            key: ChecksumKey::new(StoreId([7; 16])),
            open_count: OpenCount(1),
            tail: Position::new(BLOCK_BYTES as u64).expect("a position"),
            directory: DirectoryBuilder::new(SegmentNumber(0), geometry),
            newest: SegmentNumber(0),
            head: SegmentNumber(0),
            index_share: 1 << 20,
            positions: SavedPositions::default(),
            timer: Timer::Process,
        })
    }

    /// Whether there was room.
    fn append(log: &Log, bytes: usize, is_again: bool) -> bool {
        let namespace = NamedGeneration { name: "a", generation: GenerationNumber(1) };
        let body = vec![7; bytes];
        let sum = BodySum::of(&body).expect("a sum");
        let record = Record::Blob(Blob::new(namespace, b"k", 1, sum));
        let encoded = EncodedRecord::new(&record, body.into()).expect("a record");
        let change = Change::new(&record, 1, &[]);
        let append = if is_again { Log::append_again } else { Log::append };
        append(log, encoded, &change).is_ok()
    }

    #[test]
    fn a_large_record_comes_first_though_a_whole_segment_is_kept_and_small_ones_wait_for_that() {
        for bytes in [100, 100_000, SEGMENT_BYTES / 7, SEGMENT_BYTES / 2, SEGMENT_BYTES - 100_000] {
            let is_large = bytes > SEGMENT_BYTES / 8;
            let log = log();
            log.keep_room(SEGMENT_BYTES - 10_000);
            assert_eq!(append(&log, bytes, false), is_large, "{bytes}");
            // Only as the first.
            assert!(!append(&log, bytes, false), "{bytes}");
            log.keep_room(0);
            assert!(append(&log, 100, false), "{bytes}");
        }
    }

    #[test]
    fn a_caller_refused_before_the_log_ended_goes_on_and_so_do_all_behind() {
        for is_closed in [false, true] {
            let log = log();
            let refused = log.room(10, None).now_or_never().expect("there is room");
            if is_closed {
                log.close(None);
            } else {
                log.turn_off();
            }
            assert!(log.room(10, Some(refused)).now_or_never().is_some());
            assert!(log.room(10, None).now_or_never().is_some());
        }
    }
}
