//! Directories: round trips with exact sizes, every flip, truncation, sealed nonsense.

use std::ops::Range;

use rand::RngExt;
use rand::rngs::StdRng;

use super::super::blob::NamedGeneration;
use super::super::checksum::{Domain, checksum};
use super::super::directory::Directory;
use super::super::directory_builder::DirectoryBuilder;
use super::super::directory_entry::{Change, DirectoryEntry};
use super::super::error::{DecodeError, EncodeError};
use super::super::footer::Footer;
use super::super::format::{
    BLOCK_BYTES, FOOTER_BYTES, GenerationNumber, Geometry, OpenCount, OpenRange, SegmentNumber,
    align,
};
use super::super::string_list::LabelHashes;
use super::super::wire::Reader;
use super::{OPEN, OPENS, Sample, geometry, position, seeded, store_key};
use crate::rounds::rounds;

const SEGMENT: SegmentNumber = SegmentNumber(5);
const START: u64 = 5 << 20;

fn entry_of<'a>(sample: &'a Sample, offset: u32) -> DirectoryEntry<'a> {
    let record = sample.record();
    let length = u32::try_from(record.lengths().unwrap().total()).unwrap();
    let change = Change::new(&record, sample.hash(), &sample.label_hashes);
    DirectoryEntry { offset, length, change }
}

/// Lays samples out one after the other, sometimes behind a frame header.
fn offsets(rng: &mut StdRng, samples: &[Sample]) -> (Vec<u32>, u64) {
    let mut at = 4096;
    let offsets = samples.iter().map(|sample| {
        at += if rng.random_bool(0.2) { 32 } else { 0 };
        let offset = u32::try_from(at).unwrap();
        at += align(sample.record().lengths().unwrap().total());
        offset
    });
    (offsets.collect(), at as u64)
}

fn build(rng: &mut StdRng, samples: &[Sample]) -> (Vec<u32>, Vec<u8>) {
    let (offsets, end) = offsets(rng, samples);
    let mut builder = DirectoryBuilder::new(SEGMENT, geometry());
    for (sample, offset) in samples.iter().zip(&offsets) {
        let entry = entry_of(sample, *offset);
        let expected = builder.encoded_len_with(&entry).unwrap();
        builder.append(&entry).unwrap();
        assert_eq!(builder.encoded_len(), expected);
    }
    assert_eq!(builder.entries() as usize, samples.len());
    let mut bytes = vec![0xcc; 100];
    builder.encode(store_key(), OPEN, position(START + end), &mut bytes).unwrap();
    assert!(bytes.len() <= 100 + builder.encoded_len());
    (offsets, bytes)
}

fn decode(bytes: &[u8]) -> Result<Directory<'_>, DecodeError> {
    Directory::decode(bytes, store_key(), SEGMENT, OPENS, geometry())
}

fn read_all(bytes: &[u8]) -> Result<usize, DecodeError> {
    decode(bytes).map(|directory| directory.entries().count())
}

/// Seals a directory again: its pages, as far as its table makes sense, and the table.
fn with_checksum(directory: &mut [u8]) {
    let seed = |domain| store_key().seed(domain, SEGMENT.0, OPEN);
    if let Some(sums) = page_sums(directory) {
        for (at, page) in sums {
            let sum = checksum(&directory[page], seed(Domain::DirectoryPage));
            directory[at..at + 8].copy_from_slice(&sum.to_le_bytes());
        }
    }
    let from = Footer::decode(directory, SEGMENT, OPENS, geometry());
    let from = from.map_or(0, |footer| directory.len().saturating_sub(footer.tail_bytes()));
    let (covered, sum) = directory[from..].split_last_chunk_mut::<8>().unwrap();
    *sum = checksum(covered, seed(Domain::Directory)).to_le_bytes();
}

