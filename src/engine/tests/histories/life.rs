//! `History`: several processes in a row with a cache over one disk, concurrent calls in each; each
//! ends in a close, a kill or a power loss. Deterministic by seed.

mod begin;
mod end;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::budget::{MemoryBudget, SharedBudget};
use super::call::{Call, FullKey, numbers_of_many};
use super::checker::{Checker, Listener};
use super::defaults::fetch_policies;
use super::manner::{Deeds, Polled, patient};
use super::many::Outcome;
use super::plan::Plan;
use super::setting::{Setting, opening};
use super::tally::Tally;
use super::under_way::{STEPS_MAX, UnderWay};
use super::{faults, limits};
use crate::cache::BlobCache;
use crate::config::BlobCacheConfig;
use crate::engine::Engine;
use crate::engine::open::geometry;
use crate::error::CacheError;
use crate::events::BlobCacheEvents;
use crate::io::{SimulatedDisk, Simulation, TaskRunner};

type Calls = UnderWay<Outcome>;

pub(super) struct History {
    seed: u64,
    setting: Setting,
    random: StdRng,
    simulation: Simulation,
    disk: SimulatedDisk,
    /// The largest configuration of any open.
    full: BlobCacheConfig,
    config: BlobCacheConfig,
    cache: BlobCache,
    /// Of this process.
    memory: SharedBudget,
    clock: u64,
    boot: u8,
    life: u32,
    pub(super) checker: Arc<Mutex<Checker>>,
    pub(super) tally: Tally,
    deeds: Arc<Deeds>,
    /// Of this process.
    events: Option<BlobCacheEvents>,
    /// Sleeping calls of the previous process.
    late: Option<Calls>,
}

impl History {
    pub(super) fn new(seed: u64, setting: Setting) -> Self {
        let mut simulation = Simulation::new(seed);
        let config = setting.config(seed, Arc::new(simulation.task_runner()));
        let disk = SimulatedDisk::new(seed, geometry(&config).unwrap().file_bytes());
        let opening = opening(seed, &simulation, &disk, &config, 0);
        let cache = BlobCache { engine: simulation.block_on(opening).unwrap().unwrap() };
        simulation.limit_steps(STEPS_MAX);
        let memory = MemoryBudget::new(config.l1_bytes_max);
        Self {
            seed,
            setting,
            random: StdRng::seed_from_u64(seed),
            simulation,
            disk,
            full: config.clone(),
            config,
            cache,
            memory,
            clock: 0,
            boot: 0,
            life: 0,
            checker: Arc::new(Mutex::new(Checker::new(setting.is_roomy, fetch_policies(seed)))),
            tally: Tally::default(),
            deeds: Arc::default(),
            events: None,
            late: None,
        }
    }

    /// Half of the histories have a listener in each process.
    fn listen(&mut self) {
        let is_there = self.seed % 4 < 2;
        self.events = is_there.then(|| self.cache.events().unwrap());
        let Setting { key_hash_bits, has_faults, .. } = self.setting;
        let has_shared_hashes = key_hash_bits < 64;
        self.checker.lock().listen(Listener { is_there, has_shared_hashes, has_faults });
    }

    /// Checks what the listener was told since the last time.
    fn hear(&mut self) -> Result<(), String> {
        let Some(events) = &mut self.events else { return Ok(()) };
        let mut heard = Vec::new();
        while let Some(Some(event)) = events.next().now_or_never() {
            heard.push(event);
        }
        self.tally.events += heard.len() as u64;
        self.checker.lock().heard(&heard, (self.clock, self.life))
    }

    /// In some processes the disk takes known keys only, if it is full. A file that must lose
    /// nothing is not.
    fn pretend_scans(&self) {
        if (self.seed + u64::from(self.life)) % 3 == 0 {
            let disk_admission = &self.cache.engine.parts.disk_admission;
            disk_admission.pretend_scans();
            if !self.setting.is_roomy {
                disk_admission.pretend_full();
            }
        }
    }

