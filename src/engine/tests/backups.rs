//! Backups beside mutations. A copy holds the state after some of the mutations, those before the
//! call among them, and none of the later ones. In a store without room for everything, keys may
//! be missing. An end of the machine or the process at any moment leaves a copy that is refused,
//! or one that is whole.
//!
//! `TAMIS_RUNS` sets the number of runs of each test; `TAMIS_SEED` runs one alone.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "a panic fails the test")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::catch_unwind;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::bench::{Bench, opening_as, seeds_of};
use super::errors::{documented, variant};
use crate::batch::yield_now;
use crate::cache::BlobCache;
use crate::config::BlobCacheConfig;
use crate::engine::open::Identity;
use crate::error::CacheError;
use crate::failpoint::{Failpoint, plant};
use crate::io::{Disk, End, Fault, OperationKind, SimulatedDisk, Simulation};
use crate::l2;
use crate::modes::{CrashSafety, L2Admission, L2Compression};
use crate::put::BlobCachePut;

pub(super) const SEGMENT: u64 = 32 << 10;
const KEYS: u8 = 12;
const POLLS_MAX: u32 = 200_000;

#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    crash_safety: CrashSafety,
    /// The log has room for everything.
    pub(super) is_roomy: bool,
}

pub(super) const ROOMY: Setting = Setting { crash_safety: CrashSafety::Process, is_roomy: true };
pub(super) const FULL: Setting = Setting { is_roomy: false, ..ROOMY };

/// The number of each key's value.
pub(super) type State = BTreeMap<u8, u32>;

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) backups: u64,
    /// Mutations that a copy has, and that began after the call.
    later: u64,
    pub(super) found: u64,
    refused: u64,
    whole: u64,
    shared_bytes: u64,
}

pub(super) fn config(setting: Setting, segments: u64) -> BlobCacheConfig {
    BlobCacheConfig::builder()
        .l1_bytes_max(64 << 10)
        .l2_path("simulated")
        .l2_bytes_max(segments * SEGMENT)
        .l2_segment_bytes(32 << 10)
        .l2_compression(L2Compression::Off)
        .l2_admission(L2Admission::Always)
        .crash_safety(setting.crash_safety)
        .build()
        .unwrap()
}

pub(super) fn empty_target(seed: u64) -> SimulatedDisk {
    let disk = SimulatedDisk::new(seed, l2::EMPTY_BYTES);
    disk.overwrite(0, &l2::begin_unfinished());
    // Every other copy shares blocks.
    disk.plan(|plan| plan.shares = seed % 2 == 0);
    disk
}

fn tag(key: u8) -> String {
    format!("tag {}", key % 3)
}

fn value(number: u32, length: usize) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    // Bytes that no other value has at their places.
    value.extend((0..length).map(|at| (at as u32).wrapping_mul(number.wrapping_add(7)) as u8));
    value
}

/// All states that there ever were, the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) states: Vec<State>,
}

impl Model {
    fn now(&self) -> State {
        self.states.last().cloned().unwrap_or_default()
    }

    fn change(&mut self, change: impl FnOnce(&mut State)) {
        let mut state = self.now();
        change(&mut state);
        self.states.push(state);
    }
}

/// One mutation after the other, between yields. A state is noted when its mutation begins: it may
/// take effect from then on.
pub(super) async fn mutate(
    cache: &BlobCache,
    model: &RefCell<Model>,
    random: &mut StdRng,
    count: u32,
) {
    for _ in 0..count {
        let (key, number) = (random.random_range(0..KEYS), model.borrow().states.len() as u32);
        match random.random_range(0..20) {
            0 => {
                model.borrow_mut().change(|state| _ = state.remove(&key));
                cache.invalidate_key("a", [key]).await.unwrap();
            }
            1 => {
                model.borrow_mut().change(|state| state.retain(|it, _| tag(*it) != tag(key)));
                cache.invalidate_tags("a", &[tag(key)]).await.unwrap();
            }
            2 if random.random_bool(0.3) => {
                model.borrow_mut().change(State::clear);
                cache.invalidate_namespace("a").await.unwrap();
            }
            3 => {
                model.borrow_mut().change(|state| _ = state.remove(&key));
                cache.invalidate_prefix("a", [key]).await.unwrap();
            }
            _ => {
                model.borrow_mut().change(|state| _ = state.insert(key, number));
                let put = BlobCachePut::new(value(number, random.random_range(0..4000)));
                cache.put("a", [key], put.with_tags([tag(key)])).await.unwrap();
            }
        }
        for _ in 0..random.random_range(0..30) {
            yield_now().await;
        }
    }
}

