//! `Places`: where each segment lies in the file, which places are free, and how many reads of each
//! place are under way.
//!
//! A segment has its place from the moment when its header is written until it has left the log and
//! its readers are done. A store whose size never changes fills its places in turn. Which segment
//! lies where is found at each open, from the headers (`place_scan`).
//!
//! A pin belongs to the request in the ring, not to the future that waits for it. A reader first
//! pins, then checks its slot again; reclaim first removes the slots, then waits for the pins. So
//! either the reader sees that its slot was removed, or reclaim sees the pin. Place and pin are
//! taken together, so that a segment may also be moved under its readers.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use futures::task::AtomicWaker;
use parking_lot::Mutex;

use super::format::{DATA_OFFSET, Geometry, Position, SegmentNumber};
use crate::batch::BATCH_ENTRIES;
use crate::failpoint::{Failpoint, failpoint};
use crate::meter;

#[derive(Debug)]
pub(crate) struct Places {
    segment_bytes: u64,
    table: Mutex<Table>,
    /// The writer, which waits until a place has no pins.
    waiting: AtomicWaker,
}

/// A segment that is to lie at another place: where it begins, and will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) segment: SegmentNumber,
    pub(super) from: u64,
    pub(super) to: u64,
    place: u32,
}

#[derive(Debug)]
struct Table {
    places: BTreeMap<SegmentNumber, u32>,
    /// In the order in which they are used.
    free: VecDeque<u32>,
    /// Reads under way, by place.
    pins: Vec<u32>,
    /// Places from here on are used only if no other one is free: the file becomes shorter.
    end: u32,
}

/// Keeps the place of a segment from being reused until it is dropped.
#[derive(Debug)]
pub(crate) struct ReadPin {
    places: Arc<Places>,
    place: u32,
}

impl Places {
    /// A file without any segment.
    pub(crate) fn new(geometry: Geometry) -> Self {
        Self::found(geometry, BTreeMap::new(), 0)
    }

    /// A file with segments in `places`. The other places are free, those from `next` on first.
    pub(super) fn found(
        geometry: Geometry,
        places: BTreeMap<SegmentNumber, u32>,
        next: u32,
    ) -> Self {
        let count = geometry.segment_count();
        let mut is_used = vec![false; count as usize];
        // Bounded: by the segments, once at open.
        for &place in places.values() {
            if let Some(is_used) = is_used.get_mut(place as usize) {
                *is_used = true;
            }
        }
        // Bounded: by the segments, once at open.
        let free = (next..count).chain(0..next.min(count));
        // Bounded: by the segments, once at open.
        let free = free.filter(|&place| is_used.get(place as usize) == Some(&false)).collect();
        let pins = vec![0; count as usize];
        Self {
            segment_bytes: u64::from(geometry.segment_bytes()),
            table: Mutex::new(Table { places, free, pins, end: count }),
            waiting: AtomicWaker::new(),
        }
    }

    /// The same segments, some of them moved, in a file of another size.
    pub(super) fn fitted(&self, geometry: Geometry, moves: &[Move]) -> Self {
        let mut places = self.table.lock().places.clone();
        // Bounded: by the segments, once at open.
        places.extend(moves.iter().map(|moved| (moved.segment, moved.place)));
        let last = places.last_key_value().map_or(0, |(_, &place)| place + 1);
        Self::found(geometry, places, last)
    }

    /// How many segments have a place.
    pub(super) fn in_use(&self) -> u64 {
        self.table.lock().places.len() as u64
    }

    /// How segments come to lie at the first `count` places, if enough of these are free.
    ///
    /// # Errors
    /// They are not.
    pub(super) fn moves(&self, count: u32) -> io::Result<Vec<Move>> {
        let table = self.table.lock();
        let mut free = table.free.iter().filter(|&&place| place < count);
        // Bounded: by the segments, once at open.
        let high = table.places.iter().filter(|&(_, &place)| place >= count);
        high.map(|(&segment, &from)| {
            let place = *free.next().ok_or_else(full)?;
            let (from, to) = (self.offset_of(from), self.offset_of(place));
            Ok(Move { segment, from, to, place })
        })
        // Bounded: by the segments, once at open.
        .collect()
    }

