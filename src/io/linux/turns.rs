//! `Turns`: tasks on a ring's thread that yield give the ring a turn.
//!
//! The ring's runtime submits when its thread parks, and it does not park while a task is ready. A
//! task that yields is ready at once: without a turn, writes would wait until its work is done. So
//! it is woken after a submission, which the thread parks for.

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::task::AtomicWaker;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long a submission can be stuck after the kernel refused it.
pub(super) const FLUSH_INTERVAL: Duration = Duration::from_millis(250);

const IDLE: u8 = 0;
const POLLED: u8 = 1;
/// Woken during its poll.
const YIELDED: u8 = 2;

/// Where tasks ask for turns.
#[derive(Clone)]
pub(super) struct Turns {
    yielded: Rc<RefCell<Vec<Waker>>>,
    requests: mpsc::UnboundedSender<()>,
}

/// The tasks that wait for the next turn.
pub(super) struct Turn(Rc<RefCell<Vec<Waker>>>);

/// A task that gives turns.
pub(super) struct TakingTurns {
    task: BoxFuture<'static, ()>,
    state: Arc<PollState>,
    waker: Waker,
    turns: Turns,
}

#[derive(Default)]
struct PollState {
    phase: AtomicU8,
    waker: AtomicWaker,
}

impl Turns {
    /// `requests` gets an item for each turn that is wanted.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<()>) {
        let (requests, wanted) = mpsc::unbounded_channel();
        (Self { yielded: Rc::default(), requests }, wanted)
    }

    pub(super) fn task(&self, task: BoxFuture<'static, ()>) -> TakingTurns {
        let state = Arc::<PollState>::default();
        let waker = Waker::from(Arc::clone(&state));
        TakingTurns { task, state, waker, turns: self.clone() }
    }

    pub(super) fn turn(&self) -> Turn {
        Turn(Rc::clone(&self.yielded))
    }

    fn wake_after_turn(&self, waker: Waker) {
        let mut yielded = self.yielded.borrow_mut();
        yielded.push(waker);
        if yielded.len() == 1 {
            // Without a server the tasks are being dropped.
            let _ = self.requests.send(());
        }
    }
}

impl Turn {
    /// Lets the thread park, then wakes the tasks that have yielded.
    pub(super) async fn take(self) {
        // The kernel completes it at once; an error means that the queue was submitted.
        let mut submitted = pin!(tokio_uring::no_op());
        // If the kernel refuses the submission, nobody is told: the thread has to park again.
        // Bounded: a wait in each turn.
        while timeout(FLUSH_INTERVAL, submitted.as_mut()).await.is_err() {}
        let yielded = self.0.take();
        // Bounded: by the tasks of one thread.
        yielded.into_iter().for_each(Waker::wake);
    }
}

impl Future for TakingTurns {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { task, state, waker, turns } = &mut *self;
        state.waker.register(context.waker());
        state.phase.store(POLLED, Ordering::Release);
        let polled = task.as_mut().poll(&mut Context::from_waker(waker));
        let phase = state.phase.swap(IDLE, Ordering::AcqRel);
        if polled.is_pending() && phase == YIELDED {
            turns.wake_after_turn(context.waker().clone());
        }
        polled
    }
}

impl Wake for PollState {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let (during, after) = (Ordering::AcqRel, Ordering::Acquire);
        // Not idle: the end of the poll sees that it was woken.
        if self.phase.compare_exchange(POLLED, YIELDED, during, after) == Err(IDLE) {
            self.waker.wake();
        }
    }
}
