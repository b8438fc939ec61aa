//! Superblocks and segment headers: flips, the choice between copies, other versions.

use rand::RngExt;

use super::super::checksum::unkeyed_checksum;
use super::super::error::{DecodeError, EncodeError};
use super::super::format::{
    BLOCK_BYTES, FORMAT_VERSION, GenerationNumber, OpenCount, OpenRange, SegmentNumber, StoreId,
};
use super::super::segment::SegmentHeader;
use super::super::superblock::{CrashSafety, Superblock, SuperblockCopy, SuperblockError};
use super::{OPEN, OPENS, STORE, geometry, position, seeded};
use crate::rounds::rounds;

pub(super) fn superblock() -> Superblock {
    Superblock {
        write_counter: 9,
        store_id: STORE,
        hash_key: 0x1122_3344_5566_7788,
        geometry: geometry(),
        created_ns: 1_700_000_000_000_000_000,
        open_count: OPEN,
        crash_safety: CrashSafety::Process,
        clean: true,
        void: false,
        boot_id: [9; 16],
        newest: SegmentNumber(21),
        head: position(6 << 20),
        tail: position((21 << 20) + 4096 + 800),
        generation_floor: GenerationNumber(77),
    }
}

/// The block with another version and good checksums.
fn with_version(mut block: [u8; BLOCK_BYTES], version: u32) -> [u8; BLOCK_BYTES] {
    block[8..12].copy_from_slice(&version.to_le_bytes());
    let check = unkeyed_checksum(&block[..12]).to_le_bytes();
    block[12..16].copy_from_slice(&check[..4]);
    with_checksum(block)
}

fn with_checksum(mut block: [u8; BLOCK_BYTES]) -> [u8; BLOCK_BYTES] {
    let checksum = unkeyed_checksum(&block[..4088]).to_le_bytes();
    block[4088..].copy_from_slice(&checksum);
    block
}

#[test]
fn superblocks_round_trip() {
    let mut rng = seeded(21);
    for _ in 0..rounds(2000, 5) {
        let head = rng.random_range(0..1 << 40);
        let newest = head / (1 << 20) + rng.random_range(0..16);
        let tail = rng.random_range(head..=(newest + 1) << 20);
        let written = Superblock {
            write_counter: rng.random(),
            store_id: StoreId(rng.random()),
            hash_key: rng.random(),
            created_ns: rng.random(),
            open_count: OpenCount(rng.random()),
            crash_safety: [CrashSafety::Cold, CrashSafety::Process, CrashSafety::Power]
                [rng.random_range(0..3)],
            clean: rng.random(),
            void: rng.random(),
            boot_id: rng.random(),
            newest: SegmentNumber(newest),
            head: position(head & !7),
            tail: position(tail & !7),
            generation_floor: GenerationNumber(rng.random()),
            geometry: geometry(),
        };
        assert_eq!(Superblock::decode(&written.encode().unwrap()), Ok(written));
    }
}

#[test]
fn every_flip_and_truncation_is_detected() {
    let mut rng = seeded(22);
    let superblock = superblock();
    let header = SegmentHeader { store_id: STORE, number: SegmentNumber(6), open_count: OPEN };
    let (mut block, mut segment) = (superblock.encode().unwrap(), header.encode());
    let decode = |block: &[u8]| SegmentHeader::decode(block, STORE, SegmentNumber(6), OPENS);
    assert_eq!(decode(&segment), Ok(header));
    for index in 0..BLOCK_BYTES {
        let noise = rng.random_range(1..=255);
        for mask in (0..8).map(|bit| 1u8 << bit).chain([noise]) {
            block[index] ^= mask;
            let verdict = Superblock::decode(&block);
            assert!(
                matches!(verdict, Err(SuperblockError::Damaged(_))),
                "byte {index} flipped by {mask:#x}"
            );
            block[index] ^= mask;
            segment[index] ^= mask;
            assert!(decode(&segment).is_err(), "byte {index} flipped by {mask:#x}");
            segment[index] ^= mask;
        }
        let truncated = Err(SuperblockError::Damaged(DecodeError::Truncated));
        assert_eq!(Superblock::decode(&block[..index]), truncated);
        assert_eq!(decode(&segment[..index]), Err(DecodeError::Truncated));
    }
}

