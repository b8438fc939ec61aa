//! `Flight`: one flight, where it stands, and who is to be woken when.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::{Destination, Landing, PATIENCE, Sent};
use crate::batch::BATCH_ENTRIES;
use crate::failpoint::{Failpoint, failpoint};
use crate::meter;
use crate::sync::Mutex;
use crate::timer::Timer;
use crate::wake::{discard, wake};

#[derive(Debug)]
pub(super) struct Flight<T: Sent, P: Sent> {
    pub(super) namespace: Box<str>,
    pub(super) key: Box<[u8]>,
    pub(super) timer: Timer,
    pub(super) state: Mutex<State<T, P>>,
}

#[derive(Debug)]
pub(super) struct State<T, P> {
    pub(super) phase: Phase<T, P>,
    /// The number of the last lead: those before it are void.
    pub(super) lead: u64,
    pub(super) is_leader_polled: bool,
    /// The leader was woken since its last poll began.
    pub(super) is_leader_woken: bool,
    /// Changes whenever somebody has taken, left or gone on with the lead.
    pub(super) progress: u64,
    /// An alarm is set.
    pub(super) has_alarm: bool,
    /// So many joiners were woken at one time to take the lead, and the first one who is polled
    /// takes it.
    pub(super) called: usize,
    /// How many joiners there are.
    pub(super) joiners: usize,
    pub(super) last_joiner: u64,
    /// The joiners to be woken, by the order in which they joined. A joiner is not among them
    /// before its first poll, and after it was woken.
    pub(super) waiting: BTreeMap<u64, Waker>,
}

#[derive(Debug)]
pub(super) enum Phase<T, P> {
    /// Since when.
    Claimed(Duration),
    Led,
    Vacant,
    Landed(Landing<T, P>),
}

impl<T: Sent, P: Sent> Flight<T, P> {
    pub(super) fn is_to(&self, to: Destination<'_>) -> bool {
        *self.namespace == *to.namespace && *self.key == *to.key
    }

    /// The waker of a leader was called.
    pub(super) fn leader_is_woken(self: &Arc<Self>, number: u64) {
        let mut state = self.state.lock();
        if !state.is_led_by(number) {
            return;
        }
        state.is_leader_woken = true;
        let alarm = state.alarm();
        drop(state);
        self.set(alarm);
    }

    pub(super) fn set(self: &Arc<Self>, alarm: Option<Alarm>) {
        let Some(Alarm { delay, progress }) = alarm else { return };
        // It keeps nothing of a flight that all have left.
        let flight = Arc::downgrade(self);
        let ring = move || {
            if let Some(flight) = flight.upgrade() {
                flight.ring(progress);
            }
        };
        self.timer.after(delay, Box::new(ring));
    }

    /// Goes on in the stead of whoever was woken and has not been polled since the alarm was set.
    pub(super) fn ring(self: &Arc<Self>, progress: u64) {
        let mut state = self.state.lock();
        state.has_alarm = false;
        let is_stuck = state.progress == progress;
        let woken = match state.phase {
            Phase::Led if is_stuck && state.is_leader_asleep() && state.joiners > 0 => {
                state.be_vacant();
                state.some_waiting(1)
            }
            Phase::Vacant if is_stuck => {
                state.called = (2 * state.called).min(BATCH_ENTRIES);
                let called = state.called;
                state.some_waiting(called)
            }
            Phase::Landed(_) => state.some_waiting(BATCH_ENTRIES),
            _ => Vec::new(),
        };
        let alarm = state.alarm();
        drop(state);
        self.set(alarm);
        // Bounded: one.
        woken.into_iter().for_each(wake);
    }
}

impl<T: Sent, P: Sent> Drop for Flight<T, P> {
    fn drop(&mut self) {
        let phase = mem::replace(&mut self.state.lock().phase, Phase::Vacant);
        discard(phase);
    }
}

/// An alarm to be set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Alarm {
    pub(super) delay: Duration,
    /// How far the flight has come.
    pub(super) progress: u64,
}

impl<T, P> State<T, P> {
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

    /// Somebody leads. Gives the number of the lead.
    pub(super) fn be_led(&mut self) -> u64 {
        self.phase = Phase::Led;
        self.progress += 1;
        self.lead += 1;
        (self.is_leader_polled, self.is_leader_woken) = (false, false);
        self.lead
    }

    /// Nobody leads, and one joiner is to be woken.
    pub(super) fn be_vacant(&mut self) {
        self.phase = Phase::Vacant;
        self.progress += 1;
        self.called = 1;
    }

    pub(super) fn is_led_by(&self, number: u64) -> bool {
        matches!(self.phase, Phase::Led) && self.lead == number
    }

    pub(super) fn is_leader_asleep(&self) -> bool {
        self.is_leader_woken && !self.is_leader_polled
    }

    /// The alarm to be set, unless there is one: while somebody waits for one who was woken.
    pub(super) fn alarm(&mut self) -> Option<Alarm> {
        let (is_wanted, delay) = match &self.phase {
            Phase::Claimed(_) => (false, PATIENCE),
            Phase::Led if failpoint(Failpoint::LeadKeptBySleeper) => (false, PATIENCE),
            Phase::Led => (self.is_leader_asleep() && self.joiners > 0, PATIENCE),
            Phase::Vacant => (!self.waiting.is_empty(), PATIENCE),
            Phase::Landed(_) => (!self.waiting.is_empty(), Duration::ZERO),
        };
        if !is_wanted || mem::replace(&mut self.has_alarm, true) {
            return None;
        }
        Some(Alarm { delay, progress: self.progress })
    }

    /// The wakers of those who have waited longest.
    pub(super) fn some_waiting(&mut self, most: usize) -> Vec<Waker> {
        let most = most.min(self.waiting.len());
        meter::entries(most);
        (0..most).filter_map(|_| self.waiting.pop_first()).map(|(_, waker)| waker).collect()
    }
}
