//! Records: round trips, every flip, every truncation, garbage, bounds.

use std::collections::BTreeMap;

use rand::RngExt;

use super::super::blob::{Blob, NamedGeneration};
use super::super::checksum::{BodySum, ChecksumKey};
use super::super::error::{DecodeError, EncodeError};
use super::super::format::{
    GenerationNumber, HEAD_BYTES_MAX, KEY_BYTES_MAX, OpenCount, OpenRange, RECORD_BYTES_MAX,
    StoreId,
};
use super::super::record::{Record, RecordHead, RecordLengths, decode_record, seal};
use super::super::string_list::{LabelHashes, Labels, Metadata};
use super::{OPEN, OPENS, Sample, position, seeded, store_key};
use crate::rounds::rounds;

#[test]
fn records_round_trip() {
    let mut rng = seeded(1);
    for round in 0..rounds(6000, 20) {
        let at = position(rng.random_range(0..1 << 57) * 8);
        let sample = Sample::new(&mut rng);
        let (bytes, lengths, checksum) = sample.encode(at);
        assert_eq!(RecordLengths::peek(&bytes), Ok(lengths));
        let (head, body) = decode_record(&bytes, store_key(), at, OPENS).unwrap();
        assert_eq!(head.record, sample.record(), "round {round}");
        assert_eq!((head.lengths, head.open_count, head.checksum), (lengths, OPEN, checksum));
        assert_eq!(body, sample.body);
        assert_eq!(head.verify_body(body), Ok(()));

        // A decoded record encodes to the same bytes, and can be sealed for another position.
        let mut again = Vec::new();
        head.record.encode(&mut again).unwrap();
        seal(&mut again, store_key(), at, OPEN).unwrap();
        assert_eq!(again, bytes[..lengths.head()]);
        let next = position(8);
        seal(&mut again, store_key(), next, OpenCount(4)).unwrap();
        let moved = RecordHead::decode(&again, store_key(), next, OPENS).unwrap();
        assert_eq!((moved.record, moved.open_count), (head.record, OpenCount(4)));
    }
}

#[test]
fn every_flip_is_detected() {
    let mut rng = seeded(2);
    for round in 0..60 {
        let at = position(4096 + 32);
        let sample = Sample::of_kind(&mut rng, round % 11 + 1);
        let (mut bytes, ..) = sample.encode(at);
        for index in 0..bytes.len() {
            let noise = rng.random_range(1..=255);
            for mask in (0..8).map(|bit| 1u8 << bit).chain([noise]) {
                bytes[index] ^= mask;
                let verdict = decode_record(&bytes, store_key(), at, OPENS)
                    .and_then(|(head, body)| head.verify_body(body));
                assert!(verdict.is_err(), "byte {index} flipped by {mask:#x}");
                bytes[index] ^= mask;
            }
        }
    }
}

#[test]
fn every_truncation_is_detected() {
    let mut rng = seeded(3);
    for round in 0..rounds(140, 11) {
        let at = position(4096 + 32);
        let (bytes, ..) = Sample::of_kind(&mut rng, round % 11 + 1).encode(at);
        for length in 0..bytes.len() {
            let verdict = decode_record(&bytes[..length], store_key(), at, OPENS);
            assert_eq!(verdict, Err(DecodeError::Truncated));
        }
    }
}

#[test]
fn another_place_store_or_open_is_damage() {
    let at = position(1 << 40);
    let (bytes, ..) = Sample::of_kind(&mut seeded(4), 1).encode(at);
    let decode = |key, at, opens| decode_record(&bytes, key, at, opens).err();
    let only = OpenRange::only;
    assert_eq!(decode(store_key(), at, only(OPEN)), None);
    assert_eq!(decode(store_key(), position(0), OPENS), Some(DecodeError::Checksum));
    assert_eq!(decode(store_key(), at, only(OpenCount(2))), Some(DecodeError::OpenCount));
    let other = ChecksumKey::new(StoreId([8; 16]));
    assert_eq!(decode(other, at, OPENS), Some(DecodeError::Checksum));
}

