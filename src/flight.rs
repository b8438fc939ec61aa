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
//! A [`Joiner`] brings the moment when its call began. A [`Landing`] says up to which moment its
//! value is as good as fetched anew; who joined later looks again.
//!
//! Lock order: table, flight. Wakers are woken and dropped, and values dropped, outside of both.

use std::any::TypeId;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::vec;

use crate::sync::Mutex;

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

/// All flights under way.
#[derive(Debug)]
pub(crate) struct Flights<T, P> {
    /// By the low bits of the hash; a power of two of them.
    tables: Box<[Mutex<Table<T, P>>]>,
}

type Table<T, P> = HashMap<FlightId, Arc<Flight<T, P>>>;

#[derive(Debug)]
struct Flight<T, P> {
    namespace: Box<str>,
    key: Box<[u8]>,
    state: Mutex<State<T, P>>,
}

#[derive(Debug)]
struct State<T, P> {
    phase: Phase<T, P>,
    /// By the order in which they joined; None before their first poll.
    joiners: BTreeMap<u64, Option<Waker>>,
    last_joiner: u64,
}

#[derive(Debug)]
enum Phase<T, P> {
    Claimed,
    Led,
    Vacant,
    Landed(Landing<T, P>),
}

/// How a caller takes part.
#[derive(Debug)]
pub(crate) enum Part<T, P> {
    Lead(Lead<T, P>),
    Join(Joiner<T, P>),
    /// Another key has the place.
    None,
}

/// What a joiner has waited for.
#[derive(Debug)]
pub(crate) enum Turn<T, P> {
    Value(T),
    /// What was fetched may have been overwritten or invalidated before the joiner came.
    LookAgain,
    Lead(Lead<T, P>),
}

impl<T, P> Flights<T, P> {
    pub(crate) fn new(tables: usize) -> Self {
        let tables = tables.next_power_of_two();
        Self { tables: (0..tables).map(|_| Mutex::new(HashMap::new())).collect() }
    }

    /// Takes part in the flight to a destination; leads where nobody does. `began` is the moment
    /// when the call began: it may be given whatever was good then, or later.
    pub(crate) fn enter(self: &Arc<Self>, to: Destination<'_>, began: P) -> Part<T, P> {
        let mut table = self.table(to.id).lock();
        let Some(flight) = table.get(&to.id) else {
            let flight = Flight::new(to, Phase::Led);
            table.insert(to.id, Arc::clone(&flight));
            return Part::Lead(Lead(Seat::new(self, to.id, flight)));
        };
        if !flight.is_to(to) {
            return Part::None;
        }
        let mut state = flight.state.lock();
        match state.phase {
            Phase::Claimed => {
                // The claim is void, and keeps nothing of what is fetched in its stead.
                state.phase = Phase::Led;
                drop(state);
                let flight = Flight::new(to, Phase::Led);
                table.insert(to.id, Arc::clone(&flight));
                Part::Lead(Lead(Seat::new(self, to.id, flight)))
            }
            Phase::Vacant => {
                state.phase = Phase::Led;
                Part::Lead(Lead(Seat::new(self, to.id, Arc::clone(flight))))
            }
            Phase::Led | Phase::Landed(_) => {
                state.last_joiner += 1;
                let number = state.last_joiner;
                state.joiners.insert(number, None);
                let seat = Seat::new(self, to.id, Arc::clone(flight));
                Part::Join(Joiner { seat, number, began, is_over: false })
            }
        }
    }

    /// The right to lead a flight later, if there is none. It lasts until it is dropped, or until
    /// somebody else enters.
    pub(crate) fn claim(self: &Arc<Self>, to: Destination<'_>) -> Option<Claim<T, P>> {
        let mut table = self.table(to.id).lock();
        if table.contains_key(&to.id) {
            return None;
        }
        let flight = Flight::new(to, Phase::Claimed);
        table.insert(to.id, Arc::clone(&flight));
        Some(Claim(Seat::new(self, to.id, flight)))
    }

    /// How many flights there are, claimed ones among them.
    pub(crate) fn len(&self) -> usize {
        self.tables.iter().map(|table| table.lock().len()).sum()
    }

    fn table(&self, (hash, _): FlightId) -> &Mutex<Table<T, P>> {
        // The bits wanted are the low ones, whatever is cut off.
        #[allow(clippy::cast_possible_truncation)]
        let place = hash as usize & (self.tables.len() - 1);
        &self.tables[place]
    }
}

impl<T, P> Flight<T, P> {
    fn new(to: Destination<'_>, phase: Phase<T, P>) -> Arc<Self> {
        let state = State { phase, joiners: BTreeMap::new(), last_joiner: 0 };
        let (namespace, key) = (to.namespace.into(), to.key.into());
        Arc::new(Self { namespace, key, state: Mutex::new(state) })
    }

    fn is_to(&self, to: Destination<'_>) -> bool {
        *self.namespace == *to.namespace && *self.key == *to.key
    }
}

