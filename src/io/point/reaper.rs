//! Reapers: tasks that take the completions of a ring as soon as its bell rings.
//!
//! A read is cheapest if the runtime that waits for it also reaps: the bell is in that runtime's
//! own epoll, so a completion costs one wakeup. So each ring has one reaper, in the runtime that
//! submitted to it last, or on the disk's thread if the caller has no runtime. A reaper that is
//! replaced ends at the next ring of the bell. Nothing depends on it: if it is slow, blocked or
//! gone, the [watch](super::watch) takes over.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::{Handle, Id};

use super::PointRing;
use crate::batch::{BATCH_ENTRIES, yield_now};

/// How often a reaper may be late before another one takes its place.
const RELIEFS_MAX: u32 = 4;

/// Where the reaper of a ring runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    #[default]
    Nowhere,
    Thread,
    Runtime(Id),
}

/// Who reaps a ring.
#[derive(Debug, Default)]
pub(super) struct Appointment(Mutex<Term>);

#[derive(Clone, Copy, Debug, Default)]
struct Term {
    place: Place,
    /// Counts the appointments.
    number: u64,
    /// How often this reaper was relieved since it served last.
    reliefs: u32,
}

impl Appointment {
    /// Appoints a reaper in `place`. The number of its term, or None if it is there already.
    pub(super) fn appoint(&self, place: Place) -> Option<u64> {
        let mut term = self.0.lock();
        if term.place == place {
            return None;
        }
        *term = Term { place, number: term.number + 1, reliefs: 0 };
        Some(term.number)
    }

    /// Notes that the reaper of that term is at work.
    fn serve(&self, number: u64) {
        let mut term = self.0.lock();
        if term.number == number {
            term.reliefs = 0;
        }
    }

    /// Notes that the present reaper was late. The runtime of one that was late again and again is
    /// returned, and its term ends.
    pub(super) fn relieve(&self) -> Option<Id> {
        let mut term = self.0.lock();
        term.reliefs += 1;
        match term.place {
            Place::Runtime(id) if term.reliefs >= RELIEFS_MAX => {
                term.place = Place::Nowhere;
                Some(id)
            }
            _ => None,
        }
    }

    fn is_in_office(&self, number: u64) -> bool {
        self.0.lock().number == number
    }

    /// Ends a term, unless another has begun.
    fn resign(&self, number: u64) {
        let mut term = self.0.lock();
        if term.number == number {
            term.place = Place::Nowhere;
        }
    }
}

/// Resigns when the reaper ends, for whatever reason.
struct InOffice {
    ring: Arc<PointRing>,
    number: u64,
}

impl Drop for InOffice {
    fn drop(&mut self) {
        self.ring.appointment.resign(self.number);
    }
}

/// The reaper of one term.
pub(super) async fn reap(ring: Arc<PointRing>, number: u64) {
    let office = InOffice { ring, number };
    let ring = &office.ring;
    let Some(bell) = ring.bell() else { return };
    let Some(bell) = bell.listen() else {
        if let Ok(runtime) = Handle::try_current() {
            ring.exclude(runtime.id());
        }
        return;
    };
    // Bounded: a wait in each turn.
    while bell.rung().await.is_ok() {
        ring.appointment.serve(number);
        let mut reaped = 0;
        // Bounded: by the reads in flight.
        while ring.reap() {
            reaped += 1;
            if reaped % BATCH_ENTRIES == 0 {
                yield_now().await;
            }
        }
        if !ring.appointment.is_in_office(number) || ring.is_closed() {
            return;
        }
    }
}
