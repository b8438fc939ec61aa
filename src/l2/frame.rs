//! A frame: one write batch, with a header that covers the head of each record in it.
//! `FrameBuilder` makes the header when the batch closes. `FrameCheck` verifies a frame record by
//! record, so that a reader need not hold a whole frame; `Frame::decode`, for tests, one in memory.
//! A frame is good if its header, all its heads and, checked separately, all its bodies are.
//! `docs/format.md`, section 6.

use super::checksum::{ChecksumKey, Domain, Pieces};
use super::error::{DecodeError, EncodeError};
use super::format::{
    ALIGNMENT, BLOCK_BYTES, FRAME_HEADER_BYTES, FRAME_MAGIC, Geometry, OpenCount, OpenRange,
    Position, RECORD_PADDED_BYTES_MIN,
};
#[cfg(any(test, feature = "simulation"))]
use super::record::decode_record;
use super::record::{RecordHead, RecordLengths};
use super::wire::{Reader, Sink, is_zero};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Bytes of the frame, this header included: a multiple of 8.
    pub(crate) length: u32,
    pub(crate) records: u32,
    /// The open that wrote it and each of its records.
    pub(crate) open_count: OpenCount,
    pub(crate) position: Position,
    checksum: u64,
}

impl FrameHeader {
    /// The header at `position`, with plausible fields; only `FrameCheck` verifies it.
    ///
    /// # Errors
    /// `Truncated` below 32 bytes, `Magic`, `Misplaced`, `OpenCount`, `Length`.
    pub(crate) fn decode(
        bytes: &[u8],
        position: Position,
        opens: OpenRange,
        geometry: Geometry,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let checksum = reader.u64()?;
        let magic: [u8; 4] = reader.array()?;
        let (length, records) = (reader.u32()?, reader.u32()?);
        let open_count = OpenCount(reader.u32()?);
        let found = reader.u64()?;
        if magic != FRAME_MAGIC {
            return Err(DecodeError::Magic);
        }
        if found != position.value() {
            return Err(DecodeError::Misplaced);
        }
        opens.check(open_count)?;
        let offset = geometry.offset_in_segment(position);
        if (offset as usize) < BLOCK_BYTES {
            return Err(DecodeError::Misplaced);
        }
        let room = geometry.segment_bytes() - offset;
        let records_max =
            (length as usize).saturating_sub(FRAME_HEADER_BYTES) / RECORD_PADDED_BYTES_MIN;
        let bounded = length <= room
            && ((length as usize) % ALIGNMENT == 0)
            && records > 0
            && records as usize <= records_max;
        if !bounded || position.after(u64::from(length)).is_none() {
            return Err(DecodeError::Length);
        }
        Ok(Self { length, records, open_count, position, checksum })
    }

    /// The bytes that the checksum covers, behind the heads' checksums.
    fn covered(&self) -> [u8; FRAME_HEADER_BYTES - 8] {
        let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES);
        bytes.bytes(&FRAME_MAGIC);
        bytes.u32(self.length);
        bytes.u32(self.records);
        bytes.u32(self.open_count.0);
        bytes.u64(self.position.value());
        bytes.first_chunk().copied().unwrap_or_default()
    }
}

/// The checksum and the extent of the records so far, for writer and reader.
struct Extent {
    pieces: Box<Pieces>,
    length: usize,
    records: u32,
}

impl Extent {
    fn new(key: ChecksumKey, position: Position, open_count: OpenCount) -> Self {
        let seed = key.seed(Domain::Frame, position.value(), open_count);
        Self { pieces: Box::new(Pieces::new(seed)), length: FRAME_HEADER_BYTES, records: 0 }
    }

    fn add(&mut self, lengths: RecordLengths, checksum: u64) {
        self.pieces.update(&checksum.to_le_bytes());
        self.length += lengths.padded();
        self.records += 1;
    }

    fn finish(mut self, header: &FrameHeader) -> u64 {
        self.pieces.update(&header.covered());
        self.pieces.finish()
    }
}

pub(crate) struct FrameBuilder {
    extent: Extent,
    position: Position,
    open_count: OpenCount,
    room: u32,
}

impl FrameBuilder {
    pub(crate) fn new(
        key: ChecksumKey,
        position: Position,
        open_count: OpenCount,
        geometry: Geometry,
    ) -> Self {
        let room = geometry.segment_bytes() - geometry.offset_in_segment(position);
        Self { extent: Extent::new(key, position, open_count), position, open_count, room }
    }

    /// Where the next record goes; `None` if positions have run out.
    pub(crate) fn next_position(&self) -> Option<Position> {
        self.position.after(self.extent.length as u64)
    }

    pub(crate) fn length(&self) -> usize {
        self.extent.length
    }

    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn records(&self) -> u32 {
        self.extent.records
    }

    /// Adds the record that was sealed for `next_position`.
    ///
    /// # Errors
    /// `NoRoom` if the segment ends before it, `Position` if positions have run out; the frame is
    /// unchanged then.
    pub(crate) fn add(&mut self, lengths: RecordLengths, checksum: u64) -> Result<(), EncodeError> {
        let length = self.extent.length + lengths.padded();
        if length > self.room as usize {
            return Err(EncodeError::NoRoom);
        }
        self.position.after(length as u64).ok_or(EncodeError::Position)?;
        self.extent.add(lengths, checksum);
        Ok(())
    }

