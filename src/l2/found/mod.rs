//! `FoundStore`: a store as its file has it, for tools that look at it. It is read and never
//! written: what recovery writes to go on goes into memory above the file.
//!
//! A store without an owner is shown up to the end of its log. One whose owner may be at work is
//! shown up to its last sealed segment, since what comes after may be half written. Its oldest
//! segments may be overwritten meanwhile. The owner moves the head on file before it overwrites
//! one, so a superblock that is read later tells damage from what the owner has overwritten.

mod check;
mod source;

use std::ops::RangeInclusive;
use std::sync::Arc;

use parking_lot::Mutex;

pub(crate) use self::check::{Checked, Checker, Damage, Part};
pub(crate) use self::source::CopyProgress;
use super::checksum::ChecksumKey;
use super::error::DecodeError;
use super::footer::Footer;
use super::format::{
    BLOCK_BYTES, DATA_OFFSET, Geometry, OpenCount, OpenRange, Position, SegmentNumber, StoreId,
};
use super::health::Health;
use super::image;
use super::place_scan::find_places;
use super::places::Places;
use super::recovery_error::RecoveryError;
use super::resume::start_of;
use super::segment_file::SegmentFile;
use super::superblock::{CrashSafety, Superblock, SuperblockCopy, SuperblockError};
use crate::batch::Pacer;
use crate::footprint::{POSTING_BYTES, SLOT_BYTES};
use crate::io::{AlignedBuffer, Disk, OverlayDisk, ReadRequest};

/// Of the index budget, for what is not counted here.
const INDEX_BYTES_BESIDE: u64 = 64 << 20;

/// A label takes so many bytes of a directory, at least.
const LABEL_BYTES: u64 = 8;

/// Reads of a superblock that an owner is just writing, at most.
const TRIES: usize = 16;

pub(crate) struct FoundStore {
    disk: Arc<dyn Disk>,
    file: SegmentFile,
    superblock: Superblock,
    /// Why a copy of the superblock is not good.
    copies: [Option<SuperblockError>; 2],
    /// Those in use, oldest first.
    segments: Vec<FoundSegment>,
    has_owner: bool,
}

/// A segment in use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoundSegment {
    pub(crate) number: SegmentNumber,
    /// Where it begins in the file. None: no place has its header.
    pub(crate) offset: Option<u64>,
    /// If it is sealed.
    pub(crate) footer: Option<Footer>,
}

/// What the superblock says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoundFacts {
    pub(crate) store_id: [u8; 16],
    pub(crate) geometry: Geometry,
    pub(crate) created_ns: u64,
    pub(crate) opens: u32,
    pub(crate) crash_safety: CrashSafety,
    pub(crate) clean: bool,
    pub(crate) void: bool,
    pub(crate) boot_id: [u8; 16],
    /// The bytes that the log has taken.
    pub(crate) tail: Option<u64>,
    /// Its creation was never finished.
    pub(crate) is_blank: bool,
}

impl FoundStore {
    /// Reads what the store is. `has_owner`: it may be written meanwhile.
    ///
    /// # Errors
    /// It is no store, one of another version, damaged as a whole, or cannot be read.
    pub(crate) async fn read(disk: Arc<dyn Disk>, has_owner: bool) -> Result<Self, RecoveryError> {
        let (superblock, copies) = read_whole(&*disk, has_owner).await?;
        let file = SegmentFile {
            // The scan of the places erases misleading headers.
            disk: Arc::new(OverlayDisk::new(Arc::clone(&disk), superblock.geometry.file_bytes())),
            geometry: superblock.geometry,
            places: Arc::new(Places::new(superblock.geometry)),
            key: ChecksumKey::new(superblock.store_id),
            health: Arc::new(Health::default()),
            crash_safety: superblock.crash_safety,
            next_copy: Arc::new(Mutex::new(SuperblockCopy::First)),
        };
        let mut found = Self { disk, file, superblock, copies, segments: Vec::new(), has_owner };
        if !superblock.is_blank() {
            found.file.places = Arc::new(find_places(&found.file, &superblock).await?);
            found.find_segments().await;
        }
        Ok(found)
    }

    async fn find_segments(&mut self) {
        let mut steps = Pacer::default();
        for number in self.numbers_in_use() {
            let number = SegmentNumber(number);
            steps.bytes(BLOCK_BYTES).await;
            let footer = self.footer(number).await;
            let offset = self.file.places.offset(number);
            self.segments.push(FoundSegment { number, offset, footer });
        }
    }

    fn numbers_in_use(&self) -> RangeInclusive<u64> {
        let Superblock { geometry, head, newest, .. } = self.superblock;
        geometry.segment_of(head).0..=newest.0
    }

