//! One entry of a segment's directory: the part of a record that recovery, reclaim and scans need.
//!
//! An entry can be read without those before it, so that a directory can have any order.
//! `docs/format.md`, section 8.

use super::blob::{Blob, NamedGeneration};
use super::error::{DecodeError, EncodeError};
use super::expiry::{Expiry, names_namespace};
use super::format::{
    ALIGNMENT, BLOCK_BYTES, GenerationNumber, KEY_BYTES_MAX, RECORD_FIXED_BYTES, align,
};
use super::record::{
    KIND_BLOB, KIND_LABEL_INVALIDATION, KIND_NAMESPACE_FLUSH, KIND_PREFIX_INVALIDATION,
    KIND_STORE_INVALIDATION, KIND_TOMBSTONE, Record,
};
use super::renewal::{KIND_DEADLINE_RENEWAL, Renewal};
use super::saved_position::{KIND_SAVED_POSITION, SavedPosition};
use super::string_list::LabelHashes;
use super::wire::{Reader, Sink, signed, unsigned};
use crate::clock::Timestamp;
use crate::footprint::{POSTING_BYTES, SLOT_BYTES};
use crate::policy::Lifetime;

const KIND_MASK: u8 = 0x0f;
const WINDOW_END: u8 = 0x10;
const VERSION: u8 = 0x20;
const LABELS: u8 = 0x40;
const IDLE: u8 = 0x80;

/// The least bytes of an entry: kind, offset, length, and a namespace, a generation or a count.
pub(crate) const ENTRY_BYTES_MIN: usize = 4;

/// A record as its segment's directory lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DirectoryEntry<'a> {
    /// Offset of the record in its segment.
    pub(crate) offset: u32,
    /// Bytes of head and body, without padding.
    pub(crate) length: u32,
    pub(crate) change: Change<'a>,
}

