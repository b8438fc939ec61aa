//! Recovery beside a plain replay, record by record, and with threads beside without.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::executor::block_on;
use futures::future::{BoxFuture, ready};
use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;

use super::super::checksum::ChecksumKey;
use super::super::format::{BLOCK_BYTES, GenerationNumber, Geometry, Position, SegmentNumber};
use super::super::health::Health;
use super::super::opening::Opening;
use super::super::places::Places;
use super::super::replay::{Limits, Replay};
use super::super::restore::{Restored, restore};
use super::super::saved_position::SavedPositions;
use super::super::segment::SegmentHeader;
use super::super::segment_file::SegmentFile;
use super::super::segment_records::SegmentRecords;
use super::super::superblock::{CrashSafety, Superblock, SuperblockCopy};
use super::logs::{Manner, NAMES, NOW, Owned, Past, image, limits};
use super::plain_replay::{PlainReplay, plain};
use super::{OPEN, OPENS, STORE, geometry, position, seeded, store_key};
use crate::clock::Timestamp;
use crate::footprint::{POSTING_BYTES, SLOT_BYTES};
use crate::helpers::Helpers;
use crate::io::{AlignedBuffer, Disk, ReadRequest};
use crate::meter::measured;
use crate::quota::Quotas;

fn name_of(name: &str) -> &'static str {
    NAMES.into_iter().find(|known| *known == name).unwrap()
}

#[test]
fn a_segment_has_the_last_position_of_each_name() {
    let mut found = 0;
    for seed in 0..200 {
        let mut rng = seeded(seed);
        let (records, end) = Manner::new(&mut rng).segment(&mut rng, &mut Past::default(), 0);
        let mut positions = SavedPositions::default();
        records.iter().for_each(|record| record.save(&mut positions));
        let image = Bytes::from(image(SegmentNumber(0), &records, end));
        for may_be_plain in [false, true] {
            let place = (SegmentNumber(0), OPENS, geometry());
            let manner = (Timestamp(NOW), may_be_plain);
            let read = SegmentRecords::read(image.clone(), store_key(), place, manner);
            assert_eq!(*block_on(read).unwrap().positions(), positions);
        }
        found += positions.iter().count();
    }
    assert!(found > 50, "{found} positions");
}

