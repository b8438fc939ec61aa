//! Hostile callers: calls of every verb that are dropped after any number of polls, left unpolled
//! and dropped late, whose wakers panic, sleep, call the cache again or panic in their drop, and
//! whose fetches and values panic wherever they can.
//!
//! When all of them are gone, everything that the cache counts or keeps for callers is exactly what
//! it was before them ([`Ledger`]); and after the last handle nothing of the cache is left
//! ([`Remainder`]), whether it was closed, dropped or killed.
//!
//! `TAMIS_CASES` sets the number of cases, `TAMIS_SEED` runs one alone.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "numbers of a test are small, and a panic fails the test"
)]

mod call;
mod ledger;
mod setting;
mod waker;

use std::future::poll_fn;
use std::mem;
use std::ops::AddAssign;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use self::call::{Call, Kept};
use self::ledger::{Ledger, PATIENCE, Remainder};
use self::setting::{Tasks, config};
use self::waker::{Deeds, Hostile, Mischief, Planned};
use super::bench::opening;
use crate::batch::yield_now;
use crate::cache::BlobCache;
use crate::config::BlobCacheConfig;
use crate::engine::open::geometry;
use crate::failpoint::{Failpoint, plant};
use crate::io::{SimulatedDisk, Simulation, TaskRunner};
use crate::sweep::SweepLimit;

/// A poll, a call by itself and a few seconds take fewer steps of the simulation.
const STEPS_MAX: u64 = 100_000;

/// A call under way, or one that is left unpolled.
struct UnderWay {
    call: Call,
    /// It is polled so often.
    polls: u32,
    /// Then it is left unpolled, and dropped late.
    stays: bool,
    mischief: Mischief,
}

#[derive(Debug, Default)]
struct Tally {
    calls: u64,
    ended: u64,
    dropped: u64,
    dropped_late: u64,
    thrown: u64,
    refreshes: u64,
    tasks: u64,
    balances: u64,
    lives: u64,
    waker_panics: u64,
    waker_reentries: u64,
    waker_sleeps: u64,
    waker_drops: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.ended += other.ended;
        self.dropped += other.dropped;
        self.dropped_late += other.dropped_late;
        self.thrown += other.thrown;
        self.refreshes += other.refreshes;
        self.tasks += other.tasks;
        self.balances += other.balances;
        self.lives += other.lives;
        self.waker_panics += other.waker_panics;
        self.waker_reentries += other.waker_reentries;
        self.waker_sleeps += other.waker_sleeps;
        self.waker_drops += other.waker_drops;
    }
}

/// None if it panics on purpose.
fn survive<T>(run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(done) => Some(done),
        Err(thrown) if thrown.is::<Planned>() => None,
        Err(thrown) => resume_unwind(thrown),
    }
}

struct Laboratory {
    random: StdRng,
    simulation: Simulation,
    disk: Option<SimulatedDisk>,
    config: BlobCacheConfig,
    calls: Vec<UnderWay>,
    asleep: Vec<Call>,
    kept: Vec<Kept>,
    tasks: Tasks,
    deeds: Arc<Deeds>,
    tally: Tally,
}

