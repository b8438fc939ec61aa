//! `ImageHeader`: what an image belongs to, and what there is of it. `docs/format.md`, section 9.

use crate::l2::checksum::{ChecksumKey, Domain, checksum};
use crate::l2::error::DecodeError;
use crate::l2::format::{
    BLOCK_BYTES, BLOCK_CHECKSUM_OFFSET, IMAGE_MAGIC, OpenCount, Position, StoreId,
};
use crate::l2::wire::{Reader, Sink};

/// A length and a checksum.
const ROW_BYTES: usize = 12;

/// The longest chunk that is read.
pub(super) const CHUNK_BYTES_MAX: usize = 16 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ImageHeader {
    pub(super) ties: Ties,
    pub(super) slots: u64,
    pub(super) postings: u64,
    pub(super) namespaces: u32,
    pub(super) chunks: u32,
    /// Of the whole image in bytes, this block included.
    pub(super) length: u64,
    /// The checksum of the table of chunks.
    pub(super) table_sum: u64,
}

/// The one state of a store to which an image belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ties {
    pub(super) store_id: StoreId,
    pub(super) open_count: OpenCount,
    pub(super) key_hash_bits: u32,
    pub(super) head: Position,
    pub(super) tail: Position,
}

/// A row of the table of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkRow {
    pub(super) length: u32,
    pub(super) sum: u64,
}

impl ImageHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Ties { store_id, open_count, key_hash_bits, head, tail } = self.ties;
        let mut bytes = Vec::with_capacity(BLOCK_BYTES);
        bytes.bytes(&IMAGE_MAGIC);
        bytes.bytes(&store_id.0);
        bytes.u32(open_count.0);
        bytes.u32(key_hash_bits);
        bytes.u64(head.value());
        bytes.u64(tail.value());
        bytes.u64(self.slots);
        bytes.u64(self.postings);
        bytes.u32(self.namespaces);
        bytes.u32(self.chunks);
        bytes.u64(self.length);
        bytes.u64(self.table_sum);
        bytes.resize(BLOCK_CHECKSUM_OFFSET, 0);
        let sum = checksum(&bytes, self.ties.seed(Domain::Image, 0));
        bytes.u64(sum);
        bytes
    }

    /// The header in the first block of an image.
    ///
    /// # Errors
    /// Why it is none.
    pub(super) fn decode(block: &[u8]) -> Result<Self, DecodeError> {
        let block = block.first_chunk::<BLOCK_BYTES>().ok_or(DecodeError::Truncated)?;
        let (covered, sum) = block.split_at(BLOCK_CHECKSUM_OFFSET);
        let mut reader = Reader::new(covered);
        if reader.array()? != IMAGE_MAGIC {
            return Err(DecodeError::Magic);
        }
        let ties = Ties {
            store_id: StoreId(reader.array()?),
            open_count: OpenCount(reader.u32()?),
            key_hash_bits: reader.u32()?,
            head: Position::new(reader.u64()?).ok_or(DecodeError::Field)?,
            tail: Position::new(reader.u64()?).ok_or(DecodeError::Field)?,
        };
        let header = Self {
            ties,
            slots: reader.u64()?,
            postings: reader.u64()?,
            namespaces: reader.u32()?,
            chunks: reader.u32()?,
            length: reader.u64()?,
            table_sum: reader.u64()?,
        };
        if Reader::new(sum).u64()? != checksum(covered, ties.seed(Domain::Image, 0)) {
            return Err(DecodeError::Checksum);
        }
        let rest = reader.rest().len();
        reader.zeros(rest)?;
        Ok(header)
    }

    /// The bytes of the table of chunks, without padding.
    pub(super) fn table_bytes(&self) -> usize {
        self.chunks as usize * ROW_BYTES
    }

    /// Where the table begins in the image, if the length has room for it.
    pub(super) fn table_offset(&self) -> Option<u64> {
        let table = self.table_bytes().next_multiple_of(BLOCK_BYTES) as u64;
        self.length.checked_sub(table).filter(|offset| *offset >= BLOCK_BYTES as u64)
    }
}

impl Ties {
    pub(super) fn seed(&self, domain: Domain, place: u64) -> u64 {
        ChecksumKey::new(self.store_id).seed(domain, place, self.open_count)
    }
}

impl ChunkRow {
    pub(super) fn write(self, into: &mut impl Sink) {
        into.u32(self.length);
        into.u64(self.sum);
    }

    /// # Errors
    /// `Truncated`, or `Length` if no chunk is so long.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let row = Self { length: reader.u32()?, sum: reader.u64()? };
        let is_possible = (1..=CHUNK_BYTES_MAX).contains(&(row.length as usize));
        if is_possible { Ok(row) } else { Err(DecodeError::Length) }
    }

    /// Bytes that the chunk takes.
    pub(super) fn padded(self) -> u64 {
        (self.length as usize).next_multiple_of(BLOCK_BYTES) as u64
    }
}