    pub(super) fn run(&mut self, plan: &Plan) -> Result<(), String> {
        self.listen();
        for (number, life) in (0..).zip(&plan.lives) {
            self.life = number;
            self.random = StdRng::seed_from_u64(plan.seed.wrapping_add(u64::from(number)) ^ 0x5eed);
            self.live(life)?;
        }
        for (all, deeds) in [
            (&mut self.tally.panics, &self.deeds.panics),
            (&mut self.tally.reentries, &self.deeds.reentries),
            (&mut self.tally.drops, &self.deeds.drops),
        ] {
            *all = deeds.load(Ordering::Relaxed);
        }
        let checker = self.checker.lock();
        self.tally.misses_told = checker.misses_told;
        checker.check_races()
    }

    fn live(&mut self, numbers: &[u32]) -> Result<(), String> {
        faults::begin(&self.disk, self.setting, &mut self.random);
        let mut calls = Calls::new();
        // Most processes end soon after a chosen disk request, or during the write of a superblock.
        let begun = self.disk.begun();
        let last = match self.random.random_range(0..4) {
            0 => (u64::MAX, begun.1 + self.random.random_range(1..40)),
            1 => (begun.0 + self.random.random_range(0..600), u64::MAX),
            _ => (u64::MAX, u64::MAX),
        };
        let is_last = |disk: &SimulatedDisk| {
            let begun = disk.begun();
            begun.0 >= last.0 || begun.1 >= last.1
        };
        let mut grace = self.random.random_range(0..8);
        for &number in numbers {
            let call = Call::draw(self.seed, number);
            self.tally.woken += calls.wake(self.tally.calls, self.simulation.steps());
            while calls.width() >= call.width && !is_last(&self.disk) {
                self.step(&mut calls, 4)?;
            }
            if is_last(&self.disk) && !self.setting.is_roomy {
                if grace == 0 {
                    break;
                }
                grace -= 1;
            }
            self.tally.calls += 1;
            self.begin(number, &call, &mut calls);
            if call.waits {
                let runner = self.simulation.task_runner();
                let waiting = runner.sleep(Duration::from_millis(700));
                self.drive("time", waiting)?;
            }
            self.step(&mut calls, call.patience)?;
            while call.settles && calls.width() > 0 {
                self.step(&mut calls, 4)?;
            }
        }
        if self.random.random_bool(0.5) {
            faults::end(&self.disk);
        }
        self.die(calls)?;
        self.reopen()?;
        // No other call runs now. Read records are reinserted, so only some are read.
        let share = [0.0, 0.5, 1.0][self.random.random_range(0..3)];
        for full_key in FullKey::all() {
            if !self.random.random_bool(share) {
                continue;
            }
            let get = self.get(full_key);
            let outcome = self.drive("a get", get)?;
            let is_hit =
                matches!(&outcome, Outcome::Got(_, _, Some(_)) | Outcome::GotTyped(_, _, Some(_)));
            self.tally.hits_after_open += u64::from(is_hit);
            self.end(outcome)?;
        }
        Ok(())
    }

    /// Polls until a call ends, or for that many steps.
    fn step(&mut self, calls: &mut Calls, patience: u32) -> Result<(), String> {
        let step = self.drive("a step", patient(calls.next(), patience));
        if let Some((number, polled)) = step.map_err(|what| what + &calls.told())?.flatten() {
            self.leave(calls, number, polled)?;
        }
        calls.check(self.simulation.steps())?;
        self.check()
    }

    /// Handles a call that has ended or is put aside.
    fn leave(
        &mut self,
        calls: &mut Calls,
        number: u32,
        polled: Polled<Option<Outcome>>,
    ) -> Result<(), String> {
        let (since, what) = calls.left(number);
        self.tally.steps_most = self.tally.steps_most.max(self.simulation.steps() - since);
        match polled {
            Polled::Ended(Some(outcome)) => self.end(outcome),
            Polled::Ended(None) => {
                self.checker.lock().dropped(number, self.clock);
                numbers_of_many(number).for_each(|it| self.checker.lock().dropped(it, self.clock));
                Ok(())
            }
            Polled::Asleep(call, nap) => {
                self.tally.asleep += 1;
                let until = nap.calls.map(|calls| self.tally.calls + u64::from(calls));
                calls.sleep(number, what, call, until);
                Ok(())
            }
        }
    }

    fn check(&mut self) -> Result<(), String> {
        self.hear()?;
        self.deeds.check()?;
        let memory_most = self.memory.lock().most();
        limits::check(&self.config, memory_most, &self.cache, &mut self.tally)
    }

