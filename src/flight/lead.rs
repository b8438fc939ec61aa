//! `Lead`, and what comes before and after it: `Claim` and `Wakers`.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use super::relay::Relay;
use super::state::{Alarm, Phase};
use super::{Landing, PATIENCE, Seat, Sent};
use crate::batch::BATCH_ENTRIES;
use crate::wake::{discard, wake};

/// The right to lead, unless somebody else has begun.
#[derive(Debug)]
pub(crate) struct Claim<T: Sent, P: Sent>(pub(super) Seat<T, P>);

impl<T: Sent, P: Sent> Claim<T, P> {
    /// None where somebody else leads, or has led, in its stead.
    pub(crate) fn begin(self) -> Option<Lead<T, P>> {
        let mut state = self.0.flight.state.lock();
        let is_mine = matches!(state.phase, Phase::Claimed(_));
        let number = if is_mine { state.be_led() } else { 0 };
        drop(state);
        is_mine.then(|| Lead::new(self.0.another(), number))
    }
}

impl<T: Sent, P: Sent> Drop for Claim<T, P> {
    fn drop(&mut self) {
        self.0.change(|state| (matches!(state.phase, Phase::Claimed(_)), ()));
    }
}

/// The lead of a flight. Dropped without [`land`](Self::land), it is the next one's. It is void
/// once it was taken from a leader that was not polled.
#[derive(Debug)]
pub(crate) struct Lead<T: Sent, P: Sent> {
    seat: Seat<T, P>,
    number: u64,
    relay: Arc<Relay<T, P>>,
    /// The relay's.
    waker: Waker,
}

impl<T: Sent, P: Sent> Lead<T, P> {
    pub(super) fn new(seat: Seat<T, P>, number: u64) -> Self {
        let relay = Relay::new(&seat.flight, number);
        let waker = Waker::from(Arc::clone(&relay));
        Self { seat, number, relay, waker }
    }

    /// Polls what the leader waits for. Everything is to be polled here: else nobody can tell
    /// whether the leader was woken.
    pub(crate) fn poll<R>(
        &self,
        context: &Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> R,
    ) -> R {
        self.relay.follow(context.waker());
        let mut state = self.seat.flight.state.lock();
        if state.is_led_by(self.number) {
            state.progress += 1;
            (state.is_leader_polled, state.is_leader_woken) = (true, false);
        }
        drop(state);
        let _polled = Polled(self);
        poll(&mut Context::from_waker(&self.waker))
    }

    /// False once the lead is void.
    pub(crate) fn is_in_force(&self) -> bool {
        self.seat.flight.state.lock().is_led_by(self.number)
    }

    /// Ends the flight, unless the lead is void.
    pub(crate) fn land(self, landing: Landing<T, P>) -> Wakers<T, P> {
        let number = self.number;
        let refused = self.seat.change(|state| {
            if !state.is_led_by(number) {
                return (false, Some(landing));
            }
            state.phase = Phase::Landed(landing);
            (true, None)
        });
        discard(refused);
        Wakers(self.seat.another())
    }
}

impl<T: Sent, P: Sent> Drop for Lead<T, P> {
    fn drop(&mut self) {
        let (woken, alarm) = self.seat.change(|state| {
            if !state.is_led_by(self.number) {
                return (false, (Vec::new(), None));
            }
            state.be_vacant();
            (state.joiners == 0, (state.some_waiting(1), state.alarm()))
        });
        self.seat.flight.set(alarm);
        self.relay.forget();
        // Bounded: one.
        woken.into_iter().for_each(wake);
    }
}

/// While it lasts, the leader is being polled.
struct Polled<'a, T: Sent, P: Sent>(&'a Lead<T, P>);

impl<T: Sent, P: Sent> Drop for Polled<'_, T, P> {
    fn drop(&mut self) {
        let Lead { seat, number, .. } = self.0;
        let mut state = seat.flight.state.lock();
        if !state.is_led_by(*number) {
            return;
        }
        state.is_leader_polled = false;
        let alarm = state.alarm();
        drop(state);
        seat.flight.set(alarm);
    }
}

/// Those who wait for an outcome that is there. Dropped, it leaves them to an alarm.
#[derive(Debug)]
#[must_use = "they wait"]
pub(crate) struct Wakers<T: Sent, P: Sent>(Seat<T, P>);

impl<T: Sent, P: Sent> Wakers<T, P> {
    /// Wakes some of them. True where more are left.
    pub(crate) fn wake(&mut self) -> bool {
        // The caller goes on, if it is polled.
        self.wake_some(PATIENCE)
    }

    /// An alarm wakes the others, after that time.
    fn wake_some(&mut self, delay: Duration) -> bool {
        let Seat { flight, .. } = &self.0;
        let mut state = flight.state.lock();
        if !matches!(state.phase, Phase::Landed(_)) {
            return false;
        }
        let woken = state.some_waiting(BATCH_ENTRIES);
        let are_left = !state.waiting.is_empty();
        // One that is set may be for later.
        state.has_alarm &= !delay.is_zero();
        let alarm = state.alarm().map(|alarm| Alarm { delay, ..alarm });
        drop(state);
        flight.set(alarm);
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
