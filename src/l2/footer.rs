//! `Footer`: the last bytes of a sealed segment. `docs/format.md`, section 8.

use super::directory_entry::{ENTRY_BYTES_MIN, TimeBases};
use super::error::{DecodeError, EncodeError};
use super::format::{
    BLOCK_BYTES, DIRECTORY_MAGIC, FOOTER_BYTES, Geometry, OpenCount, OpenRange, Position,
    SegmentNumber,
};
use super::wire::{Reader, Sink};

const NAME_ROW_BYTES_MIN: usize = 2;

/// A length and a checksum; for blobs, a row and the length of a key besides.
const PAGE_ROW_BYTES_MIN: usize = 9;

/// The place and the extent of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) segment: SegmentNumber,
    /// Where the last frame ends.
    pub(crate) end: Position,
    pub(crate) open_count: OpenCount,
    /// Where the directory starts, as an offset in the segment: a multiple of a block.
    pub(crate) start: u32,
    pub(super) name_bytes: u32,
    pub(super) name_rows: u32,
    /// Bytes of the table of pages.
    pub(super) table_bytes: u32,
    pub(super) blob_pages: u32,
    pub(super) other_pages: u32,
    pub(crate) entries: u32,
    pub(super) bases: TimeBases,
}

impl Footer {
    /// The footer at the end of `bytes`, which end with the segment. Its fields are plausible; only
    /// `Outline::read` verifies them.
    ///
    /// # Errors
    /// Why there is no footer, as in an unsealed segment.
    pub(crate) fn decode(
        bytes: &[u8],
        segment: SegmentNumber,
        opens: OpenRange,
        geometry: Geometry,
    ) -> Result<Self, DecodeError> {
        let bytes = bytes.last_chunk::<FOOTER_BYTES>().ok_or(DecodeError::Truncated)?;
        let mut reader = Reader::new(bytes);
        if reader.array()? != DIRECTORY_MAGIC {
            return Err(DecodeError::Magic);
        }
        let (number, end) = (SegmentNumber(reader.u64()?), reader.u64()?);
        let footer = Self {
            segment: number,
            end: Position::new(end).ok_or(DecodeError::Misplaced)?,
            open_count: OpenCount(reader.u32()?),
            start: reader.u32()?,
            name_bytes: reader.u32()?,
            name_rows: reader.u32()?,
            table_bytes: reader.u32()?,
            blob_pages: reader.u32()?,
            other_pages: reader.u32()?,
            entries: reader.u32()?,
            bases: TimeBases::read(&mut reader)?,
        };
        if number != segment || geometry.segment_of(footer.end) != segment {
            return Err(DecodeError::Misplaced);
        }
        opens.check(footer.open_count)?;
        if footer.is_bounded(geometry) { Ok(footer) } else { Err(DecodeError::Length) }
    }

    fn is_bounded(&self, geometry: Geometry) -> bool {
        let (segment, start) = (geometry.segment_bytes() as usize, self.start as usize);
        let end = geometry.offset_in_segment(self.end) as usize;
        let pages = self.blob_pages as usize + self.other_pages as usize;
        let tail = self.tail_bytes();
        start % BLOCK_BYTES == 0
            && (BLOCK_BYTES..=start).contains(&end)
            && start + tail <= segment
            && self.name_rows as usize <= self.name_bytes as usize / NAME_ROW_BYTES_MIN
            && pages <= self.table_bytes as usize / PAGE_ROW_BYTES_MIN
            && self.entries as usize <= (segment - start - tail) / ENTRY_BYTES_MIN
    }

    /// Bytes of the table, its names and the footer: the last ones of the segment.
    pub(crate) fn tail_bytes(&self) -> usize {
        self.name_bytes as usize + self.table_bytes as usize + FOOTER_BYTES
    }

    /// Without the checksum.
    pub(super) fn write(&self, into: &mut Vec<u8>) {
        into.bytes(&DIRECTORY_MAGIC);
        into.u64(self.segment.0);
        into.u64(self.end.value());
        into.u32(self.open_count.0);
        into.u32(self.start);
        into.u32(self.name_bytes);
        into.u32(self.name_rows);
        into.u32(self.table_bytes);
        into.u32(self.blob_pages);
        into.u32(self.other_pages);
        into.u32(self.entries);
        self.bases.write(into);
    }
}

/// The bytes of a directory with that content.
pub(super) const fn whole(content: usize) -> usize {
    (content + FOOTER_BYTES).next_multiple_of(BLOCK_BYTES)
}

pub(super) fn to_u32(length: usize) -> Result<u32, EncodeError> {
    u32::try_from(length).map_err(|_| EncodeError::NoRoom)
}
