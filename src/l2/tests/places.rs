//! Places of segments against a naive model, and what is found of them on file.

#![allow(clippy::cast_possible_truncation, reason = "numbers of a test are small")]

use std::collections::BTreeMap;
use std::future::ready;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::FutureExt;
use futures::executor::block_on;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;

use super::super::checksum::ChecksumKey;
use super::super::format::{
    BLOCK_BYTES, DATA_OFFSET, GenerationNumber, Geometry, OpenCount, SegmentNumber, StoreId,
};
use super::super::health::Health;
use super::super::place_scan::find_places;
use super::super::places::{Places, ReadPin};
use super::super::segment::SegmentHeader;
use super::super::segment_file::SegmentFile;
use super::super::superblock::{CrashSafety, Superblock, SuperblockCopy};
use super::{OPEN, STORE, position, seeded};
use crate::io::{AlignedBuffer, Disk, ReadRequest, SimulatedDisk};

const SEGMENT_BYTES: u32 = 16 << 10;

fn geometry_of(count: u32) -> Geometry {
    Geometry::new(SEGMENT_BYTES, count).unwrap()
}

fn offset_of(place: usize) -> u64 {
    DATA_OFFSET + u64::from(SEGMENT_BYTES) * place as u64
}

fn block_of(number: u64, open_count: u32, store_id: StoreId) -> [u8; BLOCK_BYTES] {
    let (number, open_count) = (SegmentNumber(number), OpenCount(open_count));
    SegmentHeader { store_id, number, open_count }.encode()
}

#[test]
fn a_store_of_one_size_fills_its_places_in_turn() {
    for count in [2, 3, 7] {
        let places = Places::new(geometry_of(count));
        for number in 0..50_u64 {
            if let Some(oldest) = number.checked_sub(u64::from(count)) {
                places.release(SegmentNumber(oldest)).now_or_never().unwrap();
                assert_eq!(places.offset(SegmentNumber(oldest)), None);
            }
            let place = (number % u64::from(count)) as usize;
            assert_eq!(places.assign(SegmentNumber(number)).unwrap(), offset_of(place));
            assert_eq!(places.assign(SegmentNumber(number)).unwrap(), offset_of(place));
        }
    }
}

/// No place has two segments, and none gets another one under its readers.
#[test]
fn places_are_shared_by_no_two_segments_nor_reused_under_readers() {
    let mut waited = 0;
    for seed in 0..200 {
        let mut rng = seeded(seed);
        let count = rng.random_range(2..9);
        let places = Arc::new(Places::new(geometry_of(count)));
        let mut model: BTreeMap<u64, u64> = BTreeMap::new();
        let mut pins: Vec<(u64, ReadPin)> = Vec::new();
        let mut next = 0;
        for _ in 0..200 {
            match rng.random_range(0..10) {
                0..4 => match places.assign(SegmentNumber(next)) {
                    Ok(offset) => {
                        assert!(model.values().all(|&of| of != offset), "two at {offset}");
                        assert!(pins.iter().all(|(of, _)| *of != offset), "under a reader");
                        assert!((offset - DATA_OFFSET) / u64::from(SEGMENT_BYTES) < count.into());
                        model.insert(next, offset);
                        next += rng.random_range(1..3);
                    }
                    Err(_) => assert_eq!(model.len(), count as usize),
                },
                4..6 => pin_any(rng.random_range(0..next + 2), &places, &model, &mut pins),
                6..8 if !pins.is_empty() => {
                    drop(pins.swap_remove(rng.random_range(0..pins.len())));
                }
                8 => {
                    let end = rng.random_range(1..=count);
                    waited += move_any(end, &places, &mut model, &mut pins);
                    places.keep_before(count);
                }
                _ => {
                    let Some((oldest, offset)) = model.pop_first() else { continue };
                    waited += unpin(offset, &mut pins, places.release(SegmentNumber(oldest)));
                }
            }
            for (&number, &offset) in &model {
                assert_eq!(places.offset(SegmentNumber(number)), Some(offset));
            }
        }
    }
    assert!(waited > 100, "{waited}");
}

/// Has something wait for the readers of a place, which end one after the other. Returns how many.
fn unpin(offset: u64, pins: &mut Vec<(u64, ReadPin)>, waiting: impl Future<Output = ()>) -> u32 {
    let (mut waiting, mut waited) = (pin!(waiting), 0);
    while waiting.as_mut().now_or_never().is_none() {
        waited += 1;
        let pinned = pins.iter().position(|(of, _)| *of == offset);
        drop(pins.swap_remove(pinned.expect("it waits for no reader")));
    }
    assert!(pins.iter().all(|(of, _)| *of != offset), "it waited for no reader");
    waited
}

