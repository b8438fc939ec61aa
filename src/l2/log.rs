//! `Log`: where records are dealt their positions, and wait to be written.
//!
//! Records collect in the open unit. It closes when it is full, when somebody waits for what is
//! in it, or when it is about a second old; then the writer takes it as one frame, one at a time,
//! while the next unit collects. A segment that has no room for a record and its directory entry
//! is sealed, and the log goes on in the next one, which has been made ready ahead of need.
//!
//! Positions are dealt inside the append section only, so the log's order is the order of effect.
//! Its lock is a leaf. Until a unit is on file readers find its records here.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;

use bytes::Bytes;
use futures::task::AtomicWaker;
use parking_lot::Mutex;

use super::checksum::ChecksumKey;
use super::directory::DirectoryBuilder;
use super::entry::Change;
use super::error::EncodeError;
use super::format::{
    BLOCK_BYTES, FRAME_HEADER_BYTES, Geometry, OpenCount, Position, SegmentNumber,
};
use super::frame::FrameBuilder;
use super::record::{RecordLengths, seal};
use super::room::RoomQueue;
use super::unit::{Dealt, Draft, Job, Refusal, Seal, Taken, Unit, listed};
use crate::failpoint::{Failpoint, failpoint};
use crate::timer::Timer;
use crate::waiters::Waiters;

/// A unit of this size is full.
const UNIT_BYTES: usize = 1 << 20;

/// Bytes that may wait to be written before a put has to.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// What may wait besides of records that are written again, and one of them.
const REINSERTED_BYTES_MAX: usize = 4 << 20;

/// What is left to records without a body, behind that and at the end of each segment that holds
/// something: an invalidation is to take effect at once. A segment leaves a 16th at most.
const RESERVE_BYTES: usize = 64 << 10;

/// Memory that the open segment's directory may take however small the budget of the index is.
const DIRECTORY_BYTES_MIN: usize = 64 << 10;

pub(crate) struct Log {
    pub(super) geometry: Geometry,
    pub(super) key: ChecksumKey,
    pub(super) open_count: OpenCount,
    pub(super) state: Mutex<State>,
    /// What one segment may take of the budget of the index, and its directory of memory, before it
    /// is sealed early: while it is open it cannot be reclaimed.
    pub(super) index_share: usize,
    pub(super) writer: AtomicWaker,
    /// So many bytes of room in the index are wanted, which the writer has not looked for yet.
    pub(super) index_wanted: AtomicUsize,
    /// The oldest segment in use; moved by the writer.
    head: AtomicU64,
    /// Counts the moments at which room may have come; changed under the lock.
    pub(super) turns: AtomicU64,
    /// Nobody will need the log any more once it is closed.
    left: AtomicBool,
    /// Those who wait for everything before a position to be on file. None of them is called under
    /// the lock of the state.
    pub(super) waiters: Waiters<Position>,
    /// Those who wait for the end.
    pub(super) closers: Waiters,
    /// Those who want room.
    pub(super) room: RoomQueue,
}

pub(super) struct State {
    pub(super) open: Option<OpenUnit>,
    /// Where the next frame begins, when none is open.
    next: Position,
    /// Closed and not on file yet, in order. The first may be in the writer's hands.
    pub(super) jobs: VecDeque<Job>,
    /// Of the segment that positions are dealt in.
    pub(super) directory: DirectoryBuilder,
    /// Positions may be dealt up to the end of this segment.
    pub(super) newest: SegmentNumber,
    /// Everything before is on file.
    pub(super) written: Position,
    /// The same, for those who wait for it.
    pub(super) acknowledged: Position,
    pub(super) waiting_bytes: usize,
    /// Somebody waits for what is in the open unit.
    pub(super) urgent: bool,
    pub(super) standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Running,
    Closing,
    Closed,
    Off,
}

pub(super) struct OpenUnit {
    position: Position,
    frame: FrameBuilder,
    pub(super) records: Vec<Taken>,
}

