//! The index beside a naive map, under random operations in hash spaces of all widths.
//!
//! Each case has a seed, printed when it fails; `TAMIS_SEED=n` runs that one alone.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;

use super::*;
use crate::rounds::rounds;

mod collecting;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with TAMIS_SEED={}", self.0);
        }
    }
}

fn run_cases(count: u64, case: impl Fn(&mut Random)) {
    let chosen = std::env::var("TAMIS_SEED").ok().and_then(|text| text.parse().ok());
    let seeds = chosen.map_or(0..rounds(count, 1), |seed| seed..seed + 1);
    for seed in seeds {
        let _printed_on_failure = Seed(seed);
        case(&mut Random(seed));
    }
}

impl Index {
    fn check(&self) {
        let count = self.count.load(Ordering::Acquire);
        let (mut len, mut heap_bytes) = (0, 0);
        for number in 0..count {
            let table = self.directory.table(number).read().unwrap();
            table.check();
            for (hash, _) in table.iter() {
                assert_eq!(
                    Mixed::new(hash).low_bits(table.depth),
                    number,
                    "{hash:?} is in the wrong table"
                );
            }
            assert!(table.depth == count.ilog2() || table.depth == count.ilog2() + 1);
            len += table.len();
            heap_bytes += table.heap_bytes();
        }
        assert_eq!(len, self.len());
        assert_eq!(heap_bytes, self.tables_heap_bytes.load(Ordering::Relaxed));
        assert!(
            len <= count * SHARE,
            "{len} entries in {count} tables: one should have been split"
        );
    }

    fn scan_all(&self, positions: Range<Position>, slots_max: usize) -> Vec<(KeyHash, Slot)> {
        let mut found = Vec::new();
        let mut cursor = Some(ScanCursor::default());
        while let Some(at) = cursor {
            cursor = self.scan(at, positions.clone(), slots_max, &mut found);
        }
        found
    }
}

fn any_slot(random: &mut Random) -> Slot {
    let bits = random.next();
    Slot {
        position: Position::from_multiple(random.next() >> 4 & !7),
        blocks: u16::try_from(random.below(1 << 16)).unwrap(),
        versioned: bits & 1 != 0,
        dead: bits & 2 != 0,
        expired: bits & 4 != 0,
        shortened: bits & 8 != 0,
        reads: u8::try_from(random.below(3)).unwrap(),
    }
}

/// One random operation on both, with equal answers.
fn step(
    index: &Index,
    model: &mut HashMap<u64, Slot>,
    random: &mut Random,
    hash_mask: u64,
    grow: u64,
) {
    let key = random.next() & hash_mask;
    let hash = KeyHash(key);
    let present = model.get(&key).copied();
    // Mostly the present position, so that the conditional calls do something.
    let position = match present {
        Some(slot) if random.below(4) != 0 => slot.position,
        _ => Position::from_multiple(random.next() >> 4 & !7),
    };
    let matches = present.is_some_and(|slot| slot.position == position);
    match random.below(100) {
        roll if roll < grow => {
            let slot = any_slot(random);
            assert_eq!(index.insert(hash, slot), model.insert(key, slot));
        }
        roll if roll < grow + 5 => {
            let slot = any_slot(random);
            assert_eq!(index.replace_if(hash, position, slot), matches);
            if matches {
                model.insert(key, slot);
            }
        }
        roll if roll < grow + 10 => {
            index.mark_read(hash, position);
            if matches {
                model.entry(key).and_modify(|slot| slot.reads = READS_MAX.min(slot.reads + 1));
            }
        }
        _ => {
            assert_eq!(index.remove_if(hash, position), matches);
            if matches {
                model.remove(&key);
            }
        }
    }
    assert_eq!(index.get(hash), model.get(&key).copied());
}

fn assert_same(index: &Index, model: &HashMap<u64, Slot>) {
    index.check();
    assert_eq!(index.len(), model.len());
    for (&key, slot) in model {
        assert_eq!(index.get(KeyHash(key)), Some(*slot));
    }
    let all = index.scan_all(Position::from_multiple(0)..Position::from_multiple(!7), 100);
    assert_eq!(all.len(), model.len());
    assert!(all.iter().all(|(hash, slot)| model.get(&hash.0) == Some(slot)));
}

