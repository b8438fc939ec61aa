//! Lists inside records and directories: label hashes, labels, content metadata.
//! Each borrows the caller's values or the bytes it was read from, so decoding allocates nothing.
//! Bytes are fully checked before a list exists; iterating over it cannot fail.

use std::collections::BTreeMap;

use super::error::DecodeError;
use super::format::KEY_BYTES_MAX;
use super::wire::{Reader, Sink};

/// Hashes of labels (tags and dependencies).
#[derive(Clone, Copy)]
pub(crate) struct LabelHashes<'a>(Hashes<'a>);

#[derive(Clone, Copy)]
enum Hashes<'a> {
    Given(&'a [u64]),
    Read(&'a [u8]),
}

impl<'a> LabelHashes<'a> {
    pub(crate) const fn new(hashes: &'a [u64]) -> Self {
        Self(Hashes::Given(hashes))
    }

    pub(crate) fn len(&self) -> usize {
        match self.0 {
            Hashes::Given(hashes) => hashes.len(),
            Hashes::Read(bytes) => bytes.len() / 8,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> + use<'a> {
        let (given, read) = match self.0 {
            Hashes::Given(hashes) => (hashes, &[][..]),
            Hashes::Read(bytes) => (&[][..], bytes),
        };
        let hash = |bytes: &[u8]| bytes.first_chunk().map_or(0, |hash| u64::from_le_bytes(*hash));
        given.iter().copied().chain(read.chunks_exact(8).map(hash))
    }

    pub(crate) fn write(&self, sink: &mut impl Sink) {
        sink.varint(self.len() as u64);
        // Bounded: by the labels of one record.
        self.iter().for_each(|hash| sink.u64(hash));
    }

    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.count(8)?;
        Ok(Self(Hashes::Read(reader.take(count * 8)?)))
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Labels<'a>(Texts<'a>);

#[derive(Clone, Copy)]
enum Texts<'a> {
    Given(&'a [String]),
    Read { count: usize, bytes: &'a [u8] },
}

impl<'a> Labels<'a> {
    pub(crate) const EMPTY: Self = Self(Texts::Given(&[]));

    pub(crate) const fn new(labels: &'a [String]) -> Self {
        Self(Texts::Given(labels))
    }

    pub(crate) fn len(&self) -> usize {
        match self.0 {
            Texts::Given(labels) => labels.len(),
            Texts::Read { count, .. } => count,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        let (given, read) = match self.0 {
            Texts::Given(labels) => (labels, &[][..]),
            Texts::Read { bytes, .. } => (&[][..], bytes),
        };
        let mut reader = Reader::new(read);
        let read = std::iter::from_fn(move || reader.text(KEY_BYTES_MAX).ok());
        given.iter().map(String::as_str).chain(read)
    }

    pub(crate) fn write(&self, sink: &mut impl Sink) {
        sink.varint(self.len() as u64);
        // Bounded: by the labels of one record.
        self.iter().for_each(|label| sink.prefixed(label.as_bytes()));
    }

    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.count(1)?;
        let start = reader.rest();
        // Bounded: by the items of one record.
        for _ in 0..count {
            reader.text(KEY_BYTES_MAX)?;
        }
        let bytes = start.get(..start.len() - reader.rest().len()).unwrap_or_default();
        Ok(Self(Texts::Read { count, bytes }))
    }
}

/// Content metadata: texts by key, in the order of the keys' bytes.
#[derive(Clone, Copy)]
pub(crate) struct Metadata<'a>(Pairs<'a>);

#[derive(Clone, Copy)]
enum Pairs<'a> {
    Given(Option<&'a BTreeMap<String, String>>),
    Read { count: usize, bytes: &'a [u8] },
}

impl<'a> Metadata<'a> {
    pub(crate) const EMPTY: Self = Self(Pairs::Given(None));

    pub(crate) const fn new(metadata: &'a BTreeMap<String, String>) -> Self {
        Self(Pairs::Given(Some(metadata)))
    }

    pub(crate) fn len(&self) -> usize {
        match self.0 {
            Pairs::Given(metadata) => metadata.map_or(0, BTreeMap::len),
            Pairs::Read { count, .. } => count,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keys and values, ascending by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let (given, read) = match self.0 {
            Pairs::Given(metadata) => (metadata, &[][..]),
            Pairs::Read { bytes, .. } => (None, bytes),
        };
        let mut reader = Reader::new(read);
        let read = std::iter::from_fn(move || Self::read_pair(&mut reader).ok());
        given.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).chain(read)
    }

    pub(crate) fn to_map(self) -> BTreeMap<String, String> {
        // Bounded: by the metadata of one entry.
        self.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    pub(crate) fn write(&self, sink: &mut impl Sink) {
        sink.varint(self.len() as u64);
        // Bounded: by the metadata of one record.
        for (key, value) in self.iter() {
            sink.prefixed(key.as_bytes());
            sink.prefixed(value.as_bytes());
        }
    }

    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.count(2)?;
        let start = reader.rest();
        let mut before = None;
        // Bounded: by the items of one record.
        for _ in 0..count {
            let (key, _) = Self::read_pair(reader)?;
            if before.is_some_and(|before| before >= key) {
                return Err(DecodeError::Field);
            }
            before = Some(key);
        }
        let bytes = start.get(..start.len() - reader.rest().len()).unwrap_or_default();
        Ok(Self(Pairs::Read { count, bytes }))
    }

    fn read_pair(reader: &mut Reader<'a>) -> Result<(&'a str, &'a str), DecodeError> {
        Ok((reader.text(KEY_BYTES_MAX)?, reader.text(KEY_BYTES_MAX)?))
    }
}

/// Equal by content, whatever it borrows from; shown as a list.
macro_rules! by_content {
    ($($name:ident),*) => {$(
        impl PartialEq for $name<'_> {
            fn eq(&self, other: &Self) -> bool {
                self.iter().eq(other.iter())
            }
        }

        impl Eq for $name<'_> {}

        impl std::fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_list().entries(self.iter()).finish()
            }
        }
    )*};
}

by_content!(LabelHashes, Labels, Metadata);