impl Laboratory {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let tasks = Tasks::default();
        let config = config(&mut random, &tasks);
        let mut simulation = Simulation::new(seed);
        simulation.limit_steps(STEPS_MAX);
        let disk = config
            .l2_path()
            .is_some()
            .then(|| SimulatedDisk::new(seed, geometry(&config).unwrap().file_bytes()));
        Self {
            random,
            simulation,
            disk,
            config,
            calls: Vec::new(),
            asleep: Vec::new(),
            kept: Vec::new(),
            tasks,
            deeds: Arc::default(),
            tally: Tally::default(),
        }
    }

    fn open(&mut self) -> BlobCache {
        let Some(disk) = &self.disk else {
            return block_on(BlobCache::open(self.config.clone())).unwrap();
        };
        let opening = opening(&self.simulation, disk, &self.config);
        BlobCache { engine: self.simulation.block_on(opening).expect("an open ends").unwrap() }
    }

    fn pass(&mut self, time: Duration) {
        let sleep = self.simulation.task_runner().sleep(time);
        self.simulation.block_on(sleep).expect("time passes");
    }

    /// Lets the tasks run for so many turns.
    fn turn(&mut self, turns: u32) {
        let turning = async move {
            for _ in 0..turns {
                yield_now().await;
            }
        };
        self.simulation.block_on(turning).expect("turns end");
    }

    /// Within the simulation: the drop may wake a caller who calls the cache again, and a request
    /// to the simulated disk is carried out only if it was begun there.
    fn let_fall<T>(&mut self, held: T) {
        let dropped = self.simulation.block_on(async { survive(|| drop(held)) });
        self.tally.thrown += u64::from(dropped.expect("a drop ends").is_none());
    }

    fn begin(&mut self, call: Call) {
        let random = &mut self.random;
        let (polls, stays) = (random.random_range(0..12), random.random_bool(0.3));
        // A fifth is polled to its end, if it has one.
        let polls = if random.random_bool(0.2) { 60 } else { polls };
        let mischief = Mischief::draw(random);
        self.tally.calls += 1;
        self.calls.push(UnderWay { call, polls, stays, mischief });
    }

    /// Treats what the cache has given to the executor as calls.
    fn take_tasks(&mut self) {
        let tasks = mem::take(&mut *self.tasks.lock());
        for task in tasks {
            self.tally.tasks += 1;
            self.begin(Box::pin(async move {
                task.await;
                Kept::Nothing
            }));
        }
    }

    /// Polls a call once, if it may be polled again.
    fn poll(&mut self, cache: &BlobCache, at: usize) {
        let mut under_way = self.calls.swap_remove(at);
        if under_way.polls == 0 {
            if under_way.stays {
                self.asleep.push(under_way.call);
            } else {
                self.tally.dropped += 1;
                self.let_fall(under_way.call);
            }
            return;
        }
        under_way.polls -= 1;
        let (call, mischief) = (&mut under_way.call, under_way.mischief);
        let (engine, deeds) = (Arc::downgrade(&cache.engine), Arc::clone(&self.deeds));
        let polled = self.simulation.block_on(poll_fn(|context| {
            let (cache, deeds) = (engine.clone(), Arc::clone(&deeds));
            let executor = context.waker().clone();
            let waker = Waker::from(Arc::new(Hostile { executor, mischief, cache, deeds }));
            let polled = survive(|| call.as_mut().poll(&mut Context::from_waker(&waker)));
            survive(|| drop(waker));
            Poll::Ready(polled)
        }));
        match polled.expect("a poll ends") {
            Some(Poll::Pending) => self.calls.push(under_way),
            Some(Poll::Ready(kept)) => {
                self.tally.ended += 1;
                self.tally.refreshes += u64::from(matches!(kept, Kept::Refresh(_)));
                match kept {
                    Kept::Refresh(refresh) if self.random.random_bool(0.7) => {
                        self.begin(Box::pin(async move {
                            refresh.await.map_or(Kept::Nothing, Kept::Hit)
                        }));
                    }
                    kept => self.kept.push(kept),
                }
                self.let_fall(under_way.call);
            }
            // It may be polled no more.
            None => {
                self.tally.thrown += 1;
                self.let_fall(under_way.call);
            }
        }
    }

    /// Calls, until none is polled any more.
    fn rush(&mut self, cache: &BlobCache, calls: u32) {
        let width = self.random.random_range(1..24);
        let mut left = calls;
        while left > 0 || !self.calls.is_empty() {
            if left > 0 && self.calls.len() < width {
                left -= 1;
                let call = call::draw(cache, &mut self.random);
                self.begin(call);
                continue;
            }
            let at = self.random.random_range(0..self.calls.len());
            self.poll(cache, at);
            self.take_tasks();
            match self.random.random_range(0..60) {
                0 => self.pass(Duration::from_millis(300)),
                1 => self.config.clock.advance(Duration::from_secs(1)),
                2 => {
                    let back = self.config.clock.now() - Duration::from_secs(1);
                    self.config.clock.set(back);
                }
                3 if !self.asleep.is_empty() => {
                    let at = self.random.random_range(0..self.asleep.len());
                    self.tally.dropped_late += 1;
                    let call = self.asleep.swap_remove(at);
                    self.let_fall(call);
                }
                4..40 => {
                    let turns = self.random.random_range(0..20);
                    self.turn(turns);
                }
                _ => {}
            }
            assert_eq!(self.deeds.locked.load(Ordering::Relaxed), 0, "a waker under a lock");
        }
    }

    /// Drops all that callers hold, in any order.
    fn let_go(&mut self) {
        self.take_tasks();
        let mut calls: Vec<Call> = mem::take(&mut self.asleep);
        calls.extend(mem::take(&mut self.calls).into_iter().map(|under_way| under_way.call));
        calls.shuffle(&mut self.random);
        self.tally.dropped_late += calls.len() as u64;
        calls.into_iter().for_each(|call| self.let_fall(call));
        let mut kept = mem::take(&mut self.kept);
        kept.shuffle(&mut self.random);
        for kept in kept {
            self.let_fall(kept);
        }
    }

    /// Empties the cache. Returns what is counted then.
    fn settled(&mut self, cache: &BlobCache) -> Ledger {
        let synced = self.simulation.block_on(cache.sync());
        synced.expect("a sync ends").unwrap();
        let flushed = self.simulation.block_on(cache.invalidate_all());
        flushed.expect("a flush ends").unwrap();
        let sweep = cache.sweep_expired(SweepLimit::Entries(usize::MAX));
        self.simulation.block_on(sweep).expect("a sweep ends");
        self.pass(Duration::from_secs(5));
        if self.disk.is_none() {
            // A thread frees what the flush has left.
            let end = Instant::now() + PATIENCE;
            while cache.engine.parts.freeing.bytes() > 0 && Instant::now() < end {
                thread::yield_now();
            }
        }
        Ledger::of(&cache.engine, &self.simulation)
    }

    fn balance(&mut self, cache: &BlobCache, fresh: &Ledger) -> Result<(), String> {
        let settled = self.settled(cache);
        self.tally.balances += 1;
        let differences = settled.differences(fresh);
        if differences.is_empty() { Ok(()) } else { Err(format!("left behind: {differences:?}")) }
    }

    /// A process, from its open to its end. Returns what a fresh cache counts.
    fn live(&mut self, fresh: Option<Ledger>) -> Result<Ledger, String> {
        let cache = self.open();
        let fresh = match fresh {
            Some(fresh) => fresh,
            None => self.settled(&cache),
        };
        self.balance(&cache, &fresh)?;
        for _ in 0..self.random.random_range(0..3) {
            let calls = self.random.random_range(1..80);
            self.rush(&cache, calls);
            self.let_go();
            self.balance(&cache, &fresh)?;
        }
        let calls = self.random.random_range(0..40);
        self.rush(&cache, calls);
        self.end(cache)?;
        self.tally.lives += 1;
        Ok(fresh)
    }

    /// Ends the process, with calls under way, some of them polled or dropped after that.
    fn end(&mut self, cache: BlobCache) -> Result<(), String> {
        let remainder = Remainder::of(&cache.engine);
        for _ in 0..self.random.random_range(0..20) {
            let call = call::draw(&cache, &mut self.random);
            self.begin(call);
        }
        for _ in 0..self.random.random_range(0..20) {
            if !self.calls.is_empty() {
                let at = self.random.random_range(0..self.calls.len());
                self.poll(&cache, at);
            }
        }
        let way = self.random.random_range(0..4);
        match way {
            0 => {
                self.simulation.block_on(cache.close()).expect("a close ends").unwrap();
                self.rush(&cache, 10);
            }
            1 => {
                self.begin(call::close(&cache));
                self.rush(&cache, 10);
            }
            2 => {}
            _ => {
                self.simulation.kill();
                self.disk = self.disk.as_ref().map(SimulatedDisk::kill);
            }
        }
        drop(cache);
        self.let_go();
        if way < 3 {
            self.pass(Duration::from_secs(10));
            self.simulation.kill();
            self.disk.iter().for_each(SimulatedDisk::complete_all);
        }
        let kept = remainder.kept();
        if kept.is_empty() { Ok(()) } else { Err(format!("alive after end {way}: {kept:?}")) }
    }

    fn run(&mut self) -> Result<(), String> {
        let mut fresh = None;
        for _ in 0..self.random.random_range(1..4) {
            fresh = Some(self.live(fresh)?);
        }
        if let Some(panic) = self.simulation.panics().first() {
            return Err(format!("a task has panicked: {panic}"));
        }
        let Deeds { panics, reentries, sleeps, drops, .. } = &*self.deeds;
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        self.tally.waker_panics = count(panics);
        self.tally.waker_reentries = count(reentries);
        self.tally.waker_sleeps = count(sleeps);
        self.tally.waker_drops = count(drops);
        Ok(())
    }
}