/// Where a log begins.
pub(crate) struct LogStart {
    pub(crate) geometry: Geometry,
    pub(crate) key: ChecksumKey,
    pub(crate) open_count: OpenCount,
    /// Where the first frame goes.
    pub(crate) tail: Position,
    /// What the segment of `tail` lists so far.
    pub(crate) directory: DirectoryBuilder,
    /// The newest segment that is ready.
    pub(crate) newest: SegmentNumber,
    /// The oldest segment in use.
    pub(crate) head: SegmentNumber,
    pub(crate) timer: Timer,
    /// What one segment may take of the budget of the index.
    pub(crate) index_share: usize,
}

impl Log {
    pub(crate) fn new(start: LogStart) -> Self {
        let state = State {
            open: None,
            next: start.tail,
            jobs: VecDeque::new(),
            directory: start.directory,
            newest: start.newest,
            written: start.tail,
            acknowledged: start.tail,
            waiting_bytes: 0,
            urgent: false,
            standing: Standing::Running,
        };
        Self {
            geometry: start.geometry,
            key: start.key,
            open_count: start.open_count,
            state: Mutex::new(state),
            index_share: start.index_share,
            writer: AtomicWaker::new(),
            index_wanted: AtomicUsize::new(0),
            head: AtomicU64::new(start.head.0),
            turns: AtomicU64::new(0),
            left: AtomicBool::new(false),
            waiters: Waiters::default(),
            closers: Waiters::default(),
            room: RoomQueue::new(start.timer),
        }
    }

    /// Whether a record can be held by a segment of its own.
    pub(crate) fn fits(&self, lengths: RecordLengths, change: &Change<'_>) -> bool {
        let place = BLOCK_BYTES + FRAME_HEADER_BYTES;
        let directory = DirectoryBuilder::new(SegmentNumber(0), self.geometry);
        let listed =
            listed(place, lengths, change).and_then(|entry| directory.encoded_len_with(&entry));
        listed.is_ok_and(|directory| {
            place + lengths.padded() + directory <= self.geometry.segment_bytes() as usize
        })
    }

    /// Takes a record, at the end of everything. To be called inside the append section.
    pub(crate) fn append(&self, draft: Draft, change: &Change<'_>) -> Result<Dealt, Refusal> {
        // Besides what second chances have taken.
        let reserve =
            RESERVE_BYTES + REINSERTED_BYTES_MAX.min(self.geometry.segment_bytes() as usize);
        let allowance = if draft.body.is_empty() { reserve } else { 0 };
        self.append_beyond(allowance, draft, change)
    }

    /// Takes a record that was there before once more, however many wait. Likewise; the caller
    /// bounds how much that is, and never waits for room.
    pub(crate) fn append_again(&self, draft: Draft, change: &Change<'_>) -> Result<Dealt, Refusal> {
        let allowance = REINSERTED_BYTES_MAX.min(self.geometry.segment_bytes() as usize);
        self.append_beyond(allowance, draft, change)
    }

    fn append_beyond(
        &self,
        allowance: usize,
        mut draft: Draft,
        change: &Change<'_>,
    ) -> Result<Dealt, Refusal> {
        let mut state = self.state.lock();
        match state.standing {
            Standing::Running => {}
            Standing::Closing | Standing::Closed | Standing::Off => return Err(Refusal::Off),
        }
        let is_crowded = state.waiting_bytes >= WAITING_BYTES_MAX + allowance;
        if is_crowded || !self.make_place(&mut state, &draft, change) {
            state.urgent = true;
            drop(state);
            self.writer.wake();
            return Err(Refusal::NoRoom);
        }
        let was_idle = state.open.is_none();
        let State { open, next, directory, .. } = &mut *state;
        let unit = open.get_or_insert_with(|| OpenUnit {
            position: *next,
            frame: FrameBuilder::new(self.key, *next, self.open_count, self.geometry),
            records: Vec::new(),
        });
        let Ok(dealt) = self.take(unit, directory, &mut draft, change) else {
            // What has found room cannot be refused: the log is not what it should be.
            state.standing = Standing::Off;
            state.jobs.push_back(Job::Fail);
            drop(state);
            self.writer.wake();
            return Err(Refusal::Off);
        };
        state.waiting_bytes += draft.lengths.padded();
        let head = Bytes::from(draft.head);
        if let Some(unit) = &mut state.open {
            unit.records.push(Taken { position: dealt.position, head, body: draft.body });
            if unit.frame.length() >= UNIT_BYTES {
                Self::close_unit(&mut state);
            }
        }
        let wake = was_idle || state.open.is_none();
        drop(state);
        if wake {
            self.writer.wake();
        }
        Ok(dealt)
    }

