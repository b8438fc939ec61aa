//! Splits work into a task that runs it, a [`Remote`], and a [`RemoteHandle`] that waits for what
//! it brings.
//!
//! ```text
//! Idle      with the task, which is to poll it
//! Polled    out, in a poll of the task
//! Back      with the handle: its caller runs it from here on
//! Done      with its output, for the handle
//! Gone      over, or dropped
//! ```
//!
//! Whoever was given the task may drop it, or never poll it again. From a task that is dropped the
//! work comes back to the handle at once. That of a task that was woken and not polled is offered
//! to the handle after [`PATIENCE`], and stays with the task until one of both is polled, which
//! takes it: the other may never be. A new task counts as woken. So a caller that waits depends on
//! no executor but its own, and a task that is polled on no caller. A handle that is dropped leaves
//! the work to the task; if that is dropped as well, the work is. [`Stop::stop`] takes it out of
//! the task in any case.
//!
//! The work is polled and dropped, and wakers are called and dropped, without the lock, and their
//! panics are contained.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};

use crate::failpoint::{Failpoint, failpoint};
use crate::sync::Mutex;
use crate::timer::{PATIENCE, Timer};
use crate::wake::{contained, discard, wake};

/// What a task can run for a caller.
pub(crate) trait Work: Future<Output: Send> + Send + Unpin + 'static {
    /// It is owed a poll by another task than before.
    fn moved(&self);

    /// Its task does not run it to its end.
    fn left_task(&self) {}
}

/// The task. It ends when the work does, or is no longer its own.
#[must_use = "dropped, it gives the work back"]
pub(crate) struct Remote<W: Work> {
    shared: Arc<Shared<W, W::Output>>,
    waker: Waker,
}

/// Dropping it leaves the work to the task. Without bounds, which would keep the compiler from
/// seeing that the future of a caller is `Send` if its types have lifetimes.
pub(crate) struct RemoteHandle<W, T>(Arc<Shared<W, T>>);

pub(crate) enum RemoteOutcome<W, T> {
    Output(T),
    /// The task does not run it.
    Back(W),
    /// It has panicked.
    Lost,
}

/// Takes work out of its task.
pub(crate) trait Stop: Send + Sync {
    /// A caller that waits for it runs it from here on; otherwise it is dropped.
    fn stop(&self);
}

struct Shared<W, T> {
    timer: Timer,
    state: Mutex<State<W, T>>,
}

struct State<W, T> {
    place: Place<W, T>,
    /// Those that wait; None before their first poll, or after they were woken.
    task: Option<Waker>,
    caller: Option<Waker>,
    has_handle: bool,
    /// The task was woken since its last poll began.
    is_woken: bool,
    is_stopped: bool,
    /// The caller may take the work, as the task may.
    is_offered: bool,
    /// Polls by the task.
    polls: u64,
    has_alarm: bool,
}

enum Place<W, T> {
    Idle(W),
    Polled,
    Back(W),
    Done(T),
    Gone,
}

/// Splits work in two. It waits for the first poll of the task.
pub(crate) fn remote<W: Work>(work: W, timer: &Timer) -> (Remote<W>, RemoteHandle<W, W::Output>) {
    work.moved();
    let state = State {
        place: Place::Idle(work),
        task: None,
        caller: None,
        has_handle: true,
        is_woken: true,
        is_stopped: false,
        is_offered: false,
        polls: 0,
        has_alarm: false,
    };
    let shared = Arc::new(Shared { timer: timer.clone(), state: Mutex::new(state) });
    let waker = Waker::from(Arc::new(Relay(Arc::downgrade(&shared))));
    (Remote { shared: Arc::clone(&shared), waker }, RemoteHandle(shared))
}

impl<W: Work> Remote<W> {
    pub(crate) fn stopper(&self) -> Weak<dyn Stop> {
        let stopper: Weak<Shared<W, W::Output>> = Arc::downgrade(&self.shared);
        stopper
    }
}

impl<W: Work> Future for Remote<W> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { shared, waker } = self.get_mut();
        let Some(mut work) = shared.take(context.waker().clone()) else { return Poll::Ready(()) };
        match contained(|| Pin::new(&mut work).poll(&mut Context::from_waker(waker))) {
            Some(Poll::Pending) => return shared.put_back(work),
            Some(Poll::Ready(output)) => shared.end(Place::Done(output)),
            None => shared.end(Place::Gone),
        }
        discard((work, shared.stopped()));
        Poll::Ready(())
    }
}

impl<W: Work> Drop for Remote<W> {
    fn drop(&mut self) {
        discard(self.shared.stopped());
    }
}

impl<W: Work> RemoteHandle<W, W::Output> {
    /// Must not be polled again after it was ready.
    pub(crate) fn poll_outcome(
        &mut self,
        context: &Context<'_>,
    ) -> Poll<RemoteOutcome<W, W::Output>> {
        let waker = context.waker().clone();
        let mut state = self.0.state.lock();
        let (outcome, is_taken) = match mem::replace(&mut state.place, Place::Gone) {
            Place::Done(output) => (RemoteOutcome::Output(output), false),
            Place::Back(work) => (RemoteOutcome::Back(work), false),
            Place::Idle(work) if state.is_offered => (RemoteOutcome::Back(work), true),
            Place::Gone => (RemoteOutcome::Lost, false),
            place => {
                state.place = place;
                let before = state.caller.replace(waker);
                let alarm = state.alarm();
                drop(state);
                self.0.set_alarm(alarm);
                discard(before);
                return Poll::Pending;
            }
        };
        drop(state);
        discard(waker);
        match &outcome {
            RemoteOutcome::Back(work) if is_taken => work.left_task(),
            _ => {}
        }
        Poll::Ready(outcome)
    }
}