impl<T, P> State<T, P> {
    /// The waker of the joiner who has waited longest. Those who have not been polled yet need
    /// none: they look before they wait.
    fn next(&mut self) -> Option<Waker> {
        self.joiners.values_mut().find_map(Option::take)
    }
}

/// What every participant holds.
#[derive(Debug)]
struct Seat<T, P> {
    flights: Arc<Flights<T, P>>,
    id: FlightId,
    flight: Arc<Flight<T, P>>,
}

impl<T, P> Seat<T, P> {
    fn new(flights: &Arc<Flights<T, P>>, id: FlightId, flight: Arc<Flight<T, P>>) -> Self {
        Self { flights: Arc::clone(flights), id, flight }
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

/// The lead of a flight. Dropped without [`land`](Self::land), it is the next one's.
#[derive(Debug)]
pub(crate) struct Lead<T, P>(Seat<T, P>);

impl<T, P> Lead<T, P> {
    /// Ends the flight.
    pub(crate) fn land(self, landing: Landing<T, P>) -> Wakers {
        self.0.change(|state| {
            state.phase = Phase::Landed(landing);
            let wakers: Vec<_> = state.joiners.values_mut().filter_map(Option::take).collect();
            (true, Wakers(wakers.into_iter()))
        })
    }
}

impl<T, P> Drop for Lead<T, P> {
    fn drop(&mut self) {
        let next = self.0.change(|state| match state.phase {
            Phase::Landed(_) => (false, None),
            _ => {
                state.phase = Phase::Vacant;
                (state.joiners.is_empty(), state.next())
            }
        });
        if let Some(next) = next {
            next.wake();
        }
    }
}

/// The right to lead, unless somebody else has begun.
#[derive(Debug)]
pub(crate) struct Claim<T, P>(Seat<T, P>);

impl<T, P> Claim<T, P> {
    /// None where somebody else leads, or has led, in its stead.
    pub(crate) fn begin(self) -> Option<Lead<T, P>> {
        let mut state = self.0.flight.state.lock();
        let is_mine = matches!(state.phase, Phase::Claimed);
        if is_mine {
            state.phase = Phase::Led;
        }
        drop(state);
        let Seat { flights, id, flight } = &self.0;
        is_mine.then(|| Lead(Seat::new(flights, *id, Arc::clone(flight))))
    }
}

impl<T, P> Drop for Claim<T, P> {
    fn drop(&mut self) {
        self.0.change(|state| (matches!(state.phase, Phase::Claimed), ()));
    }
}

/// One who waits for a flight.
#[derive(Debug)]
pub(crate) struct Joiner<T, P> {
    seat: Seat<T, P>,
    number: u64,
    began: P,
    /// It has had its turn.
    is_over: bool,
}

impl<T: Clone, P: Ord> Joiner<T, P> {
    /// Its turn, once that has come. Not to be polled after that.
    pub(crate) fn poll_turn(&mut self, context: &Context<'_>) -> Poll<Turn<T, P>> {
        let waker = context.waker();
        let mut state = self.seat.flight.state.lock();
        let turn = match &state.phase {
            Phase::Claimed | Phase::Led => {
                let place = state.joiners.entry(self.number).or_default();
                let before = match place {
                    Some(known) if known.will_wake(waker) => None,
                    _ => place.replace(waker.clone()),
                };
                drop(state);
                drop(before);
                return Poll::Pending;
            }
            Phase::Vacant => {
                state.phase = Phase::Led;
                None
            }
            Phase::Landed(landing) => {
                let is_good = self.began <= landing.until;
                Some(if is_good { Turn::Value(landing.value.clone()) } else { Turn::LookAgain })
            }
        };
        let waker = state.joiners.remove(&self.number);
        drop(state);
        self.is_over = true;
        let Seat { flights, id, flight } = &self.seat;
        let lead = || Turn::Lead(Lead(Seat::new(flights, *id, Arc::clone(flight))));
        let turn = turn.unwrap_or_else(lead);
        // If that panics, the lead is there to be handed over.
        drop(waker);
        Poll::Ready(turn)
    }
}

impl<T, P> Drop for Joiner<T, P> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let (own, next) = self.seat.change(|state| {
            let own = state.joiners.remove(&self.number);
            let is_vacant = matches!(state.phase, Phase::Vacant);
            // Without its waker it may be the one that was woken to take the lead.
            let was_woken = matches!(own, Some(None));
            let next = if is_vacant && was_woken { state.next() } else { None };
            (is_vacant && state.joiners.is_empty(), (own, next))
        });
        drop(own);
        if let Some(next) = next {
            next.wake();
        }
    }
}

/// Those who wait for an outcome that is there. Dropped, it wakes all who are left.
#[derive(Debug)]
#[must_use = "they wait"]
pub(crate) struct Wakers(vec::IntoIter<Waker>);

impl Wakers {
    /// Wakes up to `most`. True where more are left.
    pub(crate) fn wake(&mut self, most: usize) -> bool {
        self.0.by_ref().take(most).for_each(Waker::wake);
        self.0.len() > 0
    }
}

impl Drop for Wakers {
    fn drop(&mut self) {
        self.0.by_ref().for_each(Waker::wake);
    }
}
