//! The figures and the hex of `docs/format.md`: made here, compared with the page.
//!
//! With `TAMIS_BLESS=1` (and `--test-threads=1`) the page is rewritten instead.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use super::super::blob::{Blob, NamedGeneration};
use super::super::checksum::{BodySum, ChecksumKey};
use super::super::directory::Directory;
use super::super::directory_builder::DirectoryBuilder;
use super::super::directory_entry::{Change, DirectoryEntry};
use super::super::format::{
    BLOCK_BYTES, GenerationNumber, Geometry, OpenCount, OpenRange, Position, SegmentNumber, StoreId,
};
use super::super::frame::{Frame, FrameBuilder};
use super::super::places::Places;
use super::super::record::{Record, seal};
use super::super::segment::SegmentHeader;
use super::super::string_list::Labels;
use super::super::superblock::{CrashSafety, Superblock};
use super::{geometry, position};

const STORE: StoreId = StoreId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
const OPEN: OpenCount = OpenCount(3);
const AT: u64 = (2 << 20) + 4096;
const NOON_NS: u64 = 1_767_225_600_000_000_000;
const MINUTE_NS: u64 = 60_000_000_000;

/// A hex dump with the name of each field. A long field must be zeros, and is abbreviated.
fn annotate(bytes: &[u8], fields: &[(usize, &str)]) -> String {
    let mut page = String::from("```text\n");
    let mut at = 0;
    for &(length, name) in fields {
        let field = &bytes[at..at + length];
        if length > 64 {
            assert!(field.iter().all(|byte| *byte == 0));
            writeln!(page, "{at:04x}  ..{:48}{name}", "").unwrap();
        } else {
            for (index, line) in field.chunks(16).enumerate() {
                let hex: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
                let name = if index == 0 { name } else { "" };
                let text = format!("{:04x}  {:48}  {name}", at + index * 16, hex.join(" "));
                writeln!(page, "{}", text.trim_end()).unwrap();
            }
        }
        at += length;
    }
    assert_eq!(at, bytes.len());
    page + "```\n"
}

fn compare(name: &str, made: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/format.md");
    let page = fs::read_to_string(&path).unwrap();
    let start = format!("<!-- example: {name} -->\n");
    let from = page.find(&start).unwrap() + start.len();
    let to = from + page[from..].find("<!-- end -->").unwrap();
    if page[from..to] == *made {
        return;
    }
    assert!(std::env::var_os("TAMIS_BLESS").is_some(), "docs/format.md, {name}:\n{made}");
    fs::write(path, format!("{}{made}{}", &page[..from], &page[to..])).unwrap();
}

fn superblock() -> String {
    let block = Superblock {
        write_counter: 12,
        store_id: STORE,
        hash_key: 0x1122_3344_5566_7788,
        geometry: geometry(),
        created_ns: NOON_NS,
        open_count: OPEN,
        crash_safety: CrashSafety::Process,
        clean: false,
        void: false,
        boot_id: *b"boot-id-of-linux",
        newest: SegmentNumber(3),
        head: position(1 << 20),
        tail: position(AT),
        generation_floor: GenerationNumber(11),
    };
    let block = block.encode().unwrap();
    let fields = [
        (8, "magic"),
        (4, "version 1"),
        (4, "check of bytes 0..12"),
        (8, "write counter 12"),
        (16, "store id"),
        (8, "hash key"),
        (4, "segment bytes 1048576"),
        (4, "segment count 16"),
        (8, "created 2026-01-01 00:00 UTC"),
        (4, "open count 3"),
        (1, "Process"),
        (1, "no marks"),
        (2, "zero"),
        (16, "boot id"),
        (8, "newest segment 3"),
        (8, "head 1048576"),
        (8, "tail 2101248"),
        (8, "generation floor 11"),
        (3968, "zeros"),
        (8, "checksum"),
    ];
    annotate(&block, &fields)
}

fn segment() -> String {
    let header =
        SegmentHeader { store_id: STORE, number: SegmentNumber(2), open_count: OPEN }.encode();
    let fields = [
        (8, "magic"),
        (16, "store id"),
        (8, "segment number 2"),
        (4, "open count 3"),
        (4052, "zeros"),
        (8, "checksum"),
    ];
    annotate(&header, &fields)
}

