//! `Timeout`: wakes the task that polls it once a time has passed, on any executor.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::sync::Mutex;
use crate::timer::{AlarmGuard, Timer};
use crate::wake::{discard, wake};

#[derive(Debug)]
pub(crate) struct Timeout {
    state: Arc<Mutex<State>>,
    _alarm: AlarmGuard,
}

#[derive(Debug, Default)]
struct State {
    is_over: bool,
    waker: Option<Waker>,
}

impl Timeout {
    pub(crate) fn new(timer: &Timer, delay: Duration) -> Self {
        let state = Arc::<Mutex<State>>::default();
        // Weak: the alarm must not keep a waker of a call that is gone.
        let of_alarm = Arc::downgrade(&state);
        let go_off = move || {
            let Some(state) = of_alarm.upgrade() else { return };
            let mut state = state.lock();
            state.is_over = true;
            let waker = state.waker.take();
            drop(state);
            // Bounded: one.
            waker.into_iter().for_each(wake);
        };
        Self { state, _alarm: timer.cancellable(delay, Box::new(go_off)) }
    }

    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let waker = context.waker().clone();
        let mut state = self.state.lock();
        if state.is_over {
            drop(state);
            discard(waker);
            return Poll::Ready(());
        }
        let before = state.waker.replace(waker);
        drop(state);
        discard(before);
        Poll::Pending
    }
}

impl Drop for Timeout {
    fn drop(&mut self) {
        let waker = self.state.lock().waker.take();
        discard(waker);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::executor::block_on;

    use super::*;

    #[test]
    fn it_wakes_the_last_task_that_has_polled_it() {
        let timeout = Timeout::new(&Timer::Process, Duration::from_millis(5));
        let unused = Context::from_waker(Waker::noop());
        assert!(timeout.poll(&unused).is_pending());
        block_on(poll_fn(|context| timeout.poll(context)));
        assert!(timeout.poll(&unused).is_ready(), "and stays over");
    }

    #[test]
    fn a_dropped_timeout_keeps_no_waker() {
        struct Noted;

        impl std::task::Wake for Noted {
            fn wake(self: Arc<Self>) {
                panic!("nobody wants to know");
            }
        }

        let noted = Arc::new(Noted);
        let waker = Waker::from(Arc::clone(&noted));
        let timeout = Timeout::new(&Timer::Process, Duration::from_secs(3600));
        assert!(timeout.poll(&Context::from_waker(&waker)).is_pending());
        drop(timeout);
        drop(waker);
        assert_eq!(Arc::strong_count(&noted), 1);
    }
}
