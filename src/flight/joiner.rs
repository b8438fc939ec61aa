//! `Joiner`: waits for what another caller fetches.

use std::task::{Context, Poll};

use super::lead::Lead;
use super::participant::Participant;
use super::state::{Phase, Sent};
use crate::wake::{discard, wake};

#[derive(Debug)]
pub(crate) struct Joiner<T: Sent, P: Sent> {
    participant: Participant<T, P>,
    number: u64,
    began: P,
    /// It has had its outcome.
    is_over: bool,
}

#[derive(Debug)]
pub(crate) enum JoinOutcome<T: Sent, P: Sent> {
    Value(T),
    /// The value may have been overwritten or invalidated before the joiner's call began.
    LookAgain,
    Lead(Lead<T, P>),
}

impl<T: Sent, P: Sent> Joiner<T, P> {
    pub(super) fn new(participant: Participant<T, P>, number: u64, began: P) -> Self {
        Self { participant, number, began, is_over: false }
    }
}

impl<T: Sent + Clone, P: Sent + Ord> Joiner<T, P> {
    /// Must not be polled again after it was ready.
    pub(crate) fn poll_outcome(&mut self, context: &Context<'_>) -> Poll<JoinOutcome<T, P>> {
        let waker = context.waker().clone();
        let mut state = self.participant.flight.state.lock();
        let outcome = match &state.phase {
            Phase::Claimed(_) | Phase::Led => {
                let before = state.waiting.insert(self.number, waker);
                drop(state);
                discard(before);
                return Poll::Pending;
            }
            Phase::Leaderless => Err(state.take_lead()),
            Phase::Completed(completion) if self.began <= completion.until => {
                Ok(JoinOutcome::Value(completion.value.clone()))
            }
            Phase::Completed(_) => Ok(JoinOutcome::LookAgain),
        };
        state.joiners -= 1;
        let before = state.waiting.remove(&self.number);
        drop(state);
        self.is_over = true;
        discard((waker, before));
        Poll::Ready(outcome.unwrap_or_else(|number| {
            JoinOutcome::Lead(Lead::new(self.participant.another(), number))
        }))
    }
}

impl<T: Sent, P: Sent> Drop for Joiner<T, P> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let (own, next) = self.participant.change(|state| {
            state.joiners -= 1;
            let own = state.waiting.remove(&self.number);
            let is_leaderless = matches!(state.phase, Phase::Leaderless);
            // Without a waker it may be the joiner that was woken to take the lead.
            let most = usize::from(is_leaderless && own.is_none());
            (is_leaderless && state.joiners == 0, (own, state.some_waiting(most)))
        });
        discard(own);
        // Bounded: one.
        next.into_iter().for_each(wake);
    }
}
