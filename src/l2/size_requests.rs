//! `SizeRequests`: calls that wait for another size of the file. The writer serves the latest one;
//! its answer is that of all before it, too.

use std::io;

use parking_lot::Mutex;

use crate::waiters::Waiters;

/// Why a file has not got another size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SizeRefusal {
    /// The cache was closed.
    Closed,
    /// The tier is turned off.
    Off,
    /// A larger file has no room. Nothing has changed.
    NoRoom { needed_bytes: u64, available_bytes: u64 },
    /// The operating system refuses a larger file. Nothing has changed.
    Refused { needed_bytes: u64, kind: io::ErrorKind, errno: Option<i32> },
}

/// The size that was asked for last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SizeRequest {
    number: u64,
    pub(super) segments: u32,
}

#[derive(Debug, Default)]
pub(super) struct SizeRequests {
    state: Mutex<State>,
    waiters: Waiters<u64>,
}

#[derive(Debug, Default)]
struct State {
    asked: u64,
    /// None: it was answered.
    latest: Option<SizeRequest>,
    /// The writer does not know of it.
    is_new: bool,
    answered: u64,
    /// The last one whose size the file has got.
    served: u64,
    /// The last answer that was a refusal.
    refusal: Option<SizeRefusal>,
    /// All are refused from now on.
    refuses: Option<SizeRefusal>,
}

impl SizeRequests {
    /// Returns the number to wait for.
    ///
    /// # Errors
    /// No size can be asked for any more, or now.
    pub(super) fn ask(&self, segments: u32) -> Result<u64, SizeRefusal> {
        let mut state = self.state.lock();
        if let Some(refusal) = state.refuses {
            return Err(refusal);
        }
        state.asked += 1;
        (state.latest, state.is_new) = (Some(SizeRequest { number: state.asked, segments }), true);
        Ok(state.asked)
    }

    /// Resolves once a request, or a later one, is answered. A refusal of a later one is not the
    /// answer to one that was served.
    pub(super) async fn answer_to(&self, number: u64) -> Result<(), SizeRefusal> {
        let answer = || {
            let state = self.state.lock();
            let refusal = state.refusal.filter(|_| state.served < number);
            (state.answered >= number).then_some(refusal)
        };
        self.waiters.until(number, answer).await.map_or(Ok(()), Err)
    }

    pub(super) fn latest(&self) -> Option<SizeRequest> {
        self.state.lock().latest
    }

    /// Whether one has come since the last call of [`Self::take_new`].
    pub(super) fn is_new(&self) -> bool {
        self.state.lock().is_new
    }

    pub(super) fn take_new(&self) {
        self.state.lock().is_new = false;
    }

    /// Answers a request, and those before it.
    pub(super) async fn answer(&self, request: SizeRequest, answer: Result<(), SizeRefusal>) {
        {
            let mut state = self.state.lock();
            state.answered = request.number;
            match answer {
                Ok(()) => state.served = request.number,
                Err(refusal) => state.refusal = Some(refusal),
            }
            if state.latest == Some(request) {
                state.latest = None;
            }
        }
        self.waiters.wake_up_to(request.number).await;
    }

    /// Refuses all requests, from now on. To be told to those that wait.
    pub(super) fn refuse(&self, refusal: SizeRefusal) {
        let mut state = self.state.lock();
        (state.refuses, state.latest, state.is_new) = (Some(refusal), None, false);
        if state.answered < state.asked {
            (state.answered, state.refusal) = (state.asked, Some(refusal));
        }
    }

    pub(super) async fn tell_all(&self) {
        self.waiters.wake_all().await;
    }

    pub(super) fn tell_all_at_once(&self) {
        self.waiters.wake_all_at_once();
    }

    /// The tier works again.
    pub(super) fn accept(&self) {
        self.state.lock().refuses = None;
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiters.len()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_call_that_asks_late_is_not_told_the_refusal_of_a_later_one() {
        let no_room = SizeRefusal::NoRoom { needed_bytes: 2, available_bytes: 1 };
        for (first, second) in [
            (Ok(()), Ok(())),
            (Ok(()), Err(no_room)),
            (Err(SizeRefusal::Off), Ok(())),
            (Err(SizeRefusal::Off), Err(no_room)),
        ] {
            let requests = SizeRequests::default();
            let numbers = [(4, first), (5, second)].map(|(segments, answer)| {
                let number = requests.ask(segments).expect("it accepts");
                assert_eq!(requests.answer_to(number).now_or_never(), None);
                let request = requests.latest().expect("asked for");
                requests.answer(request, answer).now_or_never().expect("no one waits");
                number
            });
            // The size of the last one, if it has got that, is the answer to both.
            let late = numbers.map(|number| requests.answer_to(number).now_or_never());
            assert_eq!(late, [Some(first.or(second)), Some(second)], "{first:?}, {second:?}");
        }
    }

    #[test]
    fn a_close_refuses_what_is_not_answered_and_nothing_else() {
        let requests = SizeRequests::default();
        let served = requests.ask(4).expect("it accepts");
        let request = requests.latest().expect("asked for");
        requests.answer(request, Ok(())).now_or_never().expect("no one waits");
        let open = requests.ask(5).expect("it accepts");
        requests.refuse(SizeRefusal::Closed);
        let answer_to = |number| requests.answer_to(number).now_or_never();
        assert_eq!(answer_to(served), Some(Ok(())));
        assert_eq!(answer_to(open), Some(Err(SizeRefusal::Closed)));
        assert_eq!(requests.ask(6), Err(SizeRefusal::Closed));
    }
}
