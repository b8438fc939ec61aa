//! `Limiter`: a byte budget for the memory of work in progress.
//!
//! Copying a value or reading a record takes memory over many polls. The limiter bounds the bytes
//! of all such work, and admits callers in order of arrival. A caller that is no longer polled
//! delays no other:
//!
//! - A waiter is called when there is room, and loses its call if it does not come: see
//!   [`WaitQueue`].
//! - The limiter owns the work of admitted callers. If others wait and the work was woken but not
//!   polled for one to two times [`PATIENCE`], it is revoked: dropped with all its bytes. When the
//!   caller is polled again it starts over, with twice the time, so that rarely polled callers
//!   finish too. Work that waits for the device was not woken, and is left alone however long that
//!   takes.
//! - A [`reclaiming`](Limiter::reclaiming) limiter does the same, after ten times as long, if no
//!   caller waits, so that the memory is returned.
//!
//! A [`Permit`] may outlive its work: a request to the device keeps it until the device is done,
//! since the memory is in use until then.
//!
//! Locks: the limiter's own is a leaf; wakers are called and work is dropped outside of it. A lease
//! is locked while its work is polled; elsewhere its lock is only tried.

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
use crate::queue::{TICKS, TICKS_MAX, Ticket, TicketState, WaitQueue};
use crate::timer::{PATIENCE, Timer};
use crate::wake::{discard, wake};

/// The factor on that time if no caller waits.
const UNCONTENDED_FACTOR: u64 = 10;

/// Clones share one budget.
#[derive(Clone)]
pub(crate) struct Limiter(Arc<Inner>);

struct Inner {
    bytes_max: AtomicUsize,
    timer: Timer,
    /// Whether sleeping work is revoked even if no caller waits.
    is_reclaiming: bool,
    /// From one on. The timer runs while callers wait or a reclaiming limiter has work.
    tick: AtomicU64,
    /// Bytes of all permits; changed under the lock.
    used: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: WaitQueue,
    leases: BTreeMap<u64, Arc<dyn Revocable>>,
    last_lease: u64,
    is_ticking: bool,
    /// The last lease checked in this tick.
    checked: Option<u64>,
    /// Whether the next timer call continues this tick.
    continues: bool,
}

/// A share of the budget, returned when it is dropped.
pub(crate) struct Permit {
    limiter: Arc<Inner>,
    bytes: AtomicUsize,
}

trait Revocable: Send + Sync {
    fn is_asleep(&self, tick: u64, is_wanted: bool) -> bool;

    /// Drops the work unless it is being polled.
    fn revoke(&self);
}

impl Limiter {
    pub(crate) fn new(bytes_max: usize, timer: Timer) -> Self {
        Self::with(bytes_max, timer, false)
    }

    /// Revokes sleeping work even if no caller waits: other parts need the memory.
    pub(crate) fn reclaiming(bytes_max: usize, timer: Timer) -> Self {
        Self::with(bytes_max, timer, true)
    }

    fn with(bytes_max: usize, timer: Timer, is_reclaiming: bool) -> Self {
        Self(Arc::new(Inner {
            bytes_max: AtomicUsize::new(bytes_max),
            timer,
            is_reclaiming,
            tick: AtomicU64::new(1),
            used: AtomicUsize::new(0),
            state: Mutex::default(),
        }))
    }

    pub(crate) fn bytes_max(&self) -> usize {
        self.0.bytes_max.load(Ordering::Relaxed)
    }