fn open(
    seed: u64,
    disk: &SimulatedDisk,
    config: &BlobCacheConfig,
) -> Result<(Simulation, BlobCache), CacheError> {
    let mut simulation = Simulation::new(seed);
    // Another machine, where another store would be made.
    let opening = opening_as(&simulation, disk, config, (9, Identity::of(9)));
    let engine = simulation.block_on(opening).expect("an open hangs")?;
    Ok((simulation, BlobCache { engine }))
}

/// What a copy holds must be one of the states from `begun` on.
pub(super) fn check(
    (seed, disk): (u64, &SimulatedDisk),
    setting: Setting,
    (model, begun): (&Model, usize),
    tally: &mut Tally,
) -> Result<(), String> {
    let segments = [6, 12, 64][(seed % 3) as usize];
    let crash_safety = match setting.crash_safety {
        // An open in this mode begins empty.
        CrashSafety::Cold => CrashSafety::Process,
        other => other,
    };
    let setting = Setting { crash_safety, ..setting };
    // One that is opened with less room may give up the oldest.
    let is_roomy = setting.is_roomy && segments == 64;
    let opened = open(seed, disk, &config(setting, segments));
    let (mut simulation, cache) = opened.map_err(|error| format!("refused: {error}"))?;
    let mut found = State::new();
    for key in 0..KEYS {
        let Some(hit) = simulation.block_on(cache.get("a", [key])).ok_or("a get hangs")? else {
            continue;
        };
        let number = u32::from_le_bytes(*hit.value().first_chunk().ok_or("too short")?);
        if hit.value() != value(number, hit.value().len() - 4) {
            return Err(format!("key {key}: a mixture of values"));
        }
        found.insert(key, number);
    }
    let fits = |state: &State| match is_roomy {
        true => *state == found,
        false => found.iter().all(|(key, number)| state.get(key) == Some(number)),
    };
    let states = model.states.get(begun..).unwrap_or_default();
    match states.iter().position(fits) {
        Some(later) => tally.later += later as u64,
        None => return Err(format!("{found:?} is no state from {begun} on: {states:?}")),
    }
    tally.found += found.len() as u64;
    Ok(())
}

/// What an end of the machine or the process leaves of an unfinished copy.
fn cut(
    (seed, target): (u64, &SimulatedDisk),
    setting: Setting,
    known: (&Model, usize),
    tally: &mut Tally,
) -> Result<(), String> {
    let end = if seed % 2 == 0 { End::Machine } else { End::Process };
    let left = target.outcomes(end).drawn(seed);
    match open(seed, &left, &config(setting, 64)) {
        Err(CacheError::L2Damaged { reason, .. }) if reason.contains("not finished") => {
            tally.refused += 1;
            Ok(())
        }
        Err(error) => Err(format!("refused: {error}")),
        Ok(opened) => {
            drop(opened);
            tally.whole += 1;
            check((seed, &target.outcomes(end).drawn(seed)), setting, known, tally)
        }
    }
}

fn run(seed: u64, setting: Setting) -> (Result<(), String>, Tally) {
    let mut tally = Tally::default();
    let result = run_counted(seed, setting, &mut tally);
    (result, tally)
}

fn run_counted(seed: u64, setting: Setting, tally: &mut Tally) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut segments = if setting.is_roomy { 48 } else { random.random_range(4..9) };
    let mut bench = Bench::with(seed, config(setting, segments));
    let cache = bench.cache();
    let model = RefCell::new(Model { states: vec![State::new()] });
    let mut target = empty_target(seed);
    for _ in 0..3 {
        let before = random.random_range(0..if setting.is_roomy { 40 } else { 150 });
        bench.run(mutate(&cache, &model, &mut random, before));
        if random.random_bool(0.5) {
            target = empty_target(random.random());
        }
        let begun = model.borrow().states.len() - 1;
        let mut others = StdRng::seed_from_u64(random.random());
        let count = random.random_range(0..40);
        let backup = cache.engine.backups().back_up_to(Arc::new(target.clone()));
        let size = random.random_bool(0.4).then(|| {
            segments = if setting.is_roomy { 24 + segments % 48 } else { 4 + segments % 8 };
            segments * SEGMENT
        });
        let resize = async {
            if let Some(bytes) = size {
                cache.set_l2_bytes_max(bytes).await.unwrap();
            }
        };
        let others = futures::future::join(mutate(&cache, &model, &mut others, count), resize);
        let mut work = pin!(futures::future::join(backup, others));
        let (mut moment, mut done) = (target.moment(), None);
        bench.simulation.limit_steps(2);
        for _ in 0..POLLS_MAX {
            done = bench.simulation.block_on(work.as_mut());
            if target.moment() != moment && random.random_bool(0.05) {
                moment = target.moment();
                let known = model.borrow().clone();
                cut((random.random(), &target), setting, (&known, begun), tally)?;
            }
            if done.is_some() {
                break;
            }
        }
        bench.simulation.limit_steps(u64::MAX);
        let (report, _) = done.ok_or("a backup hangs")?;
        let report = match report {
            Ok(report) => report,
            // A log so small comes round while it is copied.
            Err(CacheError::L2Unavailable { .. }) if !setting.is_roomy => continue,
            Err(error) => return Err(error.to_string()),
        };
        tally.backups += 1;
        tally.shared_bytes += report.shared_bytes();
        let known = model.borrow().clone();
        let left = target.outcomes(End::Machine).drawn(random.random());
        if report.bytes() != left.length() {
            return Err(format!("{report:?} of {} bytes", left.length()));
        }
        check((random.random(), &left), setting, (&known, begun), tally)?;
        target = empty_target(random.random());
    }
    Ok(())
}

