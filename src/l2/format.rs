//! Constants, numbers and geometry of the store format, version 1.
//!
//! `docs/format.md` is the contract; this file repeats its numbers and proves at compile time
//! that they fit together. It adds nothing to the page.

use super::error::DecodeError;

/// The version that this code writes, and the only one that it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// The unit of direct I/O and of the layout.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// Records, frames and positions are multiples of this.
pub(crate) const ALIGNMENT: usize = 8;
/// The superblocks take this many bytes of the file before the first segment.
pub(crate) const DATA_OFFSET: u64 = 2 * BLOCK_BYTES as u64;
pub(crate) const SEGMENT_BYTES_MIN: u32 = 16 << 10;
pub(crate) const SEGMENT_BYTES_MAX: u32 = 256 << 20;
pub(crate) const SEGMENT_COUNT_MIN: u32 = 2;
/// The last position that may be assigned: 36 years at 1 GB/s.
pub(crate) const POSITION_MAX: u64 = 1 << 60;

pub(crate) const FRAME_HEADER_BYTES: usize = 32;
pub(crate) const RECORD_FIXED_BYTES: usize = 20;
/// Longest head: its length has 24 bits.
pub(crate) const HEAD_BYTES_MAX: usize = (1 << 24) - 1;
/// Longest record, head and body: it fits one frame in the largest segment.
pub(crate) const RECORD_BYTES_MAX: usize =
    SEGMENT_BYTES_MAX as usize - 2 * BLOCK_BYTES - FRAME_HEADER_BYTES;
/// Footer of a directory, the last bytes of a sealed segment.
pub(crate) const FOOTER_BYTES: usize = 80;
/// A page of a directory ends with the entry that reaches this length.
pub(crate) const PAGE_BYTES: usize = 8 << 10;
/// Longest beginning of a key in a directory's table of pages.
pub(crate) const PAGE_KEY_BYTES_MAX: usize = 255;

pub(crate) const NAME_BYTES_MAX: usize = 255;
/// Longest key, prefix, metadata text or label in bytes.
pub(crate) const KEY_BYTES_MAX: usize = 65_535;
pub(crate) const PRIORITY_NORMAL: u8 = 128;

pub(crate) const SUPERBLOCK_MAGIC: [u8; 8] = *b"tamisL2\n";
/// What the file of a copy begins with that is not finished, in place of both superblocks.
pub(crate) const UNFINISHED_MAGIC: [u8; 8] = *b"tamisCPY";
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"tamisSEG";
pub(crate) const DIRECTORY_MAGIC: [u8; 8] = *b"tamisDIR";
pub(crate) const IMAGE_MAGIC: [u8; 8] = *b"tamisIDX";
pub(crate) const FRAME_MAGIC: [u8; 4] = *b"tFRM";
/// Superblocks and segment headers are one block, the checksum its last bytes.
pub(crate) const BLOCK_CHECKSUM_OFFSET: usize = BLOCK_BYTES - 8;
pub(crate) const RECORD_PADDED_BYTES_MIN: usize = align(RECORD_FIXED_BYTES);

const _: () = {
    assert!(usize::BITS == 64, "lengths of up to 2^32 are held in usize");
    assert!((BLOCK_BYTES % ALIGNMENT == 0));
    assert!((FRAME_HEADER_BYTES % ALIGNMENT == 0), "the first record is aligned");
    assert!((FOOTER_BYTES % ALIGNMENT == 0) && FOOTER_BYTES < BLOCK_BYTES);
    assert!(((SEGMENT_BYTES_MIN as usize) % BLOCK_BYTES == 0));
    assert!(((SEGMENT_BYTES_MAX as usize) % BLOCK_BYTES == 0));
    assert!(SEGMENT_BYTES_MIN as usize >= 3 * BLOCK_BYTES, "header, frames, directory");
    assert!(RECORD_PADDED_BYTES_MIN == 24);
    assert!(align(RECORD_BYTES_MAX) + FRAME_HEADER_BYTES < u32::MAX as usize);
    assert!(HEAD_BYTES_MAX < RECORD_BYTES_MAX);
    assert!((POSITION_MAX % (ALIGNMENT as u64) == 0));
};

/// Rounds up to a multiple of 8. The argument is a length, far from overflow.
pub(crate) const fn align(length: usize) -> usize {
    (length + ALIGNMENT - 1) & !(ALIGNMENT - 1)
}

/// A byte offset into the endless log: a multiple of 8, assigned once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position(u64);

impl Position {
    pub(crate) const FIRST: Self = Self(0);
    pub(crate) const LAST: Self = Self(POSITION_MAX / ALIGNMENT as u64 * ALIGNMENT as u64);

    pub(crate) const fn new(offset: u64) -> Option<Self> {
        if offset <= POSITION_MAX && (offset % (ALIGNMENT as u64) == 0) {
            Some(Self(offset))
        } else {
            None
        }
    }

