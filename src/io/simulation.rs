//! `Simulation`: an executor on the caller's thread whose every choice comes from a seed.
//!
//! It draws which ready task runs next. Time is virtual and moves only when no task is ready,
//! straight to the next timer. So a test whose futures are all driven by it (including those of a
//! [`super::SimulatedDisk`]) runs the same way each time, never sleeps, and detects when all tasks
//! wait for each other. A request to such a disk is a task here too, so it is carried out whichever
//! future is polled.

// A simulated disk fits memory, so its places fit usize.
#![allow(clippy::cast_possible_truncation)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::mem;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::contained::{contained, message};
use super::task_runner::{TaskEnd, TaskRunner};

/// The number of the future that [`Simulation::block_on`] was given.
const ROOT: u64 = 0;

/// A repeatable executor with virtual time.
pub(crate) struct Simulation {
    shared: Arc<SimulationShared>,
    dice: Dice,
    steps: u64,
    steps_max: u64,
    #[cfg(test)]
    longest: Longest,
}

/// The most work of one poll: of the future in `block_on`, and of the tasks beside it.
#[cfg(test)]
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Longest {
    pub(crate) root: crate::meter::Work,
    pub(crate) task: crate::meter::Work,
}

/// The simulation's runner: its tasks are polled within [`Simulation::block_on`]. Clones share it.
#[derive(Clone)]
pub(crate) struct SimulatedRunner {
    shared: Arc<SimulationShared>,
}

#[derive(Default)]
struct SimulationShared {
    state: Mutex<SimulationState>,
}

#[derive(Default)]
struct SimulationState {
    tasks: BTreeMap<u64, BoxFuture<'static, ()>>,
    last_task: u64,
    /// Tasks that were woken and not polled since, in the order of their wakeups.
    ready: Vec<u64>,
    now: Duration,
    /// By deadline and number.
    timers: BTreeMap<(Duration, u64), Waker>,
    last_timer: u64,
    /// The messages of tasks that panicked.
    panics: Vec<String>,
}

thread_local! {
    /// The simulation that runs on this thread.
    static RUNNING: RefCell<Weak<SimulationShared>> = const { RefCell::new(Weak::new()) };
}

/// Sets the simulation that runs on this thread until it is dropped.
struct Running(Weak<SimulationShared>);

impl Running {
    fn begin(shared: &Arc<SimulationShared>) -> Self {
        Self(RUNNING.replace(Arc::downgrade(shared)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.replace(mem::take(&mut self.0));
    }
}

/// Makes the simulation on this thread poll `device` to its end. False: none runs.
pub(super) fn run_beside(device: BoxFuture<'static, ()>) -> bool {
    let running = RUNNING.with_borrow(Weak::upgrade);
    running.map(|shared| shared.add(device)).is_some()
}

/// Wakes one task.
struct TaskWaker {
    shared: Arc<SimulationShared>,
    task: u64,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.shared.make_ready(self.task);
    }
}

impl Simulation {
    /// A simulation at time zero with no tasks.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            shared: Arc::default(),
            dice: Dice::new(seed),
            steps: 0,
            steps_max: u64::MAX,
            #[cfg(test)]
            longest: Longest::default(),
        }
    }

    /// Its runner.
    pub(crate) fn task_runner(&self) -> SimulatedRunner {
        SimulatedRunner { shared: Arc::clone(&self.shared) }
    }

    /// The messages of tasks that have panicked so far.
    pub(crate) fn panics(&self) -> Vec<String> {
        self.shared.state().panics.clone()
    }

    /// The virtual time that has passed.
    #[cfg(test)]
    pub(crate) fn elapsed(&self) -> Duration {
        self.shared.state().now
    }

    /// Tasks and timers that have not ended.
    #[cfg(test)]
    pub(crate) fn standing(&self) -> (usize, usize) {
        let state = self.shared.state();
        (state.tasks.len(), state.timers.len())
    }

    /// Polls and timers so far.
    #[cfg(test)]
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// Limits [`Simulation::block_on`] to so many steps each time, from now on.
    pub(crate) fn limit_steps(&mut self, steps_max: u64) {
        self.steps_max = steps_max;
    }

    /// Runs `root`, and all tasks of the runner beside it, until it is done.
    ///
    /// `None` if `root` and all tasks wait with no timer left, or if its steps are used up. Tasks
    /// that have not ended continue in the next call.
    pub(crate) fn block_on<T>(&mut self, root: impl Future<Output = T>) -> Option<T> {
        let mut root = pin!(root);
        let _running = Running::begin(&self.shared);
        self.shared.make_ready(ROOT);
        let last = self.steps.saturating_add(self.steps_max);
        while self.steps < last {
            self.steps += 1;
            let Some(task) = self.next_ready() else {
                if !self.advance() {
                    return None;
                }
                continue;
            };
            let waker = Waker::from(Arc::new(TaskWaker { shared: self.shared.clone(), task }));
            let mut context = Context::from_waker(&waker);
            if task == ROOT {
                let polled = self.metered(task, || root.as_mut().poll(&mut context));
                if let Poll::Ready(output) = polled {
                    return Some(output);
                }
            } else {
                self.poll_task(task, &mut context);
            }
        }
        None
    }

    /// The work of the longest polls since the last call.
    #[cfg(test)]
    pub(crate) fn longest(&mut self) -> Longest {
        std::mem::take(&mut self.longest)
    }

    /// Polls, and records the work of the poll.
    #[cfg(test)]
    fn metered<T>(&mut self, task: u64, poll: impl FnOnce() -> T) -> T {
        let (polled, work) = crate::meter::measured(poll);
        let longest = if task == ROOT { &mut self.longest.root } else { &mut self.longest.task };
        *longest = longest.max(work);
        polled
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    fn metered<T>(&mut self, _task: u64, poll: impl FnOnce() -> T) -> T {
        poll()
    }

    /// Drops all tasks half-way, as a killed process does.
    pub(crate) fn kill(&mut self) {
        let mut state = self.shared.state();
        let tasks = std::mem::take(&mut state.tasks);
        state.timers.clear();
        state.ready.clear();
        // Dropping a task may wake others, which takes the lock.
        drop(state);
        drop(tasks);
    }

    fn next_ready(&mut self) -> Option<u64> {
        let mut state = self.shared.state();
        let count = state.ready.len() as u64;
        (count > 0).then(|| state.ready.remove(self.dice.below(count) as usize))
    }

    /// Moves time to the next timer; returns whether there was one.
    fn advance(&mut self) -> bool {
        let mut state = self.shared.state();
        let Some(((deadline, _), waker)) = state.timers.pop_first() else { return false };
        state.now = state.now.max(deadline);
        drop(state);
        waker.wake();
        true
    }

    fn poll_task(&mut self, task: u64, context: &mut Context<'_>) {
        // Taken out, so that the lock is free while it is polled.
        let future = self.shared.state().tasks.remove(&task);
        let Some(mut future) = future else { return };
        if self.metered(task, || future.poll_unpin(context)).is_pending() {
            self.shared.state().tasks.insert(task, future);
        }
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        self.kill();
    }
}

