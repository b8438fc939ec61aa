//! `Limiter`: a budget of bytes for work that callers have under way.
//!
//! A caller's work (copying a value, reading a record) takes memory that belongs to nobody else,
//! and goes on over many polls. The limiter bounds the bytes of all such work together, and lets
//! callers in by the order in which they come. Nobody is held up by a caller that is not polled any
//! more:
//!
//! - One that waits is called, and loses its turn when it does not come (see [`Queue`]).
//! - One that is at work has its work within reach of the limiter. Where others wait, and the work
//!   has been woken and not polled for one to two times [`PATIENCE`], it is revoked: dropped with
//!   all its bytes. The caller begins anew should it ever be polled again, and is given twice the
//!   time then, so that one that is polled seldom comes to its end too. What waits for the device
//!   has not been woken, and is left alone however long that takes.
//! - A [`tidy`](Limiter::tidy) limiter does the same after ten times as long where nobody waits, so
//!   that the memory comes back.
//!
//! A [`Permit`] may outlive the work that it was for: a request on its way to the device keeps it
//! until the device is done, since the memory is in use until then.
//!
//! Locks: the limiter's own is a leaf. Wakers are called, and work is dropped, outside of it. The
//! lock of a lease is held while its work is polled, and elsewhere only tried.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard};

use crate::batch::BATCH_ENTRIES;
use crate::failpoint::{Failpoint, failpoint};
use crate::meter;
use crate::queue::{Queue, TICKS, TICKS_MAX, Ticket, Turn};
use crate::timer::Timer;
use crate::wake::{discard, wake};

/// How long a caller that was woken may take to come, and as long again.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);

/// How many times as many it has where nobody waits.
const UNWANTED: u64 = 10;

/// Clones share the budget.
#[derive(Clone)]
pub(crate) struct Limiter(Arc<Shared>);

struct Shared {
    bytes_max: usize,
    timer: Timer,
    /// Whether work that sleeps is revoked though nobody waits.
    is_tidy: bool,
    /// Counts the ticks, from one on, of which there are some only while somebody waits.
    tick: AtomicU64,
    /// What permits hold; changed under the lock.
    used: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: Queue,
    /// Work under way, by its number.
    leases: BTreeMap<u64, Arc<dyn Revocable>>,
    last_lease: u64,
    is_ticking: bool,
    /// The last lease that this tick has looked at.
    looked_at: Option<u64>,
    /// What goes off next is the rest of this tick.
    goes_on: bool,
}

/// Part of the budget, until it is dropped.
pub(crate) struct Permit {
    limiter: Arc<Shared>,
    bytes: AtomicUsize,
}

/// Work that can be taken away from a caller.
trait Revocable: Send + Sync {
    /// Whether it was woken too long ago.
    fn is_asleep(&self, tick: u64, is_wanted: bool) -> bool;

    /// Drops the work, unless it is being polled.
    fn revoke(&self);
}

impl Limiter {
    pub(crate) fn new(bytes_max: usize, timer: Timer) -> Self {
        Self::with(bytes_max, timer, false)
    }

    /// One that takes work away from callers who sleep though nobody waits for the bytes, since
    /// they are missed elsewhere.
    pub(crate) fn tidy(bytes_max: usize, timer: Timer) -> Self {
        Self::with(bytes_max, timer, true)
    }

    fn with(bytes_max: usize, timer: Timer, is_tidy: bool) -> Self {
        Self(Arc::new(Shared {
            bytes_max,
            timer,
            is_tidy,
            tick: AtomicU64::new(1),
            used: AtomicUsize::new(0),
            state: Mutex::default(),
        }))
    }

    /// What work under way takes.
    pub(crate) fn bytes(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Does work that takes `bytes`, once there is room for it: more than the whole budget have it
    /// alone. `make` is called again where the work has been revoked, and gives the work the
    /// permit, to keep for as long as it uses the memory.
    ///
    /// Dropped, it leaves nothing behind.
    pub(crate) async fn run<T, F>(&self, bytes: usize, mut make: impl FnMut(Arc<Permit>) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let mut ticks = TICKS;
        // Bounded: a wait in each turn.
        loop {
            let permit = Arc::new(Acquire { limiter: &self.0, bytes, ticket: None }.await);
            let work = Box::pin(make(Arc::clone(&permit)));
            if let Some(done) = Lease::new(&self.0, work, permit, ticks).await {
                return done;
            }
            ticks = (2 * ticks).min(TICKS_MAX);
        }
    }
}

impl Shared {
    fn fits(&self, kept: usize, bytes: usize) -> bool {
        let used = self.used.load(Ordering::Relaxed).saturating_add(kept);
        used == 0 || used.saturating_add(bytes) <= self.bytes_max
    }

