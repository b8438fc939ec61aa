//! `Reopening`: one attempt to open the disk tier at a time, whose outcome all callers share.
//!
//! An attempt runs by itself, and not in the polls of a caller: one that sleeps delays no other.
//! Once no caller is left that wants it, it ends before it changes anything.

use std::sync::Arc;
use std::{io, process};

use parking_lot::Mutex;

use crate::error::CacheError;
use crate::waiters::Waiters;

#[derive(Default)]
pub(crate) struct Reopening {
    state: Mutex<State>,
    waiters: Waiters,
}

#[derive(Default)]
struct State {
    begun: u64,
    ended: u64,
    /// That began the last attempt. A forked child has a copy of this, and not of the thread.
    process: u32,
    /// Callers of the last attempt.
    callers: usize,
    /// None: it was given up.
    outcome: Option<Result<(), CacheError>>,
    is_closed: bool,
}

impl State {
    fn is_under_way(&self) -> bool {
        self.begun > self.ended && self.process == process::id()
    }
}

/// An attempt, to be made. Its callers are told when it is dropped.
#[must_use = "callers wait for it"]
pub(crate) struct Attempt {
    reopening: Arc<Reopening>,
    number: u64,
    /// None: it was given up.
    outcome: Option<Result<(), CacheError>>,
}

/// A caller of an attempt, until it is dropped.
struct Caller<'a> {
    reopening: &'a Reopening,
    number: u64,
}

impl Reopening {
    /// Makes an attempt by `begin`, or joins the one that is under way, and waits for its outcome.
    pub(crate) async fn attempt(
        self: &Arc<Self>,
        begin: impl Fn(Attempt),
    ) -> Result<(), CacheError> {
        // Bounded: an attempt in each turn, which others have given up.
        loop {
            let (caller, attempt) = self.enter()?;
            // Bounded: one.
            attempt.into_iter().for_each(&begin);
            let ended = || self.ended(caller.number);
            if let Some(outcome) = self.waiters.until((), ended).await {
                return outcome;
            }
        }
    }

    fn enter(self: &Arc<Self>) -> Result<(Caller<'_>, Option<Attempt>), CacheError> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(CacheError::Closed);
        }
        let is_first = !state.is_under_way();
        if is_first {
            state.ended = state.begun;
            state.begun += 1;
            (state.process, state.callers) = (process::id(), 0);
        }
        state.callers += 1;
        let number = state.begun;
        let reopening = Arc::clone(self);
        let attempt =
            is_first.then(|| Attempt { reopening, number, outcome: Some(Err(broken_down())) });
        Ok((Caller { reopening: self, number }, attempt))
    }

    fn ended(&self, number: u64) -> Option<Option<Result<(), CacheError>>> {
        let state = self.state.lock();
        (state.ended >= number).then(|| state.outcome.clone())
    }

    /// Refuses attempts from now on.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
    }

    /// Resolves once no attempt is under way.
    pub(crate) async fn idle(&self) {
        let idle = || (!self.state.lock().is_under_way()).then_some(());
        self.waiters.until((), idle).await;
    }
}

impl Attempt {
    /// Whether a caller waits for it still, and the cache is not being closed.
    pub(crate) fn is_wanted(&self) -> bool {
        let state = self.reopening.state.lock();
        state.begun == self.number && state.callers > 0 && !state.is_closed
    }

    /// None: it was given up, since nobody wanted it.
    pub(crate) fn end(mut self, outcome: Option<Result<(), CacheError>>) {
        self.outcome = outcome;
    }
}

