//! Recovery: reads a store at open, decides how much of it counts, and where the log continues.
//!
//! Segments are read from the newest back to the head. A sealed one gives its directory; the last
//! one in use is scanned frame by frame. A bad frame at its end with no good one behind it is a
//! tear: the records before it are all that was ever acknowledged as on file. A bad frame with a
//! good one behind it, or a segment with a bad header or directory, is damage: the hashes that it
//! held are unknown, so everything before it is dropped, counted and logged. If the records exceed
//! the index budget, nothing older counts either. The result is on file before the store is used.
//!
//! After a clean close the index is read from its image instead, if that is good (`image`). The end
//! of the log is always read from the log.
//!
//! Recovery works in steps: no poll visits more entries, or handles more bytes, than a batch has.

use std::collections::BTreeMap;
use std::io;

use futures::future::join;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};

use super::directory_builder::DirectoryBuilder;
use super::format::{BLOCK_BYTES, OpenCount, OpenRange, Position, SegmentNumber};
use super::frames::Frames;
use super::image::{Loaded, load};
use super::opening::Opening;
use super::outlines::Outlines;
use super::read_ahead::{Found, ReadAhead};
use super::recovery_error::RecoveryError;
use super::replay::{Replay, Replayed};
use super::replayed_namespace::RecoveredNamespace;
use super::resume::{Tail, Unsealed, start_of};
use super::saved_position::SavedPositions;
use super::segment_file::SegmentFile;
use super::segment_records::SegmentRecords;
use super::superblock::Superblock;
use crate::clock::Timestamp;
use crate::failpoint::{Failpoint, failpoint};
use crate::helpers::Helpers;
use crate::key::KeyHasher;
use crate::telemetry::tell;

/// Outlines that are read ahead of the next one.
const OUTLINES_AHEAD: usize = 3;

/// What was found.
pub(crate) struct Reached {
    pub(crate) namespaces: BTreeMap<Box<str>, RecoveredNamespace>,
    /// Live records.
    pub(crate) records: u64,
    pub(crate) outlines: Outlines,
    pub(super) tail: Option<Tail>,
    /// Nothing before it counts.
    pub(super) head: Position,
    /// Segments dropped because of damage in or behind them, or because fewer fit.
    pub(crate) dropped: u64,
    pub(crate) is_from_image: bool,
    /// Each is behind the mutations before it, of which those that still matter count.
    pub(crate) positions: SavedPositions,
}

/// Reads the store of `superblock`, as far as so many segments hold it.
pub(super) async fn survey(
    file: &SegmentFile,
    superblock: Superblock,
    opening: &Opening,
    segments: u32,
) -> Result<Reached, RecoveryError> {
    let hasher = KeyHasher::new(superblock.hash_key, opening.key_hash_bits);
    let helpers = Helpers::start(opening.helpers);
    let mut scan = BackwardScan {
        file,
        superblock,
        segments: segments.into(),
        hasher: &hasher,
        helpers: &helpers,
        replay: Replay::new(opening.limits.clone(), Timestamp(opening.now_ns)),
        outlines: Outlines::new(opening.limits.index_bytes_max),
        tail: None,
        head: superblock.head,
        dropped: 0,
        now: Timestamp(opening.now_ns),
        order_matters: false,
        positions: SavedPositions::default(),
    };
    let loaded = scan.load_image(opening, &helpers).await;
    if loaded.is_none() {
        scan.read_back(opening.limits.index_bytes_max).await?;
    }
    let given_up = scan.given_up();
    let BackwardScan { replay, outlines, tail, head, dropped, positions, .. } = scan;
    let is_from_image = loaded.is_some();
    let (namespaces, records) = match loaded {
        Some(Loaded { namespaces, records, .. }) => (namespaces, records),
        None => {
            let Replayed { namespaces, records } = replay.finish(&helpers).await?;
            (namespaces, records)
        }
    };
    if dropped > 0 {
        tell!(
            warn,
            "recovery",
            segments = dropped,
            "segments of the disk tier are dropped: they are damaged or lie before damage"
        );
    }
    if given_up > 0 {
        tell!(
            warn,
            "recovery",
            segments = given_up,
            "the oldest segments of the disk tier are dropped: it is smaller now"
        );
    }
    let dropped = dropped + given_up;
    Ok(Reached { namespaces, records, outlines, tail, head, dropped, is_from_image, positions })
}

