//! `verify`: it finds exactly the damage that was planted, and none where there is none.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::executor::block_on;
use serde_json::{Value, json};
use tamis::{BlobCachePut, CrashSafety};
use tempfile::TempDir;

use super::stores::{self, SEGMENT_BYTES};
use super::{Outcome, folder, on};

/// A store whose bytes are flipped and put right again.
struct Store {
    folder: TempDir,
    file: File,
}

impl Store {
    fn of(make: impl FnOnce(&Path)) -> Self {
        let folder = folder();
        make(folder.path());
        let options = File::options().read(true).write(true).to_owned();
        let file = options.open(folder.path().join("data")).unwrap();
        Self { folder, file }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn flip(&self, offset: u64) {
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, offset).unwrap();
        self.file.write_all_at(&[!byte[0]], offset).unwrap();
    }

    fn verify(&self) -> Outcome {
        on(self.folder.path(), "verify", &["--json"])
    }

    /// What is found with a byte flipped.
    fn damage(&self, offset: u64) -> Vec<Value> {
        self.flip(offset);
        let outcome = self.verify();
        self.flip(offset);
        let lines = outcome.json_lines();
        let (report, damage) = lines.split_last().unwrap();
        let damage: Vec<_> = damage.iter().map(|line| line["damage"].clone()).collect();
        assert_eq!(report["report"]["damaged"], damage.len(), "{lines:?}");
        assert_eq!(outcome.code, i32::from(!damage.is_empty()), "{outcome:?}");
        damage
    }

    /// Where bytes are in the file.
    fn places(&self, bytes: &[u8]) -> Vec<u64> {
        let file = fs::read(self.path()).unwrap();
        let found = file.windows(bytes.len()).enumerate().filter(|(_, window)| *window == bytes);
        found.map(|(offset, _)| offset as u64).collect()
    }
}

fn marker(number: usize) -> String {
    format!("<the value of {number:03}>")
}

/// Entries that can be found in the file by their values.
fn marked(folder: &Path, count: usize, bytes: usize) {
    let cache = stores::open(folder);
    block_on(async {
        for number in 0..count {
            let value = marker(number) + &"x".repeat(bytes);
            let put = BlobCachePut::new(value).with_tags(["tag"]).with_ttl(Duration::from_secs(99));
            cache.put("space", format!("<key {number:03}>"), put).await.unwrap();
        }
        cache.put("space", "removed", "x").await.unwrap();
        cache.invalidate_key("space", "removed").await.unwrap();
    });
    stores::close(&cache);
}

fn segment_of(offset: u64) -> u64 {
    (offset - 8192) / SEGMENT_BYTES
}

#[test]
fn every_record_is_found_to_be_damaged_when_it_is() {
    // Within one open segment, and over sealed ones.
    for (count, bytes) in [(20, 200), (40, 5000)] {
        let store = Store::of(|folder| marked(folder, count, bytes));
        store.verify().expect(0);
        for number in 0..count {
            let key = format!("<key {number:03}>");
            let value = store.places(marker(number).as_bytes());
            assert_eq!(value.len(), 1, "a value is in the file once");
            let value = value[0];
            let before = store.places(key.as_bytes()).into_iter().filter(|at| *at < value);
            let head = before.max().unwrap();
            let body = value + marker(number).len() as u64 + bytes as u64 / 2;
            for flipped in [value, body, head - 30, head] {
                let damage = store.damage(flipped);
                assert_eq!(damage.len(), 1, "{number}: {damage:?}");
                let found = &damage[0];
                assert_eq!(
                    (&found["part"], &found["segment"]),
                    (&json!("record"), &json!(segment_of(flipped)),)
                );
                let offset = found["offset"].as_u64().unwrap();
                assert!(offset <= head && head - offset < 100, "{flipped}: {found}");
                // A key that is flipped itself is known from the directory, if there is one.
                let is_sealed = count == 40 && segment_of(flipped) < 2;
                if flipped != head || is_sealed {
                    assert_eq!(
                        (&found["namespace"], &found["key"]),
                        (&json!("space"), &json!(key),)
                    );
                }
            }
        }
        store.verify().expect(0);
    }
}