#[test]
fn a_replay_in_runs_equals_one_record_by_record() {
    let (mut in_any_order, mut expired, mut renewed) = (0, 0, 0);
    for seed in 0..500 {
        let mut rng = seeded(seed);
        let manner = Manner::new(&mut rng);
        let mut past = Past::default();
        let segments: Vec<_> = (0..rng.random_range(1..6))
            .map(|number| manner.segment(&mut rng, &mut past, number))
            .collect();
        let limits = limits(&mut rng, segments.iter().map(|(records, _)| records.len()).sum());
        let head = position(rng.random_range(0..segments.len() as u64 * (1 << 20)) / 16 * 8);
        let mut expected = PlainReplay::new(limits.clone(), head.value());
        let (mut replay, helpers) = (Replay::new(limits, Timestamp(NOW)), Helpers::start(0));
        for number in (0..segments.len() as u64).rev() {
            let (records, end) = &segments[usize::try_from(number).unwrap()];
            let start = number << 20;
            let newest_first = records.iter().rev().map(|it| (it, start + u64::from(it.offset)));
            let mut those = newest_first.filter(|(_, at)| *at >= head.value());
            let is_good = those.all(|(record, at)| expected.take(record, at));
            let number = SegmentNumber(number);
            let image = Bytes::from(image(number, records, *end));
            let place = (number, OPENS, geometry());
            let read = |image: &Bytes, may_be_plain| {
                let manner = (Timestamp(NOW), may_be_plain);
                block_on(SegmentRecords::read(image.clone(), store_key(), place, manner)).unwrap()
            };
            let (any_order, from) = (read(&image, true), (head, number.0));
            let is_taken = any_order.plain().is_some_and(|plain| {
                let outline_bytes = any_order.outline_bytes();
                block_on(replay.take_plain(plain, outline_bytes, from, &helpers)).unwrap()
            });
            in_any_order += usize::from(is_taken);
            if !is_taken {
                let taken = block_on(replay.take(&read(&image, false), from, &helpers));
                assert_eq!(taken.unwrap(), is_good);
            }
            assert!(is_good || !is_taken);
            assert_eq!(replay.oldest().map(Position::value), expected.oldest);
            if !is_good {
                break;
            }
            let outline_bytes = any_order.outline_bytes();
            assert_eq!(replay.reserve(outline_bytes), expected.reserve(outline_bytes));
        }
        let live: usize = expected.namespaces.values().map(|it| it.found.live).sum();
        let found = block_on(replay.finish(&helpers)).unwrap();
        assert_eq!(found.records, live as u64);
        for (name, namespace) in &found.namespaces {
            for record in &namespace.expired {
                let slot = namespace.index.get(record.hash).filter(|slot| !slot.dead);
                if slot.is_some_and(|slot| slot.position == record.position) {
                    let exact = expected.namespaces[&**name].since[&record.position.value()];
                    assert!(record.since.0 <= exact, "{record:?}, {exact}");
                    expired += 1;
                }
            }
        }
        for (name, namespace) in &found.namespaces {
            let those = namespace.renewed.iter().map(|it| (it.position.value(), it.life.expires.0));
            assert_eq!(those.collect::<BTreeMap<_, _>>(), expected.namespaces[&**name].renewed);
            renewed += namespace.renewed.len();
        }
        let found: BTreeMap<_, _> =
            found.namespaces.iter().map(|(name, it)| (name_of(name), plain(it))).collect();
        let expected: BTreeMap<_, _> =
            expected.namespaces.into_iter().map(|(name, it)| (name, it.found)).collect();
        assert_eq!(found, expected);
    }
    assert!(in_any_order > 100, "{in_any_order} segments");
    assert!(expired > 300, "{expired} stale records");
    assert!(renewed > 10, "{renewed} touched records");
}

/// A segment of overwrites of a few keys.
fn overwrites((keys, labels): (u64, u64), count: u64, may_be_plain: bool) -> SegmentRecords {
    let record = |number: u64| Owned {
        offset: u32::try_from(4096 + 64 * number).unwrap(),
        length: 64,
        name: "a",
        generation: GenerationNumber(1),
        kind: 1,
        hash: number % keys,
        key: b"key".to_vec(),
        labels: (0..labels).map(|label| 1000 * number + label).collect(),
        window_end_ns: None,
        version: None,
        renews: (0, false),
    };
    let records: Vec<_> = (0..count).map(record).collect();
    let end = u32::try_from(4096 + 64 * count).unwrap();
    let image = image(SegmentNumber(0), &records, end);
    let (place, manner) = ((SegmentNumber(0), OPENS, geometry()), (Timestamp(NOW), may_be_plain));
    block_on(SegmentRecords::read(image.into(), store_key(), place, manner)).unwrap()
}

fn limits_of(index_bytes_max: usize) -> Limits {
    Limits { index_bytes_max, namespaces_max: 2, quotas: Quotas::default() }
}

#[test]
fn a_replay_at_the_budget_takes_time_by_the_records() {
    // Of overwrites with many labels, one more than all keys fits.
    let segment = overwrites((20, 100), 400, false);
    let of_record = SLOT_BYTES + 100 * POSTING_BYTES;
    let mut replay = Replay::new(limits_of(21 * of_record + of_record / 2), Timestamp(NOW));
    let (helpers, from) = (Helpers::start(0), (position(0), 0));
    let (taken, work) = measured(|| block_on(replay.take(&segment, from, &helpers)).unwrap());
    assert!(taken);
    assert!(work.entries < 80_000, "{} entries for 40,000 postings", work.entries);
    assert_eq!(block_on(replay.finish(&helpers)).unwrap().records, 20);
}

