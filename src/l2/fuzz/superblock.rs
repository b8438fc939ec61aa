//! Superblocks and headers of segments: what is chosen encodes again to the same block.

use super::{OPENS, SEALED, SEGMENT, STORE, key};
use crate::l2::checksum::{Domain, checksum, unkeyed_checksum};
use crate::l2::format::{BLOCK_BYTES, BLOCK_CHECKSUM_OFFSET, FORMAT_VERSION, OpenCount};
use crate::l2::segment::SegmentHeader;
use crate::l2::superblock::{Superblock, SuperblockCopy, SuperblockError};

/// In the first byte of an input: the second copy's checksums are set right, too.
const SECOND_SEALED: u8 = 2;

/// In the first byte of an input: it is the header of a segment.
const OF_SEGMENT: u8 = 4;

const OPEN_COUNT: usize = 32;

/// Any bytes, as the two blocks at the start of a store or as the first block of a segment. Two
/// bytes say how long the first copy is; all that is missing is zero.
pub(crate) fn superblock(bytes: &[u8]) {
    let Some((&[mode, low, high], bytes)) = bytes.split_first_chunk() else { return };
    if mode & OF_SEGMENT != 0 {
        return header(bytes, mode);
    }
    let length = usize::from(u16::from_le_bytes([low, high])).min(bytes.len());
    let (first, second) = bytes.split_at(length);
    let first = block(first, mode & SEALED != 0);
    let second = block(second, mode & SECOND_SEALED != 0);
    let (chosen, other) = match Superblock::choose(&first, &second) {
        Ok((chosen, copy)) => {
            let (block, other) = match copy {
                SuperblockCopy::First => (first, second),
                SuperblockCopy::Second => (second, first),
            };
            assert_eq!(chosen.encode().as_ref(), Ok(&block));
            (chosen, other)
        }
        Err(SuperblockError::Version { found, supported }) => {
            assert!(found != supported && supported == FORMAT_VERSION);
            return;
        }
        Err(_) => return,
    };
    if let Ok((other, _)) = Superblock::choose(&other, &other) {
        assert!(other.write_counter <= chosen.write_counter);
    }
    let head = chosen.head_at(chosen.tail);
    assert!(head.is_none_or(|head| head >= chosen.head));
}

/// A block that begins with these bytes.
fn block(bytes: &[u8], is_sealed: bool) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let length = bytes.len().min(BLOCK_BYTES);
    block[..length].copy_from_slice(&bytes[..length]);
    if is_sealed {
        let check = unkeyed_checksum(&block[..12]).to_le_bytes();
        block[12..16].copy_from_slice(&check[..4]);
        let sum = unkeyed_checksum(&block[..BLOCK_CHECKSUM_OFFSET]).to_le_bytes();
        block[BLOCK_CHECKSUM_OFFSET..].copy_from_slice(&sum);
    }
    block
}

fn header(bytes: &[u8], mode: u8) {
    let mut block = block(bytes, false);
    if mode & SEALED != 0 {
        let count = block[OPEN_COUNT..].first_chunk().map_or(0, |count| u32::from_le_bytes(*count));
        let seed = key().seed(Domain::Segment, SEGMENT.0, OpenCount(count));
        let sum = checksum(&block[..BLOCK_CHECKSUM_OFFSET], seed).to_le_bytes();
        block[BLOCK_CHECKSUM_OFFSET..].copy_from_slice(&sum);
    }
    if let Ok(header) = SegmentHeader::decode(&block, STORE, SEGMENT, OPENS) {
        assert_eq!(header.encode(), block);
    }
}