/// A [`Record`], as far as the directory repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    Blob(BlobSummary<'a>),
    Tombstone { namespace: NamedGeneration<'a>, hash: u64 },
    LabelInvalidation { labels: LabelHashes<'a> },
    PrefixInvalidation { namespace: NamedGeneration<'a>, prefix: &'a [u8] },
    NamespaceFlush { namespace: NamedGeneration<'a> },
    StoreInvalidation { generation: GenerationNumber },
    Renewal(Renewal<'a>),
    Expiry(Expiry<'a>),
    SavedPosition(SavedPosition<'a>),
}

/// The part of a blob's record that the directory repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlobSummary<'a> {
    pub(crate) namespace: NamedGeneration<'a>,
    pub(crate) hash: u64,
    pub(crate) key: &'a [u8],
    /// The end of its stale window, when it expires.
    pub(crate) window_end_ns: Option<u64>,
    pub(crate) version: Option<u64>,
    pub(crate) labels: LabelHashes<'a>,
    /// When it expires sooner if no caller asks for it.
    pub(crate) idle: Option<Idle>,
}

/// The idle expiry of a blob, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Idle {
    pub(crate) written_ns: u64,
    pub(crate) ttl_ns: u64,
}

impl Idle {
    fn of(blob: &Blob<'_>) -> Option<Self> {
        blob.idle_ttl_ns.map(|ttl_ns| Self { written_ns: blob.written_ns, ttl_ns })
    }
}

impl BlobSummary<'_> {
    /// The same with the deadlines of `blob`, which has the same key.
    pub(crate) fn of(&self, blob: &Blob<'_>) -> Self {
        Self { window_end_ns: blob.window_end_ns(), idle: Idle::of(blob), ..*self }
    }

    pub(crate) fn life(&self) -> Lifetime {
        let (written, idle_ttl) = self.idle.map_or((0, u64::MAX), |it| (it.written_ns, it.ttl_ns));
        Lifetime {
            written: Timestamp(written),
            expires: self.window_end_ns.map_or(Timestamp::NEVER, Timestamp),
            stale_serve: 0,
            idle_ttl,
        }
    }
}

impl<'a> Change<'a> {
    /// The change of this record. The hash and the label hashes belong to a blob, made with the
    /// store's hash key; other kinds have their own.
    pub(crate) fn new(record: &Record<'a>, hash: u64, labels: &'a [u64]) -> Self {
        match *record {
            Record::Blob(ref blob) => Self::Blob(BlobSummary {
                namespace: blob.namespace,
                hash,
                key: blob.key,
                window_end_ns: blob.window_end_ns(),
                version: blob.version,
                labels: LabelHashes::new(labels),
                idle: Idle::of(blob),
            }),
            Record::Tombstone { namespace, hash } => Self::Tombstone { namespace, hash },
            Record::LabelInvalidation { labels } => Self::LabelInvalidation { labels },
            Record::PrefixInvalidation { namespace, prefix } => {
                Self::PrefixInvalidation { namespace, prefix }
            }
            Record::NamespaceFlush { namespace } => Self::NamespaceFlush { namespace },
            Record::StoreInvalidation { generation } => Self::StoreInvalidation { generation },
            Record::Renewal(renewal) => Self::Renewal(renewal),
            Record::Expiry(expiry) => Self::Expiry(expiry),
            Record::SavedPosition(position) => Self::SavedPosition(position),
        }
    }

    pub(crate) const fn namespace(&self) -> Option<NamedGeneration<'a>> {
        match self {
            Self::Blob(BlobSummary { namespace, .. })
            | Self::Tombstone { namespace, .. }
            | Self::PrefixInvalidation { namespace, .. }
            | Self::NamespaceFlush { namespace } => Some(*namespace),
            Self::Renewal(renewal) => Some(renewal.namespace),
            Self::LabelInvalidation { .. }
            | Self::StoreInvalidation { .. }
            | Self::SavedPosition(_) => None,
            Self::Expiry(expiry) => expiry.namespace(),
        }
    }

    /// The most bytes of the index budget that it uses: a slot, and the postings of its labels.
    pub(crate) fn index_bytes(&self) -> usize {
        match self {
            Self::Blob(blob) => SLOT_BYTES + blob.labels.len() * POSTING_BYTES,
            Self::Tombstone { .. } => SLOT_BYTES,
            _ => 0,
        }
    }

    fn check(&self) -> Result<(), EncodeError> {
        self.namespace().map_or(Ok(()), |namespace| namespace.check())?;
        match self {
            Self::Blob(BlobSummary { key: text, .. })
            | Self::PrefixInvalidation { prefix: text, .. }
                if text.len() > KEY_BYTES_MAX =>
            {
                Err(EncodeError::Key)
            }
            Self::LabelInvalidation { labels } if labels.is_empty() => Err(EncodeError::Field),
            Self::Expiry(expiry) => expiry.check(),
            Self::SavedPosition(position) => position.check(),
            _ => Ok(()),
        }
    }

    fn tag(&self) -> u8 {
        match self {
            Self::Blob(blob) => {
                let window_end = if blob.window_end_ns.is_some() { WINDOW_END } else { 0 };
                let version = if blob.version.is_some() { VERSION } else { 0 };
                let labels = if blob.labels.is_empty() { 0 } else { LABELS };
                let idle = if blob.idle.is_some() { IDLE } else { 0 };
                KIND_BLOB | window_end | version | labels | idle
            }
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
}

/// What the times of a directory's entries are differences to: the first ones in its log order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TimeBases {
    window_end_ns: Option<u64>,
    written_ns: Option<u64>,
}

impl TimeBases {
    /// The bases once this entry has been added.
    pub(crate) fn with(self, change: &Change<'_>) -> Self {
        let Change::Blob(blob) = change else { return self };
        Self {
            window_end_ns: self.window_end_ns.or(blob.window_end_ns),
            written_ns: self.written_ns.or(blob.idle.map(|idle| idle.written_ns)),
        }
    }

    pub(crate) fn write(self, sink: &mut impl Sink) {
        sink.u64(self.window_end());
        sink.u64(self.written());
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { window_end_ns: Some(reader.u64()?), written_ns: Some(reader.u64()?) })
    }

    fn window_end(self) -> u64 {
        self.window_end_ns.unwrap_or(0)
    }

    fn written(self) -> u64 {
        self.written_ns.unwrap_or(0)
    }
}

impl DirectoryEntry<'_> {
    /// Where the record ends, padded.
    pub(crate) fn end(&self) -> usize {
        align(self.offset as usize + self.length as usize)
    }

    /// Writes the entry; `row` is its namespace's. It can be read without those before it.
    ///
    /// # Errors
    /// The bound that it breaks.
    pub(crate) fn write(
        &self,
        sink: &mut impl Sink,
        bases: TimeBases,
        row: u32,
    ) -> Result<(), EncodeError> {
        self.change.check()?;
        let offset = self.offset as usize;
        let offset = offset.checked_sub(BLOCK_BYTES).ok_or(EncodeError::Position)?;
        if offset % ALIGNMENT != 0 || (self.length as usize) < RECORD_FIXED_BYTES {
            return Err(EncodeError::Position);
        }
        sink.u8(self.change.tag());
        sink.varint((offset / ALIGNMENT) as u64);
        sink.varint(u64::from(self.length));
        if self.change.namespace().is_some() {
            sink.varint(u64::from(row));
        }
        match &self.change {
            Change::Blob(blob) => bases.write_blob(sink, blob),
            Change::Tombstone { hash, .. } => sink.u64(*hash),
            Change::LabelInvalidation { labels } => labels.write(sink),
            Change::PrefixInvalidation { prefix, .. } => sink.prefixed(prefix),
            Change::NamespaceFlush { .. } => {}
            Change::StoreInvalidation { generation } => sink.varint(generation.0),
            Change::Renewal(renewal) => renewal.write(sink),
            Change::Expiry(expiry) => expiry.write(sink),
            Change::SavedPosition(position) => position.write(sink),
        }
        Ok(())
    }
}

