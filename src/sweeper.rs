//! `Sweeper`: the thread of a process that sweeps all its caches in small steps.
//!
//! It exists while a cache is registered, and sleeps until the earliest time at which one has work,
//! or indefinitely. Caches report new work with [`Registration::schedule`]. One cache does one
//! short step at a time; after each the thread rests for many times as long, which bounds its share
//! of the processor.
//!
//! Alarms ([`after`]) are short as well, and go off while it rests.

use std::collections::BTreeMap;
use std::mem;
use std::process;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::monitor::{Monitor, MonitorGuard};
use crate::telemetry::tell;
use crate::wake::{contained, discard};

/// The thread works for at most one part in this many of the time, however many caches there are.
const SHARE: u32 = 20;

/// The longest rest: a longer step has more likely waited than worked.
const REST_MAX: Duration = Duration::from_secs(1);

pub(crate) trait Sweep: Send + Sync {
    /// Does one step and returns the time until the next; None if there is nothing to sweep.
    fn sweep(&self) -> Option<Duration>;
}

/// A cache's registration with the sweeper, until it is dropped.
#[derive(Debug)]
pub(crate) struct Registration(u64);

static SWEEPER: Sweeper = Sweeper { state: Monitor::new(State::new()) };

struct Sweeper {
    state: Monitor<State>,
}

struct State {
    caches: Vec<Registered>,
    /// By due time, then by order of arrival.
    alarms: BTreeMap<(Instant, u64), Box<dyn FnOnce() + Send>>,
    last: u64,
    is_running: bool,
    /// Whose caches and alarms these are.
    process: u32,
    /// When the thread wakes by itself; None while it is awake, or sleeps indefinitely.
    wakes: Option<Instant>,
}

struct Registered {
    number: u64,
    sweep: Weak<dyn Sweep>,
    due: Option<Instant>,
}

impl State {
    const fn new() -> Self {
        Self {
            caches: Vec::new(),
            alarms: BTreeMap::new(),
            last: 0,
            is_running: false,
            process: 0,
            wakes: None,
        }
    }

    /// Makes sure that the thread runs and wakes by `due`. False if no thread can be spawned.
    fn run_by(&mut self, due: Instant) -> bool {
        if !self.is_running {
            let thread = thread::Builder::new().name("tamis-sweeper".to_owned());
            self.is_running = thread.spawn(|| SWEEPER.run()).is_ok();
        } else if self.wakes.is_none_or(|wakes| due < wakes) {
            SWEEPER.state.wake_one();
        }
        self.is_running
    }

    fn cache(&mut self, number: u64) -> Option<&mut Registered> {
        self.caches.iter_mut().find(|cache| cache.number == number)
    }
}

impl Registration {
    pub(crate) fn new(sweep: &Weak<dyn Sweep>) -> Self {
        let mut state = SWEEPER.own();
        state.last += 1;
        let number = state.last;
        state.caches.push(Registered { number, sweep: Weak::clone(sweep), due: None });
        Self(number)
    }

    pub(crate) fn schedule(&self, delay: Duration) {
        let Some(due) = Instant::now().checked_add(delay) else { return };
        let mut state = SWEEPER.own();
        let Some(cache) = state.cache(self.0) else { return };
        if cache.due.is_some_and(|known| known <= due) {
            return;
        }
        cache.due = Some(due);
        if !state.run_by(due) {
            // The next call of any cache retries.
            // Bounded: by the caches of one process.
            state.caches.iter_mut().for_each(|cache| cache.due = None);
        }
    }
}

/// Which alarm, among those of the process.
pub(crate) type AlarmId = (Instant, u64);

/// Calls `alarm` after `delay` or a little later, once a thread can be spawned. None: never.
pub(crate) fn after(delay: Duration, alarm: Box<dyn FnOnce() + Send>) -> Option<AlarmId> {
    let due = Instant::now().checked_add(delay)?;
    let mut state = SWEEPER.own();
    state.last += 1;
    let id = (due, state.last);
    state.alarms.insert(id, alarm);
    state.run_by(due);
    Some(id)
}