/// Random fields under a good checksum, since the parser must not rely on checksums.
#[test]
fn sealed_nonsense_never_panics_and_only_canonical_encodings_are_accepted() {
    let mut rng = seeded(5);
    let at = position(4096 + 32);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..rounds(60_000, 100) {
        let sample = Sample::new(&mut rng);
        let (mut bytes, lengths, _) = sample.encode(at);
        for _ in 0..rng.random_range(1..3) {
            let index = rng.random_range(8..lengths.head());
            bytes[index] = if rng.random() { rng.random() } else { rng.random_range(0..4) };
        }
        if seal(&mut bytes, store_key(), at, OPEN).is_err() {
            continue;
        }
        match RecordHead::decode(&bytes, store_key(), at, OPENS) {
            Ok(head) => {
                accepted += 1;
                let mut again = Vec::new();
                head.record.encode(&mut again).unwrap();
                seal(&mut again, store_key(), at, OPEN).unwrap();
                assert_eq!(again, bytes[..head.lengths.head()]);
                if let Record::Blob(blob) = head.record {
                    assert!(Metadata::new(&blob.metadata.to_map()) == blob.metadata);
                    assert_eq!(blob.tags.iter().count(), blob.tags.len());
                }
            }
            Err(_) => refused += 1,
        }
    }
    let least = rounds(5000, 5);
    assert!(accepted > least && refused > least, "{accepted} accepted, {refused} refused");
}

/// The result of decoding a record with some bytes of its head replaced.
fn replaced_in(record: Record<'_>, from: &[u8], to: &[u8]) -> Result<(), DecodeError> {
    let at = position(8);
    let mut bytes = Vec::new();
    record.encode(&mut bytes).unwrap();
    let found: Vec<_> =
        (20..bytes.len()).filter(|index| bytes[*index..].starts_with(from)).collect();
    assert_eq!(found.len(), 1);
    bytes[found[0]..found[0] + to.len()].copy_from_slice(to);
    seal(&mut bytes, store_key(), at, OPEN).unwrap();
    RecordHead::decode(&bytes, store_key(), at, OPENS).map(|_| ())
}

#[test]
fn other_encodings_of_a_record_are_refused() {
    let mut blob = Blob::new(NAME, b"key", 0, BodySum { length: 0, checksum: 0 });
    blob.priority = 0xa7;
    assert_eq!(replaced_in(Record::Blob(blob), &[0xa7], &[0xa8]), Ok(()));
    let normal = replaced_in(Record::Blob(blob), &[0xa7], &[128]);
    assert_eq!(normal, Err(DecodeError::Field));
    blob.priority = 128;
    let metadata = [("mb", ""), ("mc", "")].map(|(key, value)| (key.into(), value.into()));
    let metadata = BTreeMap::from(metadata);
    blob.metadata = Metadata::new(&metadata);
    assert_eq!(replaced_in(Record::Blob(blob), b"mb", b"ma"), Ok(()));
    for key in [b"mc", b"md"] {
        let unordered = replaced_in(Record::Blob(blob), b"mb", key);
        assert_eq!(unordered, Err(DecodeError::Field));
    }
    assert_eq!(replaced_in(Record::Blob(blob), b"mb", b"m\xff"), Err(DecodeError::Text));
}

#[test]
fn garbage_is_refused() {
    let mut rng = seeded(6);
    for _ in 0..rounds(50_000, 200) {
        let mut bytes = vec![0; rng.random_range(0..200)];
        rng.fill(&mut bytes[..]);
        assert!(decode_record(&bytes, store_key(), position(8), OPENS).is_err());
    }
}

#[test]
fn decoding_allocates_nothing() {
    let mut rng = seeded(7);
    let at = position(4096 + 32);
    for _ in 0..rounds(500, 10) {
        let (mut bytes, lengths, _) = Sample::new(&mut rng).encode(at);
        let count = allocation_counter::measure(|| {
            decode_record(&bytes, store_key(), at, OPENS).unwrap();
        });
        assert_eq!(count.count_total, 0);
        let index = rng.random_range(8..lengths.head());
        bytes[index] ^= 0xff;
        if seal(&mut bytes, store_key(), at, OPEN).is_ok() {
            let count = allocation_counter::measure(|| {
                let _ = decode_record(&bytes, store_key(), at, OPENS);
            });
            assert_eq!(count.count_total, 0);
        }
    }
}

#[test]
fn unknown_kinds_are_refused() {
    let at = position(8);
    for kind in (0..=u8::MAX).filter(|kind| !(1..=12).contains(kind)) {
        let (mut bytes, ..) = Sample::of_kind(&mut seeded(8), 7).encode(at);
        bytes[8] = kind;
        seal(&mut bytes, store_key(), at, OPEN).unwrap();
        let verdict = RecordHead::decode(&bytes, store_key(), at, OPENS);
        assert_eq!(verdict, Err(DecodeError::Kind(kind)));
    }
}

fn assert_refused(record: Record<'_>, error: EncodeError) {
    let mut into = vec![1, 2];
    assert_eq!(record.encode(&mut into), Err(error));
    assert_eq!(record.lengths(), Err(error));
    assert_eq!(into, [1, 2]);
}

