//! `Relay`: the waker that a leader polls with. It notifies the flight when it is called.
//!
//! It passes each call on to the caller's own waker. A caller is owed one call for each poll, so
//! its waker is taken out for the call, and neither called nor cloned under the lock.

use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

use super::state::{Flight, Sent};
use crate::sync::Mutex;
use crate::wake::{discard, wake};

#[derive(Debug)]
pub(super) struct Relay<T: Sent, P: Sent> {
    /// Weak: a waker that outlives the flight must not keep it.
    flight: Weak<Flight<T, P>>,
    number: u64,
    caller: Mutex<Option<Waker>>,
}

impl<T: Sent, P: Sent> Relay<T, P> {
    pub(super) fn new(flight: &Arc<Flight<T, P>>, number: u64) -> Arc<Self> {
        Arc::new(Self { flight: Arc::downgrade(flight), number, caller: Mutex::new(None) })
    }

    pub(super) fn follow(&self, waker: &Waker) {
        if self.caller.lock().as_ref().is_some_and(|known| known.will_wake(waker)) {
            return;
        }
        let waker = waker.clone();
        let before = self.caller.lock().replace(waker);
        discard(before);
    }

    pub(super) fn forget(&self) {
        let caller = self.caller.lock().take();
        discard(caller);
    }
}

impl<T: Sent, P: Sent> Wake for Relay<T, P> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(flight) = self.flight.upgrade() {
            flight.note_leader_woken(self.number);
        }
        let caller = self.caller.lock().take();
        // Bounded: one.
        caller.into_iter().for_each(wake);
    }
}
