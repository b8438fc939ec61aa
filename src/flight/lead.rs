//! `Lead`: leads a flight. `Claim` precedes it, `Wakers` follow it.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use super::participant::Participant;
use super::relay::Relay;
use super::state::{Alarm, Completion, Phase, Sent};
use crate::batch::BATCH_ENTRIES;
use crate::timer::PATIENCE;
use crate::wake::{discard, wake};

/// The right to lead, unless another caller has begun to.
#[derive(Debug)]
pub(crate) struct Claim<T: Sent, P: Sent>(Participant<T, P>);

impl<T: Sent, P: Sent> Claim<T, P> {
    pub(super) fn new(participant: Participant<T, P>) -> Self {
        Self(participant)
    }

    /// None if another caller leads, or has led, instead.
    pub(crate) fn begin(self) -> Option<Lead<T, P>> {
        let mut state = self.0.flight.state.lock();
        let is_mine = matches!(state.phase, Phase::Claimed(_));
        let number = if is_mine { state.take_lead() } else { 0 };
        drop(state);
        is_mine.then(|| Lead::new(self.0.another(), number))
    }
}

impl<T: Sent, P: Sent> Drop for Claim<T, P> {
    fn drop(&mut self) {
        self.0.change(|state| (matches!(state.phase, Phase::Claimed(_)), ()));
    }
}

/// The lead of a flight. Dropping it without [`complete`](Self::complete) transfers leadership. It
/// is void once leadership was transferred because the leader was not polled.
#[derive(Debug)]
pub(crate) struct Lead<T: Sent, P: Sent> {
    participant: Participant<T, P>,
    number: u64,
    relay: Arc<Relay<T, P>>,
    waker: Waker,
}

impl<T: Sent, P: Sent> Lead<T, P> {
    pub(super) fn new(participant: Participant<T, P>, number: u64) -> Self {
        let relay = Relay::new(&participant.flight, number);
        let waker = Waker::from(Arc::clone(&relay));
        Self { participant, number, relay, waker }
    }

    /// Polls the leader's work: all of it, or the flight cannot tell whether it was woken.
    pub(crate) fn poll<R>(
        &self,
        context: &Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> R,
    ) -> R {
        self.relay.follow(context.waker());
        let mut state = self.participant.flight.state.lock();
        if state.is_led_by(self.number) {
            state.progress += 1;
            (state.is_leader_polled, state.is_leader_woken) = (true, false);
        }
        drop(state);
        let _polled = Polled(self);
        poll(&mut Context::from_waker(&self.waker))
    }

    pub(crate) fn is_in_force(&self) -> bool {
        self.participant.flight.state.lock().is_led_by(self.number)
    }

    /// The leader's work has moved to a task that is owed a poll.
    pub(crate) fn note_woken(&self) {
        self.participant.flight.note_leader_woken(self.number);
    }

    /// Ends the flight, unless the lead is void.
    pub(crate) fn complete(self, completion: Completion<T, P>) -> Wakers<T, P> {
        let number = self.number;
        let refused = self.participant.change(|state| {
            if !state.is_led_by(number) {
                return (false, Some(completion));
            }
            state.phase = Phase::Completed(completion);
            (true, None)
        });
        discard(refused);
        Wakers(self.participant.another())
    }
}

impl<T: Sent, P: Sent> Drop for Lead<T, P> {
    fn drop(&mut self) {
        let (woken, alarm) = self.participant.change(|state| {
            if !state.is_led_by(self.number) {
                return (false, (Vec::new(), None));
            }
            state.lose_leader();
            (state.joiners == 0, (state.some_waiting(1), state.alarm()))
        });
        self.participant.flight.set_alarm(alarm);
        self.relay.forget();
        // Bounded: one.
        woken.into_iter().for_each(wake);
    }
}

/// Marks the leader as polled for as long as it lives.
struct Polled<'a, T: Sent, P: Sent>(&'a Lead<T, P>);

impl<T: Sent, P: Sent> Drop for Polled<'_, T, P> {
    fn drop(&mut self) {
        let Lead { participant, number, .. } = self.0;
        let mut state = participant.flight.state.lock();
        if !state.is_led_by(*number) {
            return;
        }
        state.is_leader_polled = false;
        let alarm = state.alarm();
        drop(state);
        participant.flight.set_alarm(alarm);
    }
}

/// The joiners that wait for an outcome that is ready. Dropping it leaves them to an alarm.
#[derive(Debug)]
#[must_use = "they wait"]
pub(crate) struct Wakers<T: Sent, P: Sent>(Participant<T, P>);

impl<T: Sent, P: Sent> Wakers<T, P> {
    /// Wakes some of them. True: more are left.
    pub(crate) fn wake(&mut self) -> bool {
        // In case the caller is not polled to continue.
        self.wake_some(PATIENCE)
    }

    /// Wakes some; an alarm wakes the others after `delay`.
    fn wake_some(&mut self, delay: Duration) -> bool {
        let Participant { flight, .. } = &self.0;
        let mut state = flight.state.lock();
        if !matches!(state.phase, Phase::Completed(_)) {
            return false;
        }
        let woken = state.some_waiting(BATCH_ENTRIES);
        let are_left = !state.waiting.is_empty();
        // An alarm that is set may go off later than that.
        state.has_alarm &= !delay.is_zero();
        let alarm = state.alarm().map(|alarm| Alarm { delay, ..alarm });
        drop(state);
        flight.set_alarm(alarm);
        // Bounded: one.
        woken.into_iter().for_each(wake);
        are_left
    }
}

impl<T: Sent, P: Sent> Drop for Wakers<T, P> {
    fn drop(&mut self) {
        self.wake_some(Duration::ZERO);
    }
}