#[test]
fn overwrites_of_one_key_use_up_the_budget_of_one_slot() {
    let (plain, ordered) = (overwrites((1, 0), 5000, true), overwrites((1, 0), 5000, false));
    for slots in [6000, 3000, 2100, 1] {
        let mut replay = Replay::new(limits_of(slots * SLOT_BYTES + SLOT_BYTES), Timestamp(NOW));
        let helpers = Helpers::start(0);
        for _ in 0..5 {
            let from = (position(0), 0);
            let taken = replay.take_plain(plain.plain().unwrap(), 0, from, &helpers);
            if !block_on(taken).unwrap() {
                assert!(block_on(replay.take(&ordered, from, &helpers)).unwrap(), "{slots} slots");
            }
        }
        // The others find the room of all slots but one.
        let keys = slots.max(2) as u64 - 1;
        let others = overwrites((keys, 0), keys, false);
        let taken = replay.take(&others, (position(0), 0), &helpers);
        assert!(block_on(taken).unwrap(), "{slots} slots, {keys} keys");
        assert_eq!(block_on(replay.finish(&helpers)).unwrap().records, keys);
    }
}

#[test]
fn touches_that_wait_for_their_records_take_the_budget_and_no_more() {
    const TOUCHES: u32 = 5000;
    let touch = |number: u32| Owned {
        offset: 4096 + 64 * number,
        length: 64,
        name: "a",
        generation: GenerationNumber(1),
        kind: 7,
        hash: number.into(),
        key: Vec::new(),
        labels: Vec::new(),
        window_end_ns: Some(1),
        version: None,
        renews: (u64::from(4096 + 64 * number), true),
    };
    let touches: Vec<_> = (0..TOUCHES).map(touch).collect();
    let (place, manner) = ((SegmentNumber(1), OPENS, geometry()), (Timestamp(NOW), false));
    let image = Bytes::from(image(SegmentNumber(1), &touches, 4096 + 64 * TOUCHES));
    let segment = block_on(SegmentRecords::read(image, store_key(), place, manner)).unwrap();
    for budget in [1000, 10_000, 60_000, 110_000, 112_000, 1 << 20] {
        let (mut replay, helpers) =
            (Replay::new(limits_of(budget), Timestamp(NOW)), Helpers::start(0));
        let taken = block_on(replay.take(&segment, (position(0), 1), &helpers)).unwrap();
        let oldest = replay.oldest().map_or(0, Position::value);
        let waiting = u64::from(TOUCHES) - (oldest - (1 << 20) - 4096) / 64;
        // The newest with their deadlines, the others as positions.
        let waiting = usize::try_from(waiting).unwrap();
        let renewed = (budget / 16 / 109).min(waiting);
        let bytes = renewed * 109 + (waiting - renewed) * 21;
        assert!(bytes <= budget, "{waiting} take {bytes} of {budget}");
        assert_eq!(taken, waiting == TOUCHES as usize, "{budget}");
        assert!(taken || bytes + 109 > budget, "{budget} has room for more than {waiting}");
    }
}

/// A disk in memory.
struct MemoryDisk(Arc<Mutex<Vec<u8>>>);

impl Disk for MemoryDisk {
    fn length(&self) -> u64 {
        self.0.lock().len() as u64
    }

    fn resize(&self, length: u64) -> BoxFuture<'static, io::Result<()>> {
        self.0.lock().resize(usize::try_from(length).unwrap(), 0);
        ready(Ok(())).boxed()
    }

    fn read(&self, request: ReadRequest) -> BoxFuture<'static, io::Result<AlignedBuffer>> {
        let from = usize::try_from(request.offset).unwrap();
        let bytes = AlignedBuffer::copy_from_slice(&self.0.lock()[from..from + request.length]);
        ready(Ok(bytes)).boxed()
    }

    fn write(
        &self,
        offset: u64,
        buffer: AlignedBuffer,
    ) -> BoxFuture<'static, (io::Result<()>, AlignedBuffer)> {
        let from = usize::try_from(offset).unwrap();
        self.0.lock()[from..from + buffer.len()].copy_from_slice(&buffer);
        ready((Ok(()), buffer)).boxed()
    }

    fn begun(&self) -> BoxFuture<'static, ()> {
        ready(()).boxed()
    }

    fn sync(&self) -> BoxFuture<'static, io::Result<()>> {
        ready(Ok(())).boxed()
    }
}

