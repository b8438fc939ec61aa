//! `LogState`: what the log's lock guards. It assigns positions and collects write batches.
//!
//! Its methods are pure: they take no lock, wake no task and drop no value of a caller. `Log` locks
//! it, and wakes and drops once the lock is free.
//!
//! A segment without room for a record and its directory entry is sealed; the log continues in the
//! next segment, which the writer has prepared ahead of need.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;

use super::allowance::{Allowance, WAITING_BYTES_MAX};
use super::batch_records::{BatchRecords, PendingRecord};
use super::carried::Carried;
use super::checksum::ChecksumKey;
use super::directory_builder::DirectoryBuilder;
use super::directory_entry::Change;
use super::error::EncodeError;
use super::format::{
    BLOCK_BYTES, FRAME_HEADER_BYTES, Geometry, OpenCount, Position, SegmentNumber,
};
use super::frame::FrameBuilder;
use super::image::ClosedIndex;
use super::log_origin::{Appended, LogOrigin, Phase, UnsealedDirectory};
use super::open_batch::{Abandoned, OpenBatch};
use super::record::{Record, seal};
use super::search_targets::SearchTargets;
use super::write_batch::{
    Assigned, EncodedRecord, Job, Off, Refusal, Seal, WriteBatch, fits_segment, listed,
};

const WRITE_BATCH_BYTES: usize = 1 << 20;

/// A record is large if it takes more than this share of a segment.
const LARGE_SHARE: usize = 8;

/// Memory that the open segment's directory may use, however small the index budget.
const DIRECTORY_BYTES_MIN: usize = 64 << 10;

pub(super) struct LogState {
    geometry: Geometry,
    key: ChecksumKey,
    open_count: OpenCount,
    /// Limits both the share of the index budget that one segment may use and the memory of its
    /// directory; the segment is then sealed early, because an open segment cannot be reclaimed.
    index_share: usize,
    open: Option<OpenBatch>,
    next: Position,
    /// What is not on file yet, in order. The writer may be working on the first.
    jobs: VecDeque<Job>,
    /// The records of the last batch.
    usual_records: usize,
    directory: DirectoryBuilder,
    /// Positions may be assigned up to the end of this segment.
    newest: SegmentNumber,
    /// Everything before it is on file; readers find later records in memory.
    written: Position,
    /// The same position, as reported to callers that wait for it.
    acknowledged: Position,
    waiting_bytes: usize,
    /// Of the newest segment, for records that will be reinserted.
    kept_bytes: usize,
    /// A caller waits for a record in the open batch.
    is_urgent: bool,
    phase: Phase,
    /// The cache has closed it, even if it was off by then: it never goes on.
    is_close_requested: bool,
    /// Counts the events after which there may be room.
    room_events: u64,
    carried: Carried,
}

impl LogState {
    pub(super) fn new(origin: LogOrigin) -> Self {
        Self {
            geometry: origin.geometry,
            key: origin.key,
            open_count: origin.open_count,
            index_share: origin.index_share,
            open: None,
            next: origin.tail,
            jobs: VecDeque::new(),
            usual_records: 0,
            carried: Carried::new(origin.positions, origin.directory.positions()),
            directory: origin.directory,
            newest: origin.newest,
            written: origin.tail,
            acknowledged: origin.tail,
            waiting_bytes: 0,
            kept_bytes: 0,
            is_urgent: false,
            phase: Phase::Running,
            is_close_requested: false,
            room_events: 0,
        }
    }

    /// Assigns the next position to a record and takes it into the open batch. A refused record
    /// keeps its contents, so that the caller drops them without the lock.
    pub(super) fn append(
        &mut self,
        allowance: Allowance,
        record: &mut EncodedRecord,
        change: &Change<'_>,
    ) -> Appended {
        if self.phase != Phase::Running {
            return Appended { result: Err(Refusal::Off), wakes_writer: false };
        }
        let has_body = !record.body.is_empty();
        let is_crowded = self.waiting_bytes >= allowance.waiting_bytes_max(has_body, self.geometry);
        if is_crowded || !self.ensure_fits(allowance, record, change) {
            self.is_urgent = true;
            return Appended { result: Err(Refusal::NoRoom), wakes_writer: true };
        }
        let was_idle = self.open.is_none();
        let carried = self.carry(Some((record, change)));
        let Ok(assigned) = carried.and_then(|()| self.assign(record, change)) else {
            // There was room, so the record cannot be refused: the log is inconsistent.
            self.fail();
            return Appended { result: Err(Refusal::Off), wakes_writer: true };
        };
        if let Change::SavedPosition(position) = change {
            self.carried.set(*position);
        }
        self.waiting_bytes += record.lengths.padded();
        if allowance == Allowance::Reinserted {
            self.kept_bytes = self.kept_bytes.saturating_sub(record.lengths.padded());
        }
        let is_full = self.open.as_ref().is_some_and(|it| it.frame.length() >= WRITE_BATCH_BYTES);
        if is_full {
            self.close_batch();
        }
        Appended { result: Ok(assigned), wakes_writer: was_idle || self.open.is_none() }
    }