fn frame_and_directory() -> (String, String) {
    let key = ChecksumKey::new(STORE);
    let namespace = NamedGeneration { name: "pages", generation: GenerationNumber(9) };
    let tags = ["red".to_owned()];
    let blob = Blob {
        expires_ns: Some(NOON_NS + MINUTE_NS),
        version: Some(300),
        tags: Labels::new(&tags),
        ..Blob::new(namespace, b"k1", NOON_NS, BodySum::of(b"hello").unwrap())
    };
    let records = [
        (Record::Blob(blob), &b"hello"[..]),
        (Record::Tombstone { namespace, hash: 0xaabb_ccdd_eeff_0011 }, &b""[..]),
    ];
    let mut builder = FrameBuilder::new(key, position(AT), OPEN, geometry());
    let mut directory = DirectoryBuilder::new(SegmentNumber(2), geometry());
    let mut bytes = Vec::new();
    for (record, body) in &records {
        let at = builder.next_position().unwrap();
        let mut head = Vec::new();
        let lengths = record.encode(&mut head).unwrap();
        let checksum = seal(&mut head, key, at, OPEN).unwrap();
        builder.add(lengths, checksum).unwrap();
        let entry = DirectoryEntry {
            offset: geometry().offset_in_segment(at),
            length: u32::try_from(lengths.total()).unwrap(),
            change: Change::new(record, 0x0102_0304_0506_0708, &[0x2122_2324_2526_2728]),
        };
        directory.append(&entry).unwrap();
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len() + lengths.padded() - lengths.total(), 0);
    }
    let mut frame = builder.finish().unwrap().to_vec();
    frame.extend_from_slice(&bytes);
    let opens = OpenRange::only(OPEN);
    let decoded = Frame::decode(&frame, key, position(AT), opens, geometry()).unwrap();
    assert_eq!(decoded.verify_bodies(), Ok(()));
    let end = position(AT).after(frame.len() as u64).unwrap();
    let mut block = Vec::new();
    directory.encode(key, OPEN, end, &mut block).unwrap();
    let decoded = Directory::decode(&block, key, SegmentNumber(2), opens, geometry()).unwrap();
    assert_eq!(decoded.entries().count(), 2);
    (annotate(&frame, FRAME), annotate(&block, DIRECTORY))
}

const FRAME: &[(usize, &str)] = &[
    (8, "frame: checksum"),
    (4, "magic"),
    (4, "length 144"),
    (4, "2 records"),
    (4, "open count 3"),
    (8, "position 2101248"),
    (8, "first record, position 2101280: head checksum"),
    (1, "kind 1, blob"),
    (3, "head length 60"),
    (4, "body length 5"),
    (4, "open count 3"),
    (8, "body checksum"),
    (8, "written 2026-01-01 00:00 UTC"),
    (1, "flags 0, 3, 6: expires, version, tags"),
    (6, "namespace pages"),
    (1, "generation 9"),
    (3, "key k1"),
    (6, "expires 60000000000 later"),
    (2, "version 300"),
    (1, "1 tag"),
    (4, "red"),
    (5, "body hello"),
    (7, "padding"),
    (8, "second record, position 2101352: head checksum"),
    (1, "kind 2, tombstone"),
    (3, "head length 35"),
    (4, "body length 0"),
    (4, "open count 3"),
    (6, "namespace pages"),
    (1, "generation 9"),
    (8, "key hash"),
    (5, "padding"),
];

const DIRECTORY: &[(usize, &str)] = &[
    (1, "first page, of blobs: end of the stale window, version and labels"),
    (1, "offset 4096 + 4*8 = 4128"),
    (1, "length 65"),
    (1, "namespace row 0"),
    (8, "key hash"),
    (3, "key k1"),
    (1, "window end, as a difference to the first"),
    (2, "version 300"),
    (1, "1 label"),
    (8, "label hash"),
    (1, "second page: tombstone"),
    (1, "offset 4096 + 13*8 = 4200"),
    (1, "length 35"),
    (1, "namespace row 0"),
    (8, "key hash"),
    (3950, "zeros"),
    (6, "name table, row 0: pages"),
    (1, "generation 9"),
    (1, "first page: 27 bytes"),
    (1, "namespace row 0"),
    (1, "no beginning of a key"),
    (8, "checksum of the page"),
    (1, "second page: 12 bytes"),
    (8, "checksum of the page"),
    (8, "footer: magic"),
    (8, "segment number 2"),
    (8, "end 2101392"),
    (4, "open count 3"),
    (4, "directory starts at 1044480"),
    (4, "name table of 7 bytes"),
    (4, "1 row"),
    (4, "page table of 20 bytes"),
    (4, "1 page of blobs"),
    (4, "1 other page"),
    (4, "2 entries"),
    (8, "first window end 1767225660000000000"),
    (8, "no time of writing"),
    (8, "checksum"),
];