fn laboratory(setting: Setting) -> Tally {
    let seeds = seeds_of(40);
    let (runs, mut all) = (seeds.end - seeds.start, Tally::default());
    for seed in seeds {
        let (result, tally) = run(seed, setting);
        if let Err(what) = result {
            panic!("TAMIS_SEED={seed} of {setting:?} fails: {what}");
        }
        all.backups += tally.backups;
        all.later += tally.later;
        all.found += tally.found;
        all.refused += tally.refused;
        all.whole += tally.whole;
        all.shared_bytes += tally.shared_bytes;
    }
    println!("{setting:?}, {runs} runs: {all:?}");
    assert!(all.backups >= runs && all.found >= all.backups, "{all:?}");
    assert!(all.refused >= 5 * runs && all.shared_bytes > 0, "{all:?}");
    all
}

#[test]
fn a_backup_is_the_store_at_one_moment() {
    for crash_safety in [CrashSafety::Cold, CrashSafety::Process, CrashSafety::Power] {
        let tally = laboratory(Setting { crash_safety, ..ROOMY });
        assert!(tally.later > 0, "{tally:?}");
    }
}

#[test]
fn a_backup_of_a_log_that_comes_round_is_the_store_at_one_moment() {
    for crash_safety in [CrashSafety::Process, CrashSafety::Power] {
        laboratory(Setting { crash_safety, ..FULL });
    }
}

#[test]
fn planted_bugs_of_a_backup_are_found() {
    for bug in [Failpoint::BackupNotAwaited, Failpoint::BackupUnsynced] {
        let _planted = plant(bug);
        let found = (0..400).find_map(|seed| {
            let run = catch_unwind(|| run(seed, ROOMY).0);
            run.unwrap_or_else(|_| Err("a panic".into())).err().map(|what| (seed, what))
        });
        let (seed, what) = found.unwrap_or_else(|| panic!("{bug:?} is not found"));
        println!("{bug:?}: {} runs: {what:.200}", seed + 1);
    }
}

#[test]
fn a_backup_that_fails_changes_nothing_and_the_next_one_takes_its_place() {
    let mut bench = Bench::with(1, config(ROOMY, 48));
    bench.put("k", "value", &[]);
    let cache = bench.cache();
    for kind in [OperationKind::Write, OperationKind::Sync] {
        let target = empty_target(2);
        target.fail(kind, 0, Fault::Io, true);
        let backup = cache.engine.backups().back_up_to(Arc::new(target.clone()));
        let failed = bench.run(backup).unwrap_err();
        assert!(matches!(failed, CacheError::L2Io { .. }), "{failed}");
        target.heal();
        assert!(open(3, &target, &config(ROOMY, 48)).is_err());
        let backup = cache.engine.backups().back_up_to(Arc::new(target.clone()));
        bench.run(backup).unwrap();
        let (mut simulation, copy) = open(3, &target, &config(ROOMY, 48)).unwrap();
        let hit = simulation.block_on(copy.get("a", "k")).unwrap();
        assert_eq!(hit.unwrap().value(), b"value");
    }
    assert_eq!(bench.get("k").as_deref(), Some("value"));
}