/// Of an attempt that was dropped half-way.
fn broken_down() -> CacheError {
    let context = "the disk tier could not be opened".to_owned();
    CacheError::L2Io { context, source: io::Error::other("the attempt broke down").into() }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        {
            let mut state = self.reopening.state.lock();
            if state.begun == self.number {
                state.ended = self.number;
                state.outcome = self.outcome.take();
            }
        }
        self.reopening.waiters.wake_all_at_once();
    }
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        let mut state = self.reopening.state.lock();
        if state.begun == self.number {
            state.callers -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::BoxFuture;

    use super::*;

    /// Keeps the attempts.
    #[derive(Default)]
    struct Bench {
        reopening: Arc<Reopening>,
        attempts: Arc<Mutex<Vec<Attempt>>>,
    }

    impl Bench {
        fn call(&self) -> BoxFuture<'static, Result<(), CacheError>> {
            let (reopening, attempts) = (Arc::clone(&self.reopening), Arc::clone(&self.attempts));
            async move { reopening.attempt(|attempt| attempts.lock().push(attempt)).await }.boxed()
        }

        fn take(&self) -> Attempt {
            self.attempts.lock().pop().expect("an attempt")
        }
    }

    #[test]
    fn callers_share_an_attempt_and_its_outcome() {
        let bench = Bench::default();
        let (mut first, mut second, mut asleep) = (bench.call(), bench.call(), bench.call());
        for call in [&mut first, &mut second, &mut asleep] {
            assert!(call.now_or_never().is_none());
        }
        let attempt = bench.take();
        assert!(bench.attempts.lock().is_empty(), "one for all");
        assert!(attempt.is_wanted());
        attempt.end(Some(Err(CacheError::Closed)));
        assert_eq!(first.now_or_never(), Some(Err(CacheError::Closed)));
        assert_eq!(second.now_or_never(), Some(Err(CacheError::Closed)));
        // One that is never polled again holds up nobody.
        let mut next = bench.call();
        assert!((&mut next).now_or_never().is_none());
        bench.take().end(Some(Ok(())));
        assert_eq!(next.now_or_never(), Some(Ok(())));
        drop(asleep);
    }

    #[test]
    fn an_attempt_without_callers_is_not_wanted_and_a_late_caller_makes_another() {
        let bench = Bench::default();
        let mut first = bench.call();
        assert!((&mut first).now_or_never().is_none());
        let attempt = bench.take();
        drop(first);
        assert!(!attempt.is_wanted());
        let mut late = bench.call();
        assert!((&mut late).now_or_never().is_none());
        assert!(attempt.is_wanted(), "again");
        // It had decided by then.
        attempt.end(None);
        assert!((&mut late).now_or_never().is_none());
        bench.take().end(Some(Ok(())));
        assert_eq!(late.now_or_never(), Some(Ok(())));
    }

    #[test]
    fn a_close_refuses_attempts_and_waits_for_the_last() {
        let bench = Bench::default();
        let mut call = bench.call();
        assert!((&mut call).now_or_never().is_none());
        let attempt = bench.take();
        bench.reopening.close();
        assert!(!attempt.is_wanted());
        assert!(bench.reopening.idle().now_or_never().is_none());
        attempt.end(None);
        assert!(bench.reopening.idle().now_or_never().is_some());
        assert_eq!(call.now_or_never(), Some(Err(CacheError::Closed)));
    }

    #[test]
    fn an_attempt_that_breaks_down_fails() {
        let bench = Bench::default();
        let mut call = bench.call();
        assert!((&mut call).now_or_never().is_none());
        drop(bench.take());
        let told = call.now_or_never().expect("ended").expect_err("it broke down");
        assert!(matches!(told, CacheError::L2Io { .. }), "{told}");
    }

    #[test]
    fn a_forked_child_waits_for_no_thread_of_its_parent() {
        let bench = Bench::default();
        let mut call = bench.call();
        assert!((&mut call).now_or_never().is_none());
        bench.reopening.state.lock().process = 0;
        assert!(bench.reopening.idle().now_or_never().is_some());
        let mut other = bench.call();
        assert!((&mut other).now_or_never().is_none());
        let (its, of_parent) = (bench.take(), bench.take());
        its.end(Some(Ok(())));
        of_parent.end(Some(Err(CacheError::Closed)));
        assert_eq!(other.now_or_never(), Some(Ok(())));
    }
}