fn run_against_model(cases: u64, steps: u64, hash_mask: u64) {
    run_cases(cases, |random| {
        let index = Index::new();
        let mut model = HashMap::new();
        for round in 0..8 {
            // Growing and shrinking in turn.
            let grow = if round % 2 == 0 { 75 } else { 15 };
            for _ in 0..rounds(steps, 1600) / 8 {
                step(&index, &mut model, random, hash_mask, grow);
            }
            assert_same(&index, &model);
        }
    });
}

#[test]
fn agrees_with_a_map_for_3_bit_hashes() {
    run_against_model(1000, 400, 0b111);
}

#[test]
fn agrees_with_a_map_for_8_bit_hashes() {
    run_against_model(500, 3000, 0xFF);
}

#[test]
fn agrees_with_a_map_for_8_bits_at_the_top() {
    run_against_model(200, 3000, 0xFF << 56);
}

#[test]
fn agrees_with_a_map_for_16_bits_in_the_middle() {
    run_against_model(10, 100_000, 0xFFFF << 24);
}

#[test]
fn agrees_with_a_map_for_13_bit_hashes() {
    run_against_model(20, 60_000, 0x1FFF);
}

#[test]
fn agrees_with_a_map_for_64_bit_hashes() {
    run_cases(20, |random| {
        let index = Index::new();
        let mut model = HashMap::new();
        let mut keys = Vec::new();
        for round in 0..rounds(20_000, 1500) {
            let slot = any_slot(random);
            let key = random.next();
            keys.push(key);
            assert_eq!(index.insert(KeyHash(key), slot), model.insert(key, slot));
            // Growing by three, shrinking by two.
            if round % 3 != 0 {
                let at = usize::try_from(random.below(keys.len() as u64)).unwrap();
                let key = keys.swap_remove(at);
                let slot = model.remove(&key).unwrap();
                assert!(
                    !index.remove_if(
                        KeyHash(key),
                        Position::from_multiple(slot.position.value() ^ 8)
                    )
                );
                assert!(index.remove_if(KeyHash(key), slot.position));
                assert_eq!(index.get(KeyHash(key)), None);
            }
        }
        assert_same(&index, &model);
    });
}

#[test]
fn an_index_that_is_filled_by_its_owner_agrees_with_a_map() {
    run_cases(200, |random| {
        let (mut index, mut model) = (Index::new(), HashMap::new());
        let shift = [0, 48, 61][usize::try_from(random.below(3)).unwrap()];
        for _ in 0..random.below(rounds(8000, 2000)) {
            let (hash, slot) = (KeyHash(random.next() >> shift), any_slot(random));
            index.prefetch(hash);
            assert_eq!(index.insert_new(hash, slot), !model.contains_key(&hash.0));
            model.entry(hash.0).or_insert(slot);
            if random.below(1000) == 0 {
                let expected = model.len() + usize::try_from(random.below(5000)).unwrap();
                while index.split_for(expected) {}
            }
        }
        assert_same(&index, &model);
    });
}

#[test]
fn an_index_that_is_filled_by_its_owner_keeps_to_the_budget() {
    let mut index = Index::new();
    for number in 0..300_000 {
        if number % 20_000 == 0 {
            while index.split_for(4 * index.len()) {}
        }
        let slot = Slot::new(Position::from_multiple(8 * number), 1);
        index.insert_new(KeyHash(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)), slot);
        if number > 10_000 && number % 1000 == 0 {
            let each = index.memory_bytes() / index.len();
            assert!(each <= crate::footprint::SLOT_BYTES, "{each} bytes at {number}");
        }
    }
}

#[test]
fn a_single_hash_written_over_and_over_takes_one_slot() {
    let index = Index::new();
    for round in 0..10_000 {
        index.insert(KeyHash(7), Slot::new(Position::from_multiple(round * 8), 1));
    }
    assert_eq!(index.len(), 1);
    assert_eq!(index.get(KeyHash(7)), Some(Slot::new(Position::from_multiple(79_992), 1)));
    index.check();
}

#[test]
fn a_mark_on_a_record_that_was_replaced_is_dropped() {
    let index = Index::new();
    index.insert(KeyHash(1), Slot::new(Position::from_multiple(8), 1));
    index.insert(KeyHash(1), Slot::new(Position::from_multiple(16), 1));
    index.mark_read(KeyHash(1), Position::from_multiple(8));
    assert_eq!(index.get(KeyHash(1)).map(|slot| slot.reads), Some(0));
    for reads in [1, 2, 2] {
        index.mark_read(KeyHash(1), Position::from_multiple(16));
        assert_eq!(index.get(KeyHash(1)).map(|slot| slot.reads), Some(reads));
    }
}