    /// Where a segment begins in the file. None if it has no place.
    pub(super) fn offset(&self, segment: SegmentNumber) -> Option<u64> {
        let place = *self.table.lock().places.get(&segment)?;
        Some(self.offset_of(place))
    }

    /// The same for a segment in use.
    ///
    /// # Errors
    /// It has no place: its header was lost.
    pub(super) fn offset_in_use(&self, segment: SegmentNumber) -> io::Result<u64> {
        self.offset(segment).ok_or_else(lost)
    }

    /// Where a position lies in the file.
    ///
    /// # Errors
    /// Its segment has no place.
    pub(crate) fn offset_at(&self, position: Position, geometry: Geometry) -> io::Result<u64> {
        let start = self.offset_in_use(geometry.segment_of(position))?;
        Ok(start + u64::from(geometry.offset_in_segment(position)))
    }

    /// Whether all segments of a range have a place.
    pub(super) fn has_all(&self, first: SegmentNumber, last: SegmentNumber) -> bool {
        let count = last.0.wrapping_sub(first.0).wrapping_add(1);
        // Bounded: by the segments, once at open.
        first <= last && self.table.lock().places.range(first..=last).count() as u64 == count
    }

    /// Pins the place of a segment, which begins at the offset. None if it has no place.
    pub(super) fn pin(self: &Arc<Self>, segment: SegmentNumber) -> Option<(u64, ReadPin)> {
        let mut table = self.table.lock();
        let place = *table.places.get(&segment)?;
        *table.pins.get_mut(place as usize)? += 1;
        drop(table);
        Some((self.offset_of(place), ReadPin { places: Arc::clone(self), place }))
    }

    /// Gives a segment the next free place, if it has none, and returns where it begins.
    ///
    /// # Errors
    /// No place is free.
    pub(super) fn assign(&self, segment: SegmentNumber) -> io::Result<u64> {
        let mut table = self.table.lock();
        let place = match table.places.get(&segment) {
            Some(&place) => place,
            None => {
                let place = table.take_free().ok_or_else(full)?;
                table.places.insert(segment, place);
                place
            }
        };
        drop(table);
        Ok(self.offset_of(place))
    }

    /// New segments lie at the first `count` places from now on, as far as they are free.
    pub(super) fn keep_before(&self, count: u32) {
        self.table.lock().end = count;
    }

    /// The oldest segment from `first` on that lies behind the first `count` places, looked for in
    /// a batch of them: then the other one is where to go on.
    pub(super) fn behind(
        &self,
        first: SegmentNumber,
        count: u32,
    ) -> (Option<SegmentNumber>, Option<SegmentNumber>) {
        let table = self.table.lock();
        let mut left = table.places.range(first..);
        // Bounded: by a batch.
        for (&segment, &place) in left.by_ref().take(BATCH_ENTRIES) {
            meter::entries(1);
            if place >= count {
                return (Some(segment), None);
            }
        }
        (None, left.next().map(|(&segment, _)| segment))
    }

    /// How a segment comes to lie at one of the first `count` places. Others do not take it.
    ///
    /// # Errors
    /// None of these is free.
    pub(super) fn begin_move(&self, segment: SegmentNumber, count: u32) -> io::Result<Move> {
        let mut table = self.table.lock();
        let from = *table.places.get(&segment).ok_or_else(lost)?;
        let place = table.take_free().ok_or_else(full)?;
        if place >= count {
            table.free.push_front(place);
            return Err(full());
        }
        let (from, to) = (self.offset_of(from), self.offset_of(place));
        Ok(Move { segment, from, to, place })
    }

    /// A segment stays where it is.
    pub(super) fn cancel_move(&self, moved: &Move) {
        self.table.lock().free.push_front(moved.place);
    }

    /// Whether a move that was begun still brings its segment to one of the first `count` places.
    pub(super) fn is_wanted(&self, moved: &Move, count: u32) -> bool {
        let place = self.table.lock().places.get(&moved.segment).copied();
        let is_behind = |place| self.offset_of(place) == moved.from && place >= count;
        moved.place < count && place.is_some_and(is_behind)
    }

