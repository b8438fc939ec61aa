//! The superblock: the part of a store that is read first.
//!
//! Encodes one block and chooses between the two copies that were read. The frozen first 16 bytes
//! identify a store of another version, whose rest is not read.
//! `docs/format.md`, section 4.

use thiserror::Error;

use super::checksum::unkeyed_checksum;
use super::error::{DecodeError, EncodeError};
use super::format::{
    BLOCK_BYTES, BLOCK_CHECKSUM_OFFSET, FORMAT_VERSION, GenerationNumber, Geometry, OpenCount,
    Position, SUPERBLOCK_MAGIC, SegmentNumber, StoreId, UNFINISHED_MAGIC,
};
use super::wire::{Reader, Sink, is_zero};

const MARK_CLEAN: u8 = 1;
const MARK_VOID: u8 = 2;

/// The crash safety mode, as recorded for the next open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CrashSafety {
    /// Starts empty after any crash.
    Cold = 0,
    /// Warm after the process was killed.
    Process = 1,
    /// Warm after a power loss.
    Power = 2,
}

/// The state of a store, written at each open, close and change of its head or newest segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// Increases with each update; the higher copy counts.
    pub(crate) write_counter: u64,
    pub(crate) store_id: StoreId,
    /// Seed of the key and label hashes.
    pub(crate) hash_key: u64,
    pub(crate) geometry: Geometry,
    pub(crate) created_ns: u64,
    /// The open that wrote this.
    pub(crate) open_count: OpenCount,
    pub(crate) crash_safety: CrashSafety,
    /// The close was complete: the log continues at `tail`.
    pub(crate) clean: bool,
    /// Nothing in the segments may be served.
    pub(crate) void: bool,
    /// The machine's boot at that open.
    pub(crate) boot_id: [u8; 16],
    /// Newest segment announced.
    pub(crate) newest: SegmentNumber,
    /// Nothing before it counts.
    pub(crate) head: Position,
    /// Where a clean close ended; otherwise meaningless.
    pub(crate) tail: Position,
    /// New generations are higher.
    pub(crate) generation_floor: GenerationNumber,
}

#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum SuperblockError {
    /// Written by another version of this format: must not be changed.
    #[error("format version {found}, while this code knows {supported}")]
    Version { found: u32, supported: u32 },
    /// Both copies are zeros: creation was never finished.
    #[error("the store was never finished")]
    Blank,
    /// It was to become the copy of a store, and was not finished.
    #[error("a backup into it was not finished")]
    Unfinished,
    /// Neither copy is good; the reason is the first copy's.
    #[error("neither superblock is good: {0}")]
    Damaged(DecodeError),
}

