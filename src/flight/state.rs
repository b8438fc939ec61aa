//! `Flight`: the state of one flight, and which callers to wake when.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::batch::BATCH_ENTRIES;
use crate::failpoint::{Failpoint, failpoint};
use crate::meter;
use crate::sync::Mutex;
use crate::timer::{PATIENCE, Timer};
use crate::wake::{discard, wake};

/// A claim that has not begun after this time goes to the next caller that asks for it.
pub(crate) const CLAIM_PATIENCE: Duration = Duration::from_secs(1);

/// Identifies a flight by a hash of namespace and key, and by the error type of the fetch.
pub(crate) type FlightId = (u64, TypeId);

/// What a flight fetches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Destination<'a> {
    pub(crate) id: FlightId,
    /// Compared in full, so that no caller joins the flight of another key with the same hash.
    pub(crate) namespace: &'a str,
    pub(crate) key: &'a [u8],
}

/// A value, and the last moment at which a joiner's call may have begun to be given it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Completion<T, P> {
    pub(crate) value: T,
    pub(crate) until: P,
}

/// The bounds on values and moments, which move between threads.
pub(crate) trait Sent: Send + 'static {}

impl<T: Send + 'static> Sent for T {}

#[derive(Debug)]
pub(super) struct Flight<T: Sent, P: Sent> {
    pub(super) namespace: Box<str>,
    pub(super) key: Box<[u8]>,
    pub(super) timer: Timer,
    pub(super) state: Mutex<FlightState<T, P>>,
}

#[derive(Debug)]
pub(super) struct FlightState<T, P> {
    pub(super) phase: Phase<T, P>,
    /// The number of the last lead; earlier ones are void.
    pub(super) lead: u64,
    pub(super) is_leader_polled: bool,
    /// The leader was woken since its last poll began.
    pub(super) is_leader_woken: bool,
    /// Changes whenever a caller takes, leaves or continues the lead.
    pub(super) progress: u64,
    pub(super) has_alarm: bool,
    /// How many joiners the last wakeup called to lead; the first to be polled leads.
    pub(super) called: usize,
    pub(super) joiners: usize,
    pub(super) last_joiner: u64,
    /// Wakers of joiners in order; none before a joiner's first poll, or after it was woken.
    pub(super) waiting: BTreeMap<u64, Waker>,
}

#[derive(Debug)]
pub(super) enum Phase<T, P> {
    /// With the time of the claim.
    Claimed(Duration),
    Led,
    Leaderless,
    Completed(Completion<T, P>),
}

impl<T: Sent, P: Sent> Flight<T, P> {
    pub(super) fn is_to(&self, to: Destination<'_>) -> bool {
        *self.namespace == *to.namespace && *self.key == *to.key
    }

    /// The waker of a leader was called.
    pub(super) fn note_leader_woken(self: &Arc<Self>, number: u64) {
        let mut state = self.state.lock();
        if !state.is_led_by(number) {
            return;
        }
        state.is_leader_woken = true;
        let alarm = state.alarm();
        drop(state);
        self.set_alarm(alarm);
    }

    pub(super) fn set_alarm(self: &Arc<Self>, alarm: Option<Alarm>) {
        let Some(Alarm { delay, progress }) = alarm else { return };
        // Weak: an alarm must not keep a flight that all callers have left.
        let flight = Arc::downgrade(self);
        let go_off = move || {
            if let Some(flight) = flight.upgrade() {
                flight.go_off(progress);
            }
        };
        self.timer.after(delay, Box::new(go_off));
    }

    /// Transfers leadership if the woken caller was not polled since the alarm was set.
    pub(super) fn go_off(self: &Arc<Self>, progress: u64) {
        let mut state = self.state.lock();
        state.has_alarm = false;
        let is_stuck = state.progress == progress;
        let woken = match state.phase {
            Phase::Led if is_stuck && state.is_leader_asleep() && state.joiners > 0 => {
                state.lose_leader();
                state.some_waiting(1)
            }
            Phase::Leaderless if is_stuck => {
                state.called = (2 * state.called).min(BATCH_ENTRIES);
                let called = state.called;
                state.some_waiting(called)
            }
            Phase::Completed(_) => state.some_waiting(BATCH_ENTRIES),
            _ => Vec::new(),
        };
        let alarm = state.alarm();
        drop(state);
        self.set_alarm(alarm);
        // Bounded: one.
        woken.into_iter().for_each(wake);
    }
}

impl<T: Sent, P: Sent> Drop for Flight<T, P> {
    fn drop(&mut self) {
        let phase = mem::replace(&mut self.state.lock().phase, Phase::Leaderless);
        discard(phase);
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Alarm {
    pub(super) delay: Duration,
    /// The flight's `progress` when the alarm was wanted.
    pub(super) progress: u64,
}

impl<T, P> FlightState<T, P> {
    pub(super) fn new(phase: Phase<T, P>) -> Self {
        Self {
            phase,
            lead: 0,
            is_leader_polled: false,
            is_leader_woken: false,
            progress: 0,
            has_alarm: false,
            called: 0,
            joiners: 0,
            last_joiner: 0,
            waiting: BTreeMap::new(),
        }
    }

    /// A caller leads from now on. Returns the number of its lead.
    pub(super) fn take_lead(&mut self) -> u64 {
        self.phase = Phase::Led;
        self.progress += 1;
        self.lead += 1;
        (self.is_leader_polled, self.is_leader_woken) = (false, false);
        self.lead
    }

    /// No caller leads from now on. The caller wakes one joiner.
    pub(super) fn lose_leader(&mut self) {
        self.phase = Phase::Leaderless;
        self.progress += 1;
        self.called = 1;
    }

    pub(super) fn is_led_by(&self, number: u64) -> bool {
        matches!(self.phase, Phase::Led) && self.lead == number
    }

    pub(super) fn is_leader_asleep(&self) -> bool {
        self.is_leader_woken && !self.is_leader_polled
    }

    /// The alarm to set, unless one is set: wanted while a caller waits for one that was woken.
    pub(super) fn alarm(&mut self) -> Option<Alarm> {
        let (is_wanted, delay) = match &self.phase {
            Phase::Claimed(_) => (false, PATIENCE),
            Phase::Led if failpoint(Failpoint::LeadKeptBySleeper) => (false, PATIENCE),
            Phase::Led => (self.is_leader_asleep() && self.joiners > 0, PATIENCE),
            Phase::Leaderless => (!self.waiting.is_empty(), PATIENCE),
            Phase::Completed(_) => (!self.waiting.is_empty(), Duration::ZERO),
        };
        if !is_wanted || mem::replace(&mut self.has_alarm, true) {
            return None;
        }
        Some(Alarm { delay, progress: self.progress })
    }

    /// Takes the wakers of the joiners that have waited longest.
    pub(super) fn some_waiting(&mut self, most: usize) -> Vec<Waker> {
        let most = most.min(self.waiting.len());
        meter::entries(most);
        (0..most).filter_map(|_| self.waiting.pop_first()).map(|(_, waker)| waker).collect()
    }
}
