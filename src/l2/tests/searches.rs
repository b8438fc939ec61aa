//! Searches for prefixes in one segment, sealed or not, compared with a plain filter.

use std::cmp::Reverse;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;

use super::super::blob::NamedGeneration;
use super::super::directory_builder::DirectoryBuilder;
use super::super::directory_entry::{BlobSummary, Change, DirectoryEntry, Idle};
use super::super::format::{GenerationNumber, Geometry, SegmentNumber};
use super::super::health::Health;
use super::super::places::Places;
use super::super::search_targets::SearchTargets;
use super::super::segment_file::SegmentFile;
use super::super::segment_search::SegmentSearch;
use super::super::string_list::LabelHashes;
use super::super::superblock::{CrashSafety, SuperblockCopy};
use super::{OPEN, OPENS, geometry, position, seeded, store_key};
use crate::io::{SimulatedDisk, Simulation};
use crate::meter::Work;

const SEGMENT: SegmentNumber = SegmentNumber(5);
const START: u64 = 5 << 20;

/// The names of namespaces; each is begun anew by a record of a later generation.
const NAMES: [&str; 3] = ["", "a", "pages"];

#[derive(Debug, Clone)]
struct Item {
    name: &'static str,
    generation: u64,
    /// None: a tombstone.
    key: Option<Vec<u8>>,
    hash: u64,
    expires: Option<u64>,
}

impl Item {
    fn named(&self) -> NamedGeneration<'static> {
        NamedGeneration { name: self.name, generation: GenerationNumber(self.generation) }
    }

    fn change(&self) -> Change<'_> {
        let (namespace, hash) = (self.named(), self.hash);
        let Some(key) = &self.key else { return Change::Tombstone { namespace, hash } };
        Change::Blob(BlobSummary {
            namespace,
            hash,
            key,
            window_end_ns: self.expires,
            version: None,
            labels: LabelHashes::new(&[]),
            idle: self.expires.map(|expires| Idle { written_ns: expires / 2, ttl_ns: 7 }),
        })
    }
}

fn key(rng: &mut StdRng, beginning: &[u8]) -> Vec<u8> {
    let mut key = match rng.random_range(0..20) {
        0..3 => beginning.to_vec(),
        3 => beginning[..rng.random_range(0..=beginning.len())].to_vec(),
        _ => Vec::new(),
    };
    let letters = [0, b'a', b'b', b'c', 0xff];
    let count = rng.random_range(0..8);
    key.extend((0..count).map(|_| letters[rng.random_range(0..letters.len())]));
    if rng.random_ratio(1, 2000) {
        key.resize(65_535, b'b');
    }
    key
}

fn items(rng: &mut StdRng, count: usize) -> Vec<Item> {
    // Longer than what the table of pages holds of a key.
    let beginning = vec![b'b'; [3, 254, 255, 256, 300][rng.random_range(0..5)]];
    let mut generations = [1; NAMES.len()];
    let items = (0..count).map(|number| {
        let name = rng.random_range(0..NAMES.len());
        generations[name] += u64::from(rng.random_ratio(1, 1000));
        Item {
            name: NAMES[name],
            generation: generations[name],
            key: rng.random_bool(0.9).then(|| key(rng, &beginning)),
            hash: number as u64,
            expires: rng.random_bool(0.5).then(|| rng.random_range(0..1 << 40)),
        }
    });
    items.collect()
}

struct Segment {
    items: Vec<Item>,
    offsets: Vec<u32>,
    builder: DirectoryBuilder,
    file: SegmentFile,
    disk: SimulatedDisk,
    image: Vec<u8>,
}

/// Lists items in a directory, on a disk.
fn segment(seed: u64, items: Vec<Item>) -> Segment {
    let geometry = geometry();
    let disk = SimulatedDisk::new(seed, geometry.file_bytes());
    let mut builder = DirectoryBuilder::new(SEGMENT, geometry);
    let (mut offsets, mut offset) = (Vec::new(), 4096);
    for item in &items {
        builder.append(&DirectoryEntry { offset, length: 30, change: item.change() }).unwrap();
        offsets.push(offset);
        offset += 32;
    }
    let mut image = Vec::new();
    let end = position(START + u64::from(offset));
    builder.encode(store_key(), OPEN, end, &mut image).unwrap();
    let file = SegmentFile {
        disk: Arc::new(disk.clone()),
        geometry,
        places: Arc::new(Places::in_turn(geometry, SEGMENT)),
        key: store_key(),
        health: Arc::new(Health::default()),
        crash_safety: CrashSafety::Process,
        next_copy: Arc::new(Mutex::new(SuperblockCopy::First)),
    };
    let segment = Segment { items, offsets, builder, file, disk, image };
    segment.write(&segment.image);
    segment
}