#[test]
fn scan_keeps_to_its_range_and_its_bound() {
    let index = Index::new();
    for number in 0..10_000 {
        index.insert(KeyHash(number), Slot::new(Position::from_multiple(number * 8), 1));
    }
    let mut found = index.scan_all(Position::from_multiple(800)..Position::from_multiple(1600), 1);
    found.sort_by_key(|(hash, _)| *hash);
    let hashes: Vec<u64> = found.iter().map(|(hash, _)| hash.0).collect();
    assert_eq!(hashes, (100..200).collect::<Vec<_>>());

    let mut first = Vec::new();
    let everything = Position::from_multiple(0)..Position::from_multiple(!7);
    let next = index.scan(ScanCursor::default(), everything, 1, &mut first);
    assert_eq!(next, Some(ScanCursor { table: 1 }));
    assert!(first.len() <= 3 * SHARE);
}

#[test]
fn scan_misses_nothing_that_stays_while_the_index_changes() {
    run_cases(60, |random| {
        let index = Index::new();
        let stay = random.below(rounds(6000, 800));
        for _ in 0..stay {
            index.insert(KeyHash(random.next() | 1), Slot::new(Position::from_multiple(8), 1));
        }
        let staying: HashSet<KeyHash> = index
            .scan_all(Position::from_multiple(8)..Position::from_multiple(16), 64)
            .iter()
            .map(|(hash, _)| *hash)
            .collect();
        let mut others = Vec::new();
        let mut found = Vec::new();
        let mut cursor = Some(ScanCursor::default());
        while let Some(at) = cursor {
            for _ in 0..random.below(rounds(1500, 150)) {
                let hash = KeyHash(random.next() & !1);
                index.insert(hash, Slot::new(Position::from_multiple(16), 1));
                others.push(hash);
            }
            for hash in others.split_off(others.len() - others.len() / 3) {
                index.remove_if(hash, Position::from_multiple(16));
            }
            // Hashes that come and go have positions outside of the range, so only those that
            // stay are found.
            cursor = index.scan(
                at,
                Position::from_multiple(8)..Position::from_multiple(16),
                300,
                &mut found,
            );
            assert!(found.len() <= 20_000, "the scan finds more than there is");
        }
        let found: HashSet<KeyHash> = found.into_iter().map(|(hash, _)| hash).collect();
        assert_eq!(found, staying);
        index.check();
    });
}

struct StopsReaders<'a>(&'a AtomicBool);

impl Drop for StopsReaders<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn readers_see_every_hash_while_a_writer_grows_and_shrinks_the_index() {
    let index = Index::new();
    let stopped = AtomicBool::new(false);
    let mut random = Random(1);
    let stable: Vec<KeyHash> = (0..rounds(2000, 100)).map(|_| KeyHash(random.next() | 1)).collect();
    for hash in &stable {
        index.insert(*hash, Slot::new(Position::from_multiple(hash.0 >> 4 & !7), 3));
    }
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stopped.load(Ordering::Relaxed) {
                    for hash in &stable {
                        let slot = index.get(*hash).expect("it is there all the time");
                        assert_eq!(
                            (slot.position, slot.blocks),
                            (Position::from_multiple(hash.0 >> 4 & !7), 3)
                        );
                        index.mark_read(*hash, slot.position);
                    }
                    let whole = Position::from_multiple(0)..Position::from_multiple(!7);
                    let seen: HashSet<KeyHash> =
                        index.scan_all(whole, 500).iter().map(|(hash, _)| *hash).collect();
                    assert!(stable.iter().all(|hash| seen.contains(hash)));
                }
            });
        }
        // Also if the writer fails: or its message would wait for readers that never end.
        let _stop = StopsReaders(&stopped);
        let mut churn = |count: usize| {
            let hashes: Vec<KeyHash> = (0..count).map(|_| KeyHash(random.next() & !1)).collect();
            for hash in &hashes {
                index.insert(*hash, Slot::new(Position::from_multiple(8), 1));
            }
            for hash in &hashes {
                assert!(index.remove_if(*hash, Position::from_multiple(8)));
            }
        };
        for count in rounds([5_000, 20_000, 80_000], [50, 200, 800]) {
            churn(count);
        }
    });
    index.check();
    assert!(stable.iter().all(|hash| index.get(*hash).is_some_and(|slot| slot.reads == READS_MAX)));
}