impl<W, T> Drop for RemoteHandle<W, T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.has_handle = false;
        let caller = state.caller.take();
        let unwanted = match &state.place {
            Place::Back(_) | Place::Done(_) => mem::replace(&mut state.place, Place::Gone),
            _ => Place::Gone,
        };
        drop(state);
        discard(caller);
        discard(unwanted);
    }
}

impl<W: Work> Shared<W, W::Output> {
    /// The work, for a poll of the task.
    fn take(&self, waker: Waker) -> Option<W> {
        let mut state = self.state.lock();
        let work = match mem::replace(&mut state.place, Place::Polled) {
            Place::Idle(work) => work,
            place => {
                state.place = place;
                drop(state);
                discard(waker);
                return None;
            }
        };
        (state.is_woken, state.is_offered) = (false, false);
        state.polls += 1;
        let before = state.task.replace(waker);
        drop(state);
        discard(before);
        Some(work)
    }

    /// The task has polled it, and waits.
    fn put_back(self: &Arc<Self>, work: W) -> Poll<()> {
        let mut state = self.state.lock();
        if state.is_stopped {
            drop(state);
            self.give_up(work);
            return Poll::Ready(());
        }
        state.place = Place::Idle(work);
        let alarm = state.alarm();
        drop(state);
        self.set_alarm(alarm);
        Poll::Pending
    }

    /// The work is over. Wakes the caller, if one waits.
    fn end(&self, place: Place<W, W::Output>) {
        let mut state = self.state.lock();
        let (place, unwanted) =
            if state.has_handle { (place, Place::Gone) } else { (Place::Gone, place) };
        state.place = place;
        let caller = state.caller.take();
        drop(state);
        // Bounded: one.
        caller.into_iter().for_each(wake);
        discard(unwanted);
    }

    /// Takes the work out of the task, and the waker of that.
    fn stopped(&self) -> Option<Waker> {
        let mut state = self.state.lock();
        state.is_stopped = true;
        let (work, task) = (state.take_idle(), state.task.take());
        drop(state);
        // Bounded: one.
        work.into_iter().for_each(|work| self.give_up(work));
        task
    }

    /// Work that the task no longer runs. Its place is still that of work under way.
    fn give_up(&self, work: W) {
        work.left_task();
        work.moved();
        self.end(Place::Back(work));
    }

    fn set_alarm(self: &Arc<Self>, polls: Option<u64>) {
        let Some(polls) = polls else { return };
        // Weak: an alarm must not keep work that others have left.
        let shared = Arc::downgrade(self);
        let go_off = move || {
            if let Some(shared) = shared.upgrade() {
                shared.go_off(polls);
            }
        };
        self.timer.after(PATIENCE, Box::new(go_off));
    }

    /// Offers the work to the caller if the task was not polled since the alarm was set.
    fn go_off(self: &Arc<Self>, polls: u64) {
        let mut state = self.state.lock();
        state.has_alarm = false;
        // Without a caller there is nobody else to run it.
        let is_stuck = state.polls == polls && state.has_handle && state.is_asleep();
        if is_stuck && failpoint(Failpoint::WorkTakenByAlarm) {
            let work = state.take_idle();
            drop(state);
            // Bounded: one.
            return work.into_iter().for_each(|work| self.give_up(work));
        }
        state.is_offered |= is_stuck;
        let caller = if is_stuck { state.caller.take() } else { None };
        let alarm = state.alarm();
        drop(state);
        self.set_alarm(alarm);
        // Bounded: one.
        caller.into_iter().for_each(wake);
    }
}

impl<W: Work> Stop for Shared<W, W::Output> {
    fn stop(&self) {
        // The task has nothing left to do, and ends.
        // Bounded: one.
        self.stopped().into_iter().for_each(wake);
    }
}

/// By a panic, or with all that know of it.
impl<W, T> Drop for Shared<W, T> {
    fn drop(&mut self) {
        let place = mem::replace(&mut self.state.lock().place, Place::Gone);
        discard(place);
    }
}

impl<W, T> State<W, T> {
    /// The task was woken and has not come.
    fn is_asleep(&self) -> bool {
        self.is_woken && matches!(self.place, Place::Idle(_))
    }

    fn take_idle(&mut self) -> Option<W> {
        match mem::replace(&mut self.place, Place::Polled) {
            Place::Idle(work) => Some(work),
            place => {
                self.place = place;
                None
            }
        }
    }

    /// The polls at which an alarm is to be set, unless one is: wanted while a caller waits for a
    /// task that was woken.
    fn alarm(&mut self) -> Option<u64> {
        let is_wanted = self.caller.is_some() && self.is_asleep();
        if !is_wanted || failpoint(Failpoint::WorkKeptBySleeper) {
            return None;
        }
        (!mem::replace(&mut self.has_alarm, true)).then_some(self.polls)
    }
}

/// The waker that the task polls with: it notes that the task was woken.
struct Relay<W: Work>(
    /// Weak: a waker that outlives the work must not keep it.
    Weak<Shared<W, W::Output>>,
);

impl<W: Work> Wake for Relay<W> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let Some(shared) = self.0.upgrade() else { return };
        let mut state = shared.state.lock();
        state.is_woken = true;
        let (task, alarm) = (state.task.take(), state.alarm());
        drop(state);
        shared.set_alarm(alarm);
        // Bounded: one.
        task.into_iter().for_each(wake);
    }
}
