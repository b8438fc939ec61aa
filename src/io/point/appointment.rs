//! `Appointment`: who reaps a ring.

use parking_lot::Mutex;
use tokio::runtime::Id;

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

    /// Notes that the reaper of that term is at work; false if another term has begun.
    pub(super) fn serve(&self, number: u64) -> bool {
        let mut term = self.0.lock();
        let is_in_office = term.number == number;
        if is_in_office {
            term.reliefs = 0;
        }
        is_in_office
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

    /// Ends a term, unless another has begun.
    pub(super) fn resign(&self, number: u64) {
        let mut term = self.0.lock();
        if term.number == number {
            term.place = Place::Nowhere;
        }
    }
}
