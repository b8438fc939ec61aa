//! `AccessTimes`: last access times of entries with an idle ttl that memory has evicted.
//!
//! Reads do not rewrite records, so memory keeps the access times, in a set-associative table of
//! fixed size: a full set replaces its oldest access. An entry without a recorded access counts as
//! last accessed when it was written. So a full table may expire an entry early, never late.
//! It takes part of the index budget, once that part is free.
//!
//! Another such table has the times since when records are stale before their time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::key::KeyHash;

/// Accesses that a set has room for.
const WAYS: usize = 4;

/// Enough tables that callers seldom contend for one lock.
const TABLES_MIN: usize = 64;

/// Bytes that the first caller at a table must zero.
const TABLE_BYTES_MAX: usize = 256 << 10;

const GROUP_TABLES: usize = 256;

/// The last access of a record. Times in nanoseconds; all zero if vacant.
#[derive(Debug, Clone, Copy, Default)]
struct Access {
    hash: u64,
    written: u64,
    accessed: u64,
}

type Set = [Access; WAYS];

type Group = Box<[Mutex<Vec<Set>>]>;

#[derive(Debug)]
pub(crate) struct AccessTimes {
    /// Allocated on first use, so that the budget alone takes almost no memory.
    groups: Box<[OnceLock<Group>]>,
    tables: usize,
    sets_per_table: usize,
    made: AtomicUsize,
    is_requested: AtomicBool,
    has_room: AtomicBool,
}

impl AccessTimes {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let tables = bytes_max.div_ceil(TABLE_BYTES_MAX).max(TABLES_MIN);
        let tables = tables.min((bytes_max / size_of::<Set>()).max(1));
        Self {
            // Bounded: by the budget: one for each group of tables.
            groups: (0..tables.div_ceil(GROUP_TABLES)).map(|_| OnceLock::new()).collect(),
            tables,
            sets_per_table: (bytes_max / size_of::<Set>() / tables).max(1),
            made: AtomicUsize::new(0),
            is_requested: AtomicBool::new(false),
            has_room: AtomicBool::new(false),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.made.load(Ordering::Relaxed) * self.table_bytes()
    }

    pub(crate) fn bytes_reserved(&self) -> usize {
        let is_requested = self.is_requested.load(Ordering::Relaxed);
        if is_requested { self.tables * self.table_bytes() } else { 0 }
    }

    fn table_bytes(&self) -> usize {
        self.sets_per_table * size_of::<Set>()
    }

    /// Called once the disk holds, or will hold, entries with an idle ttl.
    pub(crate) fn request(&self) {
        self.is_requested.store(true, Ordering::Relaxed);
    }

    /// Called once the reserved bytes are free.
    pub(crate) fn enable(&self) {
        self.has_room.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_room(&self) -> bool {
        self.has_room.load(Ordering::Relaxed)
    }

    pub(crate) fn record(&self, entry: &Entry) {
        let Some(accessed) = entry.last_access().filter(|at| *at > entry.written) else { return };
        if !self.has_room() {
            return;
        }
        self.note(Access { hash: entry.hash.0, written: entry.written.0, accessed: accessed.0 });
    }

    /// The record of a hash at a position is stale since then.
    pub(crate) fn note_expiry(&self, hash: KeyHash, position: u64, since: Timestamp) {
        if self.has_room() {
            // Zero is vacant.
            self.note(Access { hash: hash.0, written: position, accessed: since.0.max(1) });
        }
    }

    /// Another such time: the earlier one counts. Nothing, if none is known any more.
    pub(crate) fn note_earlier_expiry(&self, hash: KeyHash, position: u64, since: Timestamp) {
        let (table, set) = self.table_and_set(hash);
        let Some(group) = self.groups[table / GROUP_TABLES].get() else { return };
        let mut table = group[table % GROUP_TABLES].lock();
        let set = table.get_mut(set).map_or(&mut [][..], |set| set);
        // Bounded: by the four accesses of a set.
        if let Some(known) = set.iter_mut().find(|access| access.is_of(hash.0, position)) {
            known.accessed = known.accessed.min(since.0.max(1));
        }
    }

    /// Since when it is, if that is known.
    pub(crate) fn expiry(&self, hash: KeyHash, position: u64) -> Option<Timestamp> {
        self.known(hash, position)
    }

    fn note(&self, own: Access) {
        let (table, set) = self.table_and_set(KeyHash(own.hash));
        let group = self.groups[table / GROUP_TABLES]
            // Bounded: by a group.
            .get_or_init(|| (0..GROUP_TABLES).map(|_| Mutex::default()).collect());
        let mut table = group[table % GROUP_TABLES].lock();
        if table.is_empty() {
            table.resize(self.sets_per_table, Set::default());
            self.made.fetch_add(1, Ordering::Relaxed);
        }
        let set = &mut table[set];
        let is_own = |access: &&mut Access| access.is_of(own.hash, own.written);
        if let Some(known) = set.iter_mut().find(is_own) {
            known.accessed = known.accessed.max(own.accessed);
        } else if let Some(oldest) = set.iter_mut().min_by_key(|access| access.accessed) {
            if oldest.accessed < own.accessed {
                *oldest = own;
            }
        }
    }

    /// The last known access of the record written at `written`; `written` if none is recorded.
    pub(crate) fn last(&self, hash: KeyHash, written: Timestamp) -> Timestamp {
        self.known(hash, written.0).unwrap_or(written)
    }

    fn known(&self, hash: KeyHash, written: u64) -> Option<Timestamp> {
        if !self.has_room() {
            return None;
        }
        let (table, set) = self.table_and_set(hash);
        let group = self.groups[table / GROUP_TABLES].get()?;
        let set = group[table % GROUP_TABLES].lock().get(set).copied().unwrap_or_default();
        // Bounded: by the four accesses of a set.
        let known = set.iter().find(|access| access.is_of(hash.0, written));
        known.map(|access| Timestamp(access.accessed))
    }

    /// The table and the set of a hash: each half is scaled into its range.
    fn table_and_set(&self, hash: KeyHash) -> (usize, usize) {
        // 32-bit halves scaled below their ranges.
        #[allow(clippy::cast_possible_truncation)]
        let within = |half: u64, range: usize| ((half * range as u64) >> 32) as usize;
        (within(hash.0 & 0xFFFF_FFFF, self.tables), within(hash.0 >> 32, self.sets_per_table))
    }
}

impl Access {
    fn is_of(&self, hash: u64, written: u64) -> bool {
        self.accessed > 0 && (self.hash, self.written) == (hash, written)
    }
}