/// The row and the key of a blob's entry. Fails for other kinds.
pub(crate) fn blob_key(entry: &[u8]) -> Result<(u32, &[u8]), DecodeError> {
    let mut reader = Reader::new(entry);
    let tag = reader.u8()?;
    if tag & KIND_MASK != KIND_BLOB {
        return Err(DecodeError::Kind(tag & KIND_MASK));
    }
    reader.varint()?;
    reader.varint()?;
    let row = u32::try_from(reader.varint()?).map_err(|_| DecodeError::Length)?;
    reader.u64()?;
    Ok((row, reader.prefixed(KEY_BYTES_MAX)?))
}

/// What the entries of one directory have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryReader {
    pub(crate) bases: TimeBases,
    /// Every record ends here at the latest.
    pub(crate) end_max: usize,
}

impl EntryReader {
    /// Reads the next entry, and its namespace's row; `name_of` knows the namespaces by row.
    pub(crate) fn read<'a>(
        &self,
        reader: &mut Reader<'a>,
        name_of: impl Fn(u32) -> Option<NamedGeneration<'a>>,
    ) -> Result<(Option<u32>, DirectoryEntry<'a>), DecodeError> {
        let tag = reader.u8()?;
        let offset = BLOCK_BYTES + reader.length(self.end_max / ALIGNMENT)? * ALIGNMENT;
        let length = reader.length(self.end_max)?;
        if length < RECORD_FIXED_BYTES || align(offset + length) > self.end_max {
            return Err(DecodeError::Length);
        }
        let (row, change) = self.read_change(tag, reader, name_of)?;
        let offset = u32::try_from(offset).map_err(|_| DecodeError::Length)?;
        let length = u32::try_from(length).map_err(|_| DecodeError::Length)?;
        Ok((row, DirectoryEntry { offset, length, change }))
    }

    fn read_change<'a>(
        &self,
        tag: u8,
        reader: &mut Reader<'a>,
        name_of: impl Fn(u32) -> Option<NamedGeneration<'a>>,
    ) -> Result<(Option<u32>, Change<'a>), DecodeError> {
        if tag & KIND_MASK != KIND_BLOB && tag & !KIND_MASK != 0 {
            return Err(DecodeError::Field);
        }
        match tag {
            KIND_STORE_INVALIDATION => {
                let generation = GenerationNumber(reader.varint()?);
                return Ok((None, Change::StoreInvalidation { generation }));
            }
            KIND_LABEL_INVALIDATION => {
                let labels = LabelHashes::read(reader)?;
                return Ok((None, Change::LabelInvalidation { labels }));
            }
            KIND_SAVED_POSITION => {
                return Ok((None, Change::SavedPosition(SavedPosition::read(reader)?)));
            }
            _ if names_namespace(tag) == Some(false) => {
                return Ok((None, Change::Expiry(Expiry::read(tag, None, reader)?)));
            }
            _ => {}
        }
        let row = u32::try_from(reader.varint()?).map_err(|_| DecodeError::Length)?;
        let namespace = name_of(row).ok_or(DecodeError::Length)?;
        let change = match tag & KIND_MASK {
            KIND_BLOB => Change::Blob(self.bases.read_blob(tag, reader, namespace)?),
            KIND_TOMBSTONE => Change::Tombstone { namespace, hash: reader.u64()? },
            KIND_PREFIX_INVALIDATION => {
                Change::PrefixInvalidation { namespace, prefix: reader.prefixed(KEY_BYTES_MAX)? }
            }
            KIND_NAMESPACE_FLUSH => Change::NamespaceFlush { namespace },
            KIND_DEADLINE_RENEWAL => Change::Renewal(Renewal::read(namespace, reader)?),
            kind if names_namespace(kind).is_some() => {
                Change::Expiry(Expiry::read(kind, Some(namespace), reader)?)
            }
            kind => return Err(DecodeError::Kind(kind)),
        };
        Ok((Some(row), change))
    }
}