/// Moves the oldest segment that lies behind the first places, if one of these is free.
fn move_any(
    end: u32,
    places: &Arc<Places>,
    model: &mut BTreeMap<u64, u64>,
    pins: &mut Vec<(u64, ReadPin)>,
) -> u32 {
    places.keep_before(end);
    let behind = offset_of(end as usize);
    let oldest = model.iter().find(|(_, offset)| **offset >= behind).map(|(number, _)| *number);
    assert_eq!(places.behind(SegmentNumber(0), end).0, oldest.map(SegmentNumber));
    let Some(number) = oldest else { return 0 };
    let in_use = model.values().filter(|&&offset| offset < behind).count();
    let Ok(moved) = places.begin_move(SegmentNumber(number), end) else {
        assert_eq!(in_use, end as usize, "there is room");
        return 0;
    };
    let before = model.insert(number, moved.to).unwrap();
    assert_eq!(before, moved.from);
    assert!(moved.to < behind && model.iter().all(|(of, at)| *of == number || *at != moved.to));
    assert!(pins.iter().all(|(of, _)| *of != moved.to), "under a reader");
    assert!(places.is_wanted(&moved, end));
    let left = places.switch(&moved).unwrap();
    assert!(!places.is_wanted(&moved, end), "it was moved");
    unpin(before, pins, places.leave(left))
}

fn pin_any(
    number: u64,
    places: &Arc<Places>,
    model: &BTreeMap<u64, u64>,
    pins: &mut Vec<(u64, ReadPin)>,
) {
    let pinned = places.pin(SegmentNumber(number));
    assert_eq!(pinned.as_ref().map(|(offset, _)| *offset), model.get(&number).copied());
    pins.extend(pinned);
}

/// What lies at the places of a file, and what counts of it.
struct Headers {
    blocks: Vec<[u8; BLOCK_BYTES]>,
    /// By number: open count and place.
    in_use: BTreeMap<u64, (u32, usize)>,
    erased: Vec<usize>,
}

fn headers(rng: &mut StdRng, count: u32, (oldest, newest): (u64, u64)) -> Headers {
    let (mut blocks, mut erased) = (Vec::new(), Vec::new());
    let mut in_use: BTreeMap<u64, (u32, usize)> = BTreeMap::new();
    for place in 0..count as usize {
        let number = rng.random_range(oldest.saturating_sub(3)..newest + 3);
        let open = rng.random_range(1..OPEN.0 + 2);
        let mut block = block_of(number, open, STORE);
        match rng.random_range(0..8) {
            0 => block = [0; BLOCK_BYTES],
            1 => block = block_of(number, open, StoreId([8; 16])),
            2 => block[rng.random_range(0..BLOCK_BYTES)] ^= 1,
            _ if number > newest || open > OPEN.0 => erased.push(place),
            _ if number < oldest => {}
            _ => {
                let first = in_use.get(&number).copied();
                let is_first = first.is_none_or(|(first, _)| first < open);
                erased.extend(first.map(|(_, first)| if is_first { first } else { place }));
                if is_first {
                    in_use.insert(number, (open, place));
                }
            }
        }
        blocks.push(block);
    }
    erased.sort_unstable();
    Headers { blocks, in_use, erased }
}

#[test]
fn an_open_finds_the_places_and_erases_what_may_mislead_another() {
    let (mut erased, mut doubled) = (0, 0);
    for seed in 0..300 {
        let mut rng = seeded(seed);
        let count = rng.random_range(2..12);
        let oldest = rng.random_range(0..20);
        let newest = oldest + rng.random_range(0..u64::from(count));
        let found = headers(&mut rng, count, (oldest, newest));
        let geometry = geometry_of(count);
        let disk = SimulatedDisk::new(seed, geometry.file_bytes());
        for (place, block) in found.blocks.iter().enumerate() {
            disk.overwrite(offset_of(place), block);
        }
        let file = file_on(Arc::new(disk.clone()), geometry);
        let superblock = superblock(geometry, oldest, newest);
        let places = block_on(find_places(&file, &superblock)).unwrap();
        for number in oldest.saturating_sub(3)..newest + 3 {
            let place = found.in_use.get(&number).map(|&(_, place)| offset_of(place));
            assert_eq!(places.offset(SegmentNumber(number)), place, "of segment {number}");
        }
        let disk = disk.crash();
        for (place, block) in found.blocks.iter().enumerate() {
            let is_erased = found.erased.contains(&place);
            let left = disk.snapshot(offset_of(place), BLOCK_BYTES);
            assert!(left == if is_erased { [0; BLOCK_BYTES] } else { *block }, "at {place}");
        }
        let used: Vec<_> = found.in_use.values().map(|&(_, place)| place).collect();
        let last = found.in_use.last_key_value().map(|(_, &(_, place))| place);
        let last = last.unwrap_or((newest % u64::from(count)) as usize);
        let turn = (last + 1..count as usize).chain(0..=last);
        for (number, place) in (newest + 10..).zip(turn.filter(|place| !used.contains(place))) {
            assert_eq!(places.assign(SegmentNumber(number)).unwrap(), offset_of(place));
        }
        assert!(places.assign(SegmentNumber(newest + 99)).is_err(), "no place is left");
        erased += found.erased.len();
        doubled += usize::from(found.erased.len() + used.len() > count as usize / 2);
    }
    assert!(erased > 300 && doubled > 50, "{erased} erased, {doubled} doubled");
}

