//! Opening a store: what is on file, how much of it counts, and where the log goes on.
//!
//! Segments are read from the newest back to the head. Sealed ones give their directory; the last
//! one in use is scanned frame by frame. Where it ends with a bad frame and nothing good behind,
//! that is a tear: the records before it are all that was ever acknowledged as being on file.
//! A bad frame with a good one behind it, or a segment whose header or directory is bad, is
//! damage: nobody can say which hashes it held, so everything before it is dropped, counted and
//! logged. The verdict is on file before the store is used.

use std::io;

use super::checksum::ChecksumKey;
use super::directory::{Directory, DirectoryBuilder};
use super::entry::{Change, DirectoryEntry};
use super::format::{
    ALIGNMENT, BLOCK_BYTES, FRAME_HEADER_BYTES, FRAME_MAGIC, Generation, Geometry, OpenCount,
    OpenRange, Position, SegmentNumber, StoreId,
};
use super::frame::Frame;
use super::medium::Medium;
use super::record::Record;
use super::replay::{Replay, Replayed};
use super::resume::{Started, Tail, Unsealed, position, start, start_of};
use super::segment::SegmentHeader;
use super::superblock::{CrashSafety, Superblock, SuperblockError};
use crate::flaw::{Flaw, planted};
use crate::io::AlignedBuffer;
use crate::key::{KeyHasher, LabelKind};

/// What the opener brings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    pub(crate) geometry: Geometry,
    pub(crate) crash_safety: CrashSafety,
    /// Which boot of the machine this is; a store from another one may have lost writes.
    pub(crate) boot_id: [u8; 16],
    pub(crate) now_ns: u64,
    /// Random: the identity of a store that is made anew.
    pub(crate) store_id: [u8; 16],
    /// Random: its hash key.
    pub(crate) hash_key: u64,
    pub(crate) key_hash_bits: u32,
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoveryError {
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    #[error("the store has {} segments of {} bytes", found.segment_count(), found.segment_bytes())]
    Geometry { found: Geometry },
    /// The file is shorter than the superblocks.
    #[error("the file has {length} bytes, fewer than the superblocks take")]
    Short { length: u64 },
    /// The file is shorter than its superblock says.
    #[error("the file has {length} bytes, and {expected} by its superblock")]
    CutOff { length: u64, expected: u64 },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A store that is ready to be written to.
pub(crate) struct Recovered {
    pub(crate) superblock: Superblock,
    pub(crate) hasher: KeyHasher,
    pub(crate) replay: Replay,
    /// Segments that were dropped because of damage in or behind them.
    pub(crate) dropped: u64,
    pub(crate) tail: Position,
    pub(crate) directory: DirectoryBuilder,
    pub(crate) tail_block: Vec<u8>,
}

/// The two superblocks say what the store is; a store that was never finished is made anew.
pub(crate) async fn read_superblock(
    medium: &Medium,
    opening: &Opening,
) -> Result<Superblock, RecoveryError> {
    let request = crate::io::ReadRequest::new(0, 2 * BLOCK_BYTES).background();
    let blocks = medium.disk.read(request).await?;
    let (first, second) = blocks.split_at(BLOCK_BYTES);
    match Superblock::choose(first, second) {
        Ok((superblock, copy)) => {
            // It may have been written by a process that was killed before it could sync; the other
            // copy, which comes next, must not be the only one.
            medium.sync().await?;
            *medium.next_copy.lock() = copy.other();
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
            generation_floor: Generation(0),
        }),
        Err(error) => Err(error.into()),
    }
}

/// Takes over the store that `superblock` describes, warm where its mode and its last end allow it.
pub(crate) async fn recover(
    medium: &Medium,
    superblock: Superblock,
    opening: &Opening,
) -> Result<Recovered, RecoveryError> {
    let hasher = KeyHasher::new(superblock.hash_key, opening.key_hash_bits);
    let mut scan = Scan {
        medium,
        superblock,
        hasher: &hasher,
        now_ns: opening.now_ns,
        replay: Replay::default(),
        tail: None,
        head: superblock.head,
        dropped: 0,
    };
    if is_warm(&superblock, opening) {
        scan.read_back().await?;
    }
    let Scan { replay, tail, head, dropped, .. } = scan;
    if dropped > 0 {
        log::warn!("{dropped} segments of the disk tier are damaged or lie before damage: dropped");
    }
    let mut superblock = superblock;
    if opening.crash_safety == CrashSafety::Power && superblock.crash_safety != CrashSafety::Power {
        // From here on it is said that what was found survives a power loss.
        medium.sync().await?;
    }
    superblock.crash_safety = opening.crash_safety;
    superblock.boot_id = opening.boot_id;
    superblock.open_count = OpenCount(superblock.open_count.0 + 1);
    let started = start(medium, superblock, tail, head).await?;
    let Started { superblock, tail, directory, tail_block } = started;
    Ok(Recovered { superblock, hasher, replay, dropped, tail, directory, tail_block })
}

