//! `Flights`: lets callers enter the flight of a key, or claim it.

use std::sync::Arc;
use std::time::Duration;

use super::joiner::Joiner;
use super::lead::{Claim, Lead};
use super::participant::{FlightTables, Participant};
use super::state::{CLAIM_PATIENCE, Destination, Flight, FlightState, Phase, Sent};
use crate::sync::Mutex;
use crate::timer::Timer;

#[derive(Debug)]
pub(crate) struct Flights<T: Sent, P: Sent> {
    tables: Arc<FlightTables<T, P>>,
    timer: Timer,
}

#[derive(Debug)]
pub(crate) enum Part<T: Sent, P: Sent> {
    Lead(Lead<T, P>),
    Join(Joiner<T, P>),
    /// The flight of another key has the same hash.
    None,
}

impl<T: Sent, P: Sent> Flights<T, P> {
    pub(crate) fn new(tables: usize, timer: Timer) -> Self {
        Self { tables: Arc::new(FlightTables::new(tables)), timer }
    }

    /// Joins the flight to a destination, or leads it if there is no leader. `began` is the moment
    /// when the call began: the caller may be given any value that was fresh then, or later.
    pub(crate) fn enter(self: &Arc<Self>, to: Destination<'_>, began: P) -> Part<T, P> {
        let mut table = self.tables.table(to.id).lock();
        let Some(flight) = table.get(&to.id) else {
            let flight = self.flight(to, Phase::Led);
            table.insert(to.id, Arc::clone(&flight));
            drop(table);
            return Part::Lead(Lead::new(self.participant(to, flight), 0));
        };
        if !flight.is_to(to) {
            return Part::None;
        }
        let flight = Arc::clone(flight);
        let mut state = flight.state.lock();
        match state.phase {
            Phase::Claimed(_) => {
                // Voids the claim. A new flight, so that the claim holds nothing of its outcome.
                state.phase = Phase::Led;
                drop(state);
                let flight = self.flight(to, Phase::Led);
                let claimed = table.insert(to.id, Arc::clone(&flight));
                drop(table);
                drop(claimed);
                Part::Lead(Lead::new(self.participant(to, flight), 0))
            }
            Phase::Leaderless => {
                let number = state.take_lead();
                drop(state);
                drop(table);
                Part::Lead(Lead::new(self.participant(to, flight), number))
            }
            Phase::Led | Phase::Completed(_) => {
                state.joiners += 1;
                state.last_joiner += 1;
                let (number, alarm) = (state.last_joiner, state.alarm());
                drop(state);
                drop(table);
                flight.set_alarm(alarm);
                Part::Join(Joiner::new(self.participant(to, flight), number, began))
            }
        }
    }

    /// The right to lead a flight later, if there is none yet. It lasts until it is dropped, or
    /// until another caller enters, or claims the flight once the claim is old. `now` may be of any
    /// clock, but always of the same one.
    pub(crate) fn claim(
        self: &Arc<Self>,
        to: Destination<'_>,
        now: Duration,
    ) -> Option<Claim<T, P>> {
        let mut table = self.tables.table(to.id).lock();
        if let Some(flight) = table.get(&to.id) {
            let mut state = flight.state.lock();
            match state.phase {
                // The clock may have been set back or forward meanwhile.
                Phase::Claimed(since) if now.abs_diff(since) >= CLAIM_PATIENCE => {
                    state.phase = Phase::Led;
                }
                _ => return None,
            }
        }
        let flight = self.flight(to, Phase::Claimed(now));
        let claimed = table.insert(to.id, Arc::clone(&flight));
        drop(table);
        drop(claimed);
        Some(Claim::new(self.participant(to, flight)))
    }

    pub(crate) fn len(&self) -> usize {
        self.tables.len()
    }

    fn flight(&self, to: Destination<'_>, phase: Phase<T, P>) -> Arc<Flight<T, P>> {
        let (namespace, key) = (to.namespace.into(), to.key.into());
        let state = Mutex::new(FlightState::new(phase));
        Arc::new(Flight { namespace, key, timer: self.timer.clone(), state })
    }

    fn participant(&self, to: Destination<'_>, flight: Arc<Flight<T, P>>) -> Participant<T, P> {
        Participant::new(&self.tables, to.id, flight)
    }
}
