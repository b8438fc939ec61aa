//! `Renewals`: the deadlines of records on disk that a touch has renewed.
//!
//! Memory keeps them in a table of fixed size, as records are not rewritten. If those of a record
//! are forgotten, its own deadlines count again, provided that no touch has shortened any; else its
//! slot says so, and the record is gone. So a full table may expire an entry early, never late.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::key::KeyHash;
use crate::l2::{Position, Slot};
use crate::policy::Lifetime;
use crate::record_table::RecordTable;
use crate::sequence::Sequence;

/// Without the time of writing, which is the age of an item.
#[derive(Debug, Clone, Copy)]
struct Deadlines {
    touched: Timestamp,
    expires: Timestamp,
    stale_serve: u64,
    idle_ttl: u64,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { touched: Timestamp(0), expires: Timestamp(0), stale_serve: 0, idle_ttl: u64::MAX }
    }
}

#[derive(Debug)]
pub(crate) struct Renewals {
    table: RecordTable<Deadlines>,
    /// The last position of a record that was touched.
    last: AtomicU64,
}

impl Renewals {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { table: RecordTable::new(bytes_max), last: AtomicU64::new(0) }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.table.bytes()
    }

    pub(crate) fn bytes_reserved(&self) -> usize {
        self.table.bytes_reserved()
    }

    /// Called once a record on disk is touched.
    pub(crate) fn request(&self) {
        self.table.request();
    }

    /// Called once the reserved bytes are free.
    pub(crate) fn enable(&self) {
        self.table.enable();
    }

    pub(crate) fn has_room(&self) -> bool {
        self.table.has_room()
    }

    /// The record of a hash at a position lives that life since the touch at its beginning. `order`
    /// is the position of that change, or of any record behind all earlier ones.
    pub(crate) fn note(&self, (hash, position): (KeyHash, Position), life: Lifetime, order: u64) {
        let Lifetime { written: touched, expires, stale_serve, idle_ttl } = life;
        let deadlines = Deadlines { touched, expires, stale_serve, idle_ttl };
        self.last.fetch_max(position.value(), Ordering::Relaxed);
        self.table.note((hash, position.value()), |_| (order.max(1), deadlines));
    }

    /// The life of a record since it was touched, if it was: from the touch on.
    pub(crate) fn of(&self, hash: KeyHash, slot: Slot) -> Option<Lifetime> {
        if let Some((_, deadlines)) = self.table.known((hash, slot.position.value())) {
            let Deadlines { touched: written, expires, stale_serve, idle_ttl } = deadlines;
            return Some(Lifetime { written, expires, stale_serve, idle_ttl });
        }
        slot.shortened.then_some(Lifetime::GONE)
    }

    /// Whether an entry that was read from a slot has the deadlines that count. Then the touch is
    /// an access to it: it may be a later one, with the same deadlines.
    pub(crate) fn are_those_of(&self, entry: &Entry, slot: Slot) -> bool {
        self.of(entry.hash, slot).is_none_or(|life| {
            let lives = entry.lives(&life);
            if lives {
                entry.accessed(life.written);
            }
            lives
        })
    }

    /// Whether a record from `first` on may have been touched.
    pub(crate) fn concern(&self, first: Sequence) -> bool {
        self.last.load(Ordering::Relaxed) >= first.0.max(1)
    }
}