    /// Runs a future and all tasks, for a bounded number of steps.
    fn drive<T>(&mut self, what: &str, future: impl Future<Output = T>) -> Result<T, String> {
        let before = self.simulation.steps();
        let output = self.simulation.block_on(future);
        let steps = self.simulation.steps() - before;
        self.tally.steps_most = self.tally.steps_most.max(steps);
        output.ok_or_else(|| format!("{what} hangs after {steps} steps"))
    }

    /// Ends the process in some way, with its calls in progress.
    fn die(&mut self, mut calls: Calls) -> Result<(), String> {
        let way = if self.setting.is_roomy { 0 } else { self.random.random_range(0..4) };
        let stats = self.cache.stats();
        match way {
            0 => {
                self.close(&mut calls)?;
                self.simulation.kill();
                self.disk.complete_all();
            }
            1 | 2 => {
                self.simulation.kill();
                self.disk = self.disk.kill();
            }
            _ => {
                self.simulation.kill();
                self.disk = self.disk.crash();
                self.boot += 1;
            }
        }
        // Sleeping calls may be dropped when the next process has the disk.
        if self.random.random_bool(0.5) {
            self.late = Some(calls);
        }
        if let Some(panic) = self.simulation.panics().first() {
            return Err(format!("a task has panicked: {panic}"));
        }
        self.tally.take(&stats);
        let how = ["close", "kill", "kill", "power loss"][way];
        self.checker.lock().end_life(self.clock, format!("{how}, {:?}", stats.l2_state()));
        // Calls after the close belong to the process that has ended.
        self.life += 1;
        Ok(())
    }

    fn close(&mut self, calls: &mut Calls) -> Result<(), String> {
        let cache = self.cache.clone();
        self.checker.lock().is_closed = true;
        let is_alone = self.random.random_bool(0.3);
        let close = self.drive("close", async {
            // It waits for no call that is not polled, even if none is.
            if is_alone {
                cache.close().await
            } else {
                let (closed, ()) = futures::future::join(cache.close(), calls.settled()).await;
                closed
            }
        });
        let closed = close.map_err(|what| what + &calls.told())?;
        if closed.is_err() && !self.setting.has_faults {
            return Err(format!("close fails: {closed:?}"));
        }
        self.tally.woken += calls.wake_all(self.simulation.steps());
        calls.unsettle(self.simulation.steps());
        while calls.width() > 0 {
            self.step(calls, 4)?;
        }
        // Its tasks complete, as closing a file waits for them.
        let runner = self.simulation.task_runner();
        self.drive("time", runner.sleep(Duration::from_secs(5)))
    }

    fn reopen(&mut self) -> Result<(), String> {
        faults::end(&self.disk);
        if !(self.setting.is_roomy || self.setting.is_plain) {
            self.config = limits::drawn(&self.full, &mut self.random);
            self.tally.smaller += u64::from(limits::is_smaller(&self.config, &self.full));
        }
        if !self.setting.is_roomy && self.random.random_bool(0.3) {
            // Ends again soon after, during recovery.
            let polls = self.random.random_range(0..60);
            let opening = self.opening();
            let opened = self.drive("open", patient(opening, polls))?;
            drop(opened);
            self.simulation.kill();
            if self.random.random_bool(0.5) {
                self.disk = self.disk.kill();
            } else {
                self.disk = self.disk.crash();
                self.boot += 1;
            }
        }
        faults::of_open(&self.disk, self.setting, &mut self.random);
        let opening = self.opening();
        let mut opened = self.drive("open", opening)?;
        faults::end(&self.disk);
        if opened.is_err() && self.setting.has_faults {
            let opening = self.opening();
            opened = self.drive("open", opening)?;
        }
        let engine = opened.map_err(|error| format!("open fails: {error}"))?;
        self.cache = BlobCache { engine };
        self.memory = MemoryBudget::new(self.config.l1_bytes_max);
        self.pretend_scans();
        self.checker.lock().is_closed = false;
        self.listen();
        drop(self.late.take());
        let stats = self.cache.stats();
        self.tally.recovered += stats.recovery_records();
        self.tally.opens_by_image += u64::from(stats.recovery_from_image());
        limits::check_opened(&self.config, &stats)
    }

    fn opening(&self) -> impl Future<Output = Result<Arc<Engine>, CacheError>> + Send + use<> {
        opening(self.seed, &self.simulation, &self.disk, &self.config, self.boot)
    }
}