    /// Ensures room for the record, if necessary in the next segment. False: none yet.
    fn ensure_fits(
        &mut self,
        allowance: Allowance,
        record: &EncodedRecord,
        change: &Change<'_>,
    ) -> bool {
        let kept = allowance.left_for_reinserted(self.kept_bytes);
        let is_full = self.directory.index_bytes() >= self.index_share
            || self.directory.memory_bytes() >= self.index_share.max(DIRECTORY_BYTES_MIN);
        if !is_full && self.fits_behind(kept, record, change) {
            return true;
        }
        debug_assert!(
            fits_segment(self.geometry, record.lengths, change),
            "sealed for a record that fits nowhere"
        );
        self.seal_segment() && self.fits_behind(kept, record, change)
    }

    /// Whether the record fits into the open segment, with `kept` bytes left for others.
    fn fits_behind(&self, kept: usize, record: &EncodedRecord, change: &Change<'_>) -> bool {
        let header = if self.open.is_some() { 0 } else { FRAME_HEADER_BYTES };
        // The position at the end of a segment is the start of the next one, which is its header.
        let offset = self.geometry.offset_in_segment(self.end()) as usize + header;
        if offset < BLOCK_BYTES {
            return false;
        }
        let segment = self.geometry.segment_bytes() as usize;
        let is_first = offset == BLOCK_BYTES + FRAME_HEADER_BYTES;
        // Others find room once the records that it is kept for are there. A large one might find
        // none that is large enough, lap after lap.
        let is_large = record.lengths.padded() > segment / LARGE_SHARE;
        let kept = if self.segment() < self.newest || (is_first && is_large) { 0 } else { kept };
        let reserve = match record.body.len() {
            0 => 0,
            _ if is_first && kept == 0 => 0,
            _ => Allowance::reserve_bytes(segment) + kept,
        };
        let listed = listed(offset, record.lengths, change)
            .and_then(|entry| self.directory.encoded_len_with(&entry));
        listed.is_ok_and(|directory| {
            offset + record.lengths.padded() + directory + reserve <= segment
        })
    }

