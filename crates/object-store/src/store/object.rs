//! `Object`: one version of one object: what the inner store says of it, and its blocks.

use std::ops::Range;

use bytes::Bytes;
use chrono::DateTime;
use serde::{Deserialize, Serialize};

use super::object_store::path::Path;
use super::object_store::{Attribute, AttributeValue, Attributes, ObjectMeta};
use crate::keys::Generation;

/// One version of one object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Object {
    pub(crate) generation: Generation,
    pub(crate) block_bytes: u64,
    pub(crate) size: u64,
    modified_seconds: i64,
    modified_nanos: u32,
    pub(crate) e_tag: Option<String>,
    version: Option<String>,
    /// What kind each is, its name if that kind has one, and its value.
    attributes: Vec<(u8, String, String)>,
}

impl Object {
    /// None if the cache cannot hold all that the origin says of it.
    pub(crate) fn new(
        meta: &ObjectMeta,
        attributes: &Attributes,
        block_bytes: u64,
    ) -> Option<Self> {
        // Bounded: by what the origin says of one object.
        let attributes = attributes.iter().map(encoded).collect::<Option<Vec<_>>>()?;
        Some(Self {
            generation: rand::random(),
            block_bytes,
            size: meta.size,
            modified_seconds: meta.last_modified.timestamp(),
            modified_nanos: meta.last_modified.timestamp_subsec_nanos(),
            e_tag: meta.e_tag.clone(),
            version: meta.version.clone(),
            attributes,
        })
    }

    pub(crate) fn meta(&self, location: &Path) -> ObjectMeta {
        let modified = DateTime::from_timestamp(self.modified_seconds, self.modified_nanos);
        ObjectMeta {
            location: location.clone(),
            last_modified: modified.unwrap_or_default(),
            size: self.size,
            e_tag: self.e_tag.clone(),
            version: self.version.clone(),
        }
    }

    pub(crate) fn attributes(&self) -> Attributes {
        self.attributes.iter().filter_map(decoded).collect()
    }

    /// The e-tag, if it can be sent back: a weak one names no bytes, and one with a comma
    /// looks like two.
    pub(crate) fn strong_e_tag(&self) -> Option<&str> {
        let is_strong = |e_tag: &&str| {
            !e_tag.starts_with("W/") && !e_tag.contains(',') && *e_tag != "*" && !e_tag.is_empty()
        };
        self.e_tag.as_deref().filter(is_strong)
    }

    /// Whether an answer is of this version: by its e-tag, or by size and time of change, which are
    /// all there is without one.
    pub(crate) fn is_of(&self, meta: &ObjectMeta) -> bool {
        match self.strong_e_tag() {
            Some(e_tag) => meta.e_tag.as_deref() == Some(e_tag) && self.size == meta.size,
            None => self.is(meta),
        }
    }

    /// Whether it is this version in every respect.
    pub(crate) fn is(&self, meta: &ObjectMeta) -> bool {
        self.e_tag == meta.e_tag
            && self.size == meta.size
            && self.modified_seconds == meta.last_modified.timestamp()
            && self.modified_nanos == meta.last_modified.timestamp_subsec_nanos()
    }

    pub(crate) fn blocks(&self) -> u64 {
        self.size.div_ceil(self.block_bytes)
    }

    /// The blocks that cover a range of the object.
    pub(crate) fn blocks_of(&self, range: &Range<u64>) -> Range<u64> {
        if range.is_empty() {
            return 0..0;
        }
        range.start / self.block_bytes..range.end.div_ceil(self.block_bytes)
    }

    /// The bytes of a run of blocks.
    pub(crate) fn bytes_of(&self, blocks: &Range<u64>) -> Range<u64> {
        let end = blocks.end.saturating_mul(self.block_bytes).min(self.size);
        blocks.start.saturating_mul(self.block_bytes)..end
    }

    /// The blocks that a piece of the object, which begins at `start`, has as a whole.
    pub(crate) fn whole_blocks(&self, start: u64, bytes: &Bytes) -> (u64, Vec<Bytes>) {
        let end = start.saturating_add(bytes.len() as u64);
        let first = start.div_ceil(self.block_bytes);
        let last = if end >= self.size { self.blocks() } else { end / self.block_bytes };
        let cut = |index| {
            let range = self.bytes_of(&(index..index + 1));
            bytes.slice(within(range.start - start)..within(range.end - start))
        };
        // Bounded: by the bytes, of one request.
        (first, (first..last).map(cut).collect())
    }
}

