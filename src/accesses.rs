//! `Accesses`: when an entry with an idle ttl was last asked for, once memory has let go of it.
//!
//! Records are not written anew for being read, so memory has to know. It does for so many entries
//! as a table of fixed size has places for, in sets of a few: there, whoever was asked for the
//! longest ago makes room. What is not known was last accessed when it was written. So a full table
//! may let an entry go too early, and never too late.

use std::sync::OnceLock;

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::key::KeyHash;

/// Places among which one is chosen.
const WAYS: usize = 4;

/// So many callers seldom meet at one lock.
const TABLES: usize = 64;

/// Nanoseconds; all zero where it is vacant.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    hash: u64,
    written: u64,
    accessed: u64,
}

type Set = [Place; WAYS];

#[derive(Debug)]
pub(crate) struct Accesses {
    /// Made when the first entry with an idle ttl leaves memory, or is read from disk.
    tables: OnceLock<Box<[Mutex<Vec<Set>>]>>,
    sets_per_table: usize,
}

impl Accesses {
    /// A table of about so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let sets_per_table = (bytes_max / size_of::<Set>() / TABLES).max(1);
        Self { tables: OnceLock::new(), sets_per_table }
    }

    pub(crate) fn bytes(&self) -> usize {
        let bytes = TABLES * self.sets_per_table * size_of::<Set>();
        self.tables.get().map_or(0, |_| bytes)
    }

    /// Remembers when an entry that is on disk, too, was last accessed, if it has an idle ttl.
    pub(crate) fn keep(&self, entry: &Entry) {
        let Some(accessed) = entry.last_access().filter(|at| *at > entry.written) else { return };
        let accessed = accessed.0;
        let tables = self.tables.get_or_init(|| self.make());
        let (table, set) = self.place(entry.hash);
        let mut table = tables[table].lock();
        let set = &mut table[set];
        let own = Place { hash: entry.hash.0, written: entry.written.0, accessed };
        let is_own = |place: &&mut Place| place.is_of(own.hash, own.written);
        if let Some(known) = set.iter_mut().find(is_own) {
            known.accessed = known.accessed.max(accessed);
        } else if let Some(oldest) = set.iter_mut().min_by_key(|place| place.accessed) {
            *oldest = own;
        }
    }

    /// When what was written then under a hash was last accessed, by what is known.
    pub(crate) fn last(&self, hash: KeyHash, written: Timestamp) -> Timestamp {
        let Some(tables) = self.tables.get() else { return written };
        let (table, set) = self.place(hash);
        let set = tables[table].lock()[set];
        let known = set.iter().find(|place| place.is_of(hash.0, written.0));
        known.map_or(written, |place| Timestamp(place.accessed))
    }

    fn make(&self) -> Box<[Mutex<Vec<Set>>]> {
        let table = || vec![Set::default(); self.sets_per_table];
        (0..TABLES).map(|_| Mutex::new(table())).collect()
    }

    /// Which table, and which set of it: multiplies two halves of the hash into their ranges.
    fn place(&self, hash: KeyHash) -> (usize, usize) {
        // Halves of 32 bits, below the range that they are multiplied by.
        #[allow(clippy::cast_possible_truncation)]
        let within = |half: u64, range: usize| ((half * range as u64) >> 32) as usize;
        (within(hash.0 & 0xFFFF_FFFF, TABLES), within(hash.0 >> 32, self.sets_per_table))
    }
}

impl Place {
    fn is_of(&self, hash: u64, written: u64) -> bool {
        self.accessed > 0 && (self.hash, self.written) == (hash, written)
    }
}
