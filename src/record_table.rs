//! `RecordTable`: what memory remembers of some records on disk, beside their slots.
//!
//! A set-associative table of fixed size: a full set replaces its oldest item. So what is
//! remembered may be forgotten at any time. It takes part of the index budget, once that part is
//! free.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::key::KeyHash;

/// Items that a set has room for.
const WAYS: usize = 4;

/// Enough tables that callers seldom contend for one lock.
const TABLES_MIN: usize = 64;

/// Bytes that the first caller at a table must zero.
const TABLE_BYTES_MAX: usize = 256 << 10;

const GROUP_TABLES: usize = 256;

/// What is remembered of a record. Vacant if its age is zero.
#[derive(Debug, Clone, Copy, Default)]
struct Item<V> {
    hash: u64,
    /// What identifies the record among those of its hash.
    record: u64,
    /// The lowest one of a set is the oldest.
    age: u64,
    value: V,
}

type Set<V> = [Item<V>; WAYS];

type Group<V> = Box<[Mutex<Vec<Set<V>>>]>;

#[derive(Debug)]
pub(crate) struct RecordTable<V> {
    /// Allocated on first use, so that the budget alone takes almost no memory.
    groups: Box<[OnceLock<Group<V>>]>,
    tables: usize,
    sets_per_table: usize,
    /// False if not even one set fits: then nothing is remembered.
    fits: bool,
    made: AtomicUsize,
    is_requested: AtomicBool,
    has_room: AtomicBool,
}

impl<V: Copy + Default> RecordTable<V> {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let set_bytes = size_of::<Set<V>>();
        let tables = bytes_max.div_ceil(TABLE_BYTES_MAX).max(TABLES_MIN);
        let tables = tables.min((bytes_max / set_bytes).max(1));
        Self {
            // Bounded: by the budget: one for each group of tables.
            groups: (0..tables.div_ceil(GROUP_TABLES)).map(|_| OnceLock::new()).collect(),
            tables,
            sets_per_table: (bytes_max / set_bytes / tables).max(1),
            fits: set_bytes <= bytes_max,
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
        self.sets_per_table * size_of::<Set<V>>()
    }

    /// Called once there is, or will be, something to remember.
    pub(crate) fn request(&self) {
        self.is_requested.store(self.fits, Ordering::Relaxed);
    }

    /// Called once the reserved bytes are free.
    pub(crate) fn enable(&self) {
        self.has_room.store(self.fits, Ordering::Relaxed);
    }

    pub(crate) fn has_room(&self) -> bool {
        self.has_room.load(Ordering::Relaxed)
    }

    /// Remembers an age above zero and a value, given those that are known. Nothing without room,
    /// or in a set of younger ones.
    pub(crate) fn note(
        &self,
        (hash, record): (KeyHash, u64),
        renewed: impl FnOnce(Option<(u64, V)>) -> (u64, V),
    ) {
        if !self.has_room() {
            return;
        }
        let (table, set) = self.table_and_set(hash);
        let group = self.groups[table / GROUP_TABLES]
            // Bounded: by a group.
            .get_or_init(|| (0..GROUP_TABLES).map(|_| Mutex::default()).collect());
        let mut table = group[table % GROUP_TABLES].lock();
        if table.is_empty() {
            table.resize(self.sets_per_table, Set::default());
            self.made.fetch_add(1, Ordering::Relaxed);
        }
        let set = &mut table[set];
        if let Some(known) = set.iter_mut().find(|item| item.is_of(hash, record)) {
            (known.age, known.value) = renewed(Some((known.age, known.value)));
        } else if let Some(oldest) = set.iter_mut().min_by_key(|item| item.age) {
            let (age, value) = renewed(None);
            if oldest.age < age {
                *oldest = Item { hash: hash.0, record, age, value };
            }
        }
    }

    /// Changes what is remembered of a record, if anything is.
    pub(crate) fn change(&self, (hash, record): (KeyHash, u64), change: impl FnOnce(&mut u64)) {
        let (table, set) = self.table_and_set(hash);
        let Some(group) = self.groups[table / GROUP_TABLES].get() else { return };
        let mut table = group[table % GROUP_TABLES].lock();
        let set = table.get_mut(set).map_or(&mut [][..], |set| set);
        // Bounded: by the items of a set.
        if let Some(known) = set.iter_mut().find(|item| item.is_of(hash, record)) {
            change(&mut known.age);
        }
    }

    /// What is remembered of a record.
    pub(crate) fn known(&self, (hash, record): (KeyHash, u64)) -> Option<(u64, V)> {
        if !self.has_room() {
            return None;
        }
        let (table, set) = self.table_and_set(hash);
        let group = self.groups[table / GROUP_TABLES].get()?;
        let set = group[table % GROUP_TABLES].lock().get(set).copied().unwrap_or_default();
        // Bounded: by the items of a set.
        let known = set.iter().find(|item| item.is_of(hash, record));
        known.map(|item| (item.age, item.value))
    }

    /// The table and the set of a hash: each half is scaled into its range.
    fn table_and_set(&self, hash: KeyHash) -> (usize, usize) {
        // 32-bit halves scaled below their ranges.
        #[allow(clippy::cast_possible_truncation)]
        let within = |half: u64, range: usize| ((half * range as u64) >> 32) as usize;
        (within(hash.0 & 0xFFFF_FFFF, self.tables), within(hash.0 >> 32, self.sets_per_table))
    }
}

impl<V> Item<V> {
    fn is_of(&self, hash: KeyHash, record: u64) -> bool {
        self.age > 0 && (self.hash, self.record) == (hash.0, record)
    }
}
