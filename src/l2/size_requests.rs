//! `SizeRequests`: calls that wait for another size of the file. The writer serves the latest one;
//! its answer is that of all before it, too.

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
    answer: Option<SizeRefusal>,
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

    /// Resolves once a request, or a later one, is answered.
    pub(super) async fn answer_to(&self, number: u64) -> Result<(), SizeRefusal> {
        let answer = || {
            let state = self.state.lock();
            (state.answered >= number).then_some(state.answer)
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
            (state.answered, state.answer) = (request.number, answer.err());
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
            (state.answered, state.answer) = (state.asked, Some(refusal));
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