impl TaskRunner for SimulatedRunner {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> TaskEnd {
        let shared = Arc::clone(&self.shared);
        let watched = async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                shared.state().panics.push(format!("{name}: {}", message(&*panic)));
                resume_unwind(panic);
            }
        };
        let (task, end) = contained(name, watched.boxed());
        self.shared.add(task.boxed());
        end
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let mut timer = Timer { shared: Arc::clone(&self.shared), key: None };
        poll_fn(move |context| timer.poll(duration, context)).boxed()
    }
}

/// A running timer; dropping it takes it off the clock.
struct Timer {
    shared: Arc<SimulationShared>,
    /// Its deadline and number, once it was polled.
    key: Option<(Duration, u64)>,
}

impl Timer {
    fn poll(&mut self, duration: Duration, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shared.state();
        let now = state.now;
        let key = *self.key.get_or_insert_with(|| {
            state.last_timer += 1;
            (now.saturating_add(duration), state.last_timer)
        });
        if key.0 <= now {
            return Poll::Ready(());
        }
        state.timers.insert(key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.shared.state().timers.remove(&key);
        }
    }
}

impl SimulationShared {
    fn state(&self) -> MutexGuard<'_, SimulationState> {
        // No code panics under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, task: BoxFuture<'static, ()>) {
        let mut state = self.state();
        state.last_task += 1;
        let number = state.last_task;
        state.tasks.insert(number, task);
        state.ready.push(number);
    }

    fn make_ready(&self, task: u64) {
        let mut state = self.state();
        if !state.ready.contains(&task) {
            state.ready.push(task);
        }
    }
}

/// Repeatable draws (SplitMix64).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; zero when that is zero.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product; the bias is below 2^-32 for bounds below 2^32.
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// True with the given chance, between 0 and 1.
    pub(super) fn chance(&mut self, chance: f64) -> bool {
        (self.next() >> 11) as f64 / ((1u64 << 53) as f64) < chance
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::io::TaskOutcome;

    #[test]
    fn time_moves_only_when_nothing_is_ready() {
        let mut simulation = Simulation::new(1);
        let runner = simulation.task_runner();
        let start = std::time::Instant::now();
        simulation.block_on(runner.sleep(Duration::from_secs(3600))).expect("no deadlock");
        assert_eq!(simulation.elapsed(), Duration::from_secs(3600));
        assert!(start.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn the_seed_decides_the_order() {
        let order = |seed| {
            let mut simulation = Simulation::new(seed);
            let (sender, mut receiver) = mpsc::unbounded_channel();
            for task in 0..20 {
                let sender = sender.clone();
                let told = async move { sender.send(task).expect("the test listens") };
                drop(simulation.task_runner().spawn("tell", told.boxed()));
            }
            drop(sender);
            let collect = async {
                let mut order = Vec::new();
                while let Some(task) = receiver.recv().await {
                    order.push(task);
                }
                order
            };
            simulation.block_on(collect).expect("no deadlock")
        };
        assert_eq!(order(7), order(7));
        assert_ne!(order(7), order(8));
    }

    #[test]
    fn tells_a_deadlock_and_contains_panics() {
        let mut simulation = Simulation::new(1);
        assert!(simulation.block_on(std::future::pending::<()>()).is_none());
        let end =
            simulation.task_runner().spawn("panicking", async { panic!("on purpose") }.boxed());
        assert_eq!(simulation.block_on(end), Some(TaskOutcome::Panicked));
    }

    #[test]
    fn a_kill_drops_all_tasks() {
        let mut simulation = Simulation::new(1);
        let end = simulation.task_runner().spawn("waiting", std::future::pending().boxed());
        assert!(
            simulation.block_on(simulation.task_runner().sleep(Duration::from_secs(1))).is_some()
        );
        simulation.kill();
        assert_eq!(simulation.block_on(end), Some(TaskOutcome::Dropped));
    }
}
