//! `AccessTimes`: when an entry with an idle ttl was last asked for, once memory has let go of it.
//!
//! Records are not written anew for being read, so memory has to know. It does for so many entries
//! as a table of fixed size has places for, in sets of a few: there, whoever was asked for the
//! longest ago makes room. What is not known was last accessed when it was written. So a full table
//! may let an entry go too early, and never too late.
//!
//! The table takes part of somebody's budget: that is set aside once it is wanted, and used once it
//! is free.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::key::KeyHash;

/// Places among which one is chosen.
const WAYS: usize = 4;

/// So many callers seldom meet at one lock.
const TABLES_MIN: usize = 64;

/// What one caller has to fill with zeros when it is the first at a table.
const TABLE_BYTES_MAX: usize = 256 << 10;

/// Tables of a group.
const GROUP_TABLES: usize = 256;

/// Nanoseconds; all zero where it is vacant.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    hash: u64,
    written: u64,
    accessed: u64,
}

type Set = [Place; WAYS];

type Group = Box<[Mutex<Vec<Set>>]>;

#[derive(Debug)]
pub(crate) struct AccessTimes {
    /// Parts of the table, each made when it is first needed, in groups that are made likewise: a
    /// budget alone takes next to nothing.
    groups: Box<[OnceLock<Group>]>,
    tables: usize,
    sets_per_table: usize,
    /// How many have been made.
    made: AtomicUsize,
    is_wanted: AtomicBool,
    has_room: AtomicBool,
}

impl AccessTimes {
    /// A table of about so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let tables = bytes_max.div_ceil(TABLE_BYTES_MAX).max(TABLES_MIN);
        let tables = tables.min((bytes_max / size_of::<Set>()).max(1));
        Self {
            // Bounded: by the budget: one for each group of tables.
            groups: (0..tables.div_ceil(GROUP_TABLES)).map(|_| OnceLock::new()).collect(),
            tables,
            sets_per_table: (bytes_max / size_of::<Set>() / tables).max(1),
            made: AtomicUsize::new(0),
            is_wanted: AtomicBool::new(false),
            has_room: AtomicBool::new(false),
        }
    }

    /// What it takes by now.
    pub(crate) fn bytes(&self) -> usize {
        self.made.load(Ordering::Relaxed) * self.table_bytes()
    }

    /// What is set aside for it.
    pub(crate) fn bytes_set_aside(&self) -> usize {
        let is_wanted = self.is_wanted.load(Ordering::Relaxed);
        if is_wanted { self.tables * self.table_bytes() } else { 0 }
    }

    fn table_bytes(&self) -> usize {
        self.sets_per_table * size_of::<Set>()
    }

    /// There are entries with an idle ttl that are on disk, or are going to be.
    pub(crate) fn want(&self) {
        self.is_wanted.store(true, Ordering::Relaxed);
    }

    /// What is set aside is free.
    pub(crate) fn give_room(&self) {
        self.has_room.store(true, Ordering::Relaxed);
    }

    /// Whether it takes anything in.
    pub(crate) fn has_room(&self) -> bool {
        self.has_room.load(Ordering::Relaxed)
    }

    /// Remembers when an entry that is on disk, too, was last accessed, if it has an idle ttl.
    pub(crate) fn keep(&self, entry: &Entry) {
        let Some(accessed) = entry.last_access().filter(|at| *at > entry.written) else { return };
        if !self.has_room() {
            return;
        }
        let own = Place { hash: entry.hash.0, written: entry.written.0, accessed: accessed.0 };
        let (table, set) = self.place(entry.hash);
        let group = self.groups[table / GROUP_TABLES]
            // Bounded: by a group.
            .get_or_init(|| (0..GROUP_TABLES).map(|_| Mutex::default()).collect());
        let mut table = group[table % GROUP_TABLES].lock();
        if table.is_empty() {
            table.resize(self.sets_per_table, Set::default());
            self.made.fetch_add(1, Ordering::Relaxed);
        }
        let set = &mut table[set];
        let is_own = |place: &&mut Place| place.is_of(own.hash, own.written);
        if let Some(known) = set.iter_mut().find(is_own) {
            known.accessed = known.accessed.max(own.accessed);
        } else if let Some(oldest) = set.iter_mut().min_by_key(|place| place.accessed) {
            if oldest.accessed < own.accessed {
                *oldest = own;
            }
        }
    }

    /// When what was written then under a hash was last accessed, by what is known.
    pub(crate) fn last(&self, hash: KeyHash, written: Timestamp) -> Timestamp {
        if !self.has_room() {
            return written;
        }
        let (table, set) = self.place(hash);
        let Some(group) = self.groups[table / GROUP_TABLES].get() else { return written };
        let set = group[table % GROUP_TABLES].lock().get(set).copied().unwrap_or_default();
        let known = set.iter().find(|place| place.is_of(hash.0, written.0));
        known.map_or(written, |place| Timestamp(place.accessed))
    }

    /// Which table, and which set of it: multiplies two halves of the hash into their ranges.
    fn place(&self, hash: KeyHash) -> (usize, usize) {
        // Halves of 32 bits, below the range that they are multiplied by.
        #[allow(clippy::cast_possible_truncation)]
        let within = |half: u64, range: usize| ((half * range as u64) >> 32) as usize;
        (within(hash.0 & 0xFFFF_FFFF, self.tables), within(hash.0 >> 32, self.sets_per_table))
    }
}

impl Place {
    fn is_of(&self, hash: u64, written: u64) -> bool {
        self.accessed > 0 && (self.hash, self.written) == (hash, written)
    }
}