#[test]
fn memory_stays_within_24_bytes_an_entry_on_average() {
    assert!(size_of::<Index>() <= 512);
    let index = Index::new();
    let mut random = Random(0);
    let mut points = Vec::new();
    for number in 1..=200_000_u32 {
        index.insert(KeyHash(random.next()), Slot::new(Position::from_multiple(8), 1));
        if number >= 50_000 && number % 750 == 0 {
            points.push(index.memory_bytes() as u64 * 1000 / u64::from(number));
        }
    }
    let mean = points.iter().sum::<u64>() / points.len() as u64;
    let max = points.iter().max().copied().unwrap_or(0);
    assert!(
        mean <= 23_000 && max <= 24_000,
        "{mean} on average, {max} at most, in thousandths of a byte for each entry"
    );
}

#[test]
fn memory_comes_back_when_the_index_is_emptied() {
    let index = Index::new();
    for number in 0..100_000 {
        index.insert(KeyHash(number), Slot::new(Position::from_multiple(8), 1));
    }
    for number in 0..100_000 {
        assert!(index.remove_if(KeyHash(number), Position::from_multiple(8)));
    }
    index.check();
    assert!(index.is_empty());
    assert_eq!(index.tables_heap_bytes.load(Ordering::Relaxed), 0);
    assert!(index.memory_bytes() < 100_000);
}

mod tables {
    use super::super::bucket::LANES;
    use super::*;

    /// The hash whose mixed form is `mixed`.
    fn unmix(mixed: u64) -> KeyHash {
        let product = mixed ^ (mixed >> 32);
        // The inverse of an odd factor modulo 2^64, by Newton's iteration.
        let factor = 0x9E37_79B9_7F4A_7C15_u64;
        let inverse = (0..6).fold(factor, |guess: u64, _| {
            guess.wrapping_mul(2_u64.wrapping_sub(factor.wrapping_mul(guess)))
        });
        let folded = product.wrapping_mul(inverse);
        KeyHash(folded ^ (folded >> 32))
    }

    /// All hashes have the last bucket as their home, so that probes wrap around, and more of them
    /// pass it than its counter can count.
    #[test]
    fn hashes_with_one_home_are_found_even_when_its_counter_is_saturated() {
        let mut table = SlotTable::default();
        let hashes: Vec<KeyHash> =
            (0..700).map(|number| unmix(0xFFFF_FFFF_0000_0000 | number)).collect();
        for (number, &hash) in hashes.iter().enumerate() {
            let slot = Slot::new(Position::from_multiple(number as u64 * 8), 1);
            assert_eq!(table.insert(hash, Mixed::new(hash), slot), None);
            table.check();
        }
        let absent = unmix(0xFFFF_FFFF_1000_0000);
        assert_eq!(table.get(absent, Mixed::new(absent)), None);
        for (number, &hash) in hashes.iter().enumerate().rev() {
            assert!(table.remove_if(
                hash,
                Mixed::new(hash),
                Position::from_multiple(number as u64 * 8)
            ));
            table.check();
            let next = hashes[number / 2];
            assert_eq!(table.get(next, Mixed::new(next)).is_some(), number > 0);
        }
        assert_eq!(table.heap_bytes(), 0);
    }

    #[test]
    fn few_buckets_are_passed_at_the_highest_load() {
        let mut random = Random(5);
        let mut table = SlotTable::default();
        for _ in 0..700 {
            let hash = KeyHash(random.next());
            table.insert(hash, Mixed::new(hash), Slot::new(Position::from_multiple(8), 1));
        }
        for _ in 0..rounds(20_000, 200) {
            let at = usize::try_from(random.below(table.len() as u64)).unwrap();
            let (old, _) = table.iter().nth(at).unwrap();
            assert!(table.remove_if(old, Mixed::new(old), Position::from_multiple(8)));
            let hash = KeyHash(random.next());
            table.insert(hash, Mixed::new(hash), Slot::new(Position::from_multiple(8), 1));
        }
        table.check();
        let (passed, longest) = table.ways();
        assert!(
            table.len() * 4 > table.slots() * 3,
            "{} entries in {} slots",
            table.len(),
            table.slots()
        );
        assert!(passed < table.len(), "{passed} buckets are passed by {} entries", table.len());
        assert!(longest < 8 * LANES, "an entry passes {longest} buckets");
    }
}
