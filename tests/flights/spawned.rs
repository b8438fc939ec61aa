//! Flights whose leaders run in tasks: `src/remote.rs` beside `src/flight`.
//!
//! Each task is run, dropped at any point, or, in scenes with sleepers, not polled until all other
//! callers have ended, from the beginning or after some polls. Callers are dropped or sleep as in
//! the other scenes, and some run their fetch themselves. Whatever becomes of the tasks, callers
//! that are polled complete, and no fetch is lost whose task is polled to its end.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use shuttle::future::block_on;
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::thread::{self, JoinHandle};

use crate::failpoint::{Failpoint, failpoint, plant};
use crate::flight::{Completion, JoinOutcome, Lead, Part, Wakers};
use crate::remote::{Remote, RemoteOutcome, Work, remote};
use crate::sync::Mutex;
use crate::{SCHEDULES, World, complete, key, within};

type Fetch = Pin<Box<dyn Future<Output = Option<(u64, u64)>> + Send>>;

/// A fetch that leads, to be run by a task. It begins when it is polled.
struct Leading {
    world: Arc<World>,
    point: u64,
    fails: bool,
    /// Dropped before the lead, as that wakes the next leader.
    fetching: Option<Fetch>,
    lead: Option<Lead<u64, u64>>,
    waking: Option<(Wakers<u64, u64>, u64)>,
    fate: Arc<Fate>,
}

/// What became of a fetch that was given to a task.
#[derive(Default)]
struct Fate {
    has_ended: AtomicBool,
    is_taken_back: AtomicBool,
    has_task_ended: AtomicBool,
}

impl Fate {
    fn is_lost(&self) -> bool {
        let is_with_others =
            self.has_ended.load(Ordering::SeqCst) || self.is_taken_back.load(Ordering::SeqCst);
        self.has_task_ended.load(Ordering::SeqCst) && !is_with_others
    }
}

enum Fetched {
    Value(u64),
    Failed,
    /// Another caller had taken the lead before it began.
    Replaced,
}

impl Work for Leading {
    fn moved(&self) {
        if let Some(lead) = self.lead.as_ref().filter(|_| !failpoint(Failpoint::LeadNotMoved)) {
            lead.note_woken();
        }
    }
}

impl Future for Leading {
    type Output = Fetched;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Fetched> {
        let polled = self.go_on(context);
        self.fate.has_ended.fetch_or(polled.is_ready(), Ordering::SeqCst);
        polled
    }
}

impl Leading {
    fn go_on(&mut self, context: &mut Context<'_>) -> Poll<Fetched> {
        let this = self;
        if let Some(lead) = this.lead.take() {
            if this.fetching.is_none() {
                if !lead.is_in_force() {
                    return Poll::Ready(Fetched::Replaced);
                }
                let (world, point, fails) = (Arc::clone(&this.world), this.point, this.fails);
                let fetching = async move { world.fetch(point, fails).await };
                this.fetching = Some(Box::pin(fetching));
            }
            let fetching = this.fetching.as_mut().expect("it has begun");
            match lead.poll(context, |context| fetching.as_mut().poll(context)) {
                Poll::Pending => {
                    this.lead = Some(lead);
                    return Poll::Pending;
                }
                Poll::Ready(None) => return Poll::Ready(Fetched::Failed),
                Poll::Ready(Some((value, until))) => {
                    this.waking = Some((lead.complete(Completion { value, until }), value));
                }
            }
        }
        let (wakers, value) = this.waking.as_mut().expect("it is completed");
        if wakers.wake() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Fetched::Value(*value))
    }
}

/// The tasks of a scene.
#[derive(Clone)]
struct Tasks {
    world: Arc<World>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    fates: Arc<Mutex<Vec<Arc<Fate>>>>,
}

impl Tasks {
    fn spawn(&self, task: Remote<Leading>, fate: Arc<Fate>) {
        let turns = if thread_rng().gen_bool(0.5) { 1000 } else { thread_rng().gen_range(0..6) };
        if turns == 0 && thread_rng().gen_bool(0.5) {
            return drop(task);
        }
        let sleeps = self.world.has_sleepers && turns < 1000 && thread_rng().gen_bool(0.7);
        let is_polled_again = thread_rng().gen_bool(0.5);
        let world = Arc::clone(&self.world);
        self.fates.lock().push(Arc::clone(&fate));
        let thread = thread::spawn(move || {
            block_on(async move {
                let mut task = pin!(task);
                // `within` polls at least once.
                let mut has_ended = turns > 0 && within(turns, task.as_mut()).await.is_some();
                if !has_ended && sleeps {
                    world.wait_for_others();
                    if is_polled_again {
                        task.await;
                        has_ended = true;
                    }
                }
                fate.has_task_ended.store(has_ended, Ordering::SeqCst);
            });
        });
        self.threads.lock().push(thread);
    }