fn case(seed: u64) -> Result<Tally, String> {
    let mut laboratory = Laboratory::new(seed);
    let run = catch_unwind(AssertUnwindSafe(|| laboratory.run()));
    run.unwrap_or_else(|thrown| {
        let what = thrown.downcast_ref::<String>().cloned();
        let what = what.or_else(|| thrown.downcast_ref::<&str>().map(|what| (*what).to_owned()));
        Err(what.unwrap_or_else(|| "a planned panic has escaped".to_owned()))
    })?;
    Ok(laboratory.tally)
}

#[test]
fn hostile_callers_leave_nothing_behind() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("TAMIS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TAMIS_CASES").unwrap_or(300),
    };
    let mut all = Tally::default();
    for seed in seeds.clone() {
        match case(seed) {
            Ok(tally) => all += tally,
            Err(what) => panic!("TAMIS_SEED={seed} fails: {what}"),
        }
    }
    println!("seeds {seeds:?}: {all:?}");
    let calls = [all.ended / 10, all.dropped, all.dropped_late, all.thrown, 20 * all.refreshes];
    let calls = calls.into_iter().chain([all.tasks]);
    let wakers = [all.waker_panics, all.waker_reentries, all.waker_sleeps, all.waker_drops];
    let cases = seeds.end - seeds.start;
    let is_enough = |met: u64| met >= cases;
    assert!(cases < 100 || calls.chain(wakers).all(is_enough), "{all:?}");
}