    /// Readers find a segment at its new place from now on. Gives the old one, which may have
    /// readers still. None if the segment has left the log.
    pub(super) fn switch(&self, moved: &Move) -> Option<u32> {
        let mut table = self.table.lock();
        let place = table.places.get_mut(&moved.segment)?;
        Some(std::mem::replace(place, moved.place))
    }

    /// A place that a segment has left is free once its readers are done. One caller at a time.
    pub(super) async fn leave(&self, place: u32) {
        self.unpinned(place).await;
        self.table.lock().free.push_back(place);
    }

    /// The file has another number of places. All segments lie in the first ones.
    pub(super) fn set_count(&self, count: u32) {
        let mut table = self.table.lock();
        let before = u32::try_from(table.pins.len()).unwrap_or(u32::MAX);
        // Bounded: by the segments, once for each change.
        table.free.retain(|&place| place < count);
        // Bounded: by the segments, once for each change.
        table.free.extend(before.min(count)..count);
        table.pins.resize(count as usize, 0);
        table.end = count;
    }

    /// The length of the file.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.offset_of(u32::try_from(self.table.lock().pins.len()).unwrap_or(u32::MAX))
    }

    /// A segment has left the log. Its place is free once its readers are done. One caller at a
    /// time.
    pub(super) async fn release(&self, segment: SegmentNumber) {
        let place = self.table.lock().places.remove(&segment);
        if let Some(place) = place {
            self.leave(place).await;
        }
    }

    /// The same for all segments before one, which have no readers.
    pub(super) fn release_before(&self, segment: SegmentNumber) {
        let mut table = self.table.lock();
        let Table { places, free, .. } = &mut *table;
        // Bounded: by the segments, at an open or when the log begins anew.
        while let Some(first) = places.first_entry() {
            if *first.key() >= segment {
                break;
            }
            meter::entries(1);
            free.push_back(first.remove());
        }
    }

    /// Resolves once a place has no pins.
    async fn unpinned(&self, place: u32) {
        poll_fn(|context| {
            self.waiting.register(context.waker());
            match self.table.lock().pins.get(place as usize) {
                Some(1..) => Poll::Pending,
                _ => Poll::Ready(()),
            }
        })
        .await;
    }

    /// A file of which each place has a segment, up to `newest`, and whose size has never changed.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn in_turn(geometry: Geometry, newest: SegmentNumber) -> Self {
        let count = geometry.segment_count();
        let oldest = (newest.0 + 1).saturating_sub(count.into());
        let place_of = |number: u64| u32::try_from(number % u64::from(count)).unwrap_or(0);
        let places = (oldest..=newest.0).map(|number| (SegmentNumber(number), place_of(number)));
        // Bounded: by the segments of a test.
        Self::found(geometry, places.collect(), place_of(newest.0 + 1))
    }

    #[cfg(test)]
    pub(crate) fn pins_held(&self) -> u32 {
        self.table.lock().pins.iter().sum()
    }

    fn offset_of(&self, place: u32) -> u64 {
        DATA_OFFSET + self.segment_bytes * u64::from(place)
    }
}

impl Table {
    fn take_free(&mut self) -> Option<u32> {
        // Bounded: by the segments, and the first one is taken unless the file becomes shorter.
        let at = self.free.iter().position(|&place| place < self.end).unwrap_or(0);
        self.free.remove(at)
    }
}

fn full() -> io::Error {
    io::Error::other("no place of the file is free")
}

/// What is said of a segment in use that has no place.
pub(super) fn lost() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the header of a segment was lost")
}

impl Drop for ReadPin {
    fn drop(&mut self) {
        if failpoint(Failpoint::PinLost) {
            return;
        }
        let mut table = self.places.table.lock();
        let Some(pins) = table.pins.get_mut(self.place as usize) else { return };
        *pins -= 1;
        let is_last = *pins == 0;
        drop(table);
        if is_last {
            self.places.waiting.wake();
        }
    }
}
