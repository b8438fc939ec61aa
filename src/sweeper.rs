//! `Sweeper`: the one thread of a process that sweeps all its caches, a little at a time.
//!
//! It exists while there is a cache that wants it, sleeps until the earliest moment at which one
//! has something to be swept, and without end where none has: idle is free. Who has something new
//! to be swept says by when ([`Registration::wants`]). A tenant does one short step at a time, and
//! after each the thread rests for many times as long, which bounds its share of the processor.
//!
//! Alarms ([`after`]) are short as well, and go off while it rests.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::wake::contained;

/// The thread works for one part in so many of the time, however many there are to be swept.
const SHARE: u32 = 20;

/// The longest rest: a step that took long has more likely waited than worked.
const REST_MAX: Duration = Duration::from_secs(1);

/// Who is swept.
pub(crate) trait Sweep: Send + Sync {
    /// Does a step, and says after what time the next is due. None: when it says so.
    fn sweep(&self) -> Option<Duration>;
}

/// A tenant's place with the sweeper, until it is dropped.
#[derive(Debug)]
pub(crate) struct Registration(u64);

static SWEEPER: Sweeper = Sweeper { state: Mutex::new(State::new()), changed: Condvar::new() };

struct Sweeper {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    tenants: Vec<Tenant>,
    /// By the time when each goes off, and by the order in which they were set.
    alarms: BTreeMap<(Instant, u64), Box<dyn FnOnce() + Send>>,
    last: u64,
    is_running: bool,
    /// The process that it runs in: a fork takes the state along, but not the thread.
    process: u32,
    /// When the thread wakes by itself; None while it is awake, or never will.
    wakes: Option<Instant>,
}

struct Tenant {
    number: u64,
    sweep: Weak<dyn Sweep>,
    due: Option<Instant>,
}

impl State {
    const fn new() -> Self {
        Self {
            tenants: Vec::new(),
            alarms: BTreeMap::new(),
            last: 0,
            is_running: false,
            process: 0,
            wakes: None,
        }
    }

    /// Something is due then: has the thread run, and not sleep for longer. False where there can
    /// be no thread.
    fn run_by(&mut self, due: Instant) -> bool {
        let process = process::id();
        if !self.is_running || self.process != process {
            let thread = thread::Builder::new().name("tamis-sweeper".to_owned());
            self.is_running = thread.spawn(|| SWEEPER.run()).is_ok();
            self.process = process;
        } else if self.wakes.is_none_or(|wakes| due < wakes) {
            SWEEPER.changed.notify_one();
        }
        self.is_running
    }

    fn tenant(&mut self, number: u64) -> Option<&mut Tenant> {
        self.tenants.iter_mut().find(|tenant| tenant.number == number)
    }
}

impl Registration {
    pub(crate) fn new(sweep: &Weak<dyn Sweep>) -> Self {
        let mut state = SWEEPER.state.lock();
        state.last += 1;
        let number = state.last;
        state.tenants.push(Tenant { number, sweep: Weak::clone(sweep), due: None });
        Self(number)
    }

    /// Something is to be swept, after that time.
    pub(crate) fn wants(&self, after: Duration) {
        let Some(due) = Instant::now().checked_add(after) else { return };
        let mut state = SWEEPER.state.lock();
        let Some(tenant) = state.tenant(self.0) else { return };
        if tenant.due.is_some_and(|known| known <= due) {
            return;
        }
        tenant.due = Some(due);
        if !state.run_by(due) {
            // Whoever wants anything next tries again.
            // Bounded: by the caches of one process.
            state.tenants.iter_mut().for_each(|tenant| tenant.due = None);
        }
    }
}

/// Calls `alarm` after that time, or a little later. Where there can be no thread, it waits for the
/// next one that there is.
pub(crate) fn after(delay: Duration, alarm: Box<dyn FnOnce() + Send>) {
    let Some(due) = Instant::now().checked_add(delay) else { return };
    let mut state = SWEEPER.state.lock();
    state.last += 1;
    let number = state.last;
    state.alarms.insert((due, number), alarm);
    state.run_by(due);
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = SWEEPER.state.lock();
        // Bounded: by the caches of one process.
        state.tenants.retain(|tenant| tenant.number != self.0);
        SWEEPER.changed.notify_one();
    }
}

