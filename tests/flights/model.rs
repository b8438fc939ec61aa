//! Flights under every schedule: `src/flight` itself, on the mutex of a scheduler that draws which
//! thread goes on at each lock and each await.
//!
//! A few callers ask for one key as `get_or_fetch` and its refreshes do, in a cache of one entry.
//! Some fail, some are dropped wherever they stand, others invalidate meanwhile. Whoever is not
//! dropped ends, or the scheduler tells of a deadlock; at most one fetches at a time; nobody is
//! given what was fetched before an invalidation that had ended when it asked; and nothing is left
//! behind.
//!
//! In the scenes with sleepers some callers stay where they are and are not polled before all
//! others have ended, and alarms go off at any moment. There the lead may be taken from anybody, so
//! that several may fetch; everything else holds.
//!
//! A failure prints its schedule, which `shuttle::replay` runs again.

#[allow(dead_code)]
#[path = "../../src/failpoint.rs"]
mod failpoint;
#[path = "../../src/flight/mod.rs"]
mod flight;
#[allow(dead_code)]
#[path = "../../src/meter.rs"]
mod meter;
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
use crate::flight::{Claim, Destination, Flights, Landing, Lead, Part, Turn, Wakers};
use crate::sync::Mutex;
use crate::timer::Timer;

const SCHEDULES: usize = 50_000;

/// What `src/sync.rs` is to the library.
mod sync {
    use shuttle::sync::MutexGuard;

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("nobody panics")
        }
    }
}

/// What `src/batch.rs` is to the library: no step visits two.
mod batch {
    pub(crate) const BATCH_ENTRIES: usize = 1;
}

/// What `src/timer.rs` is to the library.
mod timer {
    use std::time::Duration;

    use shuttle::thread;

    /// Time stands still unless it is running: then any delay is over at any moment.
    #[derive(Debug, Clone)]
    pub(crate) struct Timer {
        pub(crate) is_running: bool,
    }

    impl Timer {
        pub(crate) fn after(&self, delay: Duration, alarm: Box<dyn FnOnce() + Send>) {
            if self.is_running || delay.is_zero() {
                thread::spawn(alarm);
            }
        }
    }
}

/// A cache of one entry, and where its value comes from.
struct World {
    has_sleepers: bool,
    /// Callers who have not ended and do not sleep.
    awake: shuttle::sync::Mutex<u64>,
    all_sleep: Condvar,
    flights: Arc<Flights<u64, u64>>,
    order: Mutex<CommitLock>,
    /// What a fetch reads.
    source: AtomicU64,
    /// The last value of the source whose invalidation has returned.
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

/// Counts a leader for as long as it fetches.
struct Leading<'a>(&'a AtomicU64);

impl<'a> Leading<'a> {
    fn new(world: &'a World) -> Self {
        let others = world.leaders.fetch_add(1, Ordering::SeqCst);
        assert!(world.has_sleepers || others == 0, "two fetch at one time");
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
        Self {
            has_sleepers,
            awake: shuttle::sync::Mutex::new(callers),
            all_sleep: Condvar::new(),
            flights: Arc::new(Flights::new(1, Timer { is_running: has_sleepers })),
            order: Mutex::new(CommitLock::default()),
            source: AtomicU64::new(0),
            told: AtomicU64::new(0),
            leaders: AtomicU64::new(0),
        }
    }

    /// A caller has ended, or sleeps.
    fn rest(&self) {
        *self.awake.lock().expect("nobody panics") -= 1;
        self.all_sleep.notify_all();
    }

    /// Is not polled before all who do not sleep have ended.
    fn sleep(&self) {
        self.rest();
        let mut awake = self.awake.lock().expect("nobody panics");
        while *awake > 0 {
            awake = self.all_sleep.wait(awake).expect("nobody panics");
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

    /// The course of a fetch. None: it has failed.
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
                            match poll_fn(|context| joiner.poll_turn(context)).await {
                                Turn::Value(value) => return Some(value),
                                Turn::LookAgain => continue,
                                Turn::Lead(lead) => lead,
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
                    land(lead, Landing { value, until: point }).await;
                    Some(value)
                }
                None => {
                    let mut fetching = pin!(self.fetch(point, fails));
                    let poll = |context: &mut Context<'_>| {
                        lead.poll(context, |context| fetching.as_mut().poll(context))
                    };
                    let (value, until) = poll_fn(poll).await?;
                    land(lead, Landing { value, until }).await;
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

    /// One caller, with all that may become of it.
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
        // What is lost here is dropped where it stands, be it polled or not.
        let mut answer = within(turns, asking.as_mut()).await;
        if is_sleeper && answer.is_none() {
            self.sleep();
            answer = within(patience, asking).await;
        } else {
            self.rest();
        }
        if let Some(Some(value)) = answer {
            assert!(value >= least, "{value} was gone at {least}");
        }
    }
}

async fn land(lead: Lead<u64, u64>, landing: Landing<u64, u64>) {
    let mut wakers: Wakers<u64, u64> = lead.land(landing);
    while wakers.wake() {
        yield_now().await;
    }
}

async fn yield_some(times: u32) {
    for _ in 0..times {
        yield_now().await;
    }
}

/// Polls a future now and then, woken or not, and drops it after so many turns. Past them, it waits
/// for as long as it takes if it is patient.
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
        thread.join().expect("nobody panics");
    }
    assert_eq!(world.flights.len(), 0, "flights are left behind");
}

#[test]
fn every_random_schedule_comes_to_an_end() {
    shuttle::check_random(|| scene(false), SCHEDULES);
}

#[test]
fn schedules_with_few_preemptions_do_too() {
    shuttle::check_pct(|| scene(false), SCHEDULES, 3);
}

#[test]
fn nobody_waits_for_sleepers() {
    shuttle::check_random(|| scene(true), SCHEDULES);
}

#[test]
fn nobody_waits_for_sleepers_where_preemptions_are_few() {
    shuttle::check_pct(|| scene(true), SCHEDULES, 3);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_lead_that_a_sleeper_keeps_is_found() {
    let _flaw = failpoint::plant(Failpoint::LeadKeptBySleeper);
    shuttle::check_random(|| scene(true), SCHEDULES);
}