    /// The header to write in front of the records.
    ///
    /// # Errors
    /// `Field` for a frame without records.
    pub(crate) fn finish(self) -> Result<[u8; FRAME_HEADER_BYTES], EncodeError> {
        let header = FrameHeader {
            length: u32::try_from(self.extent.length).map_err(|_| EncodeError::NoRoom)?,
            records: self.extent.records,
            open_count: self.open_count,
            position: self.position,
            checksum: 0,
        };
        if header.records == 0 {
            return Err(EncodeError::Field);
        }
        let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES);
        bytes.u64(self.extent.finish(&header));
        bytes.bytes(&header.covered());
        bytes.try_into().map_err(|_| EncodeError::Field)
    }
}

pub(crate) struct FrameCheck {
    header: FrameHeader,
    extent: Extent,
}

impl FrameCheck {
    pub(crate) fn new(key: ChecksumKey, header: FrameHeader) -> Self {
        Self { header, extent: Extent::new(key, header.position, header.open_count) }
    }

    /// Where the next record is, as an offset in the frame; `None` after the last.
    pub(crate) fn next_offset(&self) -> Option<usize> {
        (self.extent.records < self.header.records).then_some(self.extent.length)
    }

    /// Adds the head found at `next_offset`, and the padding behind its body.
    ///
    /// # Errors
    /// `Length` if it is one too many or exceeds the frame, `OpenCount`, `Field` for padding that
    /// is not zero.
    pub(crate) fn add(&mut self, head: &RecordHead<'_>, padding: &[u8]) -> Result<(), DecodeError> {
        let lengths = head.lengths;
        let end = self.extent.length + lengths.padded();
        let expected = lengths.padded() - lengths.total();
        if self.next_offset().is_none()
            || end > self.header.length as usize
            || padding.len() != expected
        {
            return Err(DecodeError::Length);
        }
        if head.open_count != self.header.open_count {
            return Err(DecodeError::OpenCount);
        }
        if !is_zero(padding) {
            return Err(DecodeError::Field);
        }
        self.extent.add(lengths, head.checksum);
        Ok(())
    }

    /// Verifies header and heads, after all records were added.
    ///
    /// # Errors
    /// `Length` if records are missing or do not fill the frame, `Checksum`.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        let Self { header, extent } = self;
        if extent.records != header.records || extent.length != header.length as usize {
            return Err(DecodeError::Length);
        }
        if extent.finish(&header) == header.checksum { Ok(()) } else { Err(DecodeError::Checksum) }
    }
}

/// A frame in memory with verified header and heads. Its bodies are not verified yet.
#[cfg(any(test, feature = "simulation"))]
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) header: FrameHeader,
    bytes: &'a [u8],
    key: ChecksumKey,
}

/// A record in a frame: its verified head, and its body, not verified yet.
#[cfg(any(test, feature = "simulation"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FramedRecord<'a> {
    pub(crate) position: Position,
    pub(crate) head: RecordHead<'a>,
    pub(crate) body: &'a [u8],
}

#[cfg(any(test, feature = "simulation"))]
impl<'a> Frame<'a> {
    /// The frame at the start of `bytes`, which were read from `position`. Allocates one
    /// checksum state, whatever the input.
    ///
    /// # Errors
    /// Why its header, a head or the padding is invalid; `Truncated` if it is not all there.
    pub(crate) fn decode(
        bytes: &'a [u8],
        key: ChecksumKey,
        position: Position,
        opens: OpenRange,
        geometry: Geometry,
    ) -> Result<Self, DecodeError> {
        let header = FrameHeader::decode(bytes, position, opens, geometry)?;
        let bytes = bytes.get(..header.length as usize).ok_or(DecodeError::Truncated)?;
        let mut check = FrameCheck::new(key, header);
        while let Some(offset) = check.next_offset() {
            crate::meter::entries(1);
            let record = read_record(bytes, key, &header, offset)?;
            let start = offset + record.head.lengths.total();
            let end = offset + record.head.lengths.padded();
            check.add(&record.head, bytes.get(start..end).ok_or(DecodeError::Truncated)?)?;
        }
        check.finish()?;
        Ok(Self { header, bytes, key })
    }

    /// Its records in the order of the log. Verifies each head again.
    pub(crate) fn records(&self) -> impl Iterator<Item = FramedRecord<'a>> + use<'a> {
        let Self { header, bytes, key } = *self;
        let mut offset = FRAME_HEADER_BYTES;
        std::iter::from_fn(move || {
            let record = read_record(bytes, key, &header, offset).ok()?;
            offset += record.head.lengths.padded();
            Some(record)
        })
    }

    /// Verifies all bodies in one go. Only then is the frame known to be whole.
    ///
    /// # Errors
    /// `Length` or `Checksum`.
    pub(crate) fn verify_bodies(&self) -> Result<(), DecodeError> {
        self.records().try_for_each(|record| record.head.verify_body(record.body))
    }
}

#[cfg(any(test, feature = "simulation"))]
fn read_record<'a>(
    frame: &'a [u8],
    key: ChecksumKey,
    header: &FrameHeader,
    offset: usize,
) -> Result<FramedRecord<'a>, DecodeError> {
    let position = header.position.after(offset as u64).ok_or(DecodeError::Misplaced)?;
    let bytes = frame.get(offset..).ok_or(DecodeError::Truncated)?;
    let opens = OpenRange::only(header.open_count);
    let (head, body) = decode_record(bytes, key, position, opens)?;
    Ok(FramedRecord { position, head, body })
}