fn file_on(disk: Arc<dyn Disk>, geometry: Geometry) -> SegmentFile {
    SegmentFile {
        disk,
        geometry,
        places: Arc::new(Places::new(geometry)),
        key: ChecksumKey::new(STORE),
        health: Arc::new(Health::default()),
        crash_safety: CrashSafety::Process,
        next_copy: Arc::new(Mutex::new(SuperblockCopy::First)),
    }
}

/// A disk of which one block cannot be read, so many times.
struct BadBlock {
    disk: SimulatedDisk,
    offset: u64,
    failures: AtomicU32,
}

impl Disk for BadBlock {
    fn length(&self) -> u64 {
        self.disk.length()
    }

    fn resize(&self, length: u64) -> BoxFuture<'static, io::Result<()>> {
        self.disk.resize(length)
    }

    fn read(&self, request: ReadRequest) -> BoxFuture<'static, io::Result<AlignedBuffer>> {
        let less = |left: u32| left.checked_sub(1);
        let is_bad = request.offset == self.offset
            && self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        if is_bad { ready(Err(io::Error::other("bad"))).boxed() } else { self.disk.read(request) }
    }

    fn write(
        &self,
        offset: u64,
        buffer: AlignedBuffer,
    ) -> BoxFuture<'static, (io::Result<()>, AlignedBuffer)> {
        self.disk.write(offset, buffer)
    }

    fn begun(&self) -> BoxFuture<'static, ()> {
        Disk::begun(&self.disk)
    }

    fn sync(&self) -> BoxFuture<'static, io::Result<()>> {
        self.disk.sync()
    }
}

#[test]
fn an_open_that_cannot_read_a_header_at_once_loses_nothing() {
    const COUNT: u32 = 7;
    let geometry = geometry_of(COUNT);
    for bad in 0..COUNT as usize {
        for (failures, is_lost) in [(1, false), (2, false), (u32::MAX, true)] {
            let disk = SimulatedDisk::new(bad as u64, geometry.file_bytes());
            for place in 0..COUNT as usize {
                disk.overwrite(offset_of(place), &block_of(10 + place as u64, OPEN.0, STORE));
            }
            let offset = offset_of(bad);
            let disk = BadBlock { disk, offset, failures: AtomicU32::new(failures) };
            let contents = disk.disk.clone();
            let file = file_on(Arc::new(disk), geometry);
            let superblock = superblock(geometry, 10, 9 + u64::from(COUNT));
            let places = block_on(find_places(&file, &superblock)).unwrap();
            for place in 0..COUNT as usize {
                let found = places.offset(SegmentNumber(10 + place as u64));
                let is_there = place != bad || !is_lost;
                assert_eq!(found, is_there.then(|| offset_of(place)), "{bad}, {failures} times");
            }
            let is_erased = contents.snapshot(offset, BLOCK_BYTES) == [0; BLOCK_BYTES];
            assert_eq!(is_erased, is_lost, "{bad}, {failures} times");
        }
    }
}

fn superblock(geometry: Geometry, oldest: u64, newest: u64) -> Superblock {
    Superblock {
        write_counter: 1,
        store_id: STORE,
        hash_key: 1,
        geometry,
        created_ns: 0,
        open_count: OPEN,
        crash_safety: CrashSafety::Process,
        clean: false,
        void: false,
        boot_id: [1; 16],
        newest: SegmentNumber(newest),
        head: geometry.start_of(SegmentNumber(oldest)).unwrap(),
        tail: position(0),
        generation_floor: GenerationNumber(0),
    }
}