    /// Calls those for whom there is room, ticks where somebody is left, and gives the lock back.
    fn call(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let mut called = Vec::new();
        let tick = self.tick.load(Ordering::Relaxed);
        // Others are called when something is given back, or at the next tick.
        while called.len() < BATCH_ENTRIES {
            let kept = state.queue.kept();
            let Some(waker) = state.queue.call(tick, |bytes| self.fits(kept, bytes)) else { break };
            meter::entries(1);
            called.push(waker);
        }
        let is_watched = self.is_tidy && !state.leases.is_empty();
        let begins = (is_watched || !state.queue.is_empty()) && !state.is_ticking;
        state.is_ticking |= begins;
        drop(state);
        called.into_iter().for_each(wake);
        if begins {
            self.tick_after(PATIENCE);
        }
    }

    fn tick_after(self: &Arc<Self>, delay: Duration) {
        let limiter: Weak<Self> = Arc::downgrade(self);
        let tick = move || {
            if let Some(limiter) = limiter.upgrade() {
                limiter.tick();
            }
        };
        self.timer.after(delay, Box::new(tick));
    }

    /// Takes turns and work away from those who have been woken and have not come.
    fn tick(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if !state.goes_on {
            self.tick.fetch_add(1, Ordering::Relaxed);
        }
        let tick = self.tick.load(Ordering::Relaxed);
        let is_more = state.queue.give_up(tick);
        let mut asleep = Vec::new();
        let is_wanted = state.queue.is_waited();
        if is_wanted || self.is_tidy {
            let from = state.looked_at.map_or(Bound::Unbounded, Bound::Excluded);
            let behind = state.leases.range((from, Bound::Unbounded));
            let (mut looked_at, mut last) = (0, None);
            for (&number, lease) in behind.take(BATCH_ENTRIES) {
                crate::meter::entries(1);
                looked_at += 1;
                last = Some(number);
                if lease.is_asleep(tick, is_wanted) && !failpoint(Failpoint::PermitKeptBySleeper) {
                    asleep.push(Arc::clone(lease));
                }
            }
            state.looked_at = last.filter(|_| looked_at == BATCH_ENTRIES);
        } else {
            state.looked_at = None;
        }
        drop(state);
        asleep.iter().for_each(|lease| lease.revoke());
        drop(asleep);
        let mut state = self.state.lock();
        // Whoever comes from here on begins to tick anew.
        state.is_ticking = false;
        state.goes_on = is_more || state.looked_at.is_some();
        if state.goes_on {
            state.is_ticking = true;
            drop(state);
            self.tick_after(Duration::ZERO);
            state = self.state.lock();
        }
        self.call(state);
    }
}

impl Permit {
    /// Takes more of the budget, if it is there and nobody waits for it.
    pub(crate) fn grow(&self, bytes: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        let limiter = &self.limiter;
        let state = limiter.state.lock();
        let used = limiter.used.load(Ordering::Relaxed);
        let is_alone = used == self.bytes.load(Ordering::Relaxed);
        let wanted = used.saturating_add(bytes);
        let has_grown = state.queue.is_empty() && (is_alone || wanted <= limiter.bytes_max);
        if has_grown {
            limiter.used.fetch_add(bytes, Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        has_grown
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let state = self.limiter.state.lock();
        self.limiter.used.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
        self.limiter.call(state);
    }
}

/// Waits for a permit.
struct Acquire<'a> {
    limiter: &'a Arc<Shared>,
    bytes: usize,
    /// Its place, from the poll on in which there was no room.
    ticket: Option<Ticket>,
}

impl Future for Acquire<'_> {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Permit> {
        let waker = context.waker().clone();
        let limiter = Arc::clone(self.limiter);
        let mut state = limiter.state.lock();
        let turn = match self.ticket {
            Some(ticket) => state.queue.poll(ticket, waker),
            None => Turn::Lost(waker),
        };
        let kept = state.queue.kept();
        let before = match turn {
            Turn::Waiting(before) => Some(before),
            Turn::Lost(waker) if state.queue.is_waited() || !limiter.fits(kept, self.bytes) => {
                let ticket = self.ticket.map(Ticket::again);
                let ticket = ticket.unwrap_or_else(|| state.queue.ticket());
                state.queue.enter(ticket, self.bytes, waker);
                self.ticket = Some(ticket);
                None
            }
            // So many have been called that somebody else has taken what there was.
            Turn::Come(waker) if !limiter.fits(0, self.bytes) => {
                let ticket = self.ticket.unwrap_or_else(|| state.queue.ticket());
                state.queue.enter(ticket, self.bytes, waker);
                self.ticket = Some(ticket);
                None
            }
            Turn::Come(_) | Turn::Lost(_) => {
                self.ticket = None;
                limiter.used.fetch_add(self.bytes, Ordering::Relaxed);
                drop(state);
                let bytes = AtomicUsize::new(self.bytes);
                return Poll::Ready(Permit { limiter, bytes });
            }
        };
        limiter.call(state);
        discard(before);
        Poll::Pending
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.limiter.state.lock();
        let waker = state.queue.leave(ticket);
        self.limiter.call(state);
        discard(waker);
    }
}