/// The number of cases until one fails.
fn found_after(failpoint: Failpoint) -> u64 {
    let _planted = plant(failpoint);
    let is_found = |seed: &u64| case(*seed).is_err_and(|what| what.contains("left behind"));
    let found = (0..100).find(is_found);
    found.unwrap_or_else(|| panic!("{failpoint:?} is not found")) + 1
}

#[test]
fn planted_leaks_are_found() {
    for failpoint in [Failpoint::PermitLost, Failpoint::PinLost, Failpoint::WatchLost] {
        println!("{failpoint:?} is found after {} cases", found_after(failpoint));
    }
}

/// A fetch that is forgotten holds its key, and its future the cache.
#[test]
fn a_forgotten_call_is_found() {
    let mut laboratory = Laboratory::new(1);
    let cache = laboratory.open();
    let fresh = laboratory.settled(&cache);
    let remainder = Remainder::of(&cache.engine);
    let forgotten = cache.clone();
    let mut call: Call = Box::pin(async move {
        let fetch = || std::future::pending::<Result<_, &str>>();
        let hit = forgotten.get_or_fetch(call::SPACE, "key", fetch).await;
        hit.map_or(Kept::Nothing, Kept::Hit)
    });
    let _ = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    mem::forget(call);
    let told = laboratory.balance(&cache, &fresh).unwrap_err();
    assert!(told.contains("flights") && told.contains("watched keys"), "{told}");
    drop(cache);
    assert!(remainder.kept().contains(&"engine"));
}
