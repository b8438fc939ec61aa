//! Recovery: reads a store at open, decides how much of it counts, and where the log continues.
//!
//! Segments are read from the newest back to the head. A sealed one gives its directory; the last
//! one in use is scanned frame by frame. A bad frame at its end with no good one behind it is a
//! tear: the records before it are all that was ever acknowledged as on file. A bad frame with a
//! good one behind it, or a segment with a bad header or directory, is damage: the hashes that it
//! held are unknown, so everything before it is dropped, counted and logged. If the records exceed
//! the index budget, nothing older counts either. The result is on file before the store is used.
//!
//! Recovery works in steps: no poll visits more entries, or handles more bytes, than a batch has.

use std::io;

use super::directory::Directory;
use super::directory_builder::DirectoryBuilder;
use super::format::{
    BLOCK_BYTES, GenerationNumber, Geometry, OpenCount, OpenRange, Position, SegmentNumber, StoreId,
};
use super::frames::Frames;
use super::outlines::Outlines;
use super::recovery_error::RecoveryError;
use super::replay::{Limits, Replay, Replayed};
use super::resume::{Started, Tail, Unsealed, position, start, start_of};
use super::segment::SegmentHeader;
use super::segment_file::SegmentFile;
use super::superblock::{CrashSafety, Superblock, SuperblockError};
use crate::batch::Pacer;
use crate::failpoint::{Failpoint, failpoint};
use crate::key::KeyHasher;

#[derive(Debug, Clone)]
pub(crate) struct Opening {
    pub(crate) geometry: Geometry,
    pub(crate) crash_safety: CrashSafety,
    /// The current boot of the machine; a store from another boot may have lost writes.
    pub(crate) boot_id: [u8; 16],
    pub(crate) now_ns: u64,
    /// Random: the identity of a store, if it is created.
    pub(crate) store_id: [u8; 16],
    /// Random: the hash key of a store, if it is created.
    pub(crate) hash_key: u64,
    pub(crate) key_hash_bits: u32,
    pub(crate) limits: Limits,
}

pub(crate) struct Recovered {
    pub(crate) superblock: Superblock,
    pub(crate) hasher: KeyHasher,
    pub(crate) reached: Reached,
    pub(crate) tail: Position,
    pub(crate) directory: DirectoryBuilder,
    pub(crate) tail_block: Vec<u8>,
}

/// What was found.
pub(crate) struct Reached {
    pub(crate) replay: Replay,
    pub(crate) outlines: Outlines,
    /// Segments dropped because of damage in or behind them.
    pub(crate) dropped: u64,
}

/// Reads the superblock; a store whose creation was never finished is created again.
pub(crate) async fn read_superblock(
    file: &SegmentFile,
    opening: &Opening,
) -> Result<Superblock, RecoveryError> {
    let request = crate::io::ReadRequest::new(0, 2 * BLOCK_BYTES).background();
    let blocks = file.disk.read(request).await?;
    let (first, second) = blocks.split_at(BLOCK_BYTES);
    match Superblock::choose(first, second) {
        Ok((superblock, copy)) => {
            // A killed process may not have synced this copy. It must be durable before the other
            // copy is overwritten.
            file.sync().await?;
            *file.next_copy.lock() = copy.other();
            Ok(superblock)
        }
        Err(SuperblockError::Blank) => Ok(Superblock {
            write_counter: 0,
            store_id: StoreId(opening.store_id),
            hash_key: opening.hash_key,
            geometry: opening.geometry,
            created_ns: opening.now_ns,
            open_count: OpenCount(0),
            crash_safety: opening.crash_safety,
            clean: false,
            void: true,
            boot_id: opening.boot_id,
            newest: SegmentNumber(0),
            head: position(0)?,
            tail: position(0)?,
            generation_floor: GenerationNumber(0),
        }),
        Err(error) => Err(error.into()),
    }
}