    /// Repeats the saved positions that are due, if they leave room for the record.
    fn carry(&mut self, before: Option<(&EncodedRecord, &Change<'_>)>) -> Result<(), EncodeError> {
        let offset = self.geometry.offset_in_segment(self.end()) as usize + FRAME_HEADER_BYTES;
        if !self.carried.is_due() || offset < BLOCK_BYTES {
            return Ok(());
        }
        let segment = self.geometry.segment_bytes() as usize;
        let (directory, beyond) = match before {
            None => (self.directory.encoded_len(), 0),
            Some((record, change)) => {
                let entry = listed(offset, record.lengths, change)?;
                let directory = self.directory.encoded_len_with(&entry)?;
                (directory, record.lengths.padded() + Allowance::reserve_bytes(segment))
            }
        };
        let room = segment.saturating_sub(offset + directory + beyond);
        // Bounded: by the most there are.
        for position in self.carried.take_due(room).iter() {
            let mut record = EncodedRecord::new(&Record::SavedPosition(position), Bytes::new())?;
            self.assign(&mut record, &Change::SavedPosition(position))?;
            self.waiting_bytes += record.lengths.padded();
        }
        Ok(())
    }

    fn assign(
        &mut self,
        record: &mut EncodedRecord,
        change: &Change<'_>,
    ) -> Result<Assigned, EncodeError> {
        let batch = self.open.get_or_insert_with(|| OpenBatch {
            position: self.next,
            frame: FrameBuilder::new(self.key, self.next, self.open_count, self.geometry),
            records: BatchRecords::with_room(self.usual_records),
        });
        let lengths = record.lengths;
        let position = batch.frame.next_position().ok_or(EncodeError::Position)?;
        let end = position.after(lengths.padded() as u64).ok_or(EncodeError::Position)?;
        let offset = self.geometry.offset_in_segment(position) as usize;
        let checksum = seal(&mut record.head, self.key, position, self.open_count)?;
        self.directory.append(&listed(offset, lengths, change)?)?;
        batch.frame.add(lengths, checksum)?;
        let touched = offset % BLOCK_BYTES + lengths.total();
        let blocks =
            u16::try_from(touched.div_ceil(BLOCK_BYTES)).map_err(|_| EncodeError::Record)?;
        batch.records.push(position, &record.head, mem::take(&mut record.body));
        Ok(Assigned { position, end, blocks })
    }

    /// Seals the segment in which positions are assigned. False: the next one is not prepared yet.
    fn seal_segment(&mut self) -> bool {
        let segment = self.geometry.segment_of(self.end());
        let following = SegmentNumber(segment.0 + 1);
        let start = self.first_frame_of(following).filter(|_| following <= self.newest);
        let Some(start) = start else { return false };
        self.close_batch();
        let directory = DirectoryBuilder::new(following, self.geometry);
        let directory = mem::replace(&mut self.directory, directory);
        let seal = Seal { segment, directory, end: self.next };
        self.jobs.push_back(Job::Seal(Arc::new(seal)));
        self.next = start;
        self.carried.begin_segment();
        true
    }

    fn first_frame_of(&self, segment: SegmentNumber) -> Option<Position> {
        self.geometry.start_of(segment)?.after(BLOCK_BYTES as u64)
    }

    fn close_batch(&mut self) {
        let Some(OpenBatch { position, frame, records }) = self.open.take() else { return };
        if let (Some(end), Ok(header)) = (frame.next_position(), frame.finish()) {
            self.usual_records = records.len();
            let batch = WriteBatch { position, header, records, end };
            self.jobs.push_back(Job::Write(Arc::new(batch)));
            self.next = end;
            self.is_urgent = false;
        }
    }

    /// Where the log ends: behind the open batch, or where the next one begins.
    pub(super) fn end(&self) -> Position {
        let open = self.open.as_ref().and_then(|batch| batch.frame.next_position());
        open.unwrap_or(self.next)
    }

    pub(super) fn segment(&self) -> SegmentNumber {
        self.geometry.segment_of(self.end())
    }

    pub(super) fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.waiting_bytes >= WAITING_BYTES_MAX
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Bytes that wait to be written, and the directory of the open segment.
    pub(super) fn memory_bytes(&self) -> usize {
        self.waiting_bytes + self.directory.memory_bytes()
    }

    /// Whether there may be room for `bytes` besides the `kept` ones that are promised.
    pub(super) fn has_room(&self, kept: usize, bytes: usize) -> bool {
        if self.phase != Phase::Running {
            return true;
        }
        if self.waiting_bytes.saturating_add(kept) >= WAITING_BYTES_MAX {
            return false;
        }
        let segments = self.newest.0.saturating_sub(self.segment().0);
        let ahead = u64::from(self.geometry.segment_bytes()).saturating_mul(segments);
        let used =
            self.geometry.offset_in_segment(self.end()) as usize + self.directory.encoded_len();
        let here = (self.geometry.segment_bytes() as usize).saturating_sub(used) as u64;
        // If nothing is promised to others, the append itself finds out whether there is a place.
        kept == 0 || kept.saturating_add(bytes) as u64 <= here.saturating_add(ahead)
    }

    pub(super) fn keep_room(&mut self, bytes: usize) {
        self.kept_bytes = bytes;
    }

    pub(super) fn room_events(&self) -> u64 {
        self.room_events
    }

    pub(super) fn count_room_event(&mut self) {
        self.room_events += 1;
    }

    pub(super) fn extend_to(&mut self, newest: SegmentNumber) {
        self.newest = self.newest.max(newest);
    }

    /// Whether a segment from `head` on can be reclaimed, now or once it is sealed on file. Seals
    /// the open segment if that is the only one and uses its share of the index: it may come from
    /// an open with a larger budget, and leave no room for anything else.
    pub(super) fn can_make_index_room(&mut self, head: SegmentNumber) -> bool {
        if self.phase != Phase::Running {
            return false;
        }
        if head < self.segment() {
            return true;
        }
        self.directory.index_bytes() >= self.index_share && self.seal_segment()
    }

    /// Accepts no more records; those that were appended are still written. Takes `index`, unless
    /// the log has ended before.
    pub(super) fn close(&mut self, index: &mut Option<Arc<dyn ClosedIndex>>) {
        self.is_close_requested = true;
        if self.phase == Phase::Running {
            self.phase = Phase::Closing;
            // What the end of the log lacks is found by an open that reads all of it.
            let has_all = self.carry(None).is_ok() && !self.carried.is_due();
            self.close_batch();
            let index = if has_all { index.take() } else { None };
            self.jobs.push_back(Job::Close { tail: self.next, index });
        }
    }

    /// Accepts no more records, and has the writer fail.
    pub(super) fn fail(&mut self) {
        if self.phase == Phase::Running {
            self.phase = Phase::Off;
            self.jobs.push_back(Job::Fail);
        }
    }

    pub(super) fn turn_off(&mut self) -> Abandoned {
        self.phase = Phase::Off;
        self.room_events += 1;
        self.waiting_bytes = 0;
        Abandoned::new(mem::take(&mut self.jobs), self.open.take())
    }

    /// After it was turned off: goes on at the start of `segment`, which is empty. Gives the
    /// directory of the segment before. None if the log was closed.
    pub(super) fn restart(&mut self, segment: SegmentNumber) -> Option<DirectoryBuilder> {
        let start = self.first_frame_of(segment)?;
        if self.phase != Phase::Off || self.is_close_requested {
            return None;
        }
        self.phase = Phase::Running;
        self.newest = segment;
        self.next = start;
        self.note_written(start);
        (self.kept_bytes, self.is_urgent) = (0, false);
        self.carried.clear();
        self.room_events += 1;
        let directory = DirectoryBuilder::new(segment, self.geometry);
        Some(mem::replace(&mut self.directory, directory))
    }

    pub(super) fn closed(&self) -> Option<Result<(), Off>> {
        match self.phase {
            Phase::Closed => Some(Ok(())),
            Phase::Off => Some(Err(Off)),
            Phase::Running | Phase::Closing => None,
        }
    }

    /// The first job, until [`Self::finish_job`]. Without one, closes an urgent or old batch.
    pub(super) fn next_job(&mut self, is_old: bool) -> Option<Job> {
        if self.jobs.is_empty() && (self.is_urgent || is_old) {
            self.close_batch();
        }
        self.jobs.front().cloned()
    }

    /// The batch behind the first job.
    pub(super) fn second_batch(&self) -> Option<Arc<WriteBatch>> {
        match self.jobs.get(1) {
            Some(Job::Write(batch)) => Some(Arc::clone(batch)),
            _ => None,
        }
    }

    /// Removes the first job, which is on file now.
    pub(super) fn finish_job(&mut self) -> Option<Job> {
        let job = self.jobs.pop_front();
        match &job {
            Some(Job::Write(batch)) => {
                self.note_written(batch.end);
                self.waiting_bytes = self.waiting_bytes.saturating_sub(batch.record_bytes());
            }
            Some(Job::Close { .. }) => self.phase = Phase::Closed,
            // The log may end at the next segment, and a sync waits for that.
            Some(Job::Seal(seal)) => {
                let following = self.first_frame_of(SegmentNumber(seal.segment.0 + 1));
                self.note_written(following.unwrap_or(seal.end));
            }
            Some(Job::Fail) | None => {}
        }
        self.room_events += 1;
        job
    }

    fn note_written(&mut self, end: Position) {
        self.written = end;
        self.acknowledged = self.acknowledged.max(end);
    }

    /// Everything before it is on file.
    pub(super) fn written(&self) -> Position {
        self.written
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether [`Self::next_job`] has a job, or a batch is open that the writer did not know of.
    pub(super) fn has_work(&self, knew_open: bool) -> bool {
        !self.jobs.is_empty() || (self.open.is_some() && (self.is_urgent || !knew_open))
    }

    /// A caller waits for the open batch, if there is one.
    pub(super) fn hurry(&mut self) {
        self.is_urgent |= self.open.is_some();
    }

    /// Whether everything before `end` is on file; None while that may still happen.
    pub(super) fn is_written(&self, end: Position) -> Option<Result<(), Off>> {
        match self.phase {
            _ if self.acknowledged >= end => Some(Ok(())),
            Phase::Off => Some(Err(Off)),
            _ => None,
        }
    }

    /// For a failpoint: acknowledges closed batches before they are on file.
    pub(super) fn acknowledge_early(&mut self) {
        self.acknowledged = self.next;
    }

    pub(super) fn pending_record(&self, position: Position) -> Option<PendingRecord> {
        if position < self.written {
            return None;
        }
        let batches = self.jobs.iter().filter_map(|job| match job {
            Job::Write(batch) => Some(batch),
            Job::Seal(_) | Job::Close { .. } | Job::Fail => None,
        });
        let mut closed = batches.filter(|batch| batch.end > position);
        let closed = closed.find_map(|batch| batch.records.find(position));
        closed.or_else(|| self.open.as_ref().and_then(|batch| batch.records.find(position)))
    }

    pub(super) fn unsealed_directory<T>(
        &self,
        segment: SegmentNumber,
        targets: &Arc<SearchTargets>,
        part: impl Fn(&DirectoryBuilder) -> T,
    ) -> Option<UnsealedDirectory<T>> {
        // Bounded: by the batches that may wait to be written.
        let sealing = self.jobs.iter().find_map(|job| match job {
            Job::Seal(seal) if seal.segment == segment => Some(Arc::clone(seal)),
            _ => None,
        });
        if let Some(seal) = sealing {
            return Some(UnsealedDirectory::Sealing(seal));
        }
        (self.segment() == segment).then(|| {
            let targets = targets.in_rows(|namespace| self.directory.row_of(namespace));
            let found = !targets.is_empty();
            UnsealedDirectory::Open(found.then(|| (targets, part(&self.directory))))
        })
    }
}