/// What counts in the file of a store that was closed: the part, the segment and the bytes.
fn counting(store: &Store) -> Vec<(&'static str, Value, Range<u64>)> {
    let shown = on(store.folder.path(), "inspect", &["--json"]).expect(0).json();
    let mut counting = vec![("superblock", Value::Null, 0..8192)];
    let bytes = fs::read(store.path()).unwrap();
    for segment in shown["segments"].as_array().unwrap() {
        let start = segment["offset"].as_u64().unwrap();
        let figure = |name: &str| segment[name].as_u64().unwrap();
        let number = || segment["number"].clone();
        counting.push(("segment_header", number(), start..start + 4096));
        let end = start + 4096 + figure("live_bytes") + figure("dead_bytes");
        counting.push(("", number(), start + 4096..end));
        if segment["sealed"] == true {
            let end = start + SEGMENT_BYTES;
            let footer = usize::try_from(end).unwrap() - 80;
            let from = u32::from_le_bytes(bytes[footer + 28..footer + 32].try_into().unwrap());
            counting.push(("directory", number(), start + u64::from(from)..end));
        }
    }
    counting.push(("index_image", Value::Null, 8192 + 16 * SEGMENT_BYTES..bytes.len() as u64));
    counting
}

#[test]
fn every_byte_that_counts_is_checked_and_no_other() {
    let store = Store::of(stores::closed);
    let counting = counting(&store);
    let length = fs::metadata(store.path()).unwrap().len();
    let mut parts = BTreeSet::new();
    for offset in (0..length).step_by(997) {
        let damage = store.damage(offset);
        let place = counting.iter().find(|(.., bytes)| bytes.contains(&offset));
        let Some((part, segment, _)) = place else {
            assert_eq!(damage, Vec::<Value>::new(), "{offset} does not count");
            continue;
        };
        assert_eq!(damage.len(), 1, "{offset} in {part} of {segment}: {damage:?}");
        let found = damage[0]["part"].as_str().unwrap().to_owned();
        assert_eq!(&damage[0]["segment"], segment, "{offset}: {damage:?}");
        if part.is_empty() {
            assert!(["frame", "record"].contains(&&*found), "{offset}: {damage:?}");
        } else {
            assert_eq!(found, *part, "{offset}: {damage:?}");
        }
        parts.insert(found);
    }
    assert!(parts.len() >= 5, "{parts:?}");
}

#[test]
fn every_byte_of_a_frame_is_checked() {
    let store = Store::of(|folder| marked(folder, 3, 50));
    let first = store.places(marker(0).as_bytes())[0];
    let (start, end) = (8192 + 4096, store.places(marker(2).as_bytes())[0] + 60);
    assert!(first < end && end - start < 2000);
    let mut parts = BTreeSet::new();
    for offset in start..end {
        let damage = store.damage(offset);
        assert_eq!(damage.len(), 1, "{offset}: {damage:?}");
        assert_eq!(damage[0]["segment"], 0);
        parts.insert(damage[0]["part"].as_str().unwrap().to_owned());
    }
    assert_eq!(parts, ["frame", "record"].map(str::to_owned).into());
}

#[test]
fn damage_in_several_places_is_found_in_each() {
    let store = Store::of(|folder| marked(folder, 40, 5000));
    for number in (0..40).step_by(3) {
        store.flip(store.places(marker(number).as_bytes())[0]);
    }
    let text = on(store.folder.path(), "verify", &[]).expect(1).stdout;
    let damaged: Vec<_> = text.lines().filter(|line| line.starts_with("record\t")).collect();
    assert_eq!(damaged.len(), 14, "{text}");
    for (line, number) in damaged.iter().zip((0..40).step_by(3)) {
        let columns: Vec<_> = line.split('\t').collect();
        assert_eq!((columns.len(), columns[3]), (6, "space"));
        assert_eq!(columns[4], format!("<key {number:03}>"));
    }
    assert!(text.ends_with("DAMAGED: 14 parts, listed above\n"), "{text}");
}

#[test]
fn nothing_is_damaged_in_a_store_that_is_not() {
    let folder = folder();
    stores::close(&stores::open(folder.path()));
    let report = on(folder.path(), "verify", &["--json"]).expect(0).json();
    assert_eq!(report["report"]["records"], 0);
    fs::write(folder.path().join("data"), vec![0; 1 << 20]).unwrap();
    on(folder.path(), "verify", &[]).expect(0);
    for mode in [CrashSafety::Cold, CrashSafety::Process, CrashSafety::Power] {
        let store = Store::of(|folder| stores::dropped(folder, mode));
        let text = on(store.folder.path(), "verify", &[]).expect(0).stdout;
        assert!(text.contains("nothing is damaged"), "{text}");
    }
    let store = Store::of(stores::closed);
    let report = store.verify().expect(0).json();
    assert_eq!(report["report"]["index_image"], true);
    // All records, and no more than there are.
    let shown = on(store.folder.path(), "inspect", &["--json"]).expect(0).json();
    let segments = shown["segments"].as_array().unwrap();
    let records: u64 = segments.iter().map(|it| it["records"].as_u64().unwrap()).sum();
    assert_eq!(report["report"]["records"], records);
    assert_eq!(report["report"]["segments"], segments.len());
}

