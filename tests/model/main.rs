//! The cache against naive models.
//!
//! - `naive`: one thread, random operations of every kind, a list instead of a cache. With room for
//!   all, every answer and every count is equal. In a tiny cache each miss must be an eviction that
//!   the cache has counted. With eight bits of hash the colliding keys are determined first; the
//!   rest is exact again.
//! - `dropped`: futures dropped between any two polls.
//! - `concurrent`: threads that record the begin and end of each call, and a checker of the one
//!   rule: a get that began after a mutation returned sees nothing older.
//! - `sources`: read points before a changing source of truth, and races of versions.
//!
//! `TAMIS_SEED` runs one case alone; `TAMIS_CASES` sets the number of cases.

mod cases;
mod concurrent;
mod driver;
mod dropped;
mod evictions;
mod history;
mod jitter;
mod listing;
mod many;
mod naive;
mod operation;
mod seen;
mod slots;
mod sources;
mod touches;

use crate::cases::for_each_seed;
use crate::driver::{Driver, Setting, Tally};

const OPERATIONS: u64 = 300;

const ROOMY: usize = 64 << 20;
const TINY: usize = 64 << 10;

/// Runs the cases, and fails if too little has happened to prove anything.
fn run(name: &str, setting: Setting, default_cases: u64) -> Option<Tally> {
    let mut tally = Tally::default();
    let cases =
        for_each_seed(default_cases, |seed| Driver::run(setting, seed, OPERATIONS, &mut tally))?;
    println!("{name}: {cases} cases, {tally:?}");
    let per_mille = |events: u64| events * 1000 / tally.operations;
    assert!(per_mille(tally.hits) >= 50, "hits are too few");
    assert!(per_mille(tally.stale_serves) >= 1, "stale ones are too few");
    assert!(per_mille(tally.invalidations) >= 10, "invalidations are too few");
    assert!(per_mille(tally.listed) >= 5, "listed ones are too few");
    assert!(tally.over_dependencies >= cases / 4, "dependencies of many namespaces are too few");
    Some(tally)
}

#[test]
fn with_room_for_all_every_answer_equals_the_models() {
    let setting = Setting { l1_bytes_max: ROOMY, key_hash_bits: 64, is_tiny: false };
    let Some(tally) = run("roomy", setting, 500) else { return };
    assert_eq!(tally.evictions, 0);
    // Watermarks have a fixed size, so collisions refuse a few too many.
    assert!(tally.points_refused_for_nothing * 20 <= tally.points_accepted);
    assert!(tally.slots_given_up > 0 && tally.idle_expirations > 0);
    for error in ["key", "labels", "metadata", "blob", "version", "namespaces"] {
        assert!(tally.errors.contains_key(error), "no error of {error}");
    }
}

#[test]
fn a_tiny_cache_loses_only_evicted_entries() {
    let setting = Setting { l1_bytes_max: TINY, key_hash_bits: 64, is_tiny: true };
    let Some(tally) = run("tiny", setting, 500) else { return };
    assert!(tally.evictions > 0 && tally.points_accepted > 0);
}

#[test]
fn colliding_keys_shadow_only_each_other() {
    let setting = Setting { l1_bytes_max: ROOMY, key_hash_bits: 8, is_tiny: false };
    let Some(tally) = run("roomy, 8 bits", setting, 250) else { return };
    assert_eq!(tally.evictions, 0);
}

#[test]
fn a_tiny_cache_of_colliding_keys_never_returns_a_wrong_value() {
    let setting = Setting { l1_bytes_max: TINY, key_hash_bits: 8, is_tiny: true };
    let Some(tally) = run("tiny, 8 bits", setting, 250) else { return };
    assert!(tally.evictions > 0 && tally.points_accepted > 0);
}