/// Work with its permit, where the limiter can get at it. None where it has been revoked.
struct Lease<T: Send + 'static> {
    work: Arc<Work<T>>,
    number: u64,
}

struct Work<T> {
    limiter: Arc<Shared>,
    /// None once it is over, or has been revoked.
    running: Mutex<Option<Running<T>>>,
    /// Whoever polls the lease, until the work is woken.
    caller: Mutex<Option<Waker>>,
    /// The tick in which the work was woken; zero where it has been polled since.
    woken: AtomicU64,
    /// How many ticks it may take to be polled then, where others wait.
    ticks: u64,
}

struct Running<T> {
    future: BoxFuture<'static, T>,
    _permit: Arc<Permit>,
}

impl<T: Send + 'static> Lease<T> {
    fn new(
        limiter: &Arc<Shared>,
        future: BoxFuture<'static, T>,
        permit: Arc<Permit>,
        ticks: u64,
    ) -> Self {
        let work = Arc::new(Work {
            limiter: Arc::clone(limiter),
            running: Mutex::new(Some(Running { future, _permit: permit })),
            caller: Mutex::new(None),
            // Until it is polled it is as good as woken.
            woken: AtomicU64::new(limiter.tick.load(Ordering::Relaxed)),
            ticks,
        });
        let mut state = limiter.state.lock();
        state.last_lease += 1;
        let number = state.last_lease;
        let revocable: Arc<dyn Revocable> = Arc::<Work<T>>::clone(&work);
        state.leases.insert(number, revocable);
        limiter.call(state);
        Self { work, number }
    }
}

impl<T: Send + 'static> Future for Lease<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let work = &self.work;
        let caller = Some(context.waker().clone());
        // In this order: a wake from here on is one that has still to be followed.
        work.woken.store(0, Ordering::Release);
        let before = std::mem::replace(&mut *work.caller.lock(), caller);
        discard(before);
        let waker = Waker::from(Arc::clone(work));
        let mut running = work.running.lock();
        let Some(held) = &mut *running else { return Poll::Ready(None) };
        match held.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => {
                let over = running.take();
                drop(running);
                discard(over);
                Poll::Ready(Some(done))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T: Send + 'static> Drop for Lease<T> {
    fn drop(&mut self) {
        let held = self.work.limiter.state.lock().leases.remove(&self.number);
        drop(held);
        let running = self.work.running.lock().take();
        // What it was to write is the caller's.
        discard(running);
        let caller = self.work.caller.lock().take();
        discard(caller);
    }
}

impl<T: Send + 'static> Wake for Work<T> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(self.limiter.tick.load(Ordering::Relaxed), Ordering::Release);
        let caller = self.caller.lock().take();
        // Bounded: one.
        caller.into_iter().for_each(wake);
    }
}

impl<T: Send> Revocable for Work<T> {
    fn is_asleep(&self, tick: u64, is_wanted: bool) -> bool {
        let woken = self.woken.load(Ordering::Acquire);
        let ticks = if is_wanted { self.ticks } else { self.ticks.saturating_mul(UNWANTED) };
        woken > 0 && woken + ticks <= tick
    }