/// Where the table has the checksum of each page, and where the page is.
fn page_sums(directory: &[u8]) -> Option<Vec<(usize, Range<usize>)>> {
    let footer = Footer::decode(directory, SEGMENT, OPENS, geometry()).ok()?;
    let names = directory.len().checked_sub(footer.tail_bytes())?;
    let end = directory.len() - FOOTER_BYTES;
    let table = directory.get(names + footer.name_bytes as usize..end)?;
    let mut reader = Reader::new(table);
    let (mut sums, mut start) = (Vec::new(), 0);
    for number in 0..footer.blob_pages + footer.other_pages {
        let length = reader.length(names - start).ok()?;
        if number < footer.blob_pages {
            reader.varint().ok()?;
            reader.prefixed(255).ok()?;
        }
        sums.push((end - reader.rest().len(), start..start + length));
        reader.u64().ok()?;
        start += length;
    }
    Some(sums)
}

#[test]
fn directories_round_trip() {
    let mut rng = seeded(31);
    for _ in 0..rounds(150, 2) {
        let samples: Vec<_> =
            (0..rng.random_range(0..200)).map(|_| Sample::new(&mut rng)).collect();
        let (offsets, bytes) = build(&mut rng, &samples);
        assert!(((bytes.len() - 100) % BLOCK_BYTES == 0));
        let footer = Footer::decode(&bytes[bytes.len() - 4096..], SEGMENT, OPENS, geometry());
        let directory = decode(&bytes).unwrap();
        let found = *directory.footer();
        assert_eq!(footer, Ok(found));
        assert_eq!(found.start as usize, (1 << 20) - (bytes.len() - 100));
        assert_eq!(directory.entries().count(), samples.len());
        for ((entry, sample), offset) in directory.entries().zip(&samples).zip(&offsets) {
            assert_eq!(entry, entry_of(sample, *offset));
        }
        let back: Vec<_> = directory.entries().rev().map(|entry| entry.offset).collect();
        assert!(back.iter().rev().eq(&offsets));
        encode_again(&bytes[100..], true);
    }
}

#[test]
fn the_name_table_has_a_row_for_each_generation_of_a_name() {
    let mut builder = DirectoryBuilder::new(SEGMENT, geometry());
    let mut offset = 4096;
    for (name, generation) in [("a", 1), ("b", 1), ("a", 1), ("a", 4), ("b", 1), ("a", 4)] {
        let namespace = NamedGeneration { name, generation: GenerationNumber(generation) };
        let change = Change::Tombstone { namespace, hash: offset.into() };
        builder.append(&DirectoryEntry { offset, length: 30, change }).unwrap();
        offset += 32;
    }
    assert!(builder.memory_bytes() > 0);
    let mut bytes = Vec::new();
    let end = position(START + u64::from(offset));
    builder.encode(store_key(), OPEN, end, &mut bytes).unwrap();
    let directory = decode(&bytes).unwrap();
    let rows: Vec<_> =
        directory.namespaces().iter().map(|row| (row.name, row.generation.0)).collect();
    assert_eq!(rows, [("a", 1), ("b", 1), ("a", 4)]);
    let indexes: Vec<_> = directory
        .entries()
        .map(|entry| rows.iter().position(|row| names_of(&entry) == Some(*row)).unwrap())
        .collect();
    assert_eq!(indexes, [0, 1, 0, 2, 1, 2]);
}

fn names_of<'a>(entry: &DirectoryEntry<'a>) -> Option<(&'a str, u64)> {
    entry.change.namespace().map(|named| (named.name, named.generation.0))
}

#[test]
fn every_flip_and_truncation_is_detected() {
    let mut rng = seeded(32);
    let samples: Vec<_> = (0..60).map(|_| Sample::new(&mut rng)).collect();
    let (_, bytes) = build(&mut rng, &samples);
    let mut directory = bytes[100..].to_vec();
    for index in 0..directory.len() {
        let noise = rng.random_range(1..=255);
        for mask in (0..8).map(|bit| 1u8 << bit).chain([noise]) {
            directory[index] ^= mask;
            assert!(decode(&directory).is_err(), "byte {index} flipped by {mask:#x}");
            directory[index] ^= mask;
        }
    }
    for length in 0..directory.len() {
        let tail = &directory[directory.len() - length..];
        assert!(matches!(decode(tail), Err(DecodeError::Truncated)));
        assert!(decode(&directory[..length]).is_err());
    }
    assert_eq!(read_all(&directory), Ok(60));
}