#[test]
fn a_torn_end_of_a_killed_owner_is_no_damage_and_what_lies_before_it_is() {
    let store = Store::of(|folder| stores::dropped(folder, CrashSafety::Process));
    let key = store.places(b"no text");
    let last = *key.last().unwrap();
    // Of records that follow it: the end of the log is torn.
    let end = store.places(b"gone").into_iter().filter(|at| *at > last).max().unwrap();
    store.flip(end);
    let outcome = store.verify();
    let torn = outcome.json_lines();
    store.flip(end);
    // In the middle of the open segment.
    let damage = store.damage(last);
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!((&damage[0]["part"], &damage[0]["key_hex"]), (&json!("record"), &json!("ff00")));
    assert!(torn.len() <= 2, "{torn:?}");
}

#[test]
fn what_an_open_would_drop_is_told_by_all_that_list() {
    let store = Store::of(|folder| stores::dropped(folder, CrashSafety::Process));
    let whole = on(store.folder.path(), "dump", &["--brief"]).expect(0).stdout.lines().count();
    // The header of the second segment.
    store.flip(8192 + SEGMENT_BYTES + 100);
    for command in ["inspect", "dump", "top"] {
        let outcome = on(store.folder.path(), command, &[]).expect(1);
        assert!(outcome.stderr.contains("segments are damaged"), "{outcome:?}");
    }
    let left = on(store.folder.path(), "dump", &["--brief"]).expect(1).stdout.lines().count();
    assert!(left > 0 && left < whole, "{left} of {whole}");
    let shown = on(store.folder.path(), "inspect", &["--json"]).expect(1).json();
    assert_eq!(
        (&shown["segments_dropped"], &shown["segments"][1]["place"]),
        (&json!(2), &Value::Null,)
    );
}

/// After a close the entries come from the image of the index, and nothing is dropped.
#[test]
fn a_damaged_directory_is_told_by_all_that_list_though_the_store_was_closed() {
    let store = Store::of(stores::closed);
    for command in ["inspect", "dump", "top"] {
        on(store.folder.path(), command, &[]).expect(0);
    }
    // The footer of the first segment.
    store.flip(8192 + SEGMENT_BYTES - 40);
    for command in ["inspect", "dump", "top"] {
        let outcome = on(store.folder.path(), command, &[]).expect(1);
        assert!(outcome.stderr.contains("directories of 1 segments"), "{outcome:?}");
    }
}

/// Stores with garbage in them, from a seed.
#[test]
fn whatever_is_damaged_every_command_ends_by_itself() {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    let (closed, killed) = (folder(), folder());
    stores::closed(closed.path());
    stores::dropped(killed.path(), CrashSafety::Process);
    let originals = [closed, killed].map(|it| fs::read(it.path().join("data")).unwrap());
    let (mut refused, mut damaged) = (0_u64, 0_u64);
    let cases = std::env::var("TAMIS_CASES").map_or(40, |cases| cases.parse().unwrap());
    for seed in 0..cases {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bytes = originals[usize::from(random.random::<bool>())].clone();
        // Where records, directories and headers are; sometimes the superblocks as well.
        let first = if seed % 8 == 0 { 0 } else { 8192 };
        let last = first + 5 * usize::try_from(SEGMENT_BYTES).unwrap();
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(first..last) & !7;
            let length = [1, 8, 100, 4096, 20_000][random.random_range(0..5_usize)];
            match random.random_range(0..3) {
                0 => bytes[at..at + length].fill(0),
                1 => random.fill(&mut bytes[at..at + length]),
                _ => bytes.copy_within(last - length..last, at),
            }
        }
        let folder = folder();
        fs::write(folder.path().join("data"), &bytes).unwrap();
        for command in ["inspect", "verify", "dump", "top"] {
            let outcome = on(folder.path(), command, &["--json"]);
            assert!([0, 1, 3].contains(&outcome.code), "{seed}, {command}: {outcome:?}");
            assert!(!outcome.stderr.contains("panicked"), "{seed}, {command}: {outcome:?}");
            refused += u64::from(outcome.code == 3);
            damaged += u64::from(outcome.code == 1);
        }
    }
    assert!(damaged > cases && refused < cases, "{damaged} found damage, {refused} refused");
}