/// Recovers the store of `superblock`: warm if its mode and its last end allow it.
pub(crate) async fn recover(
    file: &SegmentFile,
    superblock: Superblock,
    opening: &Opening,
) -> Result<Recovered, RecoveryError> {
    let hasher = KeyHasher::new(superblock.hash_key, opening.key_hash_bits);
    let mut scan = BackwardScan {
        file,
        superblock,
        hasher: &hasher,
        replay: Replay::new(opening.limits.clone(), opening.now_ns),
        outlines: Outlines::new(opening.limits.index_bytes_max),
        tail: None,
        head: superblock.head,
        dropped: 0,
    };
    if is_warm(&superblock, opening) {
        scan.read_back().await?;
    }
    let BackwardScan { replay, outlines, tail, head, dropped, .. } = scan;
    if dropped > 0 {
        log::warn!(
            "dropped {dropped} segments of the disk tier that are damaged or lie before damage"
        );
    }
    let mut superblock = superblock;
    if opening.crash_safety == CrashSafety::Power && superblock.crash_safety != CrashSafety::Power {
        // From now on the store claims that the records found survive a power loss.
        file.sync().await?;
    }
    superblock.crash_safety = opening.crash_safety;
    superblock.boot_id = opening.boot_id;
    superblock.open_count = OpenCount(superblock.open_count.0 + 1);
    let started = start(file, superblock, tail, head).await?;
    let Started { superblock, tail, directory, tail_block } = started;
    let reached = Reached { replay, outlines, dropped };
    Ok(Recovered { superblock, hasher, reached, tail, directory, tail_block })
}

fn is_warm(superblock: &Superblock, opening: &Opening) -> bool {
    let survives = match superblock.crash_safety {
        CrashSafety::Cold => false,
        CrashSafety::Process => {
            let is_boot =
                superblock.boot_id == opening.boot_id || failpoint(Failpoint::BootIgnored);
            superblock.clean || is_boot
        }
        CrashSafety::Power => true,
    };
    survives && !superblock.void && opening.crash_safety != CrashSafety::Cold
}

struct BackwardScan<'a> {
    file: &'a SegmentFile,
    superblock: Superblock,
    hasher: &'a KeyHasher,
    replay: Replay,
    outlines: Outlines,
    tail: Option<Tail>,
    /// Nothing before it counts.
    head: Position,
    dropped: u64,
}