/// A place within bytes that are in memory.
pub(crate) fn within(place: u64) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

fn encoded((attribute, value): (&Attribute, &AttributeValue)) -> Option<(u8, String, String)> {
    let (kind, name) = match attribute {
        Attribute::ContentDisposition => (0, ""),
        Attribute::ContentEncoding => (1, ""),
        Attribute::ContentLanguage => (2, ""),
        Attribute::ContentType => (3, ""),
        Attribute::CacheControl => (4, ""),
        Attribute::StorageClass => (5, ""),
        Attribute::Metadata(name) => (6, name.as_ref()),
        _ => return None,
    };
    Some((kind, name.to_owned(), value.as_ref().to_owned()))
}

fn decoded((kind, name, value): &(u8, String, String)) -> Option<(Attribute, AttributeValue)> {
    let attribute = match kind {
        0 => Attribute::ContentDisposition,
        1 => Attribute::ContentEncoding,
        2 => Attribute::ContentLanguage,
        3 => Attribute::ContentType,
        4 => Attribute::CacheControl,
        5 => Attribute::StorageClass,
        6 => Attribute::Metadata(name.clone().into()),
        _ => return None,
    };
    Some((attribute, value.clone().into()))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    pub(crate) fn object(size: u64) -> (Object, ObjectMeta, Attributes) {
        let meta = ObjectMeta {
            location: Path::from("a"),
            last_modified: DateTime::from_timestamp(1_700_000_000, 7).unwrap(),
            size,
            e_tag: Some("\"e\"".into()),
            version: Some("3".into()),
        };
        let mut attributes = Attributes::new();
        let all = [
            Attribute::ContentDisposition,
            Attribute::ContentEncoding,
            Attribute::ContentLanguage,
            Attribute::ContentType,
            Attribute::CacheControl,
            Attribute::StorageClass,
            Attribute::Metadata("a".into()),
            Attribute::Metadata("b".into()),
        ];
        for (number, attribute) in all.into_iter().enumerate() {
            attributes.insert(attribute, number.to_string().into());
        }
        (Object::new(&meta, &attributes, 10).unwrap(), meta, attributes)
    }

    #[test]
    fn each_difference_is_another_version() {
        let (object, meta, _) = object(25);
        let later = meta.last_modified + Duration::from_nanos(1);
        let others = [
            ObjectMeta { size: 26, ..meta.clone() },
            ObjectMeta { e_tag: Some("\"f\"".into()), ..meta.clone() },
            ObjectMeta { e_tag: None, ..meta.clone() },
            ObjectMeta { last_modified: later, ..meta.clone() },
        ];
        for other in others {
            assert!(!object.is(&other), "{other:?}");
            let is_of = other.last_modified == later;
            assert_eq!(object.is_of(&other), is_of, "{other:?}");
        }
        let without = Object { e_tag: None, ..object };
        let meta = ObjectMeta { e_tag: None, ..meta };
        assert!(without.is_of(&meta));
        assert!(!without.is_of(&ObjectMeta { last_modified: later, ..meta }));
    }

    #[test]
    fn weak_and_odd_e_tags_are_not_sent_back() {
        let (mut object, ..) = object(25);
        assert_eq!(object.strong_e_tag(), Some("\"e\""));
        for odd in ["W/\"e\"", "\"a,b\"", "*", ""] {
            object.e_tag = Some(odd.into());
            assert_eq!(object.strong_e_tag(), None, "{odd}");
        }
    }

    #[test]
    fn pieces_are_cut_into_whole_blocks() {
        let (object, ..) = object(25);
        let all = Bytes::from((0..25).collect::<Vec<u8>>());
        assert_eq!(object.blocks(), 3);
        assert_eq!(object.blocks_of(&(9..11)), 0..2);
        assert_eq!(object.blocks_of(&(20..25)), 2..3);
        assert_eq!(object.blocks_of(&(5..5)), 0..0);
        let cut = |range: Range<usize>| {
            let (first, blocks) = object.whole_blocks(range.start as u64, &all.slice(range));
            (first, blocks.iter().map(|block| (block[0], block.len())).collect::<Vec<_>>())
        };
        assert_eq!(cut(0..25), (0, vec![(0, 10), (10, 10), (20, 5)]));
        assert_eq!(cut(0..19), (0, vec![(0, 10)]));
        assert_eq!(cut(5..25), (1, vec![(10, 10), (20, 5)]));
        assert_eq!(cut(5..9), (1, vec![]));
    }
}