struct BackwardScan<'a> {
    file: &'a SegmentFile,
    superblock: Superblock,
    /// The store will have so many.
    segments: u64,
    hasher: &'a KeyHasher,
    helpers: &'a Helpers,
    replay: Replay,
    outlines: Outlines,
    tail: Option<Tail>,
    /// Nothing before it counts.
    head: Position,
    dropped: u64,
    now: Timestamp,
    /// Whether a segment had to be replayed in its order.
    order_matters: bool,
    /// Of the segments that were read.
    positions: SavedPositions,
}

impl BackwardScan<'_> {
    fn opens(&self) -> OpenRange {
        OpenRange { first: OpenCount(1), last: self.superblock.open_count }
    }

    /// Reads the index from its image, and where the log ends. None without a good image, or if the
    /// end of the log is damaged: then nothing has changed.
    async fn load_image(&mut self, opening: &Opening, helpers: &Helpers) -> Option<Loaded> {
        let SegmentFile { geometry, .. } = *self.file;
        let Superblock { tail, clean, .. } = self.superblock;
        if !clean || self.file.disk.length() <= geometry.file_bytes() {
            return None;
        }
        let segment = geometry.segment_of(tail);
        let end = geometry.offset_in_segment(tail) as usize;
        let head = self.superblock.head_at(tail)?;
        if self.oldest_behind(segment) > geometry.segment_of(head) {
            // The image has slots of segments that do not fit.
            return None;
        }
        if !self.file.places.has_all(geometry.segment_of(head), segment) {
            // A header was lost: that is damage, which is found when the segments are read.
            return None;
        }
        let of = (&opening.limits, opening.key_hash_bits);
        let loaded = load(self.file, &self.superblock, of, helpers);
        let unsealed = self.find_unsealed(segment, Some(end));
        let (loaded, unsealed) = match helpers.count() {
            // Both would be done in one poll.
            0 => (loaded.await, unsealed.await),
            _ => join(loaded, unsealed).await,
        };
        let (loaded, unsealed) = (loaded?, unsealed.ok().flatten());
        let Some(unsealed) = unsealed.filter(|it| !it.is_damaged) else {
            loaded.discard().await;
            return None;
        };
        self.head = head;
        if !failpoint(Failpoint::PositionNotInImage) {
            self.positions = unsealed.directory.positions().clone();
        }
        self.tail = Some(Tail { segment, unsealed: Some(unsealed) });
        let room = opening.limits.index_bytes_max.saturating_sub(loaded.bytes);
        self.read_outlines(segment, room, helpers.count()).await;
        Some(loaded)
    }

    /// Reads the outlines of the segments before the one in which the log ends, as far as there is
    /// room.
    async fn read_outlines(&mut self, end: SegmentNumber, mut room: usize, threads: usize) {
        let oldest = self.file.geometry.segment_of(self.head);
        let opens = self.opens();
        let mut numbers = (oldest.0..end.0).rev();
        let mut reading = FuturesOrdered::new();
        // Bounded: a segment in each turn, read in steps.
        loop {
            // Bounded: by the outlines at once.
            while reading.len() <= threads.min(OUTLINES_AHEAD) {
                let Some(number) = numbers.next() else { break };
                reading.push_back(self.file.read_outline(SegmentNumber(number), opens).boxed());
            }
            let Some(outline) = reading.next().await else { return };
            let Ok(Some(outline)) = outline else { continue };
            let is_kept = self.outlines.keep(outline, |bytes| {
                let is_room = bytes <= room;
                room -= if is_room { bytes } else { 0 };
                is_room
            });
            if !is_kept {
                return;
            }
        }
    }

    /// The oldest segment that there is room for if the log ends in `tail`. The one after the tail
    /// must be free, so that the log can continue.
    fn oldest_behind(&self, tail: SegmentNumber) -> SegmentNumber {
        let end = (tail.0 + 2).max(self.superblock.newest.0 + 1);
        SegmentNumber(end.saturating_sub(self.segments))
    }

    /// How many segments there is no room for in a smaller file.
    fn given_up(&self) -> u64 {
        let geometry = self.superblock.geometry;
        match &self.tail {
            Some(tail) if self.segments < geometry.segment_count().into() => {
                let before = geometry.segment_of(self.superblock.head);
                self.oldest_behind(tail.segment).0.saturating_sub(before.0)
            }
            _ => 0,
        }
    }

    /// Reads segments backwards to the head, to damage, or to the end of the index budget.
    async fn read_back(&mut self, index_bytes_max: usize) -> Result<(), RecoveryError> {
        let geometry = self.file.geometry;
        let mut oldest = geometry.segment_of(self.head);
        let mut number = self.superblock.newest;
        let of = (self.superblock.store_id, self.opens());
        let memory = (self.now, index_bytes_max);
        let mut ahead = ReadAhead::new(self.file, of, (number, oldest), self.helpers, memory);
        // Bounded: a segment in each turn, read in steps.
        while number >= oldest {
            let segment = ahead.take(number).await;
            if self.order_matters {
                ahead.keep_order();
            }
            let older = number.0 - oldest.0;
            let found = ahead.beside(self.take_segment(segment, number, older)).await?;
            if found == Taken::Full {
                // The head must not pass the position at which the log continues.
                let unsealed = self.tail.as_ref().filter(|tail| tail.segment == number);
                let end = unsealed.and_then(|tail| tail.unsealed.as_ref()).map(|tail| tail.end);
                let behind = match end {
                    Some(end) => end,
                    None => start_of(geometry, SegmentNumber(number.0 + 1))?,
                };
                self.head = self.head.max(self.replay.oldest().unwrap_or(behind));
                break;
            }
            if found == Taken::Damaged && !failpoint(Failpoint::DamageSkipped) {
                self.dropped += number.0 - oldest.0 + 1;
                // If the damage lies within the tail, the head is behind it already.
                let is_within = |tail: &Tail| tail.segment == number && tail.unsealed.is_some();
                if !self.tail.as_ref().is_some_and(is_within) {
                    self.head = self.head.max(start_of(geometry, SegmentNumber(number.0 + 1))?);
                }
                break;
            }
            if let Some(tail) = &self.tail {
                oldest = oldest.max(self.oldest_behind(tail.segment));
                self.head = self.head.max(start_of(geometry, oldest)?);
            }
            match number.0.checked_sub(1) {
                Some(before) => number = SegmentNumber(before),
                None => break,
            }
        }
        Ok(())
    }

    async fn take_segment(
        &mut self,
        found: Found,
        number: SegmentNumber,
        older: u64,
    ) -> Result<Taken, RecoveryError> {
        let records = match found {
            Found::Damaged => return Ok(Taken::Damaged),
            Found::Unsealed if self.tail.is_some() => return Ok(Taken::Damaged),
            Found::Unsealed => return self.take_unsealed(number, older).await,
            Found::Sealed(records) => records,
        };
        self.tail.get_or_insert(Tail { segment: number, unsealed: None });
        self.add_positions(&records);
        let (mut records, mut taken) = (records, Taken::Good);
        if !self.take_plain(&records, older).await? {
            self.order_matters = true;
            if records.plain().is_some() {
                *records = self.read_in_order(&records, number).await?;
            }
            taken = self.take_records(&records, older).await?;
        }
        let replay = &mut self.replay;
        self.outlines.keep(records.into_outline(), |bytes| replay.reserve(bytes));
        Ok(taken)
    }

    /// Those that have none in a newer segment. No invalidation covers them.
    fn add_positions(&mut self, records: &SegmentRecords) {
        if failpoint(Failpoint::PositionFromOlder) {
            // Bounded: by the most there are.
            records.positions().iter().for_each(|position| self.positions.set(position));
        }
        self.positions.add_older(records.positions());
    }

    /// False if the order of the records matters.
    async fn take_plain(&mut self, records: &SegmentRecords, older: u64) -> io::Result<bool> {
        let Some(plain) = records.plain() else { return Ok(false) };
        let outline_bytes = records.outline_bytes();
        self.replay.take_plain(plain, outline_bytes, (self.head, older), self.helpers).await
    }

    /// The same records in the order of the log.
    async fn read_in_order(
        &self,
        records: &SegmentRecords,
        number: SegmentNumber,
    ) -> io::Result<SegmentRecords> {
        let place = (number, self.opens(), self.file.geometry);
        let order = (self.now, false);
        let reading = SegmentRecords::read(records.image(), self.file.key, place, order);
        let read = self.helpers.run(reading).await;
        let read = read.ok_or_else(|| io::Error::other("a directory cannot be read again"))?;
        read.map_err(io::Error::other)
    }

    async fn take_records(&mut self, records: &SegmentRecords, older: u64) -> io::Result<Taken> {
        let is_good = self.replay.take(records, (self.head, older), self.helpers).await?;
        Ok(if is_good { Taken::Good } else { Taken::Full })
    }

    /// Scans the frames of a segment that has no good directory and no used segment behind it.
    async fn take_unsealed(
        &mut self,
        number: SegmentNumber,
        older: u64,
    ) -> Result<Taken, RecoveryError> {
        let SegmentFile { geometry, key, .. } = *self.file;
        let is_in = geometry.segment_of(self.superblock.tail) == number;
        let clean_end = (self.superblock.clean && is_in)
            .then(|| geometry.offset_in_segment(self.superblock.tail) as usize);
        let Some(unsealed) = self.find_unsealed(number, clean_end).await? else {
            return Ok(Taken::Damaged);
        };
        let Unsealed { end, ref directory, is_damaged, .. } = unsealed;
        if is_damaged {
            tell!(warn, "recovery", segment = number.0, "the open segment is damaged");
        } else if directory.entries() == 0 && clean_end.is_none() {
            return Ok(Taken::Good);
        }
        let mut image = Vec::new();
        let written = directory.write(key, self.superblock.open_count, end, &mut image).await;
        written.map_err(io::Error::other)?;
        self.tail = Some(Tail { segment: number, unsealed: Some(unsealed) });
        let place = (number, self.opens(), geometry);
        let records = SegmentRecords::read(image.into(), key, place, (self.now, false)).await;
        let records = records.map_err(io::Error::other)?;
        self.add_positions(&records);
        let taken = self.take_records(&records, older).await?;
        if is_damaged {
            self.head = self.head.max(records.oldest().unwrap_or(end));
            if taken == Taken::Full {
                self.head = self.head.max(self.replay.oldest().unwrap_or(end));
            }
            return Ok(Taken::Damaged);
        }
        Ok(taken)
    }

    /// The good part of a segment that is not sealed. None if it cannot be read.
    async fn find_unsealed(
        &self,
        number: SegmentNumber,
        clean_end: Option<usize>,
    ) -> Result<Option<Unsealed>, RecoveryError> {
        let start = start_of(self.file.geometry, number)?;
        let mut frames = Frames::new(self.file, number, start, self.opens());
        let Ok(scanned) = self.scan(&mut frames, (number, clean_end)).await else {
            return Ok(None);
        };
        let Scanned { directory, last, end, is_damaged } = scanned;
        let block = end / BLOCK_BYTES * BLOCK_BYTES;
        let block = if block == end {
            Vec::new()
        } else {
            let offset = self.file.places.offset_in_use(number)? + block as u64;
            let Ok(bytes) = self.file.read_certain(offset, BLOCK_BYTES).await else {
                return Ok(None);
            };
            bytes.get(..end - block).unwrap_or_default().to_vec()
        };
        let position =
            |at: usize| start.after(at as u64).ok_or_else(|| io::Error::other("out of positions"));
        let (last, end) = (position(last)?, position(end)?);
        Ok(Some(Unsealed { last, end, directory, block, is_damaged }))
    }

    /// The good frames behind the last bad one, and whether that one is damage.
    async fn scan(
        &self,
        frames: &mut Frames<'_>,
        (number, clean_end): (SegmentNumber, Option<usize>),
    ) -> io::Result<Scanned> {
        let empty = || DirectoryBuilder::new(number, self.file.geometry);
        let (mut directory, mut last, mut end) = (empty(), BLOCK_BYTES, BLOCK_BYTES);
        let mut is_damaged = false;
        // Bounded: a frame in each turn, read in steps.
        loop {
            // Bounded: a frame in each turn, read in steps.
            loop {
                // A log that was closed is known to end there.
                let found = if clean_end == Some(end) {
                    frames.at(end).await?
                } else {
                    frames.certainly_at(end).await?
                };
                let Some(header) = found else { break };
                frames.list(end, &header, self.hasher, &mut directory).await?;
                frames.opens.first = header.open_count;
                last = end;
                end += header.length as usize;
            }
            is_damaged |= clean_end.is_some_and(|clean| clean != end);
            if failpoint(Failpoint::TailAppendedAfterTear) {
                break;
            }
            let Some(behind) = frames.find_from(end).await? else { break };
            (is_damaged, directory, last, end) = (true, empty(), behind, behind);
        }
        if clean_end.is_some_and(|clean| clean != end) {
            // The missing frames at the end are newer than all that were found.
            directory = empty();
        }
        Ok(Scanned { directory, last, end, is_damaged })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Good,
    /// The index budget is used up. Nothing older counts.
    Full,
    Damaged,
}

struct Scanned {
    directory: DirectoryBuilder,
    /// Where the last good frame begins.
    last: usize,
    end: usize,
    is_damaged: bool,
}
