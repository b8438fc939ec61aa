//! What passes through the log: drafts on their way in, units and seals on their way to the file.

use std::sync::Arc;

use bytes::Bytes;

use super::directory::DirectoryBuilder;
use super::entry::{Change, DirectoryEntry};
use super::error::EncodeError;
use super::format::{FRAME_HEADER_BYTES, Position, SegmentNumber};
use super::record::{Record, RecordLengths};

/// A record that is encoded but for its position, with its body by reference.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(super) head: Vec<u8>,
    pub(super) lengths: RecordLengths,
    pub(super) body: Bytes,
}

impl Draft {
    /// Encodes the head of `record`, whose body is `body`.
    pub(crate) fn new(record: &Record<'_>, body: Bytes) -> Result<Self, EncodeError> {
        let mut head = Vec::new();
        let lengths = record.encode(&mut head)?;
        Ok(Self { head, lengths, body })
    }

    pub(crate) fn lengths(&self) -> RecordLengths {
        self.lengths
    }
}

/// Where a record has been put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dealt {
    pub(crate) position: Position,
    /// The position behind it: once the log is on file up to there, so is the record.
    pub(crate) end: Position,
    /// What a read of it has to fetch.
    pub(crate) blocks: u16,
}

/// A record in memory, until it is on file.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) position: Position,
    pub(crate) head: Bytes,
    pub(crate) body: Bytes,
}

/// A frame to be written.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) position: Position,
    pub(crate) header: [u8; FRAME_HEADER_BYTES],
    pub(crate) records: Vec<Taken>,
    pub(crate) end: Position,
}

impl Unit {
    /// What its records take on file.
    pub(crate) fn record_bytes(&self) -> usize {
        let bytes = self.end.value().saturating_sub(self.position.value());
        usize::try_from(bytes).unwrap_or(usize::MAX).saturating_sub(FRAME_HEADER_BYTES)
    }
}

/// A segment to be sealed.
pub(crate) struct Seal {
    pub(crate) segment: SegmentNumber,
    pub(crate) directory: DirectoryBuilder,
    pub(crate) end: Position,
}

/// What the writer has to do next.
#[derive(Clone)]
pub(crate) enum Job {
    Frame(Arc<Unit>),
    Seal(Arc<Seal>),
    /// Everything is on file, and nothing more will come.
    Close {
        tail: Position,
    },
    /// The log has found itself at fault.
    Fail,
}

/// Why a record was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not now: await `Log::room` and try again.
    NoRoom,
    /// Not any more: L2 is off.
    Off,
}

/// L2 has been turned off, and what was waited for may not be on file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Off;

/// How a record at a place of its segment is listed.
pub(super) fn listed<'a>(
    place: usize,
    lengths: RecordLengths,
    change: &Change<'a>,
) -> Result<DirectoryEntry<'a>, EncodeError> {
    let place = u32::try_from(place).map_err(|_| EncodeError::Place)?;
    let length = u32::try_from(lengths.total()).map_err(|_| EncodeError::Record)?;
    Ok(DirectoryEntry { place, length, change: *change })
}