type Found = Vec<(u64, Vec<u8>, u64)>;

impl Segment {
    fn write(&self, image: &[u8]) {
        let end = end_of(self.file.geometry);
        self.disk.overwrite(end - image.len() as u64, image);
    }

    /// Rows in the order in which they occur.
    fn rows(&self) -> Vec<NamedGeneration<'static>> {
        let mut rows = Vec::new();
        for item in &self.items {
            if !rows.contains(&item.named()) {
                rows.push(item.named());
            }
        }
        rows
    }

    /// Position, key and hash of what matches, by a plain filter.
    fn filtered(&self, targets: &[(NamedGeneration<'static>, Vec<u8>)], newest: bool) -> Found {
        let rows = self.rows();
        let row = |named| rows.iter().position(|row| *row == named);
        let is_newest = |named: &NamedGeneration<'_>| {
            rows.iter()
                .filter(|row| row.name == named.name)
                .all(|row| row.generation <= named.generation)
        };
        let mut found: Vec<_> = self
            .items
            .iter()
            .zip(&self.offsets)
            .filter_map(|(item, offset)| Some((item, item.key.clone()?, offset)))
            .filter(|(item, key, _)| {
                let is_of = |(named, prefix): &&(NamedGeneration<'_>, Vec<u8>)| {
                    *named == item.named() && key.starts_with(prefix)
                };
                targets.iter().any(|target| is_of(&target)) && (!newest || is_newest(&item.named()))
            })
            .map(|(item, key, offset)| (row(item.named()), key, *offset, item.hash))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, key, at, hash)| (START + u64::from(at), key, hash)).collect()
    }

    fn check(&self, found: &SegmentItem<'_>) {
        let place = self.offsets.binary_search(&found.offset).unwrap();
        assert_eq!(Change::Blob(found.blob), self.items[place].change());
    }

    async fn sealed(&self, targets: &Arc<SearchTargets>) -> std::io::Result<Found> {
        let outline = self.file.read_outline(SEGMENT, OPENS).await?.expect("a good table");
        let in_rows = targets.in_rows(|named| outline.row_of(named));
        let search =
            SegmentSearch::sealed(position(START), in_rows, self.file.clone(), Arc::new(outline));
        self.run(search).await
    }

    async fn unsealed(&self, targets: &Arc<SearchTargets>) -> std::io::Result<Found> {
        let in_rows = targets.in_rows(|named| self.builder.row_of(named));
        let listing = self.builder.listing();
        let health = Arc::clone(&self.file.health);
        self.run(SegmentSearch::unsealed(position(START), in_rows, listing, health)).await
    }

    async fn run(&self, mut search: SegmentSearch) -> std::io::Result<Found> {
        let mut all = Vec::new();
        while let Some(found) = search.next().await? {
            for (at, blob) in found.iter() {
                let offset = self.file.geometry.offset_in_segment(at);
                self.check(&SegmentItem { offset, blob });
                all.push((at.value(), blob.key.to_vec(), blob.hash));
            }
        }
        Ok(all)
    }
}

struct SegmentItem<'a> {
    offset: u32,
    blob: BlobSummary<'a>,
}

fn end_of(geometry: Geometry) -> u64 {
    let start = Places::in_turn(geometry, SEGMENT).offset(SEGMENT).unwrap();
    start + u64::from(geometry.segment_bytes())
}

