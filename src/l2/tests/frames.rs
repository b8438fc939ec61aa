//! Frames: round trips, every flip (bodies and padding included), truncation, garbage.

use rand::RngExt;
use rand::rngs::StdRng;

use super::super::checksum::ChecksumKey;
use super::super::error::{DecodeError, EncodeError};
use super::super::format::{OpenCount, OpenRange, Position, StoreId};
use super::super::frame::{Frame, FrameBuilder, FrameCheck, FrameHeader};
use super::super::record::{RecordHead, seal};
use super::{OPEN, OPENS, Sample, geometry, position, seeded, store_key};
use crate::rounds::rounds;

const AT: u64 = (5 << 20) + 4096 + 120;

fn encode(samples: &[Sample], at: Position) -> Vec<u8> {
    let mut builder = FrameBuilder::new(store_key(), at, OPEN, geometry());
    let mut records = Vec::new();
    for sample in samples {
        let next = builder.next_position().unwrap();
        assert_eq!(next.value(), at.value() + 32 + records.len() as u64);
        let (bytes, lengths, checksum) = sample.encode(next);
        builder.add(lengths, checksum).unwrap();
        records.extend_from_slice(&bytes);
        records.resize(records.len() + lengths.padded() - lengths.total(), 0);
    }
    assert_eq!(builder.length(), 32 + records.len());
    assert_eq!(builder.records() as usize, samples.len());
    let mut frame = builder.finish().unwrap().to_vec();
    frame.extend_from_slice(&records);
    frame
}

fn samples(rng: &mut StdRng, max: usize) -> Vec<Sample> {
    (0..rng.random_range(1..=max)).map(|_| Sample::new(rng)).collect()
}

fn verify(bytes: &[u8]) -> Result<(), DecodeError> {
    Frame::decode(bytes, store_key(), position(AT), OPENS, geometry())?.verify_bodies()
}

#[test]
fn frames_round_trip() {
    let mut rng = seeded(11);
    for _ in 0..rounds(400, 4) {
        let samples = samples(&mut rng, 20);
        let mut bytes = encode(&samples, position(AT));
        let length = bytes.len();
        bytes.extend_from_slice(b"whatever follows");
        let frame = Frame::decode(&bytes, store_key(), position(AT), OPENS, geometry()).unwrap();
        assert_eq!(frame.header.length as usize, length);
        assert_eq!(frame.records().count(), samples.len());
        for (found, sample) in frame.records().zip(&samples) {
            assert_eq!(found.head.record, sample.record());
            assert_eq!(found.body, sample.body);
        }
        assert_eq!(frame.verify_bodies(), Ok(()));
    }
}

#[test]
fn a_frame_can_be_checked_head_by_head() {
    let mut rng = seeded(12);
    let bytes = encode(&samples(&mut rng, 20), position(AT));
    let header = FrameHeader::decode(&bytes[..32], position(AT), OPENS, geometry()).unwrap();
    let mut check = FrameCheck::new(store_key(), header);
    while let Some(offset) = check.next_offset() {
        let at = position(AT + offset as u64);
        let head = RecordHead::decode(&bytes[offset..], store_key(), at, OPENS).unwrap();
        let lengths = head.lengths;
        let padding = &bytes[offset + lengths.total()..offset + lengths.padded()];
        check.add(&head, padding).unwrap();
    }
    assert_eq!(check.finish(), Ok(()));
    let check = FrameCheck::new(store_key(), header);
    assert_eq!(check.finish(), Err(DecodeError::Length));
}

#[test]
fn every_flip_is_detected() {
    let mut rng = seeded(13);
    for _ in 0..12 {
        let mut bytes = encode(&samples(&mut rng, 5), position(AT));
        for index in 0..bytes.len() {
            let noise = rng.random_range(1..=255);
            for mask in (0..8).map(|bit| 1u8 << bit).chain([noise]) {
                bytes[index] ^= mask;
                assert!(verify(&bytes).is_err(), "byte {index} flipped by {mask:#x}");
                bytes[index] ^= mask;
            }
        }
        assert_eq!(verify(&bytes), Ok(()));
    }
}

#[test]
fn every_truncation_and_every_torn_sector_is_detected() {
    let mut rng = seeded(14);
    let samples: Vec<_> = (0..12).map(|_| Sample::of_kind(&mut rng, 1)).collect();
    let bytes = encode(&samples, position(AT));
    for length in 0..bytes.len() {
        assert_eq!(verify(&bytes[..length]), Err(DecodeError::Truncated));
    }
    for sector in 0..bytes.len().div_ceil(512) {
        for stale in [0, 0xa5] {
            let mut torn = bytes.clone();
            torn.iter_mut().skip(sector * 512).take(512).for_each(|byte| *byte = stale);
            assert!(verify(&torn).is_err());
        }
    }
}

#[test]
fn records_cannot_be_exchanged_dropped_or_repeated() {
    let mut rng = seeded(15);
    let sample = Sample::of_kind(&mut rng, 2);
    let bytes = encode(&[sample], position(AT));
    // A record with another content and a good checksum: the frame's covers the heads'.
    let mut changed = bytes.clone();
    changed[32 + 20 + 1] ^= 1;
    let at = position(AT + 32);
    if seal(&mut changed[32..], store_key(), at, OPEN).is_ok() {
        assert!(verify(&changed).is_err());
    }
    // A record of another open.
    let mut changed = bytes.clone();
    seal(&mut changed[32..], store_key(), at, OpenCount(4)).unwrap();
    assert_eq!(verify(&changed), Err(DecodeError::OpenCount));
    for count in [0, 2] {
        let mut changed = bytes.clone();
        changed[16] = count;
        assert!(verify(&changed).is_err());
    }
}

