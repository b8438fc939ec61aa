//! A record: a head that states the change at one position, and a blob's body behind it.
//!
//! Writing takes three steps. `Record::encode` makes the head before any lock is taken; its lengths
//! are final. `seal` sets open count and checksum once the position is assigned, in some tens of
//! nanoseconds. The body is copied later, when the frame is written.
//!
//! Reading: `RecordHead::decode` verifies the head for position, store and open count; the body is
//! verified separately (`BodySum::verify`, or piecewise with `BodyHasher`). Nothing is served
//! before both. Decoding never panics and never allocates. `docs/format.md`, section 7.

use std::ops::Range;

use super::blob::{Blob, NamedGeneration};
use super::checksum::{ChecksumKey, Domain, checksum};
use super::error::{DecodeError, EncodeError};
use super::expiry::{Expiry, names_namespace};
use super::format::{
    GenerationNumber, HEAD_BYTES_MAX, KEY_BYTES_MAX, OpenCount, OpenRange, Position,
    RECORD_BYTES_MAX, RECORD_FIXED_BYTES, align,
};
use super::renewal::KIND_DEADLINE_RENEWAL;
pub(crate) use super::renewal::Renewal;
use super::saved_position::{KIND_SAVED_POSITION, SavedPosition};
use super::string_list::LabelHashes;
use super::wire::{Measure, Reader, Sink};

pub(crate) const KIND_BLOB: u8 = 1;
pub(crate) const KIND_TOMBSTONE: u8 = 2;
pub(crate) const KIND_LABEL_INVALIDATION: u8 = 3;
pub(crate) const KIND_PREFIX_INVALIDATION: u8 = 4;
pub(crate) const KIND_NAMESPACE_FLUSH: u8 = 5;
pub(crate) const KIND_STORE_INVALIDATION: u8 = 6;