impl BackwardScan<'_> {
    fn opens(&self) -> OpenRange {
        OpenRange { first: OpenCount(1), last: self.superblock.open_count }
    }

    /// Reads segments backwards to the head, to damage, or to the end of the index budget.
    async fn read_back(&mut self) -> Result<(), RecoveryError> {
        let geometry = self.file.geometry;
        let mut oldest = geometry.segment_of(self.head);
        let mut number = self.superblock.newest;
        // Bounded: a segment in each turn, read in steps.
        while number >= oldest {
            let found = self.read_segment(number).await?;
            if found == Found::Full {
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
            if found == Found::Damaged && !failpoint(Failpoint::DamageSkipped) {
                self.dropped += number.0 - oldest.0 + 1;
                // If the damage lies within the tail, the head is behind it already.
                let is_within = |tail: &Tail| tail.segment == number && tail.unsealed.is_some();
                if !self.tail.as_ref().is_some_and(is_within) {
                    self.head = self.head.max(start_of(geometry, SegmentNumber(number.0 + 1))?);
                }
                break;
            }
            if let Some(tail) = &self.tail {
                // The segment after the tail must be free, so that the log can continue.
                let first = (tail.segment.0 + 2).saturating_sub(geometry.segment_count().into());
                oldest = oldest.max(SegmentNumber(first));
                self.head = self.head.max(start_of(geometry, oldest)?);
            }
            match number.0.checked_sub(1) {
                Some(before) => number = SegmentNumber(before),
                None => break,
            }
        }
        Ok(())
    }

    async fn read_segment(&mut self, number: SegmentNumber) -> Result<Found, RecoveryError> {
        let SegmentFile { geometry, key, .. } = *self.file;
        let Ok(block) = self.file.read(number, 0, BLOCK_BYTES).await else {
            return Ok(Found::Damaged);
        };
        let store_id = self.superblock.store_id;
        if SegmentHeader::decode(&block, store_id, number, self.opens()).is_err() {
            return Ok(Found::Damaged);
        }
        let Ok(image) = self.file.read_directory(number, self.opens()).await else {
            return Ok(Found::Damaged);
        };
        let directory = match &image {
            Some(image) => Directory::read(image, key, number, self.opens(), geometry).await.ok(),
            None => None,
        };
        match directory {
            Some(directory) => {
                let found = self.take_directory(&directory, number).await?;
                let replay = &mut self.replay;
                self.outlines.keep(directory.into_outline(), |bytes| replay.reserve(bytes));
                Ok(found)
            }
            None if self.tail.is_some() => Ok(Found::Damaged),
            None => self.take_unsealed(number).await,
        }
    }

    async fn take_directory(
        &mut self,
        directory: &Directory<'_>,
        number: SegmentNumber,
    ) -> Result<Found, RecoveryError> {
        let start = start_of(self.file.geometry, number)?;
        let mut steps = Pacer::default();
        if self.tail.is_none() {
            self.tail = Some(Tail { segment: number, unsealed: None });
        }
        for entry in directory.entries().rev() {
            steps.entry().await;
            let Some(position) = start.after(u64::from(entry.offset)) else {
                return Ok(Found::Damaged);
            };
            let blocks = blocks(entry.offset as usize, entry.length as usize);
            let record = Replayed { change: entry.change, position, blocks };
            if position >= self.head && !self.replay.take(&record, &mut steps).await {
                return Ok(Found::Full);
            }
        }
        Ok(Found::Good)
    }

    /// Scans the frames of a segment that has no good directory and no used segment behind it.
    async fn take_unsealed(&mut self, number: SegmentNumber) -> Result<Found, RecoveryError> {
        let SegmentFile { geometry, key, .. } = *self.file;
        let start = start_of(geometry, number)?;
        let is_in = geometry.segment_of(self.superblock.tail) == number;
        let clean_end = (self.superblock.clean && is_in)
            .then(|| geometry.offset_in_segment(self.superblock.tail) as usize);
        let mut frames = Frames::new(self.file, number, start, self.opens());
        let Ok(scanned) = self.scan(&mut frames, (number, clean_end)).await else {
            return Ok(Found::Damaged);
        };
        let Scanned { directory, end, is_damaged } = scanned;
        if is_damaged {
            log::warn!("the open segment {} is damaged", number.0);
        } else if directory.entries() == 0 && clean_end.is_none() {
            return Ok(Found::Good);
        }
        let block = end / BLOCK_BYTES * BLOCK_BYTES;
        let Ok(Some(block)) = frames.bytes(block, end - block).await else {
            return Ok(Found::Damaged);
        };
        let block = block.to_vec();
        let end = start.after(end as u64).ok_or_else(|| io::Error::other("out of positions"))?;
        let mut image = Vec::new();
        let written = directory.write(key, self.superblock.open_count, end, &mut image).await;
        written.map_err(io::Error::other)?;
        let unsealed = Unsealed { end, directory, block, is_damaged };
        self.tail = Some(Tail { segment: number, unsealed: Some(unsealed) });
        let listed = Directory::read(&image, key, number, self.opens(), geometry).await;
        let listed = listed.map_err(io::Error::other)?;
        let found = self.take_directory(&listed, number).await?;
        if is_damaged {
            let first = listed.entries().next();
            let first = first.and_then(|entry| start.after(u64::from(entry.offset)));
            self.head = self.head.max(first.unwrap_or(end));
            if found == Found::Full {
                self.head = self.head.max(self.replay.oldest().unwrap_or(end));
            }
            return Ok(Found::Damaged);
        }
        Ok(found)
    }

    /// The good frames behind the last bad one, and whether that one is damage.
    async fn scan(
        &self,
        frames: &mut Frames<'_>,
        (number, clean_end): (SegmentNumber, Option<usize>),
    ) -> io::Result<Scanned> {
        let empty = || DirectoryBuilder::new(number, self.file.geometry);
        let (mut directory, mut end) = (empty(), BLOCK_BYTES);
        let mut is_damaged = false;
        // Bounded: a frame in each turn, read in steps.
        loop {
            // Bounded: a frame in each turn, read in steps.
            while let Some(header) = frames.at(end).await? {
                frames.list(end, &header, self.hasher, &mut directory).await?;
                frames.opens.first = header.open_count;
                end += header.length as usize;
            }
            is_damaged |= clean_end.is_some_and(|clean| clean != end);
            if failpoint(Failpoint::TailAppendedAfterTear) {
                break;
            }
            let Some(behind) = frames.find_from(end).await? else { break };
            (is_damaged, directory, end) = (true, empty(), behind);
        }
        if clean_end.is_some_and(|clean| clean != end) {
            // The missing frames at the end are newer than all that were found.
            directory = empty();
        }
        Ok(Scanned { directory, end, is_damaged })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Good,
    /// The index budget is used up. Nothing older counts.
    Full,
    Damaged,
}

struct Scanned {
    directory: DirectoryBuilder,
    end: usize,
    is_damaged: bool,
}

fn blocks(offset: usize, length: usize) -> u16 {
    u16::try_from((offset % BLOCK_BYTES + length).div_ceil(BLOCK_BYTES)).unwrap_or(u16::MAX)
}
