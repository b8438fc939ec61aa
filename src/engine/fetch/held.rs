//! `HeldErrors`: the errors of fetches that failed a moment ago, for calls that are not to try
//! again so soon.
//!
//! Bounded by count and bytes: beyond that the oldest are forgotten, and their keys fetched again.
//! Each holds the read point of its fetch, from which on its key is tracked exactly: a mutation of
//! the key ends the hold. Values are dropped outside of the lock, as they are callers' own, and not
//! with the cache but before it ends: an error may own a handle of the cache, and keep it open.
//!
//! Errors whose time is over go with the next call that asks for any, or with a sweep that a caller
//! runs; not with the background sweep, whose thread other caches need.

use std::any::TypeId;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::clock::Timestamp;
use crate::engine::fetch::outcome::Failure;
use crate::engine::fetch::watch::WatchGuard;
use crate::failpoint::{Failpoint, failpoint};
use crate::flight::Destination;
use crate::moment::Moment;
use crate::wake::discard;

const HELD_MAX: usize = 1024;

/// Of names, keys and errors; the latter without what they point to.
const HELD_BYTES_MAX: usize = 1 << 20;

/// Counted for each: its place in the tables and its tracking.
const HELD_BYTES: usize = 256;

type Id = (u64, TypeId);

#[derive(Default)]
pub(crate) struct HeldErrors {
    /// Read without the lock, so that the table costs nothing while it is empty.
    count: AtomicUsize,
    bytes: AtomicUsize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    errors: HashMap<Id, Held>,
    /// Oldest first. A number that its error no longer has is a leftover.
    order: VecDeque<(Id, u64)>,
    bytes: usize,
    last: u64,
    is_closed: bool,
}

struct Held {
    namespace: Box<str>,
    key: Box<[u8]>,
    failure: Failure,
    since: Timestamp,
    until: Timestamp,
    watch: WatchGuard,
    bytes: usize,
    number: u64,
}

/// An error that is held, as it was found.
pub(crate) struct Found {
    pub(crate) failure: Failure,
    /// The read point of the fetch that failed.
    pub(crate) at: Moment,
    number: u64,
}

impl HeldErrors {
    /// Holds an error of `bytes` from now on, for `retry_after`.
    pub(crate) fn hold(
        &self,
        of: Destination<'_>,
        (failure, bytes): (Failure, usize),
        watch: WatchGuard,
        (now, retry_after): (Timestamp, Duration),
    ) {
        let bytes = bytes.saturating_add(HELD_BYTES + of.namespace.len() + of.key.len());
        if bytes > HELD_BYTES_MAX {
            discard((failure, watch));
            return;
        }
        let until = now.saturating_add(retry_after);
        let (namespace, key) = (of.namespace.into(), of.key.into());
        let mut table = self.table.lock();
        if table.is_closed {
            drop(table);
            discard((failure, watch));
            return;
        }
        table.last += 1;
        let number = table.last;
        let held = Held { namespace, key, failure, since: now, until, watch, bytes, number };
        let mut gone = table.insert(of.id, held);
        table.make_room(now, &mut gone);
        self.end(table, gone);
    }

    fn end(&self, table: MutexGuard<'_, Table>, gone: Vec<Held>) {
        self.count.store(table.errors.len(), Ordering::Relaxed);
        self.bytes.store(table.bytes, Ordering::Relaxed);
        drop(table);
        // Bounded: by the errors that are held at one time.
        gone.into_iter().for_each(discard);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The error that is held for a key, by `retry_after` of the caller that asks.
    pub(crate) fn find(
        &self,
        of: Destination<'_>,
        now: Timestamp,
        retry_after: Duration,
    ) -> Option<Found> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let (mut table, mut gone) = (self.table.lock(), Vec::new());
        table.make_room(now, &mut gone);
        let found = table.errors.get(&of.id).filter(|held| {
            // A clock that was set back ends the hold.
            let until = held.since.saturating_add(retry_after);
            held.is_of(of) && held.since <= now && held.lasts(until, now)
        });
        let found = found.map(|held| Found {
            failure: held.failure.clone(),
            at: held.watch.point.moment,
            number: held.number,
        });
        self.end(table, gone);
        found
    }

    /// A fetch of the key has succeeded.
    pub(crate) fn forget_key(&self, of: Destination<'_>) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut table = self.table.lock();
        let is_there = table.errors.get(&of.id).is_some_and(|held| held.is_of(of));
        let gone = if is_there { table.remove(of.id) } else { None };
        // Bounded: one.
        self.end(table, gone.into_iter().collect());
    }

    /// Forgets all whose time is over.
    pub(crate) fn expire(&self, now: Timestamp) {
        self.forget_all(|held| held.until <= now, false);
    }

    /// The cache ends, and errors are held no longer. An error may own a handle of it.
    pub(crate) fn close(&self) {
        self.forget_all(|_| true, true);
    }

    fn forget_all(&self, is_over: impl Fn(&Held) -> bool, is_closed: bool) {
        let mut table = self.table.lock();
        table.is_closed |= is_closed;
        // Bounded: by `HELD_MAX`.
        let gone = table.errors.iter().filter(|(_, held)| is_over(held)).map(|(id, _)| *id);
        // Bounded: by `HELD_MAX`.
        let gone: Vec<Id> = gone.collect();
        // Bounded: by `HELD_MAX`.
        let gone = gone.into_iter().filter_map(|id| table.remove(id)).collect();
        self.end(table, gone);
    }

    /// Forgets what was found, since the key has changed.
    pub(crate) fn forget(&self, id: Id, found: Found) {
        let mut table = self.table.lock();
        let is_there = table.errors.get(&id).is_some_and(|held| held.number == found.number);
        let gone = if is_there { table.remove(id) } else { None };
        // Bounded: one.
        self.end(table, gone.into_iter().collect());
        discard(found);
    }
}

impl Held {
    fn is_of(&self, of: Destination<'_>) -> bool {
        *self.namespace == *of.namespace && *self.key == *of.key
    }

    fn lasts(&self, until: Timestamp, now: Timestamp) -> bool {
        now < until.min(self.until) || failpoint(Failpoint::HeldTooLong)
    }
}

impl Table {
    /// What it replaces.
    fn insert(&mut self, id: Id, held: Held) -> Vec<Held> {
        let before = self.remove(id);
        self.bytes += held.bytes;
        self.order.push_back((id, held.number));
        self.errors.insert(id, held);
        // Bounded: one.
        before.into_iter().collect()
    }

    fn remove(&mut self, id: Id) -> Option<Held> {
        let held = self.errors.remove(&id)?;
        self.bytes -= held.bytes;
        Some(held)
    }

    /// Takes out the oldest: those over the bounds or their time, and leftovers.
    fn make_room(&mut self, now: Timestamp, gone: &mut Vec<Held>) {
        // Bounded: by the insertions since, at most the bound twice over.
        while let Some(&(id, number)) = self.order.front() {
            let held = self.errors.get(&id).filter(|held| held.number == number);
            let is_over = held.is_none_or(|held| !held.lasts(held.until, now));
            let is_full = self.errors.len() > HELD_MAX
                || self.bytes > HELD_BYTES_MAX
                || self.order.len() > 2 * HELD_MAX;
            // A few for each insertion keep up with it.
            if !is_full && (!is_over || gone.len() >= 16) {
                return;
            }
            let is_held = held.is_some();
            self.order.pop_front();
            if is_held {
                // Bounded: one.
                gone.extend(self.remove(id));
            }
        }
    }
}
