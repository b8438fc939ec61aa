//! Flights under every schedule: `src/flight` itself, on the mutex of a scheduler that chooses
//! which thread runs next at each lock and each await.
//!
//! A few callers fetch one key as `get_or_fetch` and its refreshes do, in a cache of one entry.
//! Some fail, some are dropped at any point, others invalidate meanwhile. Callers that are not
//! dropped complete, or the scheduler reports a deadlock; at most one fetches at a time; no caller
//! is given a value fetched before an invalidation that had returned when it called; and nothing is
//! left.
//!
//! In scenes with sleepers some callers are not polled until all others have ended, and alarms go
//! off at any moment. There any leader may be replaced, so that several may fetch; everything else
//! holds.
//!
//! A failure prints its schedule, which `shuttle::replay` runs again.

#[allow(dead_code)]
#[path = "../../src/failpoint.rs"]
mod failpoint;
#[allow(unused_imports)]
#[path = "../../src/flight/mod.rs"]
mod flight;
#[allow(dead_code)]
#[path = "../../src/meter.rs"]
mod meter;
#[allow(dead_code)]
#[path = "../../src/remote.rs"]
mod remote;
mod spawned;
#[path = "../../src/wake.rs"]
mod wake;

use std::any::TypeId;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use futures::future::{Either, select};
use shuttle::future::{block_on, yield_now};
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::Condvar;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::thread;

use crate::failpoint::Failpoint;
use crate::flight::{Claim, Completion, Destination, Flights, JoinOutcome, Lead, Part, Wakers};
use crate::sync::Mutex;
use crate::timer::Timer;

const SCHEDULES: usize = 50_000;

/// Stands for `src/sync.rs`.
mod sync {
    use shuttle::sync::MutexGuard;

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("no thread panics")
        }
    }
}

/// Stands for `src/batch.rs`: a batch is one entry.
mod batch {
    pub(crate) const BATCH_ENTRIES: usize = 1;
}

/// Stands for `src/timer.rs`.
mod timer {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use shuttle::thread::{self, JoinHandle};

    pub(crate) const PATIENCE: Duration = Duration::from_millis(100);

    /// While it is running, any delay may end at any moment; otherwise none ends.
    #[derive(Debug, Clone)]
    pub(crate) struct Timer {
        is_running: bool,
        alarms: Arc<Mutex<Vec<JoinHandle<()>>>>,
    }

    impl Timer {
        pub(crate) fn new(is_running: bool) -> Self {
            Self { is_running, alarms: Arc::default() }
        }

        pub(crate) fn after(&self, delay: Duration, alarm: Box<dyn FnOnce() + Send>) {
            if self.is_running || delay.is_zero() {
                let alarm = thread::spawn(alarm);
                // Of the real world: nothing is scheduled while it is locked.
                self.alarms.lock().expect("no thread panics").push(alarm);
            }
        }

        /// Waits for all alarms, and those that they set.
        pub(crate) fn end(&self) {
            let next = || self.alarms.lock().expect("no thread panics").pop();
            while let Some(alarm) = next() {
                alarm.join().expect("no alarm panics");
            }
        }
    }
}

/// A cache of one entry, and its origin.
struct World {
    has_sleepers: bool,
    /// Callers that have not ended and do not sleep.
    awake: shuttle::sync::Mutex<u64>,
    all_sleep: Condvar,
    timer: Timer,
    flights: Arc<Flights<u64, u64>>,
    order: Mutex<CommitLock>,
    /// The origin's value.
    source: AtomicU64,
    /// The last value whose invalidation has returned.
    told: AtomicU64,
    leaders: AtomicU64,
}

#[derive(Default)]
struct CommitLock {
    last: u64,
    /// The last mutation of the key.
    latest: u64,
    entry: Option<u64>,
}

/// Counts a leader while it fetches.
struct Leading<'a>(&'a AtomicU64);

impl<'a> Leading<'a> {
    fn new(world: &'a World) -> Self {
        let others = world.leaders.fetch_add(1, Ordering::SeqCst);
        assert!(world.has_sleepers || others == 0, "two callers fetch at the same time");
        Self(&world.leaders)
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The only key there is.
fn key() -> Destination<'static> {
    Destination { id: (7, TypeId::of::<()>()), namespace: "n", key: b"key" }
}

impl World {
    fn new(has_sleepers: bool, callers: u64) -> Self {
        let timer = Timer::new(has_sleepers);
        Self {
            has_sleepers,
            awake: shuttle::sync::Mutex::new(callers),
            all_sleep: Condvar::new(),
            flights: Arc::new(Flights::new(1, timer.clone())),
            timer,
            order: Mutex::new(CommitLock::default()),
            source: AtomicU64::new(0),
            told: AtomicU64::new(0),
            leaders: AtomicU64::new(0),
        }
    }

    /// A caller has ended or sleeps.
    fn rest(&self) {
        *self.awake.lock().expect("no thread panics") -= 1;
        self.all_sleep.notify_all();
    }

    /// A caller sleeps until all callers that do not have ended.
    fn sleep(&self) {
        self.rest();
        self.wait_for_others();
    }

    fn wait_for_others(&self) {
        let mut awake = self.awake.lock().expect("no thread panics");
        while *awake > 0 {
            awake = self.all_sleep.wait(awake).expect("no thread panics");
        }
    }

    fn now(&self) -> u64 {
        self.order.lock().last
    }

    fn entry(&self) -> Option<u64> {
        self.order.lock().entry
    }

    fn invalidate(&self) {
        let value = self.source.fetch_add(1, Ordering::SeqCst) + 1;
        let mut order = self.order.lock();
        order.last += 1;
        order.latest = order.last;
        order.entry = None;
        drop(order);
        self.told.fetch_max(value, Ordering::SeqCst);
    }