    /// Makes sure that the record has a place, in the next segment if it must be. False: it has
    /// none yet.
    fn make_place(&self, state: &mut State, draft: &Draft, change: &Change<'_>) -> bool {
        let full = state.directory.index_bytes() >= self.index_share
            || state.directory.memory_bytes() >= self.index_share.max(DIRECTORY_BYTES_MIN);
        if !full && self.fits_behind(state, draft, change) {
            return true;
        }
        debug_assert!(self.fits(draft.lengths, change), "sealed for a record that fits nowhere");
        self.seal_segment(state) && self.fits_behind(state, draft, change)
    }

    /// Seals the segment that positions are dealt in. False: the next one is not ready yet.
    pub(super) fn seal_segment(&self, state: &mut State) -> bool {
        let segment = self.geometry.segment_of(state.last());
        let following = SegmentNumber(segment.0 + 1);
        let start = self.geometry.start_of(following).and_then(|at| at.after(BLOCK_BYTES as u64));
        let Some(start) = start.filter(|_| following <= state.newest) else { return false };
        Self::close_unit(state);
        let directory = DirectoryBuilder::new(following, self.geometry);
        let directory = std::mem::replace(&mut state.directory, directory);
        let seal = Seal { segment, directory, end: state.next };
        state.jobs.push_back(Job::Seal(Arc::new(seal)));
        state.next = start;
        true
    }

    fn fits_behind(&self, state: &State, draft: &Draft, change: &Change<'_>) -> bool {
        let header = if state.open.is_some() { 0 } else { FRAME_HEADER_BYTES };
        let last = state.last();
        // A position at the very end of a segment is the next one's start, which is its header.
        let place = self.geometry.offset_in_segment(last) as usize + header;
        if place < BLOCK_BYTES {
            return false;
        }
        let segment = self.geometry.segment_bytes() as usize;
        let is_first = place == BLOCK_BYTES + FRAME_HEADER_BYTES;
        let reserve = match draft.body.len() {
            0 => 0,
            _ if is_first => 0,
            _ => RESERVE_BYTES.min(segment / 16),
        };
        let listed = listed(place, draft.lengths, change)
            .and_then(|entry| state.directory.encoded_len_with(&entry));
        listed
            .is_ok_and(|directory| place + draft.lengths.padded() + directory + reserve <= segment)
    }

    fn take(
        &self,
        unit: &mut OpenUnit,
        directory: &mut DirectoryBuilder,
        draft: &mut Draft,
        change: &Change<'_>,
    ) -> Result<Dealt, EncodeError> {
        let lengths = draft.lengths;
        let position = unit.frame.next_position().ok_or(EncodeError::Place)?;
        let end = position.after(lengths.padded() as u64).ok_or(EncodeError::Place)?;
        let place = self.geometry.offset_in_segment(position) as usize;
        let checksum = seal(&mut draft.head, self.key, position, self.open_count)?;
        directory.append(&listed(place, lengths, change)?)?;
        unit.frame.add(lengths, checksum)?;
        let touched = place % BLOCK_BYTES + lengths.total();
        let blocks =
            u16::try_from(touched.div_ceil(BLOCK_BYTES)).map_err(|_| EncodeError::Record)?;
        Ok(Dealt { position, end, blocks })
    }

    fn close_unit(state: &mut State) {
        let Some(OpenUnit { position, frame, records }) = state.open.take() else { return };
        if let (Some(end), Ok(header)) = (frame.next_position(), frame.finish()) {
            state.jobs.push_back(Job::Frame(Arc::new(Unit { position, header, records, end })));
            state.next = end;
            state.urgent = false;
        }
    }

    /// The end of what has been dealt: every later record lies behind it.
    pub(crate) fn tail(&self) -> Position {
        self.state.lock().last()
    }

    /// Whether nothing is taken any more.
    pub(super) fn is_over(&self) -> bool {
        self.state.lock().standing != Standing::Running
    }

