//! Every target over its seeds, over the corpus in `fuzz/`, and over seeded mutations of both.

mod mutation;

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use self::mutation::mutated;
use super::operations::{Tally, played};
use super::{TARGETS, Target};
use crate::failpoint::{Failpoint, plant};

/// Inputs that the targets begin with.
fn seeds() -> BTreeMap<&'static str, Vec<Vec<u8>>> {
    let mut seeds: BTreeMap<&'static str, Vec<Vec<u8>>> = BTreeMap::new();
    for (target, seed) in crate::l2::tests::seeds::all() {
        seeds.entry(target).or_default().push(seed);
    }
    let mut random = StdRng::seed_from_u64(92);
    for (target, length) in [("store", 40), ("operations", 600)] {
        seeds.insert(target, (0..8).map(|_| script(&mut random, length)).collect());
    }
    seeds
}

fn script(random: &mut StdRng, length: usize) -> Vec<u8> {
    let mut script = vec![0; random.random_range(length / 4..length)];
    random.fill_bytes(&mut script);
    script
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    // A package is without it.
    let Ok(files) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Runs a target, within its memory. The message names the input, if it fails.
fn checked(target: Target, input: &[u8], what: &str) {
    let (name, mut result) = (target.name, Ok(()));
    let memory = allocation_counter::measure(|| {
        result = catch_unwind(AssertUnwindSafe(|| target.run(input)));
    });
    assert!(result.is_ok(), "{name}, {what}, fails on {input:02x?}");
    let most = target.memory_max(input.len());
    assert!(memory.bytes_max <= most, "{name}, {what}, takes {} on {input:02x?}", memory.bytes_max);
}

fn mutations(name: &str, cases: u64) {
    let target = Target::named(name).unwrap();
    let cases = std::env::var("TAMIS_CASES").map_or(cases, |cases| cases.parse().unwrap());
    let first = std::env::var("TAMIS_SEED").map_or(0, |seed| seed.parse().unwrap());
    let mut inputs = seeds().remove(name).unwrap();
    assert!(!inputs.is_empty());
    inputs.extend(corpus(name));
    for (number, input) in inputs.iter().enumerate() {
        checked(target, input, &format!("input {number}"));
    }
    for seed in first..first + cases {
        let mut random = StdRng::seed_from_u64(seed);
        let input = mutated(&mut random, &inputs);
        checked(target, &input, &format!("TAMIS_SEED={seed}"));
    }
}

#[test]
fn records() {
    mutations("record", 6000);
}

#[test]
fn directories() {
    mutations("directory", 3000);
}

#[test]
fn superblocks() {
    mutations("superblock", 3000);
}

#[test]
fn frames() {
    mutations("frame", 3000);
}

#[test]
fn images() {
    mutations("image", 3000);
}

#[test]
fn damaged_stores() {
    mutations("store", 150);
}

#[test]
fn scripts_of_operations() {
    mutations("operations", 100);
}

/// Listings, and disks that do not take everything.
#[test]
fn scripts_list_entries_and_have_values_refused() {
    let mut sum = Tally::default();
    let scripts = 60;
    for seed in 1..=scripts {
        let tally = played(&script(&mut StdRng::seed_from_u64(seed), 900));
        sum.listed += tally.listed;
        sum.listed_at_rest += tally.listed_at_rest;
        sum.not_admitted += tally.not_admitted;
        sum.over_rate += tally.over_rate;
    }
    println!("{scripts} scripts: {sum:?}");
    assert!(sum.listed >= scripts && sum.listed_at_rest >= 2 * scripts, "{sum:?}");
    assert!(sum.not_admitted >= scripts && sum.over_rate >= scripts / 2, "{sum:?}");
}

/// The number of random scripts until one finds the planted bug.
fn scripts_until_found(name: &str, length: usize, bug: Failpoint) -> Option<u64> {
    let (target, _planted) = (Target::named(name).unwrap(), plant(bug));
    (1..SCRIPTS_MAX).find(|seed| {
        let script = script(&mut StdRng::seed_from_u64(*seed), length);
        catch_unwind(|| target.run(&script)).is_err()
    })
}

const SCRIPTS_MAX: u64 = 3000;

#[test]
fn damage_finds_planted_bugs() {
    for bug in [Failpoint::DamageSkipped, Failpoint::ImageUnchecked] {
        let found = scripts_until_found("store", 40, bug);
        println!("{bug:?} after {found:?}");
        assert!(found.is_some(), "{bug:?}");
    }
}

#[test]
fn scripts_find_planted_bugs() {
    for bug in [
        Failpoint::KeyNotCompared,
        Failpoint::StaleFillStored,
        Failpoint::TombstoneOmitted,
        Failpoint::ManyMisplaced,
        Failpoint::LabelsForgotten,
        Failpoint::BootIgnored,
        Failpoint::AcknowledgedUnsynced,
        Failpoint::AcknowledgedOutOfOrder,
        Failpoint::FailedWriteIgnored,
        Failpoint::UndecodedShared,
        Failpoint::PointTakenLate,
        Failpoint::ListedUnchecked,
        Failpoint::ListedTwice,
        Failpoint::OverwriteRefused,
    ] {
        let found = scripts_until_found("operations", 900, bug);
        println!("{bug:?} after {found:?}");
        assert!(found.is_some(), "{bug:?}");
    }
}

/// Writes the seeds to the folder of a corpus, for a fuzzer.
#[test]
fn every_target_has_seeds() {
    let seeds = seeds();
    let mut names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    names.sort_unstable();
    assert!(seeds.keys().copied().eq(names));
    let Some(folder) = std::env::var_os("TAMIS_CORPUS") else { return };
    for (target, seeds) in seeds {
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder).unwrap();
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), seed).unwrap();
        }
    }
}
