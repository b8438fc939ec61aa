//! `Flights`: one fetch for each key at a time, and what becomes of it for all who wait.
//!
//! A flight has one leader, who fetches, and any number of joiners, who wait. It moves between
//! these phases:
//!
//! ```text
//! Claimed   a leader to be, who has not begun: whoever enters leads in its stead
//! Led       somebody fetches; whoever enters joins
//! Vacant    the leader went away without landing: the first one who comes, joiner or not, leads
//! Landed    over; off the table; joiners who are still there fetch their outcome
//! ```
//!
//! While a flight is vacant one joiner has been woken, and any joiner that goes away wakes another:
//! so the lead is never left with somebody who is no longer there. And since it is left with nobody
//! in particular, a joiner that is woken but not polled holds up nobody who comes later.
//!
//! A caller may also stay and not be polled. Nobody can tell that of a fetch which waits for its
//! origin, but it shows in a caller that was woken. So a leader polls with a waker that tells the
//! flight, and while anybody waits for one who was woken, an alarm is set. When it finds that
//! [`PATIENCE`] has passed without a poll, it goes on in the sleeper's stead: it takes the lead
//! from a leader, whose lead is void from then on; it wakes more joiners where the one that was
//! woken did not come to lead; and it wakes those whom a leader that has landed has left waiting.
//!
//! A [`Joiner`] brings the moment when its call began. A [`Landing`] says up to which moment its
//! value is as good as fetched anew; who joined later looks again.
//!
//! Lock order: table, flight. Wakers are cloned, woken and dropped, alarms set, and values dropped,
//! outside of both. What is called there is contained.

mod joiner;
mod lead;
mod relay;
mod state;

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::joiner::Joiner;
pub(crate) use self::lead::{Claim, Lead, Wakers};
use self::state::{Flight, Phase, State};
use crate::sync::Mutex;
use crate::timer::Timer;

/// For so long, and at most twice that, others wait for the poll of a caller that was woken.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);

/// A claim that has not begun for so long goes to the next one who asks for it.
pub(crate) const CLAIM_PATIENCE: Duration = Duration::from_secs(1);

/// Flights are told apart by a hash of namespace and key, and by the type of error of the fetch.
pub(crate) type FlightId = (u64, TypeId);

/// What a flight fetches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Destination<'a> {
    pub(crate) id: FlightId,
    /// Compared in full: a hash that collides must not join another key's flight.
    pub(crate) namespace: &'a str,
    pub(crate) key: &'a [u8],
}

/// The outcome of a flight: a value, and the last moment at which a joiner's call may have begun
/// for it to be good.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Landing<T, P> {
    pub(crate) value: T,
    pub(crate) until: P,
}

/// What goes from thread to thread, as values and moments of flights do.
pub(crate) trait Sent: Send + 'static {}

impl<T: Send + 'static> Sent for T {}

/// All flights under way.
#[derive(Debug)]
pub(crate) struct Flights<T: Sent, P: Sent> {
    /// By the low bits of the hash; a power of two of them.
    tables: Box<[Mutex<Table<T, P>>]>,
    timer: Timer,
}

type Table<T, P> = HashMap<FlightId, Arc<Flight<T, P>>>;

/// How a caller takes part.
#[derive(Debug)]
pub(crate) enum Part<T: Sent, P: Sent> {
    Lead(Lead<T, P>),
    Join(Joiner<T, P>),
    /// Another key has the place.
    None,
}

/// What a joiner has waited for.
#[derive(Debug)]
pub(crate) enum Turn<T: Sent, P: Sent> {
    Value(T),
    /// What was fetched may have been overwritten or invalidated before the joiner came.
    LookAgain,
    Lead(Lead<T, P>),
}

impl<T: Sent, P: Sent> Flights<T, P> {
    pub(crate) fn new(tables: usize, timer: Timer) -> Self {
        let tables = tables.next_power_of_two();
        // Bounded: by the tables.
        Self { tables: (0..tables).map(|_| Mutex::new(HashMap::new())).collect(), timer }
    }