impl Sweeper {
    fn run(&self) {
        let mut state = self.state.lock();
        let mut rested = Instant::now();
        // Bounded: on a thread of its own.
        while !(state.tenants.is_empty() && state.alarms.is_empty()) {
            let now = Instant::now();
            let alarm = state.alarms.first_key_value().map(|(&(due, _), _)| due);
            if alarm.is_some_and(|due| due <= now) {
                let alarm = state.alarms.pop_first();
                MutexGuard::unlocked(&mut state, || contained(|| alarm.map(|(_, alarm)| alarm())));
                continue;
            }
            let due = |tenant: &Tenant| tenant.due.map(|due| (due, tenant.number));
            let tenant = state.tenants.iter().filter_map(due).min();
            let tenant = tenant.map(|(due, number)| (due.max(rested), number));
            match (tenant, alarm) {
                (Some((due, number)), _) if due <= now => {
                    rested = MutexGuard::unlocked(&mut state, || step(number));
                }
                (None, None) => self.changed.wait(&mut state),
                (tenant, alarm) => {
                    let due = tenant.map(|(due, _)| due).into_iter().chain(alarm).min();
                    state.wakes = due;
                    if let Some(due) = due {
                        self.changed.wait_until(&mut state, due);
                    }
                    state.wakes = None;
                }
            }
        }
        state.is_running = false;
    }
}

/// Has a tenant do a step. Gives until when the thread rests.
fn step(number: u64) -> Instant {
    let sweep = SWEEPER.state.lock().tenant(number).map(|tenant| {
        tenant.due = None;
        Weak::clone(&tenant.sweep)
    });
    let started = Instant::now();
    // What it wants meanwhile is kept; nothing is held while it is at work.
    if let Some(after) = sweep.and_then(|sweep| swept(&sweep)) {
        Registration::again(number, after);
    }
    Instant::now() + (started.elapsed() * (SHARE - 1)).min(REST_MAX)
}

/// A panic, of a clock or a logger that is not ours, must not end the sweeping of everybody else.
fn swept(sweep: &Weak<dyn Sweep>) -> Option<Duration> {
    let step = || sweep.upgrade().and_then(|tenant: Arc<dyn Sweep>| tenant.sweep());
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|_| {
        contained(|| log::error!("a step of the sweeper has panicked"));
        None
    })
}

impl Registration {
    fn again(number: u64, after: Duration) {
        let mut state = SWEEPER.state.lock();
        let due = Instant::now().checked_add(after);
        if let Some(tenant) = state.tenant(number) {
            tenant.due = [tenant.due, due].into_iter().flatten().min();
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

    /// Works for some time at each step, without end.
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
    fn all_of_them_together_have_their_share_of_the_time() {
        let tenants = [(); 3].map(|()| Arc::new(Busy::default()));
        let tenancies = tenants.each_ref().map(tenancy);
        let begun = Instant::now();
        tenancies.iter().for_each(|tenancy| tenancy.wants(Duration::ZERO));
        let steps = || tenants.iter().map(|tenant| tenant.0.load(Ordering::Relaxed)).sum::<usize>();
        assert!(until(|| steps() >= 9));
        let at_least = Duration::from_millis(5) * SHARE * 8;
        assert!(begun.elapsed() >= at_least, "9 steps in {:?}", begun.elapsed());
        assert!(tenants.iter().all(|tenant| tenant.0.load(Ordering::Relaxed) >= 2), "in turn");
    }

    #[test]
    fn alarms_go_off_in_order_though_a_tenant_is_busy_and_one_of_them_panics() {
        let busy = Arc::new(Busy::default());
        let tenancy = tenancy(&busy);
        tenancy.wants(Duration::ZERO);
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

    struct Panicking;

    impl Sweep for Panicking {
        fn sweep(&self) -> Option<Duration> {
            panic!("as planned");
        }
    }

    #[test]
    fn a_panic_of_one_does_not_end_the_sweeping_of_others() {
        let (panicking, counted) = (Arc::new(Panicking), Arc::new(Counted::default()));
        let tenancies = [tenancy(&panicking), tenancy(&counted)];
        tenancies[0].wants(Duration::ZERO);
        tenancies[1].wants(Duration::from_millis(20));
        assert!(until(|| counted.0.load(Ordering::Relaxed) == 10));
    }

    fn tenancy<T: Sweep + 'static>(tenant: &Arc<T>) -> Registration {
        let tenant: Arc<dyn Sweep> = Arc::<T>::clone(tenant);
        Registration::new(&Arc::downgrade(&tenant))
    }

    fn until(done: impl Fn() -> bool) -> bool {
        let end = Instant::now() + Duration::from_secs(20);
        while !done() && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        done()
    }

    #[test]
    fn whoever_wants_it_is_swept_until_there_is_nothing_left() {
        let tenants = [(); 3].map(|()| Arc::new(Counted::default()));
        let tenancies = tenants.each_ref().map(tenancy);
        let steps = |at: usize| tenants[at].0.load(Ordering::Relaxed);
        tenancies[0].wants(Duration::from_secs(3600));
        tenancies[1].wants(Duration::ZERO);
        assert!(until(|| steps(1) == 10));
        tenancies[0].wants(Duration::ZERO);
        tenancies[1].wants(Duration::from_millis(5));
        assert!(until(|| steps(0) == 10 && steps(1) == 20));
        assert_eq!(steps(2), 0, "it has not asked");
        let number = tenancies[2].0;
        drop(tenancies);
        let is_known = || SWEEPER.state.lock().tenant(number).is_some();
        assert!(until(|| !is_known()));
    }
}