const NAME: NamedGeneration<'_> = NamedGeneration { name: "n", generation: GenerationNumber(1) };

#[test]
fn names_and_keys_out_of_bounds_are_refused() {
    let long = "n".repeat(256);
    let name = &long;
    let namespace = NamedGeneration { name, ..NAME };
    let body = BodySum::of(b"").unwrap();
    let blob = Record::Blob(Blob::new(namespace, b"k", 0, body));
    assert_refused(blob, EncodeError::NamespaceName);
    let tombstone = Record::Tombstone { namespace, hash: 0 };
    assert_refused(tombstone, EncodeError::NamespaceName);
    let flush = Record::NamespaceFlush { namespace };
    assert_refused(flush, EncodeError::NamespaceName);

    let prefix = &vec![1; KEY_BYTES_MAX + 1][..];
    let blob = Record::Blob(Blob::new(NAME, prefix, 0, body));
    assert_refused(blob, EncodeError::Key);
    let namespace = NAME;
    let invalidation = Record::PrefixInvalidation { namespace, prefix };
    assert_refused(invalidation, EncodeError::Key);
}

#[test]
fn lists_and_bodies_out_of_bounds_are_refused() {
    let mut blob = Blob::new(NAME, b"k", 0, BodySum::of(b"").unwrap());
    let long = ["t".repeat(KEY_BYTES_MAX + 1)];
    blob.tags = Labels::new(&long);
    assert_refused(Record::Blob(blob), EncodeError::Text);
    let many = vec![long[0][1..].to_owned(); 257];
    blob.tags = Labels::new(&many);
    assert_refused(Record::Blob(blob), EncodeError::Head);
    blob.tags = Labels::EMPTY;
    blob.body.length = u32::MAX;
    assert_refused(Record::Blob(blob), EncodeError::Record);

    let hashes = vec![0; HEAD_BYTES_MAX / 8];
    for (hashes, error) in [(&hashes[..], EncodeError::Head), (&[], EncodeError::Field)] {
        let labels = LabelHashes::new(hashes);
        assert_refused(Record::LabelInvalidation { labels }, error);
    }
}

#[test]
fn a_negative_entry_has_no_body() {
    let mut blob = Blob::new(NAME, b"k", 0, BodySum::of(b"").unwrap());
    blob.is_absent = true;
    let at = position(8);
    let mut bytes = Vec::new();
    Record::Blob(blob).encode(&mut bytes).unwrap();
    seal(&mut bytes, store_key(), at, OPEN).unwrap();
    let decoded = RecordHead::decode(&bytes, store_key(), at, OPENS);
    assert_eq!(decoded.map(|head| head.record), Ok(Record::Blob(blob)));
    bytes[12] = 1;
    seal(&mut bytes, store_key(), at, OPEN).unwrap();
    let decoded = RecordHead::decode(&bytes, store_key(), at, OPENS);
    assert_eq!(decoded.map(|_| ()), Err(DecodeError::Field));
    blob.body.length = 1;
    assert_refused(Record::Blob(blob), EncodeError::Field);
}

#[test]
fn the_largest_record_fits_and_not_a_byte_more() {
    let long = "n".repeat(255);
    let key = vec![1; KEY_BYTES_MAX];
    let namespace = NamedGeneration { name: &long, generation: GenerationNumber(1) };
    let fits = Blob::new(namespace, &key, 0, BodySum::of(b"").unwrap());
    let head = Record::Blob(fits).lengths().unwrap().head();
    let length = u32::try_from(RECORD_BYTES_MAX - head).unwrap();
    let largest = Record::Blob(Blob { body: BodySum { length, checksum: 0 }, ..fits });
    assert_eq!(largest.lengths().unwrap().total(), RECORD_BYTES_MAX);
    let above = Blob { body: BodySum { length: length + 1, checksum: 0 }, ..fits };
    assert_eq!(Record::Blob(above).lengths(), Err(EncodeError::Record));
}

#[test]
fn the_end_of_the_stale_window_saturates() {
    let name = NamedGeneration { name: "n", generation: GenerationNumber(1) };
    let mut blob = Blob::new(name, b"k", 5, BodySum::of(b"").unwrap());
    assert_eq!(blob.window_end_ns(), None);
    blob.expires_ns = Some(u64::MAX - 1);
    assert_eq!(blob.window_end_ns(), Some(u64::MAX - 1));
    blob.stale_window_ns = Some(9);
    assert_eq!(blob.window_end_ns(), Some(u64::MAX));
}