    /// A call whose fetch runs in a task. None if it has failed.
    async fn ask(&self, fails: bool) -> Option<u64> {
        let world = &self.world;
        let began = world.now();
        loop {
            let looked = world.now();
            if let Some(value) = world.entry() {
                return Some(value);
            }
            let lead = match world.flights.enter(key(), began) {
                Part::Lead(lead) => lead,
                Part::None => panic!("there is one key"),
                Part::Join(mut joiner) => {
                    match poll_fn(|context| joiner.poll_outcome(context)).await {
                        JoinOutcome::Value(value) => return Some(value),
                        JoinOutcome::LookAgain => continue,
                        JoinOutcome::Lead(lead) => lead,
                    }
                }
            };
            let point = world.now();
            let entry = if point == looked { None } else { world.entry() };
            if let Some(value) = entry {
                complete(lead, Completion { value, until: point }).await;
                return Some(value);
            }
            let (world, timer, lead) = (Arc::clone(world), world.timer.clone(), Some(lead));
            let fate = Arc::<Fate>::default();
            let of_leading = Arc::clone(&fate);
            let leading = Leading {
                world,
                point,
                fails,
                lead,
                fetching: None,
                waking: None,
                fate: of_leading,
            };
            let (task, mut handle) = remote(leading, &timer);
            self.spawn(task, Arc::clone(&fate));
            let outcome = poll_fn(|context| handle.poll_outcome(context)).await;
            let fetched = match outcome {
                RemoteOutcome::Output(fetched) => fetched,
                RemoteOutcome::Back(leading) => {
                    fate.is_taken_back.store(true, Ordering::SeqCst);
                    leading.await
                }
                RemoteOutcome::Lost => panic!("it does not panic"),
            };
            return match fetched {
                Fetched::Value(value) => Some(value),
                Fetched::Failed => None,
                // It moves once.
                Fetched::Replaced => self.world.ask(None, fails).await,
            };
        }
    }

    async fn call(&self) {
        let world = &self.world;
        let fails = thread_rng().gen_bool(0.25);
        let patience = if thread_rng().gen_bool(0.4) { thread_rng().gen_range(0..8) } else { 1000 };
        let is_sleeper = world.has_sleepers && thread_rng().gen_bool(0.3);
        let least = world.told.load(Ordering::SeqCst);
        let mut asking = pin!(self.ask(fails));
        let turns = if is_sleeper { thread_rng().gen_range(0..8) } else { patience };
        let mut answer = within(turns, asking.as_mut()).await;
        if is_sleeper && answer.is_none() {
            world.sleep();
            answer = within(patience, asking).await;
        } else {
            world.rest();
        }
        if let Some(Some(value)) = answer {
            assert!(value >= least, "{value} is older than {least}");
        }
    }
}

fn scene(has_sleepers: bool) {
    let callers = thread_rng().gen_range(2..4);
    let world = Arc::new(World::new(has_sleepers, callers));
    let (threads, fates) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let tasks = Tasks { world: Arc::clone(&world), threads, fates };
    let invalidations = thread_rng().gen_range(0..3);
    let mut threads: Vec<_> =
        (0..callers)
            .map(|_| {
                let (tasks, world) = (tasks.clone(), Arc::clone(&world));
                let is_spawning = thread_rng().gen_bool(0.7);
                thread::spawn(move || {
                    if is_spawning { block_on(tasks.call()) } else { block_on(world.call()) }
                })
            })
            .collect();
    let of_world = Arc::clone(&world);
    threads.push(thread::spawn(move || (0..invalidations).for_each(|_| of_world.invalidate())));
    for thread in threads {
        thread.join().expect("no thread panics");
    }
    // Callers have ended, and with them the last task has been given.
    let threads = std::mem::take(&mut *tasks.threads.lock());
    for thread in threads {
        thread.join().expect("no task panics");
    }
    // An alarm may hold work that it takes from a task.
    world.timer.end();
    assert_eq!(world.flights.len(), 0, "flights are left behind");
    assert!(!tasks.fates.lock().iter().any(|fate| fate.is_lost()), "a fetch is lost");
}

#[test]
fn every_random_schedule_with_tasks_completes() {
    shuttle::check_random(|| scene(false), SCHEDULES);
}

#[test]
fn schedules_of_tasks_with_few_preemptions_complete() {
    shuttle::check_pct(|| scene(false), SCHEDULES, 3);
}

#[test]
fn no_caller_waits_for_sleeping_tasks() {
    shuttle::check_random(|| scene(true), SCHEDULES);
}

#[test]
fn no_caller_waits_for_sleeping_tasks_with_few_preemptions() {
    shuttle::check_pct(|| scene(true), SCHEDULES, 3);
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_model_detects_work_kept_by_a_sleeping_task() {
    let _flaw = plant(Failpoint::WorkKeptBySleeper);
    shuttle::check_random(|| scene(true), SCHEDULES);
}

#[test]
#[should_panic(expected = "a fetch is lost")]
fn the_model_detects_work_that_a_task_loses_to_a_caller_that_has_gone() {
    let _flaw = plant(Failpoint::WorkTakenByAlarm);
    shuttle::check_random(|| scene(true), SCHEDULES);
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_model_detects_a_lead_that_moves_to_a_sleeping_task() {
    let _flaw = plant(Failpoint::LeadNotMoved);
    shuttle::check_random(|| scene(true), SCHEDULES);
}
