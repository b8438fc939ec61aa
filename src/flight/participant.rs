//! `Participant`: what leaders and joiners hold of their flight.

use std::collections::HashMap;
use std::sync::Arc;

use super::state::{Flight, FlightId, FlightState, Sent};
use crate::sync::Mutex;

pub(super) type FlightTable<T, P> = HashMap<FlightId, Arc<Flight<T, P>>>;

/// The flights under way, in tables by the low bits of their hash.
#[derive(Debug)]
pub(super) struct FlightTables<T: Sent, P: Sent>(Box<[Mutex<FlightTable<T, P>>]>);

impl<T: Sent, P: Sent> FlightTables<T, P> {
    /// Rounds the number of tables up to a power of two.
    pub(super) fn new(tables: usize) -> Self {
        // Bounded: by the tables.
        Self((0..tables.next_power_of_two()).map(|_| Mutex::new(HashMap::new())).collect())
    }

    pub(super) fn table(&self, (hash, _): FlightId) -> &Mutex<FlightTable<T, P>> {
        // Only the low bits are wanted.
        #[allow(clippy::cast_possible_truncation)]
        let place = hash as usize & (self.0.len() - 1);
        &self.0[place]
    }

    pub(super) fn len(&self) -> usize {
        // Bounded: by the tables.
        self.0.iter().map(|table| table.lock().len()).sum()
    }
}

#[derive(Debug)]
pub(super) struct Participant<T: Sent, P: Sent> {
    tables: Arc<FlightTables<T, P>>,
    id: FlightId,
    pub(super) flight: Arc<Flight<T, P>>,
}

impl<T: Sent, P: Sent> Participant<T, P> {
    pub(super) fn new(
        tables: &Arc<FlightTables<T, P>>,
        id: FlightId,
        flight: Arc<Flight<T, P>>,
    ) -> Self {
        Self { tables: Arc::clone(tables), id, flight }
    }

    pub(super) fn another(&self) -> Self {
        Self::new(&self.tables, self.id, Arc::clone(&self.flight))
    }

    /// Changes the flight, and takes it off the table if `change` says so.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut FlightState<T, P>) -> (bool, R)) -> R {
        let mut table = self.tables.table(self.id).lock();
        let (is_over, result) = change(&mut self.flight.state.lock());
        let removed = if is_over { table.remove(&self.id) } else { None };
        drop(table);
        drop(removed);
        result
    }
}