    /// The position at an offset that was a position before it was packed into a slot.
    pub(crate) const fn from_multiple(offset: u64) -> Self {
        debug_assert!((offset % (ALIGNMENT as u64) == 0));
        Self(offset)
    }

    pub(crate) const fn value(self) -> u64 {
        self.0
    }

    pub(crate) const fn after(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(offset) => Self::new(offset),
            None => None,
        }
    }
}

/// A segment's number: it holds the positions `n*S .. (n+1)*S`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentNumber(pub(crate) u64);

/// The number of opens of the store at the time of a write; 1 at the first open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OpenCount(pub(crate) u32);

/// The number of a namespace's creation or last flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GenerationNumber(pub(crate) u64);

/// The random name of a store, part of every checksum but the superblock's and the bodies'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreId(pub [u8; 16]);

/// The open counts that are valid in bytes read, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenRange {
    pub(crate) first: OpenCount,
    pub(crate) last: OpenCount,
}

impl OpenRange {
    pub(crate) const fn only(count: OpenCount) -> Self {
        Self { first: count, last: count }
    }

    pub(crate) fn check(self, count: OpenCount) -> Result<OpenCount, DecodeError> {
        if self.first <= count && count <= self.last {
            Ok(count)
        } else {
            Err(DecodeError::OpenCount)
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    segment_bytes: u32,
    segment_count: u32,
}

impl Geometry {
    #[cfg(all(any(test, feature = "cli"), target_os = "linux"))]
    pub(crate) const SMALLEST: Self =
        Self { segment_bytes: SEGMENT_BYTES_MIN, segment_count: SEGMENT_COUNT_MIN };

    pub(crate) const fn new(segment_bytes: u32, segment_count: u32) -> Option<Self> {
        if segment_bytes >= SEGMENT_BYTES_MIN
            && segment_bytes <= SEGMENT_BYTES_MAX
            && ((segment_bytes as usize) % BLOCK_BYTES == 0)
            && segment_count >= SEGMENT_COUNT_MIN
        {
            Some(Self { segment_bytes, segment_count })
        } else {
            None
        }
    }

    pub(crate) const fn segment_bytes(self) -> u32 {
        self.segment_bytes
    }

    pub(crate) const fn segment_count(self) -> u32 {
        self.segment_count
    }

    /// About the largest blob, key and labels included, that an empty segment takes.
    pub(crate) const fn blob_bytes_max(self) -> usize {
        self.segment_bytes as usize - 3 * BLOCK_BYTES
    }

    /// Size of the data file: below 2^60 + 2^13.
    pub(crate) const fn file_bytes(self) -> u64 {
        DATA_OFFSET + self.segment_bytes as u64 * self.segment_count as u64
    }

    pub(crate) const fn segment_of(self, position: Position) -> SegmentNumber {
        SegmentNumber(position.0 / self.segment_bytes as u64)
    }

    /// The first position of a segment (its header), `None` beyond `POSITION_MAX`.
    pub(crate) const fn start_of(self, segment: SegmentNumber) -> Option<Position> {
        match segment.0.checked_mul(self.segment_bytes as u64) {
            Some(offset) => Position::new(offset),
            None => None,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a remainder of a u32 fits one")]
    pub(crate) const fn offset_in_segment(self, position: Position) -> u32 {
        (position.0 % self.segment_bytes as u64) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_aligned_and_bounded() {
        assert_eq!(Position::new(4), None);
        assert_eq!(Position::new(POSITION_MAX + 8), None);
        let last = Position::new(POSITION_MAX).unwrap();
        assert_eq!(last.after(8), None);
        assert_eq!(last.after(u64::MAX), None);
        assert_eq!(Position::new(8).unwrap().after(16), Position::new(24));
    }

    #[test]
    fn geometry_divides_positions_into_segments() {
        assert_eq!(Geometry::new(SEGMENT_BYTES_MIN - 4096, 8), None);
        assert_eq!(Geometry::new(SEGMENT_BYTES_MIN + 8, 8), None);
        assert_eq!(Geometry::new(SEGMENT_BYTES_MAX + 4096, 8), None);
        assert_eq!(Geometry::new(SEGMENT_BYTES_MAX, 1), None);
        let geometry = Geometry::new(1 << 20, 3).unwrap();
        let position = Position::new((7 << 20) + 4096).unwrap();
        assert_eq!(geometry.segment_of(position), SegmentNumber(7));
        assert_eq!(geometry.offset_in_segment(position), 4096);
        assert_eq!(geometry.start_of(SegmentNumber(7)), Position::new(7 << 20));
        assert_eq!(geometry.start_of(SegmentNumber(u64::MAX)), None);
        assert_eq!(geometry.file_bytes(), 8192 + (3 << 20));
        let largest = Geometry::new(SEGMENT_BYTES_MAX, u32::MAX).unwrap();
        assert!(largest.file_bytes() < (1 << 60) + DATA_OFFSET);
    }
}