/// `ratio`: bytes of a full segment for each byte of keys and values in it.
struct Density {
    segment_bytes: u32,
    ratio: f64,
}

/// Fills a segment as the log would.
fn fill(segment_bytes: u32, key_bytes: usize, jitter: bool) -> Density {
    let key = ChecksumKey::new(STORE);
    let geometry = Geometry::new(segment_bytes, 64).unwrap();
    let segment = geometry.segment_of(position((1 << 45) + (1 << 33)));
    let mut at = geometry.start_of(segment).unwrap().after(BLOCK_BYTES as u64).unwrap();
    let end = geometry.start_of(SegmentNumber(segment.0 + 1)).unwrap().value();
    let mut directory = DirectoryBuilder::new(segment, geometry);
    let namespace = NamedGeneration { name: "namespace0", generation: GenerationNumber(1 << 45) };
    let body = BodySum { length: 1024, checksum: 0x0123_4567_89ab_cdef };
    let (mut count, mut full) = (0u64, false);
    while !full {
        let mut frame = FrameBuilder::new(key, at, OPEN, geometry);
        while frame.length() < 1 << 20 {
            let written_ns = NOON_NS + count * 10_000;
            let ttl_ns = if jitter { MINUTE_NS + count % 100 * 97_000_003 } else { MINUTE_NS };
            let mut name = format!("{count:0>20}").into_bytes();
            name.resize(key_bytes, b'k');
            let blob = Blob::new(namespace, &name, written_ns, body);
            let record = Record::Blob(Blob { expires_ns: Some(written_ns + ttl_ns), ..blob });
            let lengths = record.lengths().unwrap();
            let next = frame.next_position().unwrap();
            let entry = DirectoryEntry {
                offset: geometry.offset_in_segment(next),
                length: u32::try_from(lengths.total()).unwrap(),
                change: Change::new(&record, count.wrapping_mul(0x9e37_79b9_7f4a_7c15), &[]),
            };
            let room = end - next.value() - lengths.padded() as u64;
            full = directory.encoded_len_with(&entry).unwrap() as u64 > room;
            if full {
                break;
            }
            frame.add(lengths, 0).unwrap();
            directory.append(&entry).unwrap();
            count += 1;
        }
        at = at.after(frame.length() as u64).unwrap();
    }
    let payload = count * (1024 + key_bytes as u64);
    Density { segment_bytes, ratio: f64::from(segment_bytes) / as_f64(payload) }
}

fn as_f64(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes).unwrap())
}

#[test]
fn segments_are_at_most_13_percent_larger_than_their_content() {
    let mut page = String::from("| segment | one TTL | jittered TTL |\n| --- | --- | --- |\n");
    for mib in [1, 16, 64, 256] {
        let (plain, jittered) = (fill(mib << 20, 32, false), fill(mib << 20, 32, true));
        assert!(jittered.ratio < 1.125, "{mib} MiB, jittered: {}", jittered.ratio);
        assert!(plain.ratio <= 1.125, "{} bytes: {}", plain.segment_bytes, plain.ratio);
        writeln!(page, "| {mib} MiB | {:.4} | {:.4} |", plain.ratio, jittered.ratio).unwrap();
    }
    let ratios: f64 = (28..36).map(|key| fill(64 << 20, key, true).ratio).sum();
    let mean = ratios / 8.0;
    writeln!(page, "\nThe mean over keys of 28 to 35 bytes, so that padding counts as it falls:")
        .unwrap();
    writeln!(page, "{mean:.4} (64 MiB, jittered).").unwrap();
    assert!(mean < 1.12, "{mean} on average");
    compare("density", &page);
}

#[test]
fn the_worked_example_is_what_the_code_writes() {
    compare("superblock", &superblock());
    compare("segment", &segment());
    let (frame, directory) = frame_and_directory();
    compare("frame", &frame);
    compare("directory", &directory);
}

#[test]
fn a_position_is_an_address() {
    let at = Position::new(AT + 32).unwrap();
    assert_eq!(geometry().segment_of(at), SegmentNumber(2));
    let places = Places::in_turn(geometry(), SegmentNumber(2));
    assert_eq!(places.offset_at(at, geometry()).unwrap(), 8192 + AT + 32);
}