/// Whether what is on file can be served.
fn is_warm(superblock: &Superblock, opening: &Opening) -> bool {
    let survives = match superblock.crash_safety {
        CrashSafety::Cold => false,
        CrashSafety::Process => {
            let is_boot = superblock.boot_id == opening.boot_id || planted(Flaw::BootIgnored);
            superblock.clean || is_boot
        }
        CrashSafety::Power => true,
    };
    survives && !superblock.void && opening.crash_safety != CrashSafety::Cold
}

/// A way back through the log.
struct Scan<'a> {
    medium: &'a Medium,
    superblock: Superblock,
    hasher: &'a KeyHasher,
    now_ns: u64,
    replay: Replay,
    /// The last segment in use, once it has been found.
    tail: Option<Tail>,
    /// Nothing before it counts.
    head: Position,
    dropped: u64,
}

impl Scan<'_> {
    fn opens(&self) -> OpenRange {
        OpenRange { first: OpenCount(1), last: self.superblock.open_count }
    }

    /// Reads segments backwards until the head, the first damage, or the first that must go.
    async fn read_back(&mut self) -> Result<(), RecoveryError> {
        let geometry = self.medium.geometry;
        let mut oldest = geometry.segment_of(self.head);
        let mut number = self.superblock.newest;
        while number >= oldest {
            let is_good = self.read_segment(number).await?;
            if !is_good && !planted(Flaw::DamageSkipped) {
                self.dropped += number.0 - oldest.0 + 1;
                // Where damage lies within the tail, the head stands behind it already.
                let is_within = |tail: &Tail| tail.segment == number && tail.unsealed.is_some();
                if !self.tail.as_ref().is_some_and(is_within) {
                    self.head = self.head.max(start_of(geometry, SegmentNumber(number.0 + 1))?);
                }
                break;
            }
            if let Some(tail) = &self.tail {
                // One segment beyond the tail must be free to go on in.
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

    /// False: damage.
    async fn read_segment(&mut self, number: SegmentNumber) -> Result<bool, RecoveryError> {
        let Medium { geometry, key, .. } = *self.medium;
        let Ok(block) = self.medium.read(number, 0, BLOCK_BYTES).await else { return Ok(false) };
        let store_id = self.superblock.store_id;
        if SegmentHeader::decode(&block, store_id, number, self.opens()).is_err() {
            return Ok(false);
        }
        let Ok(image) = self.medium.read_directory(number, self.opens()).await else {
            return Ok(false);
        };
        let directory = image
            .as_deref()
            .map(|image| Directory::decode(image, key, number, self.opens(), geometry));
        match directory {
            Some(Ok(directory)) => Ok(self.take_directory(&directory, number)),
            _ if self.tail.is_some() => Ok(false),
            _ => self.take_unsealed(number).await,
        }
    }

    fn take_directory(&mut self, directory: &Directory<'_>, number: SegmentNumber) -> bool {
        let geometry = self.medium.geometry;
        let Ok(start) = start_of(geometry, number) else { return false };
        let Ok(entries) = directory.entries().collect::<Result<Vec<_>, _>>() else { return false };
        if self.tail.is_none() {
            self.tail = Some(Tail { segment: number, unsealed: None });
        }
        for listed in entries.iter().rev() {
            let entry = listed.entry;
            let Some(position) = start.after(u64::from(entry.place)) else { return false };
            if position >= self.head {
                let blocks = blocks(entry.place as usize, entry.length as usize);
                let record = Replayed { change: entry.change, position, blocks };
                self.replay.take(&record, self.now_ns);
            }
        }
        true
    }

    /// Scans the frames of a segment that has no good directory and nothing in use behind it.
    async fn take_unsealed(&mut self, number: SegmentNumber) -> Result<bool, RecoveryError> {
        let Medium { geometry, key, .. } = *self.medium;
        let start = start_of(geometry, number)?;
        let segment_bytes = geometry.segment_bytes() as usize;
        let Ok(bytes) = self.medium.read(number, 0, segment_bytes).await else { return Ok(false) };
        let mut frames = Frames { bytes: &bytes, start, key, geometry, opens: self.opens() };
        let (mut found, mut end) = frames.run_from(BLOCK_BYTES);
        let clean_end = (self.superblock.clean
            && geometry.segment_of(self.superblock.tail) == number)
            .then(|| geometry.offset_in_segment(self.superblock.tail) as usize);
        let mut damaged = clean_end.is_some_and(|tail| tail != end);
        let is_searched = !planted(Flaw::TailAppendedAfterTear);
        while let Some(behind) = is_searched.then(|| frames.find_from(end)).flatten() {
            damaged = true;
            (found, end) = frames.run_from(behind);
        }
        if clean_end.is_some_and(|tail| tail != end) {
            // The frames that are missing at the end stand behind all that were found.
            found.clear();
        }
        if damaged {
            log::warn!("the open segment {} is damaged", number.0);
        } else if found.is_empty() && clean_end.is_none() {
            return Ok(true);
        }
        let mut directory = DirectoryBuilder::new(number, geometry);
        let mut replayed = Vec::new();
        for frame in &found {
            for record in frame.records() {
                replayed.push((record.position, record.head.lengths, record.head.record));
            }
        }
        let first = replayed.first().map(|(position, ..)| *position);
        let hashed: Vec<_> = replayed.iter().map(|(_, _, record)| self.hashes(record)).collect();
        let mut changes = Vec::new();
        for ((position, lengths, record), (hash, labels)) in replayed.iter().zip(&hashed) {
            let change = Change::new(record, *hash, labels);
            let place = geometry.offset_in_segment(*position);
            let length = u32::try_from(lengths.total()).unwrap_or(0);
            let listed = directory.append(&DirectoryEntry { place, length, change });
            listed.map_err(io::Error::other)?;
            let blocks = blocks(place as usize, length as usize);
            changes.push(Replayed { change, position: *position, blocks });
        }
        for record in changes.iter().rev().filter(|record| record.position >= self.head) {
            self.replay.take(record, self.now_ns);
        }
        let tail = start.after(end as u64).ok_or_else(|| io::Error::other("out of positions"))?;
        let block = end / BLOCK_BYTES * BLOCK_BYTES;
        let block = bytes.get(block..end).unwrap_or_default().to_vec();
        let unsealed = Unsealed { end: tail, directory, block, is_damaged: damaged };
        self.tail = Some(Tail { segment: number, unsealed: Some(unsealed) });
        if damaged {
            self.head = first.unwrap_or(tail);
        }
        Ok(!damaged)
    }

    /// The hashes that a directory keeps of a record.
    fn hashes(&self, record: &Record<'_>) -> (u64, Vec<u64>) {
        let Record::Blob(blob) = record else { return (0, Vec::new()) };
        let namespace = self.hasher.namespace(blob.namespace.name);
        let hash = self.hasher.key(namespace.seed, blob.key).0;
        let tags = blob.tags.iter().map(|tag| (LabelKind::Tag, tag));
        let dependencies = blob.dependencies.iter().map(|label| (LabelKind::Dependency, label));
        let mut labels: Vec<u64> = tags
            .chain(dependencies)
            .map(|(kind, label)| self.hasher.label(namespace.seed, kind, label).0)
            .collect();
        labels.sort_unstable();
        labels.dedup();
        (hash, labels)
    }
}

/// The frames of one segment that was read whole.
struct Frames<'a> {
    bytes: &'a AlignedBuffer,
    start: Position,
    key: ChecksumKey,
    geometry: Geometry,
    opens: OpenRange,
}

impl<'a> Frames<'a> {
    /// The good frame at an offset.
    fn at(&self, offset: usize) -> Option<Frame<'a>> {
        let position = self.start.after(offset as u64)?;
        let bytes = self.bytes.get(offset..)?;
        let frame = Frame::decode(bytes, self.key, position, self.opens, self.geometry).ok()?;
        frame.verify_bodies().ok().map(|()| frame)
    }

    /// The good frames one behind the other from an offset on, and where they end.
    fn run_from(&mut self, mut offset: usize) -> (Vec<Frame<'a>>, usize) {
        let mut found = Vec::new();
        while let Some(frame) = self.at(offset) {
            offset += frame.header.length as usize;
            // Open counts never decrease; a frame of an older open lies there by accident.
            self.opens.first = frame.header.open_count;
            found.push(frame);
        }
        (found, offset)
    }

    /// Where the next good frame is, if there is any.
    fn find_from(&self, offset: usize) -> Option<usize> {
        let last = self.bytes.len().checked_sub(FRAME_HEADER_BYTES)?;
        (offset..=last).step_by(ALIGNMENT).find(|&offset| {
            let magic = self.bytes.get(offset + 8..offset + 12);
            magic == Some(&FRAME_MAGIC) && self.at(offset).is_some()
        })
    }
}

fn blocks(place: usize, length: usize) -> u16 {
    u16::try_from((place % BLOCK_BYTES + length).div_ceil(BLOCK_BYTES)).unwrap_or(u16::MAX)
}