#[test]
fn another_place_store_or_open_is_damage() {
    let bytes = encode(&samples(&mut seeded(16), 3), position(AT));
    let decode = |key, at: u64, opens| {
        Frame::decode(&bytes, key, position(at), opens, geometry()).map(|_| ()).unwrap_err()
    };
    // The next segment at the same place of the file.
    assert_eq!(decode(store_key(), AT + (16 << 20), OPENS), DecodeError::Misplaced);
    let later = OpenRange::only(OpenCount(4));
    assert_eq!(decode(store_key(), AT, later), DecodeError::OpenCount);
    let other = ChecksumKey::new(StoreId([8; 16]));
    assert_eq!(decode(other, AT, OPENS), DecodeError::Checksum);
}

#[test]
fn garbage_behind_a_plausible_header_is_refused() {
    let mut rng = seeded(17);
    let good = encode(&samples(&mut rng, 3), position(AT));
    for _ in 0..rounds(20_000, 20) {
        let mut bytes = good.clone();
        let from = rng.random_range(0..bytes.len());
        rng.fill(&mut bytes[from..]);
        if from < 12 {
            bytes[8..12].copy_from_slice(b"tFRM");
        }
        if bytes != good {
            assert!(verify(&bytes).is_err());
        }
        let random = rng.random_range(0..bytes.len());
        assert!(verify(&bytes[random..]).is_err() || random == 0);
    }
}

#[test]
fn a_checked_frame_allocates_one_checksum_state() {
    let bytes = encode(&samples(&mut seeded(18), 20), position(AT));
    let mut damaged = bytes.clone();
    damaged[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    for bytes in [bytes, damaged] {
        let info = allocation_counter::measure(|| {
            let _ = Frame::decode(&bytes, store_key(), position(AT), OPENS, geometry());
        });
        assert!(info.bytes_max < 2048, "{} bytes", info.bytes_max);
    }
}

#[test]
fn builders_keep_to_the_segment() {
    let mut rng = seeded(19);
    let end = 6 << 20;
    let at = position(end - 64);
    let mut builder = FrameBuilder::new(store_key(), at, OPEN, geometry());
    let sample = Sample::of_kind(&mut rng, 1);
    let (_, lengths, checksum) = sample.encode(builder.next_position().unwrap());
    assert!(lengths.padded() > 32);
    assert_eq!(builder.add(lengths, checksum), Err(EncodeError::NoRoom));
    assert_eq!((builder.length(), builder.records()), (32, 0));
    assert_eq!(builder.finish(), Err(EncodeError::Field));
}

#[test]
fn headers_out_of_bounds_are_refused() {
    let bytes = encode(&samples(&mut seeded(20), 3), position(AT));
    let decode = |offset: usize, value: u64, width: usize, at: u64| {
        let mut header = bytes[..32].to_vec();
        header[24..].copy_from_slice(&at.to_le_bytes());
        header[offset..offset + width].copy_from_slice(&value.to_le_bytes()[..width]);
        FrameHeader::decode(&header, position(at), OPENS, geometry()).err()
    };
    let room = (6 << 20) - AT;
    assert_eq!(decode(12, room, 4, AT), None);
    assert_eq!(decode(12, room + 8, 4, AT), Some(DecodeError::Length));
    assert_eq!(decode(12, room - 1, 4, AT), Some(DecodeError::Length));
    assert_eq!(decode(12, 0, 4, AT), Some(DecodeError::Length));
    assert_eq!(decode(16, 0, 4, AT), Some(DecodeError::Length));
    assert_eq!(decode(16, room, 4, AT), Some(DecodeError::Length));
    // Inside the header of the segment.
    assert_eq!(decode(12, 56, 4, (5 << 20) + 4088), Some(DecodeError::Misplaced));
}

#[test]
fn a_check_takes_the_frames_own_records_only() {
    let sample = Sample::of_kind(&mut seeded(24), 2);
    let bytes = encode(&[sample], position(AT));
    let header = FrameHeader::decode(&bytes, position(AT), OPENS, geometry()).unwrap();
    let at = position(AT + 32);
    let mut other = bytes[32..].to_vec();
    seal(&mut other, store_key(), at, OpenCount(4)).unwrap();
    let own = RecordHead::decode(&bytes[32..], store_key(), at, OPENS).unwrap();
    let other = RecordHead::decode(&other, store_key(), at, OPENS).unwrap();
    let padding = vec![0; own.lengths.padded() - own.lengths.total()];
    let mut check = FrameCheck::new(store_key(), header);
    assert_eq!(check.add(&other, &padding), Err(DecodeError::OpenCount));
    assert_eq!(check.add(&own, &[0; 9]), Err(DecodeError::Length));
    assert_eq!(check.add(&own, &padding), Ok(()));
    assert_eq!(check.add(&own, &padding), Err(DecodeError::Length));
    assert_eq!(check.finish(), Ok(()));
}