    /// What the last block of a segment says; none if it says nothing.
    async fn footer(&self, number: SegmentNumber) -> Option<Footer> {
        let geometry = self.file.geometry;
        let last = geometry.segment_bytes() as usize - BLOCK_BYTES;
        let last = self.file.read(number, last, BLOCK_BYTES).await.ok()?;
        Footer::decode(&last, number, self.opens(), geometry).ok()
    }

    fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    fn opens(&self) -> OpenRange {
        OpenRange { first: OpenCount(1), last: self.superblock.open_count }
    }

    pub(crate) fn has_owner(&self) -> bool {
        self.has_owner
    }

    pub(crate) fn facts(&self) -> FoundFacts {
        let it = &self.superblock;
        FoundFacts {
            store_id: it.store_id.0,
            geometry: it.geometry,
            created_ns: it.created_ns,
            opens: it.open_count.0,
            crash_safety: it.crash_safety,
            clean: it.clean,
            void: it.void,
            boot_id: it.boot_id,
            tail: it.clean.then_some(it.tail.value()),
            is_blank: it.is_blank(),
        }
    }

    /// The segments in use, oldest first.
    pub(crate) fn segments(&self) -> &[FoundSegment] {
        &self.segments
    }

    /// Bytes of the frames of a sealed segment.
    pub(crate) fn used_bytes(&self, footer: &Footer) -> u64 {
        u64::from(self.file.geometry.offset_in_segment(footer.end)) - BLOCK_BYTES as u64
    }

    /// Where the log ends at least.
    pub(crate) fn sealed_bytes(&self) -> u64 {
        let end = self.last_sealed().and_then(|last| self.file.geometry.start_of(last));
        let end = end.map(|start| start.value() + u64::from(self.file.geometry.segment_bytes()));
        end.unwrap_or(self.superblock.head.value())
    }

    /// The number of the place that begins at an offset.
    pub(crate) fn place_at(&self, offset: u64) -> u64 {
        (offset - DATA_OFFSET) / u64::from(self.file.geometry.segment_bytes())
    }

    /// The length of the file, with what lies behind the segments.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.disk.length()
    }

    /// Where a copy of the superblock begins, and why it is not good.
    pub(crate) fn bad_copies(&self) -> impl Iterator<Item = (u64, SuperblockError)> {
        let offsets = [SuperblockCopy::First, SuperblockCopy::Second].map(SuperblockCopy::offset);
        offsets.into_iter().zip(self.copies).filter_map(|(offset, why)| Some((offset, why?)))
    }

    /// Whether an image of the index behind the segments is whole, and why not. None: there is
    /// none that the superblock knows of.
    pub(crate) async fn check_image(&self) -> Option<Result<(), String>> {
        let is_there = self.disk.length() > self.file.geometry.file_bytes();
        if !is_there || !self.superblock.clean || self.superblock.void || self.has_owner {
            return None;
        }
        image::check(&self.file, &self.superblock).await
    }

    /// Where a segment lies if the size of the file has never changed, and no other one lies there.
    fn usual_offset(&self, number: SegmentNumber) -> Option<u64> {
        let geometry = self.file.geometry;
        let place = number.0 % u64::from(geometry.segment_count());
        let offset = DATA_OFFSET + place * u64::from(geometry.segment_bytes());
        // Bounded: by the segments.
        let is_taken = self.segments.iter().any(|segment| segment.offset == Some(offset));
        (!is_taken).then_some(offset)
    }

    /// The newest segment that is sealed.
    fn last_sealed(&self) -> Option<SegmentNumber> {
        // Bounded: by the segments.
        let sealed = self.segments.iter().rev().find(|segment| segment.footer.is_some());
        sealed.map(|segment| segment.number)
    }

    /// A disk from which a cache can be opened that shows all that the file has, whether or not the
    /// next open of the store would. Nothing that is written to it reaches the file.
    ///
    /// # Errors
    /// The superblock cannot be written to memory.
    pub(crate) async fn shown(&self) -> Result<Arc<dyn Disk>, RecoveryError> {
        let superblock = self.shown_superblock()?;
        // An owner may have made the file shorter meanwhile.
        let length = superblock.geometry.file_bytes();
        let shown: Arc<dyn Disk> = Arc::new(OverlayDisk::new(Arc::clone(&self.disk), length));
        let block = superblock.encode().map_err(std::io::Error::other)?;
        // Bounded: two.
        for copy in [SuperblockCopy::First, SuperblockCopy::Second] {
            let block = AlignedBuffer::copy_from_slice(&block);
            shown.write(copy.offset(), block).await.0?;
        }
        Ok(shown)
    }

    /// It survives everything, so that it is shown.
    fn shown_superblock(&self) -> Result<Superblock, RecoveryError> {
        let mut shown = self.superblock;
        (shown.crash_safety, shown.void) = (CrashSafety::Power, false);
        if self.has_owner {
            shown.clean = false;
            match self.last_sealed() {
                Some(last) => shown.newest = last,
                // No record counts.
                None => shown.head = start_of(shown.geometry, SegmentNumber(shown.newest.0 + 1))?,
            }
        }
        Ok(shown)
    }

    /// A budget in which the index has room for all records.
    pub(crate) fn index_bytes(&self) -> u64 {
        let geometry = self.file.geometry;
        let segment = u64::from(geometry.segment_bytes());
        // Bounded: by the segments.
        let bytes = self.segments.iter().map(|segment_found| match &segment_found.footer {
            Some(footer) => {
                let directory = segment - u64::from(footer.start);
                let postings = directory / LABEL_BYTES * POSTING_BYTES as u64;
                u64::from(footer.entries) * SLOT_BYTES as u64 + postings
            }
            None => 4 * segment,
        });
        // Bounded: likewise.
        2 * bytes.sum::<u64>() + INDEX_BYTES_BESIDE
    }
}