    /// One fetching call. None if it has failed.
    async fn ask(&self, mut claim: Option<Claim<u64, u64>>, fails: bool) -> Option<u64> {
        let began = self.now();
        loop {
            let looked = self.now();
            let lead = match claim.take().and_then(Claim::begin) {
                Some(lead) => lead,
                None => {
                    if let Some(value) = self.entry() {
                        return Some(value);
                    }
                    match self.flights.enter(key(), began) {
                        Part::Lead(lead) => lead,
                        Part::None => panic!("there is one key"),
                        Part::Join(mut joiner) => {
                            match poll_fn(|context| joiner.poll_outcome(context)).await {
                                JoinOutcome::Value(value) => return Some(value),
                                JoinOutcome::LookAgain => continue,
                                JoinOutcome::Lead(lead) => lead,
                            }
                        }
                    }
                }
            };
            let point = self.now();
            let entry = if point == looked { None } else { self.entry() };
            if entry.is_none() && !lead.is_in_force() {
                continue;
            }
            return match entry {
                Some(value) => {
                    complete(lead, Completion { value, until: point }).await;
                    Some(value)
                }
                None => {
                    let mut fetching = pin!(self.fetch(point, fails));
                    let poll = |context: &mut Context<'_>| {
                        lead.poll(context, |context| fetching.as_mut().poll(context))
                    };
                    let (value, until) = poll_fn(poll).await?;
                    complete(lead, Completion { value, until }).await;
                    Some(value)
                }
            };
        }
    }

    async fn fetch(&self, point: u64, fails: bool) -> Option<(u64, u64)> {
        let _leading = Leading::new(self);
        let value = self.source.load(Ordering::SeqCst);
        yield_now().await;
        if fails {
            return None;
        }
        let until = {
            let order = self.order.lock();
            if order.latest <= point { order.last } else { point }
        };
        yield_now().await;
        {
            let mut order = self.order.lock();
            if order.latest <= point {
                order.last += 1;
                order.latest = order.last;
                order.entry = Some(value);
            }
        }
        yield_now().await;
        Some((value, until))
    }

    /// One caller, with everything that may happen to it.
    async fn call(&self) {
        let fails = thread_rng().gen_bool(0.25);
        let patience = if thread_rng().gen_bool(0.4) { thread_rng().gen_range(0..8) } else { 1000 };
        let is_sleeper = self.has_sleepers && thread_rng().gen_bool(0.5);
        let now = Duration::from_millis(thread_rng().gen_range(0..2000));
        let claim = if thread_rng().gen_bool(0.3) { self.flights.claim(key(), now) } else { None };
        if claim.is_some() {
            yield_some(thread_rng().gen_range(0..3)).await;
            if thread_rng().gen_bool(0.3) {
                return self.rest();
            }
        }
        let least = self.told.load(Ordering::SeqCst);
        let mut asking = pin!(self.ask(claim, fails));
        let turns = if is_sleeper { thread_rng().gen_range(0..8) } else { patience };
        // A call that runs out of turns is dropped at that point, polled or not.
        let mut answer = within(turns, asking.as_mut()).await;
        if is_sleeper && answer.is_none() {
            self.sleep();
            answer = within(patience, asking).await;
        } else {
            self.rest();
        }
        if let Some(Some(value)) = answer {
            assert!(value >= least, "{value} is older than {least}");
        }
    }
}

async fn complete(lead: Lead<u64, u64>, completion: Completion<u64, u64>) {
    let mut wakers: Wakers<u64, u64> = lead.complete(completion);
    while wakers.wake() {
        yield_now().await;
    }
}

async fn yield_some(times: u32) {
    for _ in 0..times {
        yield_now().await;
    }
}

/// Polls a future now and then, woken or not, and drops it after that many turns. If it is patient,
/// it waits for the end instead.
async fn within<T>(turns: u32, future: impl Future<Output = T> + Unpin) -> Option<T> {
    if turns == 1000 {
        return Some(future.await);
    }
    match select(future, pin!(yield_some(turns))).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

fn scene(has_sleepers: bool) {
    let callers = thread_rng().gen_range(2..5);
    let world = Arc::new(World::new(has_sleepers, callers));
    let invalidations = thread_rng().gen_range(0..3);
    let mut threads: Vec<_> = (0..callers)
        .map(|_| {
            let world = Arc::clone(&world);
            thread::spawn(move || block_on(world.call()))
        })
        .collect();
    let of_world = Arc::clone(&world);
    threads.push(thread::spawn(move || (0..invalidations).for_each(|_| of_world.invalidate())));
    for thread in threads {
        thread.join().expect("no thread panics");
    }
    world.timer.end();
    assert_eq!(world.flights.len(), 0, "flights are left behind");
}

#[test]
fn every_random_schedule_completes() {
    shuttle::check_random(|| scene(false), SCHEDULES);
}

#[test]
fn schedules_with_few_preemptions_complete() {
    shuttle::check_pct(|| scene(false), SCHEDULES, 3);
}

#[test]
fn no_caller_waits_for_sleepers() {
    shuttle::check_random(|| scene(true), SCHEDULES);
}

#[test]
fn no_caller_waits_for_sleepers_with_few_preemptions() {
    shuttle::check_pct(|| scene(true), SCHEDULES, 3);
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_model_detects_a_lead_kept_by_a_sleeper() {
    let _flaw = failpoint::plant(Failpoint::LeadKeptBySleeper);
    shuttle::check_random(|| scene(true), SCHEDULES);
}
