//! What passes through the log: encoded records, write batches, seals.

use std::sync::Arc;

use bytes::Bytes;

use super::batch_records::BatchRecords;
use super::directory_builder::DirectoryBuilder;
use super::directory_entry::{Change, DirectoryEntry};
use super::error::EncodeError;
use super::format::{BLOCK_BYTES, FRAME_HEADER_BYTES, Geometry, Position, SegmentNumber};
use super::image::ClosedIndex;
use super::record::{Record, RecordLengths};

/// A record that is encoded except for its position, with its body by reference.
#[derive(Debug)]
pub(crate) struct EncodedRecord {
    pub(super) head: Vec<u8>,
    pub(super) lengths: RecordLengths,
    pub(super) body: Bytes,
}

impl EncodedRecord {
    pub(crate) fn new(record: &Record<'_>, body: Bytes) -> Result<Self, EncodeError> {
        let mut head = Vec::new();
        let lengths = record.encode(&mut head)?;
        Ok(Self { head, lengths, body })
    }

    pub(crate) fn lengths(&self) -> RecordLengths {
        self.lengths
    }
}

/// The offset that the log has assigned to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Assigned {
    pub(crate) position: Position,
    /// The record is on file once everything before `end` is.
    pub(crate) end: Position,
    pub(crate) blocks: u16,
}

#[derive(Debug)]
pub(crate) struct WriteBatch {
    pub(crate) position: Position,
    pub(crate) header: [u8; FRAME_HEADER_BYTES],
    pub(super) records: BatchRecords,
    pub(crate) end: Position,
}

impl WriteBatch {
    /// Bytes that its records take on file.
    pub(crate) fn record_bytes(&self) -> usize {
        let bytes = self.end.value().saturating_sub(self.position.value());
        usize::try_from(bytes).unwrap_or(usize::MAX).saturating_sub(FRAME_HEADER_BYTES)
    }
}

pub(crate) struct Seal {
    pub(crate) segment: SegmentNumber,
    pub(crate) directory: DirectoryBuilder,
    pub(crate) end: Position,
}

#[derive(Clone)]
pub(crate) enum Job {
    Write(Arc<WriteBatch>),
    Seal(Arc<Seal>),
    /// Everything is on file, and nothing more will come.
    Close {
        tail: Position,
        /// For an image.
        index: Option<Arc<dyn ClosedIndex>>,
    },
    /// The log is inconsistent, or a sync has failed.
    Fail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not now: await `Log::room` and try again.
    NoRoom,
    Off,
}

/// L2 was turned off, and the awaited records may not be on file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Off;

/// The directory entry of a record at an offset of its segment.
pub(super) fn listed<'a>(
    offset: usize,
    lengths: RecordLengths,
    change: &Change<'a>,
) -> Result<DirectoryEntry<'a>, EncodeError> {
    let offset = u32::try_from(offset).map_err(|_| EncodeError::Position)?;
    let length = u32::try_from(lengths.total()).map_err(|_| EncodeError::Record)?;
    Ok(DirectoryEntry { offset, length, change: *change })
}

/// Whether a segment that holds nothing else has room for a record.
pub(super) fn fits_segment(
    geometry: Geometry,
    lengths: RecordLengths,
    change: &Change<'_>,
) -> bool {
    let offset = BLOCK_BYTES + FRAME_HEADER_BYTES;
    let directory = DirectoryBuilder::new(SegmentNumber(0), geometry);
    let listed = listed(offset, lengths, change).and_then(|it| directory.encoded_len_with(&it));
    listed.is_ok_and(|directory| {
        offset + lengths.padded() + directory <= geometry.segment_bytes() as usize
    })
}