    /// Changes the budget. Work that was admitted keeps its bytes.
    pub(crate) fn set_bytes_max(&self, bytes: usize) {
        self.0.bytes_max.store(bytes, Ordering::Relaxed);
        self.0.call(self.0.state.lock());
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Admitted and waiting callers.
    #[cfg(test)]
    pub(crate) fn callers(&self) -> usize {
        let state = self.0.state.lock();
        state.leases.len() + state.queue.len()
    }

    /// Runs work that takes `bytes`, once there is room; work larger than the whole budget runs
    /// alone. `make` is called again if the work was revoked. It gives the permit to the work, to
    /// keep as long as it uses the memory.
    ///
    /// Dropped, it leaves nothing behind.
    pub(crate) async fn run<T, F>(&self, bytes: usize, mut make: impl FnMut(Arc<Permit>) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let mut ticks = TICKS;
        // Bounded: each iteration waits.
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

impl Inner {
    fn fits(&self, kept: usize, bytes: usize) -> bool {
        let used = self.used.load(Ordering::Relaxed).saturating_add(kept);
        used == 0 || used.saturating_add(bytes) <= self.bytes_max.load(Ordering::Relaxed)
    }

    /// Calls the waiters that fit, starts the timer if it is needed, and releases the lock.
    fn call(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let mut called = Vec::new();
        let tick = self.tick.load(Ordering::Relaxed);
        // Further ones are called when bytes are returned, or at the next tick.
        while called.len() < BATCH_ENTRIES {
            let kept = state.queue.kept();
            let Some(waker) = state.queue.call(tick, |bytes| self.fits(kept, bytes)) else { break };
            meter::entries(1);
            called.push(waker);
        }
        let is_watched = self.is_reclaiming && !state.leases.is_empty();
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

    /// Revokes calls and work that were woken and not polled in time.
    fn tick(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if !state.continues {
            self.tick.fetch_add(1, Ordering::Relaxed);
        }
        let tick = self.tick.load(Ordering::Relaxed);
        let is_more = state.queue.revoke_calls(tick);
        let mut asleep = Vec::new();
        let is_wanted = state.queue.has_waiting();
        if is_wanted || self.is_reclaiming {
            let from = state.checked.map_or(Bound::Unbounded, Bound::Excluded);
            let behind = state.leases.range((from, Bound::Unbounded));
            let (mut count, mut last) = (0, None);
            for (&number, lease) in behind.take(BATCH_ENTRIES) {
                crate::meter::entries(1);
                count += 1;
                last = Some(number);
                if lease.is_asleep(tick, is_wanted) && !failpoint(Failpoint::PermitKeptBySleeper) {
                    asleep.push(Arc::clone(lease));
                }
            }
            state.checked = last.filter(|_| count == BATCH_ENTRIES);
        } else {
            state.checked = None;
        }
        drop(state);
        asleep.iter().for_each(|lease| lease.revoke());
        drop(asleep);
        let mut state = self.state.lock();
        // Callers that arrive from now on restart the timer.
        state.is_ticking = false;
        state.continues = is_more || state.checked.is_some();
        if state.continues {
            state.is_ticking = true;
            drop(state);
            self.tick_after(Duration::ZERO);
            state = self.state.lock();
        }
        self.call(state);
    }
}

impl Permit {
    /// Takes more of the budget, if there is room and no caller waits.
    pub(crate) fn grow(&self, bytes: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        let limiter = &self.limiter;
        let state = limiter.state.lock();
        let used = limiter.used.load(Ordering::Relaxed);
        let is_alone = used == self.bytes.load(Ordering::Relaxed);
        let wanted = used.saturating_add(bytes);
        let is_room = is_alone || wanted <= limiter.bytes_max.load(Ordering::Relaxed);
        let has_grown = state.queue.is_empty() && is_room;
        if has_grown {
            limiter.used.fetch_add(bytes, Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        has_grown
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if failpoint(Failpoint::PermitLost) {
            return;
        }
        let state = self.limiter.state.lock();
        self.limiter.used.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
        self.limiter.call(state);
    }
}

struct Acquire<'a> {
    limiter: &'a Arc<Inner>,
    bytes: usize,
    /// Set from the first poll that found no room.
    ticket: Option<Ticket>,
}

impl Future for Acquire<'_> {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Permit> {
        let waker = context.waker().clone();
        let limiter = Arc::clone(self.limiter);
        let mut state = limiter.state.lock();
        let state_of_ticket = match self.ticket {
            Some(ticket) => state.queue.poll(ticket, waker),
            None => TicketState::Missed(waker),
        };
        let kept = state.queue.kept();
        let before = match state_of_ticket {
            TicketState::Waiting(before) => Some(before),
            TicketState::Missed(waker)
                if state.queue.has_waiting() || !limiter.fits(kept, self.bytes) =>
            {
                let ticket = self.ticket.map(Ticket::retry);
                let ticket = ticket.unwrap_or_else(|| state.queue.ticket());
                state.queue.enter(ticket, self.bytes, waker);
                self.ticket = Some(ticket);
                None
            }
            // More waiters were called than fit, and another one has taken the bytes.
            TicketState::Called(waker) if !limiter.fits(0, self.bytes) => {
                let ticket = self.ticket.unwrap_or_else(|| state.queue.ticket());
                state.queue.enter(ticket, self.bytes, waker);
                self.ticket = Some(ticket);
                None
            }
            TicketState::Called(_) | TicketState::Missed(_) => {
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

/// Work and its permit, within the limiter's reach. Resolves to None once revoked.
struct Lease<T: Send + 'static> {
    work: Arc<Work<T>>,
    number: u64,
}

struct Work<T> {
    limiter: Arc<Inner>,
    /// None once it is done or revoked.
    running: Mutex<Option<Running<T>>>,
    /// The waker of the lease's last poll, until the work is woken.
    caller: Mutex<Option<Waker>>,
    /// The tick in which the work was woken; zero if it was polled since.
    woken: AtomicU64,
    /// Ticks that it then has to be polled if others wait.
    ticks: u64,
}

struct Running<T> {
    future: BoxFuture<'static, T>,
    _permit: Arc<Permit>,
}

impl<T: Send + 'static> Lease<T> {
    fn new(
        limiter: &Arc<Inner>,
        future: BoxFuture<'static, T>,
        permit: Arc<Permit>,
        ticks: u64,
    ) -> Self {
        let work = Arc::new(Work {
            limiter: Arc::clone(limiter),
            running: Mutex::new(Some(Running { future, _permit: permit })),
            caller: Mutex::new(None),
            // Counts as woken until its first poll.
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
        // Reset before the poll: a later wake requires another poll.
        work.woken.store(0, Ordering::Release);
        let before = std::mem::replace(&mut *work.caller.lock(), caller);
        discard(before);
        let waker = Waker::from(Arc::clone(work));
        let mut running = work.running.lock();
        let Some(work) = &mut *running else { return Poll::Ready(None) };
        match work.future.as_mut().poll(&mut Context::from_waker(&waker)) {
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
        let lease = self.work.limiter.state.lock().leases.remove(&self.number);
        drop(lease);
        let running = self.work.running.lock().take();
        // The future may own the caller's values.
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
        let ticks =
            if is_wanted { self.ticks } else { self.ticks.saturating_mul(UNCONTENDED_FACTOR) };
        woken > 0 && woken + ticks <= tick
    }

    fn revoke(&self) {
        // If the lock is taken, the work is being polled.
        let running = self.running.try_lock().and_then(|mut running| running.take());
        discard(running);
        // The lease may have moved to another task since the wake.
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

    /// Work of several polls that wakes itself in each.
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
    fn sleeping_work_is_revoked_and_completes_when_polled_again() {
        let limiter = limiter(10);
        let mut asleep: Vec<_> =
            (0..3).map(|_| Box::pin(limiter.run(5, |permit| pauses(permit, 3)))).collect();
        assert!(asleep.iter_mut().all(|work| poll(work).is_pending()));
        assert_eq!(limiter.bytes(), 10, "two run, one waits");
        for _ in 0..2 {
            block_on(limiter.run(10, |permit| pauses(permit, 100)));
        }
        block_on(join_all(asleep));
        assert_eq!(limiter.bytes(), 0);
    }

    #[test]
    fn a_reclaiming_limiter_revokes_work_that_no_caller_waits_for() {
        let limiter = Limiter::reclaiming(10, Timer::Process);
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
    fn a_rarely_polled_caller_completes_under_contention() {
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
        assert!(polls.count() < 100, "it restarts forever");
        is_over.store(true, Ordering::Relaxed);
        crowd.join().expect("the other callers complete");
    }

    #[test]
    fn work_that_was_not_woken_is_not_revoked() {
        let limiter = limiter(10);
        let (sender, receiver) = oneshot::channel::<()>();
        let mut receiver = Some(receiver);
        let mut waiting = Box::pin(limiter.run(10, |_| receiver.take().expect("made once")));
        assert!(poll(&mut waiting).is_pending());
        let mut next = Box::pin(limiter.run(10, |permit| pauses(permit, 1)));
        assert!(poll(&mut next).is_pending());
        thread::sleep(PATIENCE * 5);
        assert!(poll(&mut next).is_pending());
        sender.send(()).expect("it was not revoked");
        assert_eq!(block_on(waiting), Ok(()));
        block_on(next);
    }

    #[test]
    fn a_sleeping_waiter_does_not_delay_later_ones() {
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
    fn a_permit_outlives_revoked_work_while_it_is_held() {
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
    fn a_permit_grows_only_if_no_caller_waits() {
        let limiter = limiter(10);
        let grown = |permit: Arc<Permit>| {
            let grown = [permit.grow(4), permit.grow(4)];
            async move { grown }
        };
        assert_eq!(block_on(limiter.run(4, grown)), [true, true], "the second runs alone");
        let mut other = Box::pin(limiter.run(2, |_| pending::<()>()));
        assert!(poll(&mut other).is_pending());
        assert_eq!(block_on(limiter.run(4, grown)), [true, false]);
        assert_eq!(limiter.bytes(), 2);
    }

    #[test]
    fn growing_a_permit_by_zero_succeeds_while_others_wait() {
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
    fn panicking_wakers_do_not_affect_other_callers() {
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
    fn polled_callers_complete_within_the_budget_while_others_sleep() {
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