    fn revoke(&self) {
        // It is being polled where that is locked.
        let running = self.running.try_lock().and_then(|mut running| running.take());
        discard(running);
        // It may have been moved to another task since it was woken.
        let caller = self.caller.lock().take();
        // Bounded: one.
        caller.into_iter().for_each(wake);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use futures::FutureExt;
    use futures::channel::oneshot;
    use futures::executor::block_on;
    use futures::future::join_all;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::batch::yield_now;

    fn limiter(bytes_max: usize) -> Limiter {
        Limiter::new(bytes_max, Timer::Process)
    }

    /// Work of several polls, each of which wakes itself.
    async fn pauses(permit: Arc<Permit>, polls: usize) {
        for _ in 0..polls {
            yield_now().await;
        }
        drop(permit);
    }

    fn poll<T>(future: &mut Pin<Box<impl Future<Output = T>>>) -> Poll<T> {
        future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn work_that_is_asleep_gives_way_and_is_done_when_it_is_polled_again() {
        let limiter = limiter(10);
        let mut asleep: Vec<_> =
            (0..3).map(|_| Box::pin(limiter.run(5, |permit| pauses(permit, 3)))).collect();
        assert!(asleep.iter_mut().all(|work| poll(work).is_pending()));
        assert_eq!(limiter.bytes(), 10, "two are at work, one waits");
        for _ in 0..2 {
            block_on(limiter.run(10, |permit| pauses(permit, 100)));
        }
        block_on(join_all(asleep));
        assert_eq!(limiter.bytes(), 0);
    }

    #[test]
    fn a_tidy_limiter_takes_back_what_nobody_waits_for() {
        let limiter = Limiter::tidy(10, Timer::Process);
        let mut asleep = Box::pin(limiter.run(5, |permit| pauses(permit, 3)));
        assert!(poll(&mut asleep).is_pending() && limiter.bytes() == 5);
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while limiter.bytes() > 0 && std::time::Instant::now() < end {
            thread::sleep(PATIENCE);
        }
        assert_eq!(limiter.bytes(), 0);
        block_on(asleep);
    }

    #[test]
    fn who_is_polled_seldom_comes_to_an_end_among_others_who_want_its_place() {
        let limiter = limiter(10);
        let mut seldom = Box::pin(limiter.run(10, |permit| pauses(permit, 3)));
        let is_over = Arc::new(AtomicBool::new(false));
        let crowd = {
            let (limiter, is_over) = (limiter.clone(), Arc::clone(&is_over));
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    block_on(limiter.run(10, |permit| pauses(permit, 1)));
                }
            })
        };
        let polls = (0..100).take_while(|_| {
            thread::sleep(PATIENCE * 3);
            poll(&mut seldom).is_pending()
        });
        assert!(polls.count() < 100, "it begins anew for ever");
        is_over.store(true, Ordering::Relaxed);
        crowd.join().expect("the crowd goes through");
    }

    #[test]
    fn work_that_waits_for_something_else_is_left_alone() {
        let limiter = limiter(10);
        let (sender, receiver) = oneshot::channel::<()>();
        let mut receiver = Some(receiver);
        let mut waiting = Box::pin(limiter.run(10, |_| receiver.take().expect("made once")));
        assert!(poll(&mut waiting).is_pending());
        let mut next = Box::pin(limiter.run(10, |permit| pauses(permit, 1)));
        assert!(poll(&mut next).is_pending());
        thread::sleep(PATIENCE * 5);
        assert!(poll(&mut next).is_pending());
        sender.send(()).expect("it has not been revoked");
        assert_eq!(block_on(waiting), Ok(()));
        block_on(next);
    }

    #[test]
    fn a_waiter_that_does_not_come_holds_up_nobody_behind_it() {
        let limiter = limiter(10);
        let mut first = Box::pin(limiter.run(10, |_| pending::<()>()));
        assert!(poll(&mut first).is_pending());
        let mut sleepers: Vec<_> =
            (0..5).map(|_| Box::pin(limiter.run(10, |permit| pauses(permit, 1)))).collect();
        assert!(sleepers.iter_mut().all(|work| poll(work).is_pending()));
        drop(first);
        block_on(limiter.run(10, |permit| pauses(permit, 1)));
        block_on(join_all(sleepers));
    }

    #[test]
    fn a_permit_outlives_revoked_work_for_as_long_as_somebody_keeps_it() {
        let limiter = limiter(10);
        let kept = Arc::new(Mutex::new(None));
        let keep = |permit: Arc<Permit>| {
            *kept.lock() = Some(Arc::clone(&permit));
            pauses(permit, 2)
        };
        let mut asleep = Box::pin(limiter.run(6, keep));
        assert!(poll(&mut asleep).is_pending());
        let mut next = Box::pin(limiter.run(6, |permit| pauses(permit, 1)));
        assert!(poll(&mut next).is_pending());
        thread::sleep(PATIENCE * 5);
        assert!(poll(&mut next).is_pending() && limiter.bytes() == 6);
        let permit = kept.lock().take();
        drop(permit);
        block_on(next);
    }

    #[test]
    fn a_permit_grows_only_into_what_nobody_waits_for() {
        let limiter = limiter(10);
        let grown = |permit: Arc<Permit>| {
            let grown = [permit.grow(4), permit.grow(4)];
            async move { grown }
        };
        assert_eq!(block_on(limiter.run(4, grown)), [true, true], "the second has it alone");
        let mut other = Box::pin(limiter.run(2, |_| pending::<()>()));
        assert!(poll(&mut other).is_pending());
        assert_eq!(block_on(limiter.run(4, grown)), [true, false]);
        assert_eq!(limiter.bytes(), 2);
    }

    #[test]
    fn a_permit_that_wants_no_more_has_it_though_others_wait() {
        let limiter = limiter(10);
        let grows = |permit: Arc<Permit>| async move {
            yield_now().await;
            [permit.grow(0), permit.grow(1)]
        };
        let mut first = Box::pin(limiter.run(10, grows));
        let mut second = Box::pin(limiter.run(10, |_| pending::<()>()));
        assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
        assert_eq!(poll(&mut first), Poll::Ready([true, false]));
    }

    struct Panics(AtomicBool);

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
            panic!("as planned");
        }
    }

    #[test]
    fn wakers_that_panic_harm_nobody_else() {
        let limiter = limiter(10);
        let mut first = Box::pin(limiter.run(10, |_| pending::<()>()));
        assert!(poll(&mut first).is_pending());
        let wakers = [(); 3].map(|()| Arc::new(Panics(AtomicBool::new(false))));
        let mut panicking = Vec::new();
        for waker in &wakers {
            let mut work = Box::pin(limiter.run(3, |permit| pauses(permit, 1)));
            let waker = Waker::from(Arc::clone(waker));
            assert!(work.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            panicking.push(work);
        }
        drop(first);
        assert!(wakers.iter().all(|waker| waker.0.load(Ordering::Relaxed)));
        block_on(limiter.run(10, |permit| pauses(permit, 1)));
        block_on(join_all(panicking));
    }

    #[test]
    fn whatever_sleeps_who_is_polled_gets_through_and_the_budget_holds() {
        for seed in 0..20 {
            let mut random = StdRng::seed_from_u64(seed);
            let limiter = limiter(100);
            let polled: Vec<_> = (0..200)
                .map(|_| {
                    let (bytes, polls) = (random.random_range(1..60), random.random_range(0..6));
                    let patience = random.random_range(0..8);
                    let sleeps = random.random_bool(0.3);
                    let limiter = limiter.clone();
                    async move {
                        let mut work = pin!(limiter.run(bytes, |permit| pauses(permit, polls)));
                        for _ in 0..patience {
                            if work.as_mut().now_or_never().is_some() {
                                return;
                            }
                            assert!(limiter.bytes() <= 100, "seed {seed}");
                            yield_now().await;
                        }
                        match sleeps {
                            // Neither polled nor dropped until all others are done.
                            true => SLEEPERS.with_borrow_mut(|sleepers| {
                                let limiter = limiter.clone();
                                let work = async move {
                                    limiter.run(bytes, |permit| pauses(permit, polls)).await;
                                };
                                let mut work = Box::pin(work);
                                assert!(poll(&mut work).is_pending() || polls == 0, "seed {seed}");
                                sleepers.push(work);
                            }),
                            false => work.await,
                        }
                    }
                })
                .collect();
            block_on(join_all(polled));
            SLEEPERS.with_borrow_mut(Vec::clear);
            assert_eq!(limiter.bytes(), 0, "seed {seed}");
        }
    }

    thread_local! {
        static SLEEPERS: std::cell::RefCell<Vec<Pin<Box<dyn Future<Output = ()>>>>> =
            const { std::cell::RefCell::new(Vec::new()) };
    }
}