/// An alarm that has not gone off yet never does. The thread may wake once for it.
pub(crate) fn cancel(id: AlarmId) {
    let alarm = SWEEPER.own().alarms.remove(&id);
    discard(alarm);
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = SWEEPER.own();
        // Bounded: by the caches of one process.
        state.caches.retain(|cache| cache.number != self.0);
        SWEEPER.state.wake_one();
    }
}

impl Sweeper {
    /// The state of this process. A forked child begins anew: its parent's caches may be locked by
    /// threads that it has not, and the wakers of its alarms are of runtimes that it has not.
    fn own(&self) -> MonitorGuard<'_, State> {
        let mut state = self.state.lock();
        let process = process::id();
        if state.process != process {
            let last = state.last;
            let of_parent = mem::replace(&mut *state, State { last, process, ..State::new() });
            // Their drops are no more for the child than their calls.
            mem::forget(of_parent);
        }
        state
    }

    fn run(&self) {
        let mut state = self.state.lock();
        let mut rested = Instant::now();
        // Bounded: on a thread of its own.
        while !(state.caches.is_empty() && state.alarms.is_empty()) {
            let now = Instant::now();
            let alarm = state.alarms.first_key_value().map(|(&(due, _), _)| due);
            if alarm.is_some_and(|due| due <= now) {
                let alarm = state.alarms.pop_first();
                (state, _) = state.unlocked(|| contained(|| alarm.map(|(_, alarm)| alarm())));
                continue;
            }
            let due = |cache: &Registered| cache.due.map(|due| (due, cache.number));
            let cache = state.caches.iter().filter_map(due).min();
            let cache = cache.map(|(due, number)| (due.max(rested), number));
            match (cache, alarm) {
                (Some((due, number)), _) if due <= now => {
                    (state, rested) = state.unlocked(|| step(number));
                }
                (None, None) => state = state.wait(),
                (cache, alarm) => {
                    let due = cache.map(|(due, _)| due).into_iter().chain(alarm).min();
                    state.wakes = due;
                    if let Some(due) = due {
                        state = state.wait_until(due);
                    }
                    state.wakes = None;
                }
            }
        }
        state.is_running = false;
    }
}

/// Runs one step of a cache. Returns when the thread's rest ends.
fn step(number: u64) -> Instant {
    let sweep = SWEEPER.state.lock().cache(number).map(|cache| {
        cache.due = None;
        Weak::clone(&cache.sweep)
    });
    let started = Instant::now();
    // No lock is held during the step; work reported meanwhile is kept.
    if let Some(after) = sweep.and_then(|sweep| swept(&sweep)) {
        Registration::again(number, after);
    }
    Instant::now() + (started.elapsed() * (SHARE - 1)).min(REST_MAX)
}

/// Contains a panic, so that other caches are still swept.
fn swept(sweep: &Weak<dyn Sweep>) -> Option<Duration> {
    let step = || sweep.upgrade().and_then(|cache: Arc<dyn Sweep>| cache.sweep());
    contained(step).unwrap_or_else(|| {
        tell!(error, "sweep", "a step of the sweeper panicked");
        None
    })
}