#[cfg(all(any(test, feature = "cli"), target_os = "linux"))]
impl SuperblockError {
    /// Whether the file has never been a store.
    pub(crate) fn is_foreign(&self) -> bool {
        matches!(self, Self::Damaged(DecodeError::Magic))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SuperblockCopy {
    First,
    Second,
}

impl SuperblockCopy {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    pub(crate) fn offset(self) -> u64 {
        match self {
            Self::First => 0,
            Self::Second => BLOCK_BYTES as u64,
        }
    }
}

impl Superblock {
    /// The block to write, to both copies.
    ///
    /// # Errors
    /// `Field` if head, tail and newest contradict each other.
    pub(crate) fn encode(&self) -> Result<[u8; BLOCK_BYTES], EncodeError> {
        if !self.is_sound() {
            return Err(EncodeError::Field);
        }
        let mut bytes = Vec::with_capacity(BLOCK_BYTES);
        bytes.bytes(&SUPERBLOCK_MAGIC);
        bytes.u32(FORMAT_VERSION);
        let check = prologue_check(&bytes);
        bytes.bytes(&check);
        bytes.u64(self.write_counter);
        bytes.bytes(&self.store_id.0);
        bytes.u64(self.hash_key);
        bytes.u32(self.geometry.segment_bytes());
        bytes.u32(self.geometry.segment_count());
        bytes.u64(self.created_ns);
        bytes.u32(self.open_count.0);
        bytes.u8(self.crash_safety as u8);
        let clean = if self.clean { MARK_CLEAN } else { 0 };
        let void = if self.void { MARK_VOID } else { 0 };
        bytes.u8(clean | void);
        bytes.bytes(&[0; 2]);
        bytes.bytes(&self.boot_id);
        bytes.u64(self.newest.0);
        bytes.u64(self.head.value());
        bytes.u64(self.tail.value());
        bytes.u64(self.generation_floor.0);
        bytes.resize(BLOCK_CHECKSUM_OFFSET, 0);
        let checksum = unkeyed_checksum(&bytes);
        bytes.u64(checksum);
        bytes.try_into().map_err(|_| EncodeError::Field)
    }

    /// The newer good superblock of the two blocks at the start of the file, and which copy it is.
    ///
    /// # Errors
    /// `Version` if either copy has another version, `Blank` or `Damaged` if neither is good.
    pub(crate) fn choose(
        first: &[u8],
        second: &[u8],
    ) -> Result<(Self, SuperblockCopy), SuperblockError> {
        let (one, two) = (Self::decode(first), Self::decode(second));
        // Bounded: two.
        for copy in [one, two] {
            if let Err(error @ SuperblockError::Version { .. }) = copy {
                return Err(error);
            }
        }
        match (one, two) {
            (Ok(one), Ok(two)) if two.write_counter > one.write_counter => {
                Ok((two, SuperblockCopy::Second))
            }
            (Ok(one), _) => Ok((one, SuperblockCopy::First)),
            (Err(_), Ok(two)) => Ok((two, SuperblockCopy::Second)),
            (Err(SuperblockError::Unfinished), Err(_))
            | (Err(_), Err(SuperblockError::Unfinished)) => Err(SuperblockError::Unfinished),
            (Err(_), Err(SuperblockError::Blank)) if is_half_written(first) => {
                Err(SuperblockError::Blank)
            }
            (Err(SuperblockError::Blank), Err(error)) | (Err(error), Err(_)) => Err(error),
        }
    }

    /// One copy.
    ///
    /// # Errors
    /// As for `choose`.
    pub(crate) fn decode(block: &[u8]) -> Result<Self, SuperblockError> {
        let block = block
            .first_chunk::<BLOCK_BYTES>()
            .ok_or(SuperblockError::Damaged(DecodeError::Truncated))?;
        if is_zero(block) {
            return Err(SuperblockError::Blank);
        }
        if block.starts_with(&UNFINISHED_MAGIC) {
            return Err(SuperblockError::Unfinished);
        }
        let found = decode_version(block).map_err(SuperblockError::Damaged)?;
        if found != FORMAT_VERSION {
            return Err(SuperblockError::Version { found, supported: FORMAT_VERSION });
        }
        Self::decode_fields(block).map_err(SuperblockError::Damaged)
    }

    fn decode_fields(block: &[u8; BLOCK_BYTES]) -> Result<Self, DecodeError> {
        let (covered, checksum) = block.split_at(BLOCK_CHECKSUM_OFFSET);
        if Reader::new(checksum).u64()? != unkeyed_checksum(covered) {
            return Err(DecodeError::Checksum);
        }
        let mut reader = Reader::new(covered);
        reader.take(16)?;
        let write_counter = reader.u64()?;
        let store_id = StoreId(reader.array()?);
        let hash_key = reader.u64()?;
        let geometry = Geometry::new(reader.u32()?, reader.u32()?).ok_or(DecodeError::Field)?;
        let created_ns = reader.u64()?;
        let open_count = OpenCount(reader.u32()?);
        let crash_safety = match reader.u8()? {
            0 => CrashSafety::Cold,
            1 => CrashSafety::Process,
            2 => CrashSafety::Power,
            _ => return Err(DecodeError::Field),
        };
        let marks = reader.u8()?;
        if marks & !(MARK_CLEAN | MARK_VOID) != 0 {
            return Err(DecodeError::Field);
        }
        reader.zeros(2)?;
        let superblock = Self {
            write_counter,
            store_id,
            hash_key,
            geometry,
            created_ns,
            open_count,
            crash_safety,
            clean: marks & MARK_CLEAN != 0,
            void: marks & MARK_VOID != 0,
            boot_id: reader.array()?,
            newest: SegmentNumber(reader.u64()?),
            head: Position::new(reader.u64()?).ok_or(DecodeError::Field)?,
            tail: Position::new(reader.u64()?).ok_or(DecodeError::Field)?,
            generation_floor: GenerationNumber(reader.u64()?),
        };
        let rest = reader.rest().len();
        reader.zeros(rest)?;
        if superblock.is_sound() { Ok(superblock) } else { Err(DecodeError::Field) }
    }

    /// Whether the store was never opened.
    pub(crate) fn is_blank(&self) -> bool {
        self.open_count == OpenCount(0)
    }

    /// The head of a log that continues at `tail`: the segment behind that must be free. None if
    /// positions have run out.
    pub(crate) fn head_at(&self, tail: Position) -> Option<Position> {
        let segments = u64::from(self.geometry.segment_count());
        let first = (self.geometry.segment_of(tail).0 + 2).saturating_sub(segments);
        Some(self.head.max(self.geometry.start_of(SegmentNumber(first))?))
    }

    /// Whether head and tail lie within the log, and the segments in use within the file.
    fn is_sound(&self) -> bool {
        let Some(next) = self.newest.0.checked_add(1).map(SegmentNumber) else {
            return false;
        };
        let Some(end) = self.geometry.start_of(next) else {
            return false;
        };
        let in_use = next.0.saturating_sub(self.geometry.segment_of(self.head).0);
        self.head <= end
            && self.tail <= end
            && (!self.clean || self.head <= self.tail)
            && in_use <= u64::from(self.geometry.segment_count())
    }
}

/// What an unfinished copy has in place of each superblock.
pub(super) fn unfinished() -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let (magic, _) = block.split_at_mut(UNFINISHED_MAGIC.len());
    magic.copy_from_slice(&UNFINISHED_MAGIC);
    block
}

/// Whether a block looks like the first one ever written there, torn by a power loss. A superblock
/// has its content in its first sector and its last.
fn is_half_written(block: &[u8]) -> bool {
    const SECTOR_BYTES: usize = 512;
    let is_blank = |sector: Option<&[u8]>| sector.is_some_and(is_zero);
    let last = block.len().saturating_sub(SECTOR_BYTES);
    is_blank(block.get(..SECTOR_BYTES)) || is_blank(block.get(last..))
}

/// The version in the part that is frozen for all versions.
fn decode_version(block: &[u8; BLOCK_BYTES]) -> Result<u32, DecodeError> {
    let (prologue, rest) = block.split_at(12);
    let mut reader = Reader::new(prologue);
    if reader.array()? != SUPERBLOCK_MAGIC {
        return Err(DecodeError::Magic);
    }
    if Reader::new(rest).array()? != prologue_check(prologue) {
        return Err(DecodeError::Checksum);
    }
    reader.u32()
}

/// The low half of the checksum of magic and version.
fn prologue_check(prologue: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = unkeyed_checksum(prologue).to_le_bytes();
    [a, b, c, d]
}
