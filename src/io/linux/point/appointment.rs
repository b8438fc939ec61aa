//! `Appointment`: who reaps a ring.

use parking_lot::Mutex;
use smallvec::SmallVec;
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
pub(super) struct Appointment(Mutex<Office>);

#[derive(Debug, Default)]
struct Office {
    /// Where the reaper in office runs.
    place: Place,
    /// How often it was relieved since it served last.
    reliefs: u32,
    /// Where reapers are that have not ended: no place has two, though it may be appointed again
    /// and again before the first one has heard of its replacement.
    reapers: SmallVec<[Place; 4]>,
}

impl Appointment {
    /// Appoints the reaper in `place`; true if there is none yet.
    pub(super) fn appoint(&self, place: Place) -> bool {
        let mut office = self.0.lock();
        if office.place == place {
            return false;
        }
        (office.place, office.reliefs) = (place, 0);
        let is_new = !office.reapers.contains(&place);
        if is_new {
            office.reapers.push(place);
        }
        is_new
    }

    /// Notes that the reaper in `place` is at work. False if another one is in office: then it has
    /// ended, as far as appointments go.
    pub(super) fn serve(&self, place: Place) -> bool {
        let mut office = self.0.lock();
        let is_in_office = office.place == place;
        if is_in_office {
            office.reliefs = 0;
        } else {
            office.remove(place);
        }
        is_in_office
    }

    /// Notes that the present reaper was late. The runtime of one that was late again and again is
    /// returned, and it is no longer in office.
    pub(super) fn relieve(&self) -> Option<Id> {
        let mut office = self.0.lock();
        office.reliefs += 1;
        match office.place {
            Place::Runtime(id) if office.reliefs >= RELIEFS_MAX => {
                office.place = Place::Nowhere;
                Some(id)
            }
            _ => None,
        }
    }

    /// Notes that the reaper in `place` has ended by itself. Its runtime is returned if it was in
    /// office.
    pub(super) fn resign(&self, place: Place) -> Option<Id> {
        let mut office = self.0.lock();
        office.remove(place);
        if office.place != place {
            return None;
        }
        office.place = Place::Nowhere;
        match place {
            Place::Runtime(id) => Some(id),
            Place::Thread | Place::Nowhere => None,
        }
    }
}

impl Office {
    fn remove(&mut self, place: Place) {
        // Bounded: by the runtimes that use the ring.
        self.reapers.retain(|reaper| *reaper != place);
    }
}
