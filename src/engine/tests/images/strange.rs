//! Images that are damaged, or belong to another state or store.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::bench::{made, opening_as};
use super::{call, closed, config, file, opened, segments_end, worked};
use crate::cache::BlobCache;
use crate::engine::open::Identity;
use crate::failpoint::{Failpoint, plant};
use crate::io::{SimulatedDisk, Simulation};

/// Changes the image in some way.
fn damage(random: &mut StdRng, whole: &mut Vec<u8>, end: usize) {
    let blocks = (whole.len() - end) / 4096;
    let block = |random: &mut StdRng| end + 4096 * random.random_range(0..blocks);
    match random.random_range(0..10) {
        0 => whole.truncate(block(random)),
        1 => whole.resize(whole.len() + 4096 * random.random_range(1..4), 0),
        2 => {
            let (one, other) = (block(random), block(random));
            let (copy, mut changed) = (whole[one..one + 4096].to_vec(), false);
            for (at, byte) in copy.into_iter().enumerate() {
                changed |= whole[other + at] != byte;
                whole[one + at] = std::mem::replace(&mut whole[other + at], byte);
            }
            if !changed {
                whole[one] ^= 1;
            }
        }
        3 => {
            let lost = block(random);
            whole[lost..lost + 4096].fill(0);
            // It may have been zeros before.
            whole[lost] ^= 1;
        }
        _ => {
            let at = random.random_range(end..whole.len());
            whole[at] ^= 1 << random.random_range(0..8);
        }
    }
}

#[test]
fn a_damaged_one_does_not_count() {
    let (whole, end, expected) = closed(1, 1200);
    let mut random = StdRng::seed_from_u64(2);
    assert!(opened(&whole, &config()).1);
    for round in 0..500 {
        let mut damaged = whole.clone();
        damage(&mut random, &mut damaged, end);
        let (found, is_from_image) = opened(&damaged, &config());
        assert!(!is_from_image, "round {round}");
        assert_eq!(found, expected, "round {round}");
    }
    let _planted = plant(Failpoint::ImageUnchecked);
    let is_found = (0..500).any(|_| {
        let mut damaged = whole.clone();
        damage(&mut random, &mut damaged, end);
        let found = catch_unwind(AssertUnwindSafe(|| opened(&damaged, &config()).0));
        !found.is_ok_and(|found| found == expected)
    });
    assert!(is_found, "the bug is not found");
}

/// The store of another day, or another store, with that image in place of its own.
#[test]
fn one_of_another_state_does_not_count() {
    let config = config();
    let end = usize::try_from(segments_end(&config)).unwrap();
    let is_found = |is_planted: bool| {
        let _planted = is_planted.then(|| plant(Failpoint::ImageOfAnotherState));
        let mut is_found = false;
        for seed in 0..10 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut bench = worked(&mut random, &config, 300);
            bench.run(bench.cache.clone().close()).unwrap();
            let yesterday = file(&bench.disk).split_off(end);
            bench.reopen();
            for _ in 0..random.random_range(1..40) {
                call(&mut random, &mut bench);
            }
            bench.run(bench.cache.clone().close()).unwrap();
            let mut segments = file(&bench.disk);
            segments.truncate(end);
            let (expected, _) = opened(&segments, &config);
            segments.extend(yesterday);
            let (found, is_from_image) = opened(&segments, &config);
            assert_eq!(is_from_image, is_planted, "seed {seed}");
            is_found |= found != expected;
        }
        is_found
    };
    assert!(!is_found(false), "a wrong state");
    assert!(is_found(true), "the bug is not found");
}

/// Two stores that differ in nothing but their names.
#[test]
fn one_of_another_store_does_not_count() {
    let of = |store: u8| {
        let disk = SimulatedDisk::new(1, segments_end(&config()));
        let mut simulation = Simulation::new(1);
        let identity = Identity { store_id: [store; 16], hash_key: 7 };
        let opened = opening_as(&simulation, &disk, &config(), (0, identity));
        let cache = BlobCache { engine: simulation.block_on(opened).unwrap().unwrap() };
        simulation.block_on(cache.put("a", "key", made("value", &["t"]))).unwrap().unwrap();
        simulation.block_on(cache.close()).unwrap().unwrap();
        file(&disk)
    };
    let end = usize::try_from(segments_end(&config())).unwrap();
    let (mut one, mut other) = (of(1), of(2));
    assert!(opened(&one, &config()).1 && opened(&other, &config()).1);
    one.truncate(end);
    one.extend(other.split_off(end));
    assert!(!opened(&one, &config()).1);
}