impl TimeBases {
    fn write_blob(self, sink: &mut impl Sink, blob: &BlobSummary<'_>) {
        sink.u64(blob.hash);
        sink.prefixed(blob.key);
        if let Some(window_end_ns) = blob.window_end_ns {
            sink.zigzag(signed(window_end_ns.wrapping_sub(self.window_end())));
        }
        if let Some(version) = blob.version {
            sink.varint(version);
        }
        if !blob.labels.is_empty() {
            blob.labels.write(sink);
        }
        if let Some(idle) = blob.idle {
            sink.zigzag(signed(idle.written_ns.wrapping_sub(self.written())));
            sink.varint(idle.ttl_ns);
        }
    }

    fn read_blob<'a>(
        self,
        tag: u8,
        reader: &mut Reader<'a>,
        namespace: NamedGeneration<'a>,
    ) -> Result<BlobSummary<'a>, DecodeError> {
        let (hash, key) = (reader.u64()?, reader.prefixed(KEY_BYTES_MAX)?);
        let window_end_ns = if tag & WINDOW_END != 0 {
            Some(self.window_end().wrapping_add(unsigned(reader.zigzag()?)))
        } else {
            None
        };
        let version = if tag & VERSION != 0 { Some(reader.varint()?) } else { None };
        let labels =
            if tag & LABELS != 0 { LabelHashes::read(reader)? } else { LabelHashes::new(&[]) };
        let idle = if tag & IDLE != 0 {
            let written_ns = self.written().wrapping_add(unsigned(reader.zigzag()?));
            Some(Idle { written_ns, ttl_ns: reader.varint()? })
        } else {
            None
        };
        Ok(BlobSummary { namespace, hash, key, window_end_ns, version, labels, idle })
    }
}