/// Targets among what there is, and what the search gets of them.
fn targets(
    rng: &mut StdRng,
    segment: &Segment,
) -> (Vec<(NamedGeneration<'static>, Vec<u8>)>, Arc<SearchTargets>) {
    let count = [1, 1, 2, 5, 40][rng.random_range(0..5)];
    let mut sought = SearchTargets::default();
    let targets: Vec<_> = (0..count)
        .map(|_| {
            let item = &segment.items[rng.random_range(0..segment.items.len())];
            let mut named = item.named();
            named.generation.0 += u64::from(rng.random_ratio(1, 20));
            let mut prefix = item.key.clone().unwrap_or_default();
            prefix.truncate(match rng.random_range(0..4) {
                0 => prefix.len(),
                1 => rng.random_range(0..=prefix.len()),
                _ => rng.random_range(0..4),
            });
            (named, prefix)
        })
        .collect();
    for (named, prefix) in &targets {
        sought.add(*named, prefix);
    }
    (targets, Arc::new(sought))
}

#[test]
fn a_search_finds_what_a_filter_finds_in_order() {
    let mut rng = seeded(71);
    let (mut found, mut empty) = (0, 0);
    for round in 0..60 {
        let count = [1, 20, 700, 2500, 4000][round % 5];
        let items = items(&mut rng, count);
        let mut simulation = Simulation::new(round as u64);
        let segment = segment(round as u64, items);
        for _ in 0..20 {
            let (targets, sought) = targets(&mut rng, &segment);
            let sealed = simulation.block_on(segment.sealed(&sought)).unwrap().unwrap();
            assert_eq!(sealed, segment.filtered(&targets, false), "{targets:?}");
            // Of a name that was begun anew only the newest generation is found.
            let unsealed = simulation.block_on(segment.unsealed(&sought)).unwrap().unwrap();
            assert_eq!(unsealed, segment.filtered(&targets, true), "{targets:?}");
            *if sealed.is_empty() { &mut empty } else { &mut found } += 1;
        }
        let Work { entries, bytes } = simulation.longest().root;
        assert!(entries <= 2 * 256 && bytes <= 2 * (256 << 10), "{entries} and {bytes} in a poll");
    }
    assert!(found > 400 && empty > 20, "{found} searches found something, {empty} nothing");
}

#[test]
fn a_search_reads_few_blocks() {
    let item = |number: u64| Item {
        name: if number % 2 == 0 { NAMES[0] } else { NAMES[1] },
        generation: 1,
        key: Some(format!("user/{:05}", number * 7919 % 100_003).into_bytes()),
        hash: number,
        expires: None,
    };
    let segment = segment(1, (0..16_000).map(item).collect());
    let mut simulation = Simulation::new(1);
    let read = || segment.file.health.metrics.read_bytes.load(std::sync::atomic::Ordering::Relaxed);
    let outline = simulation.block_on(segment.file.read_outline(SEGMENT, OPENS)).unwrap();
    let outline = Arc::new(outline.unwrap().unwrap());
    assert!(outline.page_count() > 40 && outline.memory_bytes() < 100 * outline.page_count());
    let before = read();
    for number in (0..16_000).step_by(37) {
        let item = item(number);
        let mut sought = SearchTargets::default();
        sought.add(item.named(), item.key.as_deref().unwrap());
        let in_rows = Arc::new(sought).in_rows(|named| outline.row_of(named));
        let search = SegmentSearch::sealed(
            position(START),
            in_rows,
            segment.file.clone(),
            Arc::clone(&outline),
        );
        assert_eq!(simulation.block_on(segment.run(search)).unwrap().unwrap().len(), 1);
    }
    let each = (read() - before) / (16_000 / 37);
    assert!(each < 20 << 10, "{each} bytes were read for each search");
}

/// A search either fails, or finds what there is.
#[test]
fn damage_is_never_taken_for_an_answer() {
    let mut rng = seeded(72);
    let items = items(&mut rng, 2000);
    let segment = segment(72, items);
    let mut simulation = Simulation::new(72);
    let (mut failed, mut unharmed) = (0, 0);
    for _ in 0..600 {
        let (targets, sought) = targets(&mut rng, &segment);
        let mut image = segment.image.clone();
        if rng.random() {
            let at = rng.random_range(0..image.len());
            image[at] ^= 1 << rng.random_range(0..8);
        } else {
            // Blocks of the directory, swapped.
            let count = image.len() / 4096;
            let (one, two) = (rng.random_range(0..count), rng.random_range(0..count));
            for offset in 0..4096 {
                image.swap(one * 4096 + offset, two * 4096 + offset);
            }
        }
        segment.write(&image);
        let read = async {
            match segment.file.read_outline(SEGMENT, OPENS).await {
                Ok(Some(_)) => segment.sealed(&sought).await.ok(),
                _ => None,
            }
        };
        match simulation.block_on(read).unwrap() {
            Some(found) => {
                assert_eq!(found, segment.filtered(&targets, false));
                unharmed += 1;
            }
            None => failed += 1,
        }
    }
    assert!(failed > 100 && unharmed > 100, "{failed} failed, {unharmed} unharmed");
}

/// The bound of the length holds whatever the order of the keys.
#[test]
fn a_directory_fits_the_room_that_was_kept_for_it() {
    let mut rng = seeded(73);
    for round in 0..40 {
        let mut items = items(&mut rng, [10, 1000, 4000][round % 3]);
        match round % 4 {
            0 => items.sort_by_key(|item| item.key.clone()),
            1 => items.sort_by_key(|item| Reverse(item.key.clone())),
            _ => {}
        }
        let segment = segment(1, items);
        let (room, used) = (segment.builder.encoded_len(), segment.image.len());
        assert!(used <= room && room - used <= room / 25 + 4096, "{used} of {room} bytes");
    }
}