const SEGMENTS: u32 = 8;

fn store_geometry() -> Geometry {
    Geometry::new(1 << 20, SEGMENTS).unwrap()
}

/// The bytes of a store of sealed segments, and its superblock.
fn store(rng: &mut StdRng, manner: &Manner) -> (Vec<u8>, Superblock, usize) {
    let (geometry, mut past) = (store_geometry(), Past::default());
    let mut bytes = vec![0; usize::try_from(geometry.file_bytes()).unwrap()];
    let newest = rng.random_range(0..2 * u64::from(SEGMENTS));
    let places = Places::in_turn(geometry, SegmentNumber(newest));
    let mut count = 0;
    for number in (newest + 1).saturating_sub(SEGMENTS.into())..=newest {
        let (records, end) = manner.segment(rng, &mut past, number);
        let number = SegmentNumber(number);
        count += records.len();
        let from = usize::try_from(places.offset(number).unwrap()).unwrap();
        let header = SegmentHeader { store_id: STORE, number, open_count: OPEN }.encode();
        bytes[from..from + BLOCK_BYTES].copy_from_slice(&header);
        let image = image(number, &records, end);
        bytes[from + (1 << 20) - image.len()..from + (1 << 20)].copy_from_slice(&image);
    }
    if rng.random_bool(0.6) {
        let at = rng.random_range(0..bytes.len());
        let at = if rng.random_bool(0.5) { at } else { at >> 20 << 20 | 0xf_ff00 };
        bytes[at] ^= 1 << rng.random_range(0..8);
    }
    let superblock = Superblock {
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
        head: geometry.start_of(SegmentNumber(newest.saturating_sub(6))).unwrap(),
        tail: position(0),
        generation_floor: GenerationNumber(0),
    };
    (bytes, superblock, count)
}

fn recovered(bytes: &[u8], superblock: Superblock, limits: &Limits, helpers: usize) -> Restored {
    let file = SegmentFile {
        disk: Arc::new(MemoryDisk(Arc::new(Mutex::new(bytes.to_vec())))),
        geometry: store_geometry(),
        places: Arc::new(Places::new(store_geometry())),
        key: ChecksumKey::new(STORE),
        health: Arc::new(Health::default()),
        crash_safety: CrashSafety::Process,
        next_copy: Arc::new(Mutex::new(SuperblockCopy::First)),
    };
    let opening = Opening {
        geometry: store_geometry(),
        bytes_max: store_geometry().file_bytes(),
        segment_bytes_min: 0,
        crash_safety: CrashSafety::Process,
        boot_id: [1; 16],
        now_ns: NOW,
        store_id: [0; 16],
        hash_key: 0,
        is_void: false,
        key_hash_bits: 64,
        limits: limits.clone(),
        write_amplification_pct_max: 133,
        helpers,
    };
    block_on(restore(file, superblock, &opening)).unwrap()
}

#[test]
fn threads_find_what_one_task_finds() {
    let mut dropped = 0;
    for seed in 0..200 {
        let mut rng = seeded(seed);
        let manner = Manner::new(&mut rng);
        let (bytes, superblock, records) = store(&mut rng, &manner);
        let limits = limits(&mut rng, records);
        let one = recovered(&bytes, superblock, &limits, 0);
        dropped += one.reached.dropped;
        for helpers in [1, 3] {
            let many = recovered(&bytes, superblock, &limits, helpers);
            assert_eq!(many.superblock, one.superblock);
            assert_eq!(many.tail, one.tail);
            assert_eq!(many.reached.records, one.reached.records);
            assert_eq!(many.reached.dropped, one.reached.dropped);
            assert_eq!(many.reached.outlines.bytes(), one.reached.outlines.bytes());
            let all = |reached: &Restored| -> BTreeMap<_, _> {
                let namespaces = reached.reached.namespaces.iter();
                namespaces.map(|(name, it)| (name.clone(), plain(it))).collect()
            };
            assert_eq!(all(&many), all(&one));
        }
    }
    assert!(dropped > 10, "{dropped} segments were dropped");
}