/// One mutation, as the log stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    Blob(Blob<'a>),
    /// Removes the value of a hash.
    Tombstone {
        namespace: NamedGeneration<'a>,
        /// The key's hash: hashes shadow, not keys.
        hash: u64,
    },
    /// Removes everything older that carries one of the labels, of whichever namespaces they are.
    LabelInvalidation {
        /// One or more.
        labels: LabelHashes<'a>,
    },
    /// Removes everything older whose key starts with the prefix.
    PrefixInvalidation {
        namespace: NamedGeneration<'a>,
        /// At most 65535 bytes; the empty one covers all keys.
        prefix: &'a [u8],
    },
    /// Removes all lower generations of the namespace.
    NamespaceFlush {
        /// With the generation that begins here.
        namespace: NamedGeneration<'a>,
    },
    /// Removes everything older.
    StoreInvalidation {
        /// Every generation from here on is at least this.
        generation: GenerationNumber,
    },
    /// Gives an older blob other deadlines.
    Renewal(Renewal<'a>),
    /// Makes older records stale.
    Expiry(Expiry<'a>),
    /// Changes nothing.
    SavedPosition(SavedPosition<'a>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordLengths {
    head: u32,
    body: u32,
}

impl RecordLengths {
    fn new(head: usize, body: u32) -> Option<Self> {
        let known = (RECORD_FIXED_BYTES..=HEAD_BYTES_MAX).contains(&head)
            && head + body as usize <= RECORD_BYTES_MAX;
        if known { Some(Self { head: u32::try_from(head).ok()?, body }) } else { None }
    }

    /// The lengths in the start of a record, unverified: how much to read.
    ///
    /// # Errors
    /// `Truncated` below 16 bytes, `Length` out of bounds.
    pub(crate) fn peek(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.u64()?;
        let [_, a, b, c] = reader.array()?;
        let head = u32::from_le_bytes([a, b, c, 0]) as usize;
        Self::new(head, reader.u32()?).ok_or(DecodeError::Length)
    }

    pub(crate) const fn head(self) -> usize {
        self.head as usize
    }

    pub(crate) const fn total(self) -> usize {
        self.head as usize + self.body as usize
    }

    /// Bytes to the next record: a multiple of 8.
    pub(crate) const fn padded(self) -> usize {
        align(self.total())
    }

    /// Where the body lies in the record.
    pub(crate) const fn body_range(self) -> Range<usize> {
        self.head as usize..self.total()
    }
}

impl<'a> Record<'a> {
    /// The lengths of the record in the log. Needs no position.
    ///
    /// # Errors
    /// The bound that it breaks.
    pub(crate) fn lengths(&self) -> Result<RecordLengths, EncodeError> {
        self.check()?;
        let mut measure = Measure(RECORD_FIXED_BYTES);
        self.write_fields(&mut measure);
        if measure.0 > HEAD_BYTES_MAX {
            return Err(EncodeError::Head);
        }
        RecordLengths::new(measure.0, self.body_length()).ok_or(EncodeError::Record)
    }

    /// Appends the head to `into`, complete except for open count and checksum: see `seal`.
    ///
    /// # Errors
    /// The bound that it breaks; `into` is unchanged then.
    pub(crate) fn encode(&self, into: &mut Vec<u8>) -> Result<RecordLengths, EncodeError> {
        let lengths = self.lengths()?;
        into.reserve(lengths.head());
        into.u64(0);
        into.u32(lengths.head << 8 | u32::from(self.kind()));
        into.u32(lengths.body);
        into.u32(0);
        self.write_fields(into);
        Ok(lengths)
    }

    pub(crate) const fn kind(&self) -> u8 {
        match self {
            Self::Blob(_) => KIND_BLOB,
            Self::Tombstone { .. } => KIND_TOMBSTONE,
            Self::LabelInvalidation { .. } => KIND_LABEL_INVALIDATION,
            Self::PrefixInvalidation { .. } => KIND_PREFIX_INVALIDATION,
            Self::NamespaceFlush { .. } => KIND_NAMESPACE_FLUSH,
            Self::StoreInvalidation { .. } => KIND_STORE_INVALIDATION,
            Self::Renewal(_) => KIND_DEADLINE_RENEWAL,
            Self::Expiry(expiry) => expiry.kind(),
            Self::SavedPosition(_) => KIND_SAVED_POSITION,
        }
    }

    const fn body_length(&self) -> u32 {
        match self {
            Self::Blob(blob) => blob.body.length,
            _ => 0,
        }
    }

    fn check(&self) -> Result<(), EncodeError> {
        match self {
            Self::Blob(blob) => blob.check(),
            Self::Tombstone { namespace, .. } | Self::NamespaceFlush { namespace } => {
                namespace.check()
            }
            Self::LabelInvalidation { labels } if labels.is_empty() => Err(EncodeError::Field),
            Self::PrefixInvalidation { prefix, .. } if prefix.len() > KEY_BYTES_MAX => {
                Err(EncodeError::Key)
            }
            Self::PrefixInvalidation { namespace, .. } => namespace.check(),
            Self::Expiry(expiry) => expiry.check(),
            Self::Renewal(renewal) => renewal.check(),
            Self::SavedPosition(position) => position.check(),
            Self::LabelInvalidation { .. } | Self::StoreInvalidation { .. } => Ok(()),
        }
    }

    fn write_fields(&self, sink: &mut impl Sink) {
        match self {
            Self::Blob(blob) => blob.write(sink),
            Self::Tombstone { namespace, hash } => {
                namespace.write(sink);
                sink.u64(*hash);
            }
            Self::LabelInvalidation { labels } => labels.write(sink),
            Self::PrefixInvalidation { namespace, prefix } => {
                namespace.write(sink);
                sink.prefixed(prefix);
            }
            Self::NamespaceFlush { namespace } => namespace.write(sink),
            Self::StoreInvalidation { generation } => sink.varint(generation.0),
            Self::Renewal(renewal) => {
                renewal.namespace.write(sink);
                renewal.write(sink);
            }
            Self::Expiry(expiry) => {
                // Bounded: one.
                expiry.namespace().into_iter().for_each(|namespace| namespace.write(sink));
                expiry.write(sink);
            }
            Self::SavedPosition(position) => position.write(sink),
        }
    }

    fn read(kind: u8, fields: &'a [u8], body_length: u32) -> Result<Self, DecodeError> {
        if kind != KIND_BLOB && body_length != 0 {
            return Err(DecodeError::Length);
        }
        let mut reader = Reader::new(fields);
        let record = match kind {
            KIND_BLOB => Self::Blob(Blob::read(&mut reader, body_length)?),
            KIND_TOMBSTONE => Self::Tombstone {
                namespace: NamedGeneration::read(&mut reader)?,
                hash: reader.u64()?,
            },
            KIND_LABEL_INVALIDATION => {
                Self::LabelInvalidation { labels: LabelHashes::read(&mut reader)? }
            }
            KIND_PREFIX_INVALIDATION => Self::PrefixInvalidation {
                namespace: NamedGeneration::read(&mut reader)?,
                prefix: reader.prefixed(KEY_BYTES_MAX)?,
            },
            KIND_NAMESPACE_FLUSH => {
                Self::NamespaceFlush { namespace: NamedGeneration::read(&mut reader)? }
            }
            KIND_STORE_INVALIDATION => {
                Self::StoreInvalidation { generation: GenerationNumber(reader.varint()?) }
            }
            KIND_DEADLINE_RENEWAL => {
                let namespace = NamedGeneration::read(&mut reader)?;
                Self::Renewal(Renewal::read(namespace, &mut reader)?)
            }
            KIND_SAVED_POSITION => Self::SavedPosition(SavedPosition::read(&mut reader)?),
            _ => {
                let named = names_namespace(kind).ok_or(DecodeError::Kind(kind))?;
                let namespace =
                    if named { Some(NamedGeneration::read(&mut reader)?) } else { None };
                Self::Expiry(Expiry::read(kind, namespace, &mut reader)?)
            }
        };
        reader.end()?;
        Ok(record)
    }
}

/// Sets open count and checksum of the encoded head that `head` starts with, for its position.
/// Returns the checksum, which goes into the frame's. A reinserted record is sealed again.
///
/// # Errors
/// `Record` if these bytes are no encoded head; they are unchanged then.
pub(crate) fn seal(
    head: &mut [u8],
    key: ChecksumKey,
    position: Position,
    open_count: OpenCount,
) -> Result<u64, EncodeError> {
    let lengths = RecordLengths::peek(head).map_err(|_| EncodeError::Record)?;
    let head = head.get_mut(..lengths.head()).ok_or(EncodeError::Record)?;
    let (sum, covered) = head.split_at_mut(8);
    let count = covered.get_mut(8..12).ok_or(EncodeError::Record)?;
    count.copy_from_slice(&open_count.0.to_le_bytes());
    let checksum = checksum(covered, key.seed(Domain::Record, position.value(), open_count));
    sum.copy_from_slice(&checksum.to_le_bytes());
    Ok(checksum)
}

/// A head that was read and verified for its position. The body is not verified yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHead<'a> {
    pub(crate) record: Record<'a>,
    pub(crate) lengths: RecordLengths,
    /// The open that wrote it.
    pub(crate) open_count: OpenCount,
    /// The head's checksum, as the frame covers it.
    pub(crate) checksum: u64,
}

impl<'a> RecordHead<'a> {
    /// The head at the start of `bytes`, which were read from `position`. The body need not be
    /// there.
    ///
    /// # Errors
    /// Why it is invalid. Another place, store or open shows as `Checksum` or `OpenCount`.
    pub(crate) fn decode(
        bytes: &'a [u8],
        key: ChecksumKey,
        position: Position,
        opens: OpenRange,
    ) -> Result<Self, DecodeError> {
        let lengths = RecordLengths::peek(bytes)?;
        let head = bytes.get(..lengths.head()).ok_or(DecodeError::Truncated)?;
        let mut reader = Reader::new(head);
        let sum = reader.u64()?;
        let covered = reader.rest();
        let [kind, ..] = reader.array::<4>()?;
        let body_length = reader.u32()?;
        let open_count = opens.check(OpenCount(reader.u32()?))?;
        if sum != checksum(covered, key.seed(Domain::Record, position.value(), open_count)) {
            return Err(DecodeError::Checksum);
        }
        let record = Record::read(kind, reader.rest(), body_length)?;
        Ok(Self { record, lengths, open_count, checksum: sum })
    }

    /// The body in the bytes that the head was decoded from, unverified.
    ///
    /// # Errors
    /// `Truncated` if it is not all there.
    pub(crate) fn body<'b>(&self, bytes: &'b [u8]) -> Result<&'b [u8], DecodeError> {
        bytes.get(self.lengths.body_range()).ok_or(DecodeError::Truncated)
    }

    #[cfg(any(test, feature = "simulation"))]
    /// Verifies a body in one go; for a long one use `BodyHasher`.
    ///
    /// # Errors
    /// `Length` or `Checksum`.
    pub(crate) fn verify_body(&self, body: &[u8]) -> Result<(), DecodeError> {
        match &self.record {
            Record::Blob(blob) => blob.body.verify(body),
            _ if body.is_empty() => Ok(()),
            _ => Err(DecodeError::Length),
        }
    }
}

#[cfg(any(test, feature = "simulation"))]
/// A record that was read whole: its verified head, and its body, not verified yet.
///
/// # Errors
/// As for `RecordHead::decode`, and `Truncated` if the body is not all there.
pub(crate) fn decode_record<'a>(
    bytes: &'a [u8],
    key: ChecksumKey,
    position: Position,
    opens: OpenRange,
) -> Result<(RecordHead<'a>, &'a [u8]), DecodeError> {
    let head = RecordHead::decode(bytes, key, position, opens)?;
    Ok((head, head.body(bytes)?))
}
