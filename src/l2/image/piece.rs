//! `Piece`: a part of the index as a chunk of an image holds it. `docs/format.md`, section 9.

use std::ops::Range;
use std::sync::Arc;

use super::ClosedNamespace;
use crate::clock::Timestamp;
use crate::l2::blob::NamedGeneration;
use crate::l2::error::DecodeError;
use crate::l2::format::{GenerationNumber, NAME_BYTES_MAX, Position};
use crate::l2::index::StoredTable;
use crate::l2::wire::{Measure, Reader, Sink};
use crate::labels::{PostingsPart, PostingsShape, StoredChunk};

const KIND_NAMESPACE: u8 = 1;
const KIND_TABLE: u8 = 2;

/// A kind, and three numbers.
const POSTINGS_HEAD_BYTES: usize = 13;

/// In place of a limit.
const UNLIMITED: u64 = u64::MAX;

/// What is known of a namespace before its tables and postings.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StoredNamespace {
    pub(super) name: Box<str>,
    pub(super) generation: GenerationNumber,
    pub(super) alive_until: Timestamp,
    pub(super) l2_bytes_max: Option<u64>,
    pub(super) tables: usize,
    pub(super) shape: PostingsShape,
}

pub(super) enum Piece {
    Namespace(StoredNamespace),
    Table(StoredTable),
    /// The number of its first item, and the items.
    Postings(u32, StoredChunk),
}

/// A piece that is to be written.
#[derive(Clone)]
pub(super) struct PieceSource {
    pub(super) namespace: Arc<dyn ClosedNamespace>,
    pub(super) part: Part,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Namespace(PostingsShape),
    Table(usize),
    Postings { part: PostingsPart, first: u32, items: u32, places: u32 },
}

impl PieceSource {
    /// Writes the piece. False if it cannot be in an image.
    pub(super) fn write(&self, into: &mut impl Sink) -> bool {
        match self.part {
            Part::Namespace(shape) => self.write_namespace(shape, into),
            Part::Table(number) => {
                into.u8(KIND_TABLE);
                self.namespace.index().store_table(number, into)
            }
            Part::Postings { part, first, items, places } => {
                into.u8(kind_of(part));
                into.u32(first);
                into.u32(items);
                into.u32(places);
                let mut add = |item: &[u8]| into.bytes(item);
                let stored = self.namespace.postings().store_chunk(part, first, &mut add);
                stored == items as usize
            }
        }
    }

    fn write_namespace(&self, shape: PostingsShape, into: &mut impl Sink) -> bool {
        let NamedGeneration { name, generation } = self.namespace.named();
        let Ok(tables) = u32::try_from(self.namespace.index().tables()) else { return false };
        into.u8(KIND_NAMESPACE);
        into.prefixed(name.as_bytes());
        into.u64(generation.0);
        into.u64(self.namespace.alive_until().0);
        into.u64(self.namespace.l2_bytes_max().unwrap_or(UNLIMITED));
        into.u32(tables);
        into.u32(shape.places);
        into.u32(shape.holes);
        into.u32(shape.first_hole);
        into.u32(shape.lists);
        into.u32(shape.key_buckets);
        into.u32(shape.label_buckets);
        true
    }

    /// The bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        match self.part {
            Part::Namespace(shape) => {
                let mut measure = Measure::default();
                self.write_namespace(shape, &mut measure);
                measure.0
            }
            Part::Table(number) => 1 + self.namespace.index().stored_bytes(number),
            Part::Postings { part, items, .. } => {
                POSTINGS_HEAD_BYTES + items as usize * part.item_bytes()
            }
        }
    }
}

impl Piece {
    /// Reads the next piece, whose positions must lie within `log`.
    ///
    /// # Errors
    /// Why it is none.
    pub(super) fn read(
        reader: &mut Reader<'_>,
        log: &Range<Position>,
    ) -> Result<Self, DecodeError> {
        let kind = reader.u8()?;
        match kind {
            KIND_NAMESPACE => StoredNamespace::read(reader).map(Self::Namespace),
            KIND_TABLE => StoredTable::read(reader, log).map(Self::Table),
            _ => {
                // Bounded: three.
                let part = PostingsPart::ALL.into_iter().find(|part| kind_of(*part) == kind);
                let part = part.ok_or(DecodeError::Kind(kind))?;
                let (first, count, places) = (reader.u32()?, reader.u32()?, reader.u32()?);
                let bytes = (count as usize).checked_mul(part.item_bytes());
                let items = reader.take(bytes.ok_or(DecodeError::Length)?)?;
                let chunk = StoredChunk::read(part, items, places).ok_or(DecodeError::Field)?;
                Ok(Self::Postings(first, chunk))
            }
        }
    }
}

impl StoredNamespace {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: reader.text(NAME_BYTES_MAX)?.into(),
            generation: GenerationNumber(reader.u64()?),
            alive_until: Timestamp(reader.u64()?),
            l2_bytes_max: Some(reader.u64()?).filter(|max| *max != UNLIMITED),
            tables: reader.u32()? as usize,
            shape: PostingsShape {
                places: reader.u32()?,
                holes: reader.u32()?,
                first_hole: reader.u32()?,
                lists: reader.u32()?,
                key_buckets: reader.u32()?,
                label_buckets: reader.u32()?,
            },
        })
    }
}

const fn kind_of(part: PostingsPart) -> u8 {
    match part {
        PostingsPart::Postings => 3,
        PostingsPart::BucketsOfKeys => 4,
        PostingsPart::BucketsOfLabels => 5,
    }
}
