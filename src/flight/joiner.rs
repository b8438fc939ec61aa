//! `Joiner`: one who waits for what another fetches.

use std::task::{Context, Poll};

use super::lead::Lead;
use super::state::Phase;
use super::{Seat, Sent, Turn};
use crate::wake::{discard, wake};

/// One who waits for a flight.
#[derive(Debug)]
pub(crate) struct Joiner<T: Sent, P: Sent> {
    pub(super) seat: Seat<T, P>,
    pub(super) number: u64,
    pub(super) began: P,
    /// It has had its turn.
    pub(super) is_over: bool,
}

impl<T: Sent + Clone, P: Sent + Ord> Joiner<T, P> {
    /// Its turn, once that has come. Not to be polled after that.
    pub(crate) fn poll_turn(&mut self, context: &Context<'_>) -> Poll<Turn<T, P>> {
        let waker = context.waker().clone();
        let mut state = self.seat.flight.state.lock();
        let turn = match &state.phase {
            Phase::Claimed(_) | Phase::Led => {
                let before = state.waiting.insert(self.number, waker);
                drop(state);
                discard(before);
                return Poll::Pending;
            }
            Phase::Vacant => Err(state.be_led()),
            Phase::Landed(landing) if self.began <= landing.until => {
                Ok(Turn::Value(landing.value.clone()))
            }
            Phase::Landed(_) => Ok(Turn::LookAgain),
        };
        state.joiners -= 1;
        let before = state.waiting.remove(&self.number);
        drop(state);
        self.is_over = true;
        discard((waker, before));
        Poll::Ready(
            turn.unwrap_or_else(|number| Turn::Lead(Lead::new(self.seat.another(), number))),
        )
    }
}

impl<T: Sent, P: Sent> Drop for Joiner<T, P> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let (own, next) = self.seat.change(|state| {
            state.joiners -= 1;
            let own = state.waiting.remove(&self.number);
            let is_vacant = matches!(state.phase, Phase::Vacant);
            // Without its waker it may be the one that was woken to take the lead.
            let most = usize::from(is_vacant && own.is_none());
            (is_vacant && state.joiners == 0, (own, state.some_waiting(most)))
        });
        discard(own);
        // Bounded: one.
        next.into_iter().for_each(wake);
    }
}
