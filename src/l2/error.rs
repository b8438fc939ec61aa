//! `DecodeError` and `EncodeError`: why bytes or values do not fit the format.
//!
//! A `DecodeError` is damage unless the caller expected it (the end of a log looks like a bad
//! frame). An `EncodeError` is a bound that the caller should have kept; nothing was written.

use thiserror::Error;

#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum DecodeError {
    #[error("the bytes end too early")]
    Truncated,
    /// Another structure, or none.
    #[error("the magic number is wrong")]
    Magic,
    /// A checksum does not match: torn, flipped, or written for another place or store.
    #[error("the checksum does not match")]
    Checksum,
    /// The structure names a place, segment or store other than the one it was read from.
    #[error("it belongs to another place")]
    Misplaced,
    /// Written in an open that does not belong here.
    #[error("its open count is out of range")]
    OpenCount,
    #[error("unknown kind {0}")]
    Kind(u8),
    #[error("a length or count is out of bounds")]
    Length,
    /// A field has a value or an encoding that version 1 does not know.
    #[error("a field is malformed")]
    Field,
    #[error("a text is not UTF-8")]
    Text,
}

#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum EncodeError {
    #[error("the namespace name is longer than 255 bytes")]
    NamespaceName,
    #[error("the key or prefix is longer than 65535 bytes")]
    Key,
    #[error("a metadata text or a label is longer than 65535 bytes")]
    Text,
    #[error("the record's head would take 16 MiB or more")]
    Head,
    #[error("the record is larger than any segment")]
    Record,
    /// An invalidation without a label, a negative entry with a body, or a superblock or count out
    /// of bounds.
    #[error("a field is out of its bounds")]
    Field,
    /// Positions, offsets or lengths do not follow one another, or have run out.
    #[error("a position is out of order or out of bounds")]
    Position,
    #[error("no room is left in the segment")]
    NoRoom,
}