/// Encodes a decoded directory again: the same entries. The same bytes, if the log has written it;
/// other writers may have other pages, bases of times, and unused rows in the name table.
fn encode_again(bytes: &[u8], is_ours: bool) {
    let directory = decode(bytes).unwrap();
    let end = directory.footer().end;
    let mut builder = DirectoryBuilder::new(SEGMENT, geometry());
    for entry in directory.entries() {
        assert!(START + u64::from(entry.offset + entry.length) <= end.value());
        // Records that overlap cannot be read, and harm nothing.
        if builder.append(&entry).is_err() {
            assert!(!is_ours);
            return;
        }
    }
    let mut again = Vec::new();
    builder.encode(store_key(), OPEN, end, &mut again).unwrap();
    assert!(decode(&again).unwrap().entries().eq(directory.entries()));
    if is_ours {
        assert_eq!(again, bytes);
    }
}

#[test]
fn counts_that_do_not_match_the_entries_are_refused() {
    let mut rng = seeded(36);
    let samples: Vec<_> = (0..5).map(|_| Sample::of_kind(&mut rng, 2)).collect();
    let (_, bytes) = build(&mut rng, &samples);
    let good = bytes[100..].to_vec();
    let footer = good.len() - FOOTER_BYTES;
    // The counts of rows, pages and entries, one too high or too low.
    for offset in [36, 44, 48, 52] {
        for change in [1, u8::MAX] {
            let mut bytes = good.clone();
            bytes[footer + offset] = bytes[footer + offset].wrapping_add(change);
            with_checksum(&mut bytes);
            assert!(read_all(&bytes).is_err(), "the count at {offset}, changed by {change}");
        }
    }
    // The frames end before the last record does.
    let mut bytes = good.clone();
    let end = u64::from_le_bytes(bytes[footer + 16..footer + 24].try_into().unwrap()) - 8;
    bytes[footer + 16..footer + 24].copy_from_slice(&end.to_le_bytes());
    with_checksum(&mut bytes);
    assert_eq!(read_all(&bytes), Err(DecodeError::Length));
}

#[test]
fn unknown_tags_are_refused() {
    let mut rng = seeded(37);
    for kind in 1..=12 {
        let samples = [Sample::of_kind(&mut rng, kind)];
        let (_, bytes) = build(&mut rng, &samples);
        let mut directory = bytes[100..].to_vec();
        let tag = 0;
        assert_eq!(directory[tag] & 0x0f, kind);
        let good = directory[tag];
        let unknown = [(0, DecodeError::Kind(0)), (13, DecodeError::Kind(13))];
        // Only blobs have flags, and this one has all of them.
        let flagged = (kind != 1).then_some((good | 0x80, DecodeError::Field));
        for (bad, error) in unknown.into_iter().chain(flagged) {
            directory[tag] = bad;
            with_checksum(&mut directory);
            let verdict = read_all(&directory);
            // The bytes of kinds without a namespace are misread as a row, so any error will do.
            assert!(
                verdict == Err(error) || matches!(kind, 3 | 6 | 7 | 9 | 12) && verdict.is_err(),
                "kind {kind}: {verdict:?}"
            );
        }
        directory[tag] = good;
        with_checksum(&mut directory);
        assert_eq!(read_all(&directory), Ok(1));
    }
}

