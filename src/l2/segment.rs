//! The header block of a segment, written ahead of need. `docs/format.md`, section 5.

use super::checksum::{ChecksumKey, Domain, checksum};
use super::error::DecodeError;
use super::format::{
    BLOCK_BYTES, BLOCK_CHECKSUM_OFFSET, OpenCount, OpenRange, SEGMENT_MAGIC, SegmentNumber, StoreId,
};
use super::wire::{Reader, Sink};

/// Identifies a segment. The frames behind the header identify themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) store_id: StoreId,
    /// Its number in the log, not its place in the file.
    pub(crate) number: SegmentNumber,
    pub(crate) open_count: OpenCount,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut bytes = Vec::with_capacity(BLOCK_BYTES);
        bytes.bytes(&SEGMENT_MAGIC);
        bytes.bytes(&self.store_id.0);
        bytes.u64(self.number.0);
        bytes.u32(self.open_count.0);
        bytes.resize(BLOCK_CHECKSUM_OFFSET, 0);
        let checksum = checksum(&bytes, self.seed());
        let mut block = [0; BLOCK_BYTES];
        let sum = checksum.to_le_bytes();
        // Bounded: by the bytes of a header.
        for (to, from) in block.iter_mut().zip(bytes.iter().chain(&sum)) {
            *to = *from;
        }
        block
    }

    /// The header of segment `number`, from its first block.
    ///
    /// # Errors
    /// `Truncated`, `Magic`, `Misplaced` for another store or segment, `OpenCount`, `Checksum`,
    /// `Field`.
    pub(crate) fn decode(
        block: &[u8],
        store_id: StoreId,
        number: SegmentNumber,
        opens: OpenRange,
    ) -> Result<Self, DecodeError> {
        Self::decode_if(block, |header| {
            if header.store_id != store_id || header.number != number {
                return Err(DecodeError::Misplaced);
            }
            opens.check(header.open_count).map(drop)
        })
    }

    /// The header of any segment of a store, of any open.
    ///
    /// # Errors
    /// As for `decode`.
    pub(crate) fn identify(block: &[u8], store_id: StoreId) -> Result<Self, DecodeError> {
        Self::decode_if(block, |header| match header.store_id == store_id {
            true => Ok(()),
            false => Err(DecodeError::Misplaced),
        })
    }

    fn decode_if(
        block: &[u8],
        check: impl FnOnce(&Self) -> Result<(), DecodeError>,
    ) -> Result<Self, DecodeError> {
        let block = block.first_chunk::<BLOCK_BYTES>().ok_or(DecodeError::Truncated)?;
        let (covered, sum) = block.split_at(BLOCK_CHECKSUM_OFFSET);
        let mut reader = Reader::new(covered);
        if reader.array()? != SEGMENT_MAGIC {
            return Err(DecodeError::Magic);
        }
        let header = Self {
            store_id: StoreId(reader.array()?),
            number: SegmentNumber(reader.u64()?),
            open_count: OpenCount(reader.u32()?),
        };
        check(&header)?;
        if Reader::new(sum).u64()? != checksum(covered, header.seed()) {
            return Err(DecodeError::Checksum);
        }
        let rest = reader.rest().len();
        reader.zeros(rest)?;
        Ok(header)
    }

    fn seed(&self) -> u64 {
        ChecksumKey::new(self.store_id).seed(Domain::Segment, self.number.0, self.open_count)
    }
}