impl FoundStore {
    /// The first segment that counts now, if the store has not begun anew.
    ///
    /// # Errors
    /// As for `read`.
    pub(crate) async fn head_now(&self) -> Result<Option<SegmentNumber>, RecoveryError> {
        let (now, _) = read_superblock(&*self.disk).await?;
        let now = now.filter(|now| now.store_id == self.superblock.store_id);
        Ok(now.map(|now| now.geometry.segment_of(now.head)))
    }

    /// Whether its owner has left or moved segments since it was read.
    ///
    /// # Errors
    /// As for `read`.
    pub(crate) async fn has_moved(&self) -> Result<bool, RecoveryError> {
        let (now, _) = read_superblock(&*self.disk).await?;
        let then = &self.superblock;
        let is_same = |now: Superblock| {
            (now.store_id, now.geometry, now.head) == (then.store_id, then.geometry, then.head)
        };
        Ok(!now.is_some_and(is_same))
    }

    /// The same store as it is now.
    ///
    /// # Errors
    /// As for `read`.
    pub(crate) async fn again(&self) -> Result<Self, RecoveryError> {
        Self::read(Arc::clone(&self.disk), self.has_owner).await
    }
}

/// What is shown of a file whose creation was never finished.
const BLANK: Superblock = Superblock {
    write_counter: 0,
    store_id: StoreId([0; 16]),
    hash_key: 0,
    geometry: Geometry::SMALLEST,
    created_ns: 0,
    open_count: OpenCount(0),
    crash_safety: CrashSafety::Cold,
    clean: false,
    void: true,
    boot_id: [0; 16],
    newest: SegmentNumber(0),
    head: Position::FIRST,
    tail: Position::FIRST,
    generation_floor: super::format::GenerationNumber(0),
};

type Copies = [Option<SuperblockError>; 2];

/// The superblock of a file that is as long as it says.
async fn read_whole(
    disk: &dyn Disk,
    has_owner: bool,
) -> Result<(Superblock, Copies), RecoveryError> {
    let mut tries = 0;
    // Bounded: by the tries.
    loop {
        tries += 1;
        let (superblock, copies) = read_superblock(disk).await?;
        let superblock = superblock.unwrap_or(BLANK);
        let (length, expected) = (disk.length(), superblock.geometry.file_bytes());
        if length >= expected || superblock.is_blank() {
            return Ok((superblock, copies));
        }
        // An owner that makes the file shorter says so before.
        if !has_owner || tries == TRIES {
            return Err(RecoveryError::CutOff { length, expected });
        }
    }
}

/// None if its creation was never finished.
async fn read_superblock(disk: &dyn Disk) -> Result<(Option<Superblock>, Copies), RecoveryError> {
    let length = disk.length();
    if length < 2 * BLOCK_BYTES as u64 {
        return Err(RecoveryError::Short { length });
    }
    let mut tries = 0;
    // Bounded: by the tries.
    loop {
        tries += 1;
        let blocks = disk.read(ReadRequest::new(0, 2 * BLOCK_BYTES).background()).await?;
        let (first, second) = blocks.split_at(BLOCK_BYTES);
        let copies = [first, second].map(|block| Superblock::decode(block).err());
        match Superblock::choose(first, second) {
            Ok((superblock, _)) => return Ok((Some(superblock), copies)),
            Err(SuperblockError::Blank) => return Ok((None, copies)),
            // An owner may have been writing both while they were read.
            Err(SuperblockError::Damaged(DecodeError::Checksum)) if tries < TRIES => {}
            Err(error) => return Err(error.into()),
        }
    }
}