#[test]
fn the_good_copy_with_the_higher_counter_is_chosen() {
    use SuperblockCopy::{First, Second};

    let older = superblock();
    let newer = Superblock { write_counter: 10, clean: false, ..older };
    let (a, b) = (older.encode().unwrap(), newer.encode().unwrap());
    assert_eq!(Superblock::choose(&a, &b), Ok((newer, Second)));
    assert_eq!(Superblock::choose(&b, &a), Ok((newer, First)));
    assert_eq!(Superblock::choose(&a, &a), Ok((older, First)));
    let mut torn = b;
    torn[100] ^= 1;
    let zeros = [0; BLOCK_BYTES];
    for bad in [&torn[..], &zeros, &b[..4000], &[]] {
        assert_eq!(Superblock::choose(&a, bad), Ok((older, First)));
        assert_eq!(Superblock::choose(bad, &a), Ok((older, Second)));
    }
    let damaged = Err(SuperblockError::Damaged(DecodeError::Checksum));
    assert_eq!(Superblock::choose(&torn, &torn), damaged);
    assert_eq!(Superblock::choose(&zeros, &torn), damaged);
    assert_eq!(Superblock::choose(&torn, &zeros), damaged);
    assert_eq!(Superblock::choose(&zeros, &zeros), Err(SuperblockError::Blank));
    // The first superblock ever written, torn by a power loss.
    for lost in [0..512, BLOCK_BYTES - 512..BLOCK_BYTES] {
        let mut half = a;
        half[lost].fill(0);
        assert_eq!(Superblock::choose(&half, &zeros), Err(SuperblockError::Blank));
        assert!(matches!(Superblock::choose(&half, &torn), Err(SuperblockError::Damaged(_))));
    }
}

#[test]
fn another_version_is_told_from_damage() {
    let good = superblock().encode().unwrap();
    for version in [0, 2, u32::MAX] {
        let refused = Err(SuperblockError::Version { found: version, supported: FORMAT_VERSION });
        let mut other = with_version(good, version);
        assert_eq!(Superblock::choose(&other, &good), refused);
        assert_eq!(Superblock::choose(&good, &other), refused);
        // Only the first 16 bytes are frozen; the rest of another version is unknown.
        other[16..].fill(0x5a);
        assert_eq!(Superblock::choose(&other, &[0; BLOCK_BYTES]), refused);
    }
    // A flipped bit in the version is damage, not another version.
    let mut flipped = good;
    flipped[8] ^= 2;
    assert_eq!(Superblock::choose(&flipped, &good), Ok((superblock(), SuperblockCopy::Second)));
}

#[test]
fn fields_out_of_bounds_are_refused_by_both_sides() {
    let good = superblock();
    let empty = Superblock { head: position(22 << 20), tail: position(22 << 20), ..good };
    assert_eq!(Superblock::decode(&empty.encode().unwrap()), Ok(empty));
    for bad in [
        Superblock { head: position((22 << 20) + 8), ..good },
        Superblock { tail: position((22 << 20) + 8), ..good },
        Superblock { tail: position(0), ..good },
        Superblock { head: position(0), ..good },
        Superblock { newest: SegmentNumber(1 << 45), ..good },
        Superblock { newest: SegmentNumber(u64::MAX), ..good },
    ] {
        assert_eq!(bad.encode(), Err(EncodeError::Field));
    }
    let block = good.encode().unwrap();
    // Size and number of segments, mode, marks, reserved bytes, alignment of the head, padding.
    for (offset, value) in
        [(48, 1), (48 + 3, 0xff), (52, 1), (68, 3), (69, 4), (70, 1), (96, 4), (120, 1), (4087, 1)]
    {
        let mut block = block;
        block[offset] = value;
        let verdict = Superblock::decode(&with_checksum(block));
        assert_eq!(
            verdict,
            Err(SuperblockError::Damaged(DecodeError::Field)),
            "the field at {offset}"
        );
    }
}

#[test]
fn garbage_is_refused() {
    let mut rng = seeded(23);
    let good = superblock().encode().unwrap();
    for _ in 0..rounds(3000, 3) {
        let mut block = good;
        rng.fill(&mut block[16..120]);
        // Random fields under a good checksum: no panic, and accepted ones encode to the same.
        let block = with_checksum(block);
        if let Ok(superblock) = Superblock::decode(&block) {
            assert_eq!(superblock.encode().unwrap(), block);
        }
        let mut noise = [0; BLOCK_BYTES];
        rng.fill(&mut noise[..]);
        assert!(Superblock::decode(&noise).is_err());
    }
}

#[test]
fn a_segment_header_belongs_to_one_segment_of_one_store() {
    let number = SegmentNumber(6);
    let block = SegmentHeader { store_id: STORE, number, open_count: OPEN }.encode();
    let decode = |store, number, opens| SegmentHeader::decode(&block, store, number, opens).err();
    assert_eq!(decode(STORE, number, OPENS), None);
    assert_eq!(decode(StoreId([8; 16]), number, OPENS), Some(DecodeError::Misplaced));
    assert_eq!(decode(STORE, SegmentNumber(22), OPENS), Some(DecodeError::Misplaced));
    let later = OpenRange::only(OpenCount(4));
    assert_eq!(decode(STORE, number, later), Some(DecodeError::OpenCount));
}
