//! A device that fails once or from then on, and one that does not answer for a while, by seed: no
//! call hangs, memory goes on, the disk tier says when it is off, and what was acknowledged stays
//! true in this process and the next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Either, join_all, select};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::bench::{Bench, config};
use crate::cache::BlobCache;
use crate::error::CacheError;
use crate::hit::CacheTier;
use crate::io::{Fault, OperationKind, TaskRunner};
use crate::modes::{CrashSafety, L1Admission};
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;
use crate::stats::L2State;

/// More turns than any call needs, however long time is.
const STEPS_MAX: u64 = 2_000_000;

fn value(key: u8, number: u64) -> Vec<u8> {
    let mut value = vec![key; 100 + usize::try_from(number % 7).unwrap() * 300];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

/// The values that a key may have; 0: none, which is always possible.
#[derive(Default)]
struct Key {
    here: u64,
    /// In the next process. After an error both the newer and the older ones.
    next: BTreeSet<u64>,
}

struct Model {
    bench: Bench,
    random: StdRng,
    keys: BTreeMap<u8, Key>,
    puts: u64,
    hits: u64,
    errors: u64,
}

impl Model {
    fn new(seed: u64, crash_safety: CrashSafety) -> Self {
        let config = crate::BlobCacheConfig { crash_safety, ..config(64) };
        let mut bench = Bench::with(seed, config);
        bench.simulation.limit_steps(STEPS_MAX);
        let random = StdRng::seed_from_u64(seed);
        Self { bench, random, keys: BTreeMap::new(), puts: 0, hits: 0, errors: 0 }
    }

    fn call<T>(&mut self, call: impl Future<Output = T>) -> T {
        self.bench.simulation.block_on(call).expect("no call hangs")
    }

    fn mutate(&mut self, key: u8, is_put: bool) {
        let cache = self.bench.cache();
        let (answer, number) = if is_put {
            self.puts += 1;
            let mut put = BlobCachePut::new(value(key, self.puts));
            if self.puts % 3 == 0 {
                put = put.with_policy(BlobCachePolicy::default().l1_admission(L1Admission::Never));
            }
            (self.call(cache.put("a", [key], put)), self.puts)
        } else {
            (self.call(cache.invalidate_key("a", [key])).map(drop), 0)
        };
        let known = self.keys.entry(key).or_default();
        known.here = number;
        match answer {
            Ok(()) => known.next.clear(),
            Err(CacheError::L2Io { .. }) => self.errors += 1,
            Err(error) => panic!("{error:?}"),
        }
        known.next.insert(number);
    }

    fn get(&mut self, key: u8) {
        let cache = self.bench.cache();
        let hit = self.call(cache.get("a", [key]));
        let here = self.keys.get(&key).map_or(0, |known| known.here);
        if let Some(hit) = hit {
            assert!(here != 0 && hit.value() == value(key, here), "key {key} has {here}");
            self.hits += 1;
        }
    }

    fn run(&mut self, calls: usize) {
        for _ in 0..calls {
            let key = self.random.random_range(0..50);
            match self.random.random_range(0..20) {
                0..8 => self.mutate(key, true),
                8..10 => self.mutate(key, false),
                10 => {
                    let cache = self.bench.cache();
                    match self.call(cache.sync()) {
                        Ok(()) => {}
                        Err(CacheError::L2Io { .. }) => self.errors += 1,
                        Err(error) => panic!("{error:?}"),
                    }
                }
                11 => self.bench.pass(Duration::from_millis(300)),
                _ => self.get(key),
            }
        }
    }

    /// The tier says that it is off, or that it was.
    fn was_off(&self) -> bool {
        let stats = self.bench.cache.stats();
        match stats.l2_state() {
            L2State::Degraded { reason } => !reason.is_empty(),
            _ => stats.l2_restarts() > 0,
        }
    }

    /// Another process finds, of each key, a value that it may have, or none.
    fn reopen(&mut self) {
        self.bench.kill();
        for (&key, known) in &self.keys {
            let cache = self.bench.cache.clone();
            let hit = self.bench.simulation.block_on(cache.get("a", [key])).expect("no hang");
            let Some(hit) = hit else { continue };
            self.hits += 1;
            let number = u64::from_le_bytes(hit.value()[..8].try_into().unwrap());
            let is_right = known.next.contains(&number) && hit.value() == value(key, number);
            assert!(is_right, "key {key} has {number} of {:?}", known.next);
        }
    }
}

const KINDS: [OperationKind; 3] = [OperationKind::Read, OperationKind::Write, OperationKind::Sync];

#[test]
fn a_device_that_fails_once_or_for_good_leaves_everything_true() {
    let seeds = std::env::var("TAMIS_RUNS").map_or(8, |runs| runs.parse().unwrap());
    let (mut cases, mut off, mut errors, mut hits) = (0, 0, 0, 0);
    for seed in 0..seeds {
        for kind in KINDS {
            for fault in [Fault::Io, Fault::NoSpace] {
                for is_lasting in [false, true] {
                    for mode in [CrashSafety::Cold, CrashSafety::Process, CrashSafety::Power] {
                        let case = format!("{seed}, {kind:?}, {fault:?}, {is_lasting}, {mode}");
                        let mut model = Model::new(seed, mode);
                        model.run(60);
                        model.bench.disk.fail(kind, seed % 5, fault, is_lasting);
                        model.run(80);
                        assert!(model.errors == 0 || model.was_off(), "{case}: errors, not off");
                        let is_harmless = kind == OperationKind::Read
                            || (kind == OperationKind::Write && !is_lasting);
                        assert!(!(is_harmless && model.errors > 0), "{case}: it passes");
                        off += u64::from(model.was_off());
                        model.bench.disk.heal();
                        model.run(30);
                        if seed % 2 == 0 {
                            let cache = model.bench.cache();
                            let _ = model.call(cache.close());
                        }
                        model.reopen();
                        assert!(model.bench.simulation.panics().is_empty(), "{case}");
                        (cases, errors, hits) =
                            (cases + 1, errors + model.errors, hits + model.hits);
                    }
                }
            }
        }
    }
    println!("{cases} cases, {off} tiers off, {errors} errors, {hits} hits");
    assert!(off > cases / 8 && errors > cases / 8 && hits > cases * 10, "{off} {errors} {hits}");
}

/// How long the device does not answer.
const SILENCE: Duration = Duration::from_secs(600);

type Call = BoxFuture<'static, Result<(), CacheError>>;

/// Overwrites of all keys, and new keys.
fn puts_of(cache: &BlobCache, number: u64) -> Vec<Call> {
    let put = |key: u8| {
        let (cache, value) = (cache.clone(), value(key, number));
        async move { cache.put("a", [key], BlobCachePut::new(value)).await }.boxed()
    };
    (0..90).map(put).collect()
}

/// How many keys memory serves without the device; the others would wait for it.
fn memory_hits(cache: &BlobCache) -> u64 {
    let mut hits = 0;
    for key in 0..90_u8 {
        let got = cache.get("a", [key]).now_or_never().flatten();
        let Some(hit) = got.filter(|hit| hit.tier() == CacheTier::L1) else { continue };
        // A put that waits for room in the log is not in force yet.
        assert!([1, 2].iter().any(|&put| hit.value() == value(key, put)), "key {key}");
        hits += 1;
    }
    hits
}

/// The next process finds what was acknowledged, and nothing older.
fn nothing_is_lost(bench: &mut Bench, is_put: impl Fn(u8) -> bool, case: &str) {
    let cache = bench.cache();
    for key in 0..90_u8 {
        let Some(hit) = bench.run(cache.get("a", [key])) else {
            let may_be_lost = bench.config.crash_safety == CrashSafety::Cold || !is_put(key);
            assert!(may_be_lost, "{case}: key {key} is lost");
            continue;
        };
        // A put that the close refused has changed nothing.
        let is_older = !is_put(key) && key < 60 && hit.value() == value(key, 1);
        assert!(is_older || hit.value() == value(key, 2), "{case}: key {key}");
    }
}

#[test]
fn a_device_that_does_not_answer_for_ten_minutes_delays_and_loses_nothing() {
    let seeds = std::env::var("TAMIS_RUNS").map_or(20, |runs| runs.parse().unwrap());
    let (mut cases, mut waited, mut hits) = (0, 0, 0);
    for seed in 0..seeds {
        for mode in [CrashSafety::Cold, CrashSafety::Process, CrashSafety::Power] {
            let crash_safety = mode;
            let mut bench =
                Bench::with(seed, crate::BlobCacheConfig { crash_safety, ..config(64) });
            bench.simulation.limit_steps(STEPS_MAX);
            let (cache, runner) = (bench.cache(), bench.simulation.task_runner());
            bench
                .run(join_all(puts_of(&cache, 1).drain(..60)))
                .into_iter()
                .for_each(Result::unwrap);
            bench.run(cache.sync()).unwrap();
            bench.disk.plan(|plan| plan.holds_all = true);
            let mut calls = puts_of(&cache, 2);
            let syncing = cache.clone();
            calls.push(async move { syncing.sync().await }.boxed());
            let is_closed = seed % 4 == 0;
            if is_closed {
                let closing = cache.clone();
                let slept = runner.sleep(SILENCE / 2);
                let close = async move {
                    slept.await;
                    closing.close().await
                };
                calls.push(close.boxed());
            }
            let begun = bench.simulation.elapsed();
            let waiting = match bench.run(select(join_all(calls), runner.sleep(SILENCE))) {
                Either::Left(_) => panic!("seed {seed}, {mode}: synced by a silent device"),
                Either::Right(((), waiting)) => waiting,
            };
            assert!(bench.simulation.elapsed() - begun >= SILENCE);
            let stats = cache.stats();
            assert_eq!(stats.l2_state(), L2State::Healthy, "slow is not broken");
            assert!(stats.bytes_in_use() <= stats.l1_bytes_max());
            assert!(stats.memory_buffers_bytes() <= 24 << 20, "{}", stats.memory_buffers_bytes());
            hits += memory_hits(&cache);
            bench.disk.plan(|plan| plan.holds_all = false);
            let answers = bench.run(waiting);
            waited += answers.iter().filter(|answer| answer.is_ok()).count();
            let is_right = |answer: &Result<(), CacheError>| {
                answer.is_ok() || (is_closed && matches!(answer, Err(CacheError::Closed)))
            };
            assert!(answers.iter().all(is_right), "seed {seed}, {mode}: {answers:?}");
            if !is_closed {
                bench.run(cache.sync()).unwrap();
            }
            drop(cache);
            bench.kill();
            let is_put = |key: u8| answers[usize::from(key)].is_ok();
            nothing_is_lost(&mut bench, is_put, &format!("seed {seed}, {mode}, {is_closed}"));
            cases += 1;
        }
    }
    println!("{cases} cases, {waited} calls that came back, {hits} hits meanwhile");
    assert!(hits > cases * 20 && waited > usize::try_from(cases).unwrap() * 50, "{hits} {waited}");
}