    /// Whether so much waits to be written that a put has to wait.
    pub(super) fn is_crowded(&self) -> bool {
        self.state.lock().waiting_bytes >= WAITING_BYTES_MAX
    }

    /// How often room may have come.
    pub(super) fn turn(&self) -> u64 {
        self.turns.load(Ordering::Acquire)
    }

    /// Whether there may be room for `bytes` besides what is kept for others.
    pub(super) fn has_room(&self, kept: usize, bytes: usize) -> bool {
        let state = self.state.lock();
        if state.standing != Standing::Running {
            return true;
        }
        if state.waiting_bytes.saturating_add(kept) >= WAITING_BYTES_MAX {
            return false;
        }
        // With nothing before it, the append itself finds out whether there is a place.
        let segments = state.newest.0.saturating_sub(self.geometry.segment_of(state.last()).0);
        let ahead = u64::from(self.geometry.segment_bytes()).saturating_mul(segments);
        let here =
            self.geometry.offset_in_segment(state.last()) as usize + state.directory.encoded_len();
        let here = (self.geometry.segment_bytes() as usize).saturating_sub(here) as u64;
        kept == 0 || kept.saturating_add(bytes) as u64 <= here.saturating_add(ahead)
    }

    /// Nothing is taken from here on; what has been is still written. The writer tells those who
    /// wait for room.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        if state.standing == Standing::Running {
            state.standing = Standing::Closing;
            Self::close_unit(&mut state);
            let tail = state.next;
            state.jobs.push_back(Job::Close { tail });
        }
        drop(state);
        self.left.store(true, Ordering::Release);
        self.writer.wake();
    }

    /// Whether it has been asked to close.
    pub(crate) fn is_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    /// Resolves once it has been asked to close. For the writer, when it has nothing to write.
    pub(crate) async fn left(&self) {
        poll_fn(|context| {
            self.writer.register(context.waker());
            if self.is_left() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Whether it was closed, with all that was left to do.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().standing == Standing::Closed
    }

    /// The writer's next job, which stays in the log until it is [`Log::done`]. `is_old`: a unit
    /// that nobody waits for is to be written too.
    pub(crate) fn job(&self, is_old: bool) -> Option<Job> {
        let mut state = self.state.lock();
        if state.jobs.is_empty() && (state.urgent || is_old) {
            Self::close_unit(&mut state);
        }
        if failpoint(Failpoint::AcknowledgedOutOfOrder) {
            state.acknowledged = state.next;
        }
        let job = state.jobs.front().cloned();
        drop(state);
        if failpoint(Failpoint::AcknowledgedOutOfOrder) {
            self.waiters.wake_all_at_once();
        }
        job
    }

    /// Whether something waits in the open unit.
    pub(crate) fn is_open(&self) -> bool {
        self.state.lock().open.is_some()
    }

    /// Resolves when [`Log::job`] has something to give, or an empty unit has got its first record.
    pub(crate) async fn work(&self, knew_open: bool) {
        poll_fn(|context| {
            self.writer.register(context.waker());
            let state = self.state.lock();
            let is_work = !state.jobs.is_empty()
                || self.index_wanted.load(Ordering::Acquire) > 0
                || (state.urgent && state.open.is_some())
                || (state.open.is_some() && !knew_open);
            if is_work { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// The segment that positions are dealt in.
    pub(crate) fn segment(&self) -> SegmentNumber {
        self.geometry.segment_of(self.tail())
    }

    /// The oldest segment in use.
    pub(crate) fn head_segment(&self) -> SegmentNumber {
        SegmentNumber(self.head.load(Ordering::Acquire))
    }

    /// Everything before `head` is about to leave.
    pub(crate) fn leave_behind(&self, head: SegmentNumber) {
        self.head.store(head.0, Ordering::Release);
    }

    /// Bytes that wait to be written, and the directory of the open segment.
    pub(crate) fn memory_bytes(&self) -> usize {
        let state = self.state.lock();
        state.waiting_bytes + state.directory.memory_bytes()
    }
}

impl State {
    /// Where the log ends: behind the open unit, or where the next one begins.
    pub(super) fn last(&self) -> Position {
        let open = self.open.as_ref().and_then(|unit| unit.frame.next_position());
        open.unwrap_or(self.next)
    }
}