    /// Takes part in the flight to a destination; leads where nobody does. `began` is the moment
    /// when the call began: it may be given whatever was good then, or later.
    pub(crate) fn enter(self: &Arc<Self>, to: Destination<'_>, began: P) -> Part<T, P> {
        let mut table = self.table(to.id).lock();
        let Some(flight) = table.get(&to.id) else {
            let flight = self.flight(to, Phase::Led);
            table.insert(to.id, Arc::clone(&flight));
            drop(table);
            return Part::Lead(Lead::new(Seat::new(self, to.id, flight), 0));
        };
        if !flight.is_to(to) {
            return Part::None;
        }
        let flight = Arc::clone(flight);
        let mut state = flight.state.lock();
        match state.phase {
            Phase::Claimed(_) => {
                // The claim is void, and keeps nothing of what is fetched in its stead.
                state.phase = Phase::Led;
                drop(state);
                let flight = self.flight(to, Phase::Led);
                let claimed = table.insert(to.id, Arc::clone(&flight));
                drop(table);
                drop(claimed);
                Part::Lead(Lead::new(Seat::new(self, to.id, flight), 0))
            }
            Phase::Vacant => {
                let number = state.be_led();
                drop(state);
                drop(table);
                Part::Lead(Lead::new(Seat::new(self, to.id, flight), number))
            }
            Phase::Led | Phase::Landed(_) => {
                state.joiners += 1;
                state.last_joiner += 1;
                let (number, alarm) = (state.last_joiner, state.alarm());
                drop(state);
                drop(table);
                flight.set(alarm);
                let seat = Seat::new(self, to.id, flight);
                Part::Join(Joiner { seat, number, began, is_over: false })
            }
        }
    }

    /// The right to lead a flight later, if there is none. It lasts until it is dropped, or until
    /// somebody else enters, or claims it when it is old. `now` is the time of any clock, as long
    /// as it is the same one.
    pub(crate) fn claim(
        self: &Arc<Self>,
        to: Destination<'_>,
        now: Duration,
    ) -> Option<Claim<T, P>> {
        let mut table = self.table(to.id).lock();
        if let Some(flight) = table.get(&to.id) {
            let mut state = flight.state.lock();
            match state.phase {
                // However the clock was moved meanwhile.
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
        Some(Claim(Seat::new(self, to.id, flight)))
    }

    /// How many flights there are, claimed ones among them.
    pub(crate) fn len(&self) -> usize {
        // Bounded: by the tables.
        self.tables.iter().map(|table| table.lock().len()).sum()
    }

    fn flight(&self, to: Destination<'_>, phase: Phase<T, P>) -> Arc<Flight<T, P>> {
        let (namespace, key) = (to.namespace.into(), to.key.into());
        let state = Mutex::new(State::new(phase));
        Arc::new(Flight { namespace, key, timer: self.timer.clone(), state })
    }

    fn table(&self, (hash, _): FlightId) -> &Mutex<Table<T, P>> {
        // The bits wanted are the low ones, whatever is cut off.
        #[allow(clippy::cast_possible_truncation)]
        let place = hash as usize & (self.tables.len() - 1);
        &self.tables[place]
    }
}

/// What every participant holds.
#[derive(Debug)]
struct Seat<T: Sent, P: Sent> {
    flights: Arc<Flights<T, P>>,
    id: FlightId,
    flight: Arc<Flight<T, P>>,
}

impl<T: Sent, P: Sent> Seat<T, P> {
    fn new(flights: &Arc<Flights<T, P>>, id: FlightId, flight: Arc<Flight<T, P>>) -> Self {
        Self { flights: Arc::clone(flights), id, flight }
    }

    fn another(&self) -> Self {
        Self::new(&self.flights, self.id, Arc::clone(&self.flight))
    }

    /// Changes the flight, and takes it off the table where `change` says so. What `change` gives
    /// besides is for after both locks.
    fn change<R>(&self, change: impl FnOnce(&mut State<T, P>) -> (bool, R)) -> R {
        let mut table = self.flights.table(self.id).lock();
        let (is_over, result) = change(&mut self.flight.state.lock());
        let removed = if is_over { table.remove(&self.id) } else { None };
        drop(table);
        drop(removed);
        result
    }
}
