//! `RestartRequests`: callers that ask a log that is off to go on at once, and what came of it.
//!
//! The writer makes all attempts, asked or not. A caller waits for the end of the next one.

use parking_lot::Mutex;

use crate::waiters::Waiters;

#[derive(Default)]
pub(super) struct RestartRequests {
    state: Mutex<State>,
    waiters: Waiters<u64>,
}

#[derive(Default)]
struct State {
    /// The last attempt that a caller waits for.
    asked: u64,
    /// Attempts that have ended.
    made: u64,
    /// Why the last one failed.
    failure: Option<String>,
    /// There is no writer any more.
    is_over: bool,
}

/// Why a log stays off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StaysOff {
    /// The attempt failed.
    Failed(String),
    /// The task that writes has ended.
    Ended,
}

impl RestartRequests {
    /// Asks for an attempt. Gives its number.
    pub(super) fn ask(&self) -> u64 {
        let mut state = self.state.lock();
        state.asked = state.made + 1;
        state.asked
    }

    /// Resolves once that attempt has ended, or `is_on`.
    pub(super) async fn made(&self, number: u64, is_on: impl Fn() -> bool) -> Result<(), StaysOff> {
        let answer = || {
            if is_on() {
                return Some(Ok(()));
            }
            let state = self.state.lock();
            if state.made >= number {
                let failure = state.failure.clone();
                return Some(failure.map_or(Ok(()), |reason| Err(StaysOff::Failed(reason))));
            }
            state.is_over.then_some(Err(StaysOff::Ended))
        };
        self.waiters.until(number, answer).await
    }

    /// Whether a caller waits for an attempt.
    pub(super) fn is_asked(&self) -> bool {
        let state = self.state.lock();
        state.asked > state.made
    }

    /// An attempt has ended.
    pub(super) async fn end_attempt(&self, failure: Option<String>) {
        let made = {
            let mut state = self.state.lock();
            state.made += 1;
            state.failure = failure;
            state.made
        };
        self.waiters.wake_up_to(made).await;
    }

    /// The writer has ended.
    pub(super) fn end(&self) {
        self.state.lock().is_over = true;
        self.waiters.wake_all_at_once();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::executor::block_on;

    use super::*;

    #[test]
    fn each_caller_gets_the_outcome_of_an_attempt_that_ended_after_it_asked() {
        let requests = RestartRequests::default();
        assert!(!requests.is_asked());
        block_on(requests.end_attempt(Some("early".to_owned())));
        let first = requests.ask();
        assert_eq!(requests.ask(), first, "both wait for the same");
        assert!(requests.is_asked());
        let off = || false;
        let mut waiting = Box::pin(requests.made(first, off));
        assert!((&mut waiting).now_or_never().is_none());
        block_on(requests.end_attempt(Some("late".to_owned())));
        let failed = Err(StaysOff::Failed("late".to_owned()));
        assert_eq!(waiting.now_or_never(), Some(failed));
        assert!(!requests.is_asked());
        let next = requests.ask();
        assert_eq!(requests.made(next, || true).now_or_never(), Some(Ok(())), "it is on");
        let mut waiting = Box::pin(requests.made(next, off));
        assert!((&mut waiting).now_or_never().is_none());
        requests.end();
        assert_eq!(waiting.now_or_never(), Some(Err(StaysOff::Ended)));
        block_on(requests.end_attempt(None));
        assert_eq!(requests.made(next, off).now_or_never(), Some(Ok(())));
    }
}