#[test]
fn one_backup_at_a_time_and_none_that_nobody_waits_for() {
    let mut bench = Bench::with(1, config(ROOMY, 48));
    bench.put("k", "value", &[]);
    let cache = bench.cache();
    let (target, other) = (empty_target(2), Arc::new(empty_target(3)));
    let mut first = Box::pin(cache.engine.backups().back_up_to(Arc::new(target.clone())));
    assert!((&mut first).now_or_never().is_none());
    let backup = |other: &Arc<SimulatedDisk>| {
        let (cache, other) = (cache.clone(), Arc::clone(other));
        async move { cache.engine.backups().back_up_to(other).await }
    };
    let refused = bench.run(backup(&other)).unwrap_err();
    assert!(matches!(refused, CacheError::L2Unavailable { .. }), "{refused}");
    drop(first);
    bench.pass(Duration::from_secs(1));
    assert!(open(4, &target, &config(ROOMY, 48)).is_err(), "it went on for nobody");

    // A caller that is not polled again keeps nobody from another one.
    let mut asleep = Box::pin(cache.engine.backups().back_up_to(Arc::new(target.clone())));
    assert!((&mut asleep).now_or_never().is_none());
    bench.pass(Duration::from_secs(1));
    bench.run(backup(&other)).unwrap();
    assert!(asleep.now_or_never().unwrap().is_ok());
    assert!(open(4, &target, &config(ROOMY, 48)).is_ok());
    bench.run(cache.close()).unwrap();
    assert_eq!(bench.run(backup(&other)), Err(CacheError::Closed));
}

#[test]
fn a_target_that_does_not_answer_delays_no_close() {
    for is_dropped in [false, true] {
        let mut bench = Bench::with(1, config(ROOMY, 48));
        bench.put("k", "value", &[]);
        let (cache, target) = (bench.cache(), empty_target(2));
        let mut backup = Box::pin(cache.engine.backups().back_up_to(Arc::new(target.clone())));
        assert!((&mut backup).now_or_never().is_none());
        target.plan(|plan| plan.holds_all = true);
        bench.pass(Duration::from_secs(1));
        let waiting = (!is_dropped).then_some(backup);
        bench.run(cache.close()).unwrap();
        if let Some(backup) = waiting {
            assert_eq!(bench.run(backup), Err(CacheError::Closed));
        }
    }
}

/// A segment that is moved while it is read has no header at its old place.
#[test]
fn a_segment_without_its_header_is_not_copied() {
    let back_up = || {
        let mut bench = Bench::with(1, config(ROOMY, 48));
        bench.put("k", "value", &[]);
        bench.disk.overwrite(l2::EMPTY_BYTES, &[0; 4096]);
        let cache = bench.cache();
        bench.run(cache.engine.backups().back_up_to(Arc::new(empty_target(2))))
    };
    let refused = back_up().unwrap_err();
    assert!(matches!(refused, CacheError::L2Io { .. }), "{refused}");
    let _planted = plant(Failpoint::BackupHeaderUnseen);
    assert!(back_up().is_ok(), "BackupHeaderUnseen is not found");
}

/// In Cold mode mutations return though the log has failed, and leave no record.
#[test]
fn a_log_that_has_failed_is_not_copied() {
    let mut bench =
        Bench::with(1, config(Setting { crash_safety: CrashSafety::Cold, ..ROOMY }, 48));
    bench.put("k", "value", &[]);
    let cache = bench.cache();
    cache.engine.parts.disk.l2().unwrap().log.fail();
    assert!(cache.invalidate_key("a", "k").now_or_never().unwrap().is_ok());
    let backup = cache.engine.backups().back_up_to(Arc::new(empty_target(2)));
    let refused = bench.run(backup).unwrap_err();
    assert!(matches!(refused, CacheError::L2Io { .. }), "{refused}");
}

#[test]
fn the_errors_of_a_backup_are_exactly_those_in_its_docs() {
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let none = block_on(BlobCache::open(BlobCacheConfig::default())).unwrap();
    let mut met = vec![block_on(none.backup(folder.path())).unwrap_err()];
    let store = folder.path().join("store");
    let builder = BlobCacheConfig::builder().l1_bytes_max(1 << 20).l2_path(&store);
    let builder = builder.l2_bytes_max(1 << 20).l2_segment_bytes(256 << 10);
    let cache = block_on(BlobCache::open(builder.build().unwrap())).unwrap();
    let copy = folder.path().join("copy");
    let report = block_on(cache.backup(&copy)).unwrap();
    assert_eq!(report.segments(), 1);
    // In use, there already, and no directory.
    for place in [store, copy.clone(), copy.join("data/deeper")] {
        met.push(block_on(cache.backup(place)).unwrap_err());
    }
    block_on(cache.close()).unwrap();
    met.push(block_on(cache.backup(&copy)).unwrap_err());
    let mut bench = Bench::with(1, config(ROOMY, 48));
    let (cache, target) = (bench.cache(), empty_target(2));
    target.fail(OperationKind::Resize, 1, Fault::NoSpace, true);
    met.push(bench.run(cache.engine.backups().back_up_to(Arc::new(target))).unwrap_err());
    let met: BTreeSet<String> = met.iter().map(variant).collect();
    assert_eq!(met, documented()["BlobCache::backup"], "returned and documented");
}