#[test]
fn sealed_nonsense_never_panics_and_allocates_little() {
    let mut rng = seeded(33);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..rounds(20_000, 20) {
        let samples: Vec<_> = (0..rng.random_range(1..6)).map(|_| Sample::new(&mut rng)).collect();
        let (_, bytes) = build(&mut rng, &samples);
        let mut directory = bytes[100..].to_vec();
        let footer = directory.len() - FOOTER_BYTES;
        let content = directory.iter().position(|byte| *byte != 0).unwrap();
        let padding = directory[content..].windows(64).position(|bytes| bytes == [0; 64]).unwrap();
        let table = footer - 300;
        for _ in 0..rng.random_range(1..3) {
            let index = match rng.random_range(0..10) {
                0..2 => footer + rng.random_range(0..72),
                2..5 => rng.random_range(table..footer),
                _ => rng.random_range(0..content + padding),
            };
            directory[index] = if rng.random() { rng.random() } else { rng.random_range(0..4) };
        }
        with_checksum(&mut directory);
        let mut verdict = Ok(0);
        let info = allocation_counter::measure(|| verdict = read_all(&directory));
        assert!(info.bytes_max <= 12 * directory.len() as u64);
        match verdict {
            Ok(_) => {
                accepted += 1;
                encode_again(&directory, false);
            }
            Err(_) => refused += 1,
        }
    }
    let least = rounds(1000, 1);
    assert!(accepted > least && refused > least, "{accepted} accepted, {refused} refused");
}

#[test]
fn garbage_is_refused() {
    let mut rng = seeded(34);
    for _ in 0..rounds(2000, 20) {
        let mut bytes = vec![0; rng.random_range(0..9000)];
        rng.fill(&mut bytes[..]);
        if let Some(magic) = bytes.last_chunk_mut::<FOOTER_BYTES>() {
            magic[..8].copy_from_slice(b"tamisDIR");
        }
        assert!(decode(&bytes).is_err());
    }
}

#[test]
fn another_segment_or_open_is_damage() {
    let mut rng = seeded(35);
    let samples = [Sample::new(&mut rng)];
    let (_, bytes) = build(&mut rng, &samples);
    let decode = |segment, opens| {
        Directory::decode(&bytes, store_key(), segment, opens, geometry()).unwrap_err()
    };
    assert_eq!(decode(SegmentNumber(21), OPENS), DecodeError::Misplaced);
    let later = OpenRange::only(OpenCount(4));
    assert_eq!(decode(SEGMENT, later), DecodeError::OpenCount);
}

#[test]
fn a_refused_entry_leaves_the_builder_unchanged() {
    let geometry = Geometry::new(16 << 10, 4).unwrap();
    let mut builder = DirectoryBuilder::new(SegmentNumber(0), geometry);
    let namespace = NamedGeneration { name: "n", generation: GenerationNumber(1) };
    let hashes = [0; 600];
    let small = Change::Tombstone { namespace, hash: 1 };
    let large = Change::LabelInvalidation { labels: LabelHashes::new(&hashes) };
    let entry = |offset, length, change| DirectoryEntry { offset, length, change };
    builder.append(&entry(4128, 30, small)).unwrap();
    let length = builder.encoded_len();
    for (refused, error) in [
        (entry(4128, 30, small), EncodeError::Position),
        (entry(4164, 30, small), EncodeError::Position),
        (entry(4160, 19, small), EncodeError::Position),
        (entry(4160, 4033, large), EncodeError::NoRoom),
        (entry(4160, 8196, small), EncodeError::NoRoom),
        (entry(4160, u32::MAX, small), EncodeError::NoRoom),
    ] {
        assert_eq!(builder.append(&refused), Err(error));
        assert_eq!((builder.encoded_len(), builder.entries()), (length, 1));
    }
    let other = NamedGeneration { name: "m", ..namespace };
    builder.append(&entry(4160, 8128, Change::NamespaceFlush { namespace: other })).unwrap();
    let mut into = Vec::new();
    for (end, error) in [
        (4160, EncodeError::Position),
        (12_288 + 8, EncodeError::NoRoom),
        (16 << 10, EncodeError::Position),
    ] {
        assert_eq!(builder.encode(store_key(), OPEN, position(end), &mut into), Err(error));
        assert!(into.is_empty());
    }
    builder.encode(store_key(), OPEN, position(12_288), &mut into).unwrap();
    let directory =
        Directory::decode(&into, store_key(), SegmentNumber(0), OPENS, geometry).unwrap();
    assert_eq!(directory.footer().end, position(12_288));
    assert_eq!(directory.entries().count(), 2);
}