impl Registration {
    fn again(number: u64, after: Duration) {
        let mut state = SWEEPER.state.lock();
        let due = Instant::now().checked_add(after);
        if let Some(cache) = state.cache(number) {
            cache.due = [cache.due, due].into_iter().flatten().min();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Sweep for Counted {
        /// Ten steps, and then nothing more.
        fn sweep(&self) -> Option<Duration> {
            let steps = self.0.fetch_add(1, Ordering::Relaxed) + 1;
            (steps % 10 != 0).then_some(Duration::from_millis(1))
        }
    }

    /// Busy for some time at each step, without end.
    #[derive(Default)]
    struct Busy(AtomicUsize);

    impl Sweep for Busy {
        fn sweep(&self) -> Option<Duration> {
            self.0.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(5));
            Some(Duration::ZERO)
        }
    }

    #[test]
    fn all_caches_together_stay_within_the_share() {
        let caches = [(); 3].map(|()| Arc::new(Busy::default()));
        let tenancies = caches.each_ref().map(register);
        let begun = Instant::now();
        tenancies.iter().for_each(|register| register.schedule(Duration::ZERO));
        let steps = || caches.iter().map(|cache| cache.0.load(Ordering::Relaxed)).sum::<usize>();
        assert!(until(|| steps() >= 9));
        let at_least = Duration::from_millis(5) * SHARE * 8;
        assert!(begun.elapsed() >= at_least, "9 steps in {:?}", begun.elapsed());
        assert!(caches.iter().all(|cache| cache.0.load(Ordering::Relaxed) >= 2), "in turn");
    }

    #[test]
    fn alarms_go_off_in_order_despite_a_busy_cache_and_a_panic() {
        let busy = Arc::new(Busy::default());
        let register = register(&busy);
        register.schedule(Duration::ZERO);
        let (sender, told) = std::sync::mpsc::channel();
        for delay in [30, 10, 20] {
            let sender = sender.clone();
            let alarm = move || {
                sender.send(delay).unwrap();
                panic!("as planned");
            };
            after(Duration::from_millis(delay), Box::new(alarm));
        }
        drop(sender);
        assert_eq!(told.iter().collect::<Vec<_>>(), [10, 20, 30]);
    }

    #[test]
    fn a_cancelled_alarm_does_not_go_off() {
        let (sender, told) = std::sync::mpsc::channel();
        let alarm = |name| {
            let sender = sender.clone();
            Box::new(move || sender.send(name).unwrap())
        };
        let cancelled = after(Duration::from_millis(10), alarm("cancelled"));
        after(Duration::from_millis(20), alarm("the other"));
        cancelled.into_iter().for_each(cancel);
        assert!(after(Duration::MAX, alarm("never")).is_none());
        drop(sender);
        assert_eq!(told.iter().collect::<Vec<_>>(), ["the other"]);
    }

    struct Panicking;

    impl Sweep for Panicking {
        fn sweep(&self) -> Option<Duration> {
            panic!("as planned");
        }
    }

    #[test]
    fn a_panic_in_one_cache_does_not_stop_the_others() {
        let (panicking, counted) = (Arc::new(Panicking), Arc::new(Counted::default()));
        let tenancies = [register(&panicking), register(&counted)];
        tenancies[0].schedule(Duration::ZERO);
        tenancies[1].schedule(Duration::from_millis(20));
        assert!(until(|| counted.0.load(Ordering::Relaxed) == 10));
    }

    fn register<T: Sweep + 'static>(cache: &Arc<T>) -> Registration {
        let cache: Arc<dyn Sweep> = Arc::<T>::clone(cache);
        Registration::new(&Arc::downgrade(&cache))
    }

    fn until(done: impl Fn() -> bool) -> bool {
        let end = Instant::now() + Duration::from_secs(20);
        while !done() && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        done()
    }

    #[test]
    fn scheduled_caches_are_swept_until_nothing_is_left() {
        let caches = [(); 3].map(|()| Arc::new(Counted::default()));
        let tenancies = caches.each_ref().map(register);
        let steps = |at: usize| caches[at].0.load(Ordering::Relaxed);
        tenancies[0].schedule(Duration::from_secs(3600));
        tenancies[1].schedule(Duration::ZERO);
        assert!(until(|| steps(1) == 10));
        tenancies[0].schedule(Duration::ZERO);
        tenancies[1].schedule(Duration::from_millis(5));
        assert!(until(|| steps(0) == 10 && steps(1) == 20));
        assert_eq!(steps(2), 0, "it was not scheduled");
        let number = tenancies[2].0;
        drop(tenancies);
        let is_known = || SWEEPER.state.lock().cache(number).is_some();
        assert!(until(|| !is_known()));
    }
}
