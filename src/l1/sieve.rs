//! `Sieve`: the order in which entries leave memory.
//!
//! SIEVE (Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024, Algorithm 1): a new entry goes to
//! the head of its list, unvisited. A hit marks it visited and moves nothing. For a victim, a hand
//! walks from where it stopped last, from older to newer: it clears and spares the visited, and
//! takes the first that is not. Past the head it begins again at the tail.
//!
//! Each priority in use has a SIEVE of its own, and victims come from the lowest one that holds
//! anything. To let threads put at the same time, each is cut into lists by hash; a victim is then
//! taken from a list that holds at least its share of the bytes, nearest to the list that grows, so
//! that the lists stay alike and the budget remains one for all. With one list the algorithm is
//! followed to the letter.
//!
//! Invariants, under a list's lock: an entry's seat names its node while it is in the list, and
//! nothing otherwise; the hand is on a node of the list, or off it, which means at the tail next.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use crate::entry::Entry;
use crate::key::KeyHash;

use super::list::{List, Victim};

const PRIORITIES: usize = 256;

#[derive(Debug)]
pub(crate) struct Sieve {
    /// By priority; made when first needed.
    levels: Box<[OnceLock<Level>]>,
    lists: usize,
    /// What all entries count.
    bytes: AtomicUsize,
}

/// The entries of one priority.
#[derive(Debug)]
struct Level {
    lists: Box<[CachePadded<Shard>]>,
    bytes: AtomicUsize,
}

#[derive(Debug, Default)]
struct Shard {
    list: Mutex<List>,
    /// What its entries count: changed under the lock, read without it to choose a list.
    bytes: AtomicUsize,
}

/// A place in a walk over all entries: level, list, node. Walks go upwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Cursor {
    level: usize,
    list: usize,
    node: usize,
}

impl Sieve {
    pub(crate) fn new(lists: usize) -> Self {
        let levels = (0..PRIORITIES).map(|_| OnceLock::new()).collect();
        Self { levels, lists, bytes: AtomicUsize::new(0) }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Takes a new entry in at the head of its list.
    pub(crate) fn insert(&self, entry: &Arc<Entry>) {
        let level = self.levels[usize::from(entry.priority)]
            .get_or_init(|| Level { lists: Level::lists(self.lists), bytes: AtomicUsize::new(0) });
        let shard = &level.lists[level.home(entry.hash)];
        let mut list = shard.list.lock();
        list.push(entry);
        shard.bytes.fetch_add(entry.charge, Ordering::Relaxed);
        level.bytes.fetch_add(entry.charge, Ordering::Relaxed);
        self.bytes.fetch_add(entry.charge, Ordering::Relaxed);
    }

    /// Takes an entry out. False where somebody else has done so before.
    pub(crate) fn remove(&self, entry: &Entry) -> bool {
        let Some(level) = self.levels[usize::from(entry.priority)].get() else { return false };
        let shard = &level.lists[level.home(entry.hash)];
        let mut list = shard.list.lock();
        let removed = list.remove(entry);
        if removed {
            self.uncount(level, shard, entry.charge);
        }
        removed
    }

    /// Takes the next victim out, where the hand finds it within `steps`, which it uses up. `near`
    /// is the hash of what needs the room. None: no victim yet, or nothing to evict.
    pub(crate) fn evict(&self, near: KeyHash, steps: &mut usize) -> Option<Arc<Entry>> {
        let level = self.levels.iter().filter_map(OnceLock::get).find(|level| level.holds_any())?;
        let shard = level.shard_to_evict_from(near);
        let mut list = shard.list.lock();
        match list.evict(steps) {
            Victim::Found(entry) => {
                self.uncount(level, shard, entry.charge);
                Some(entry)
            }
            Victim::NotYet => None,
            Victim::Empty => {
                *steps = steps.saturating_sub(1);
                None
            }
        }
    }

    /// Adds the entries of up to `limit` nodes from `cursor` on to `found`, and gives where to go
    /// on; None at the end. What is inserted behind the cursor meanwhile is not visited.
    pub(crate) fn visit(
        &self,
        mut cursor: Cursor,
        limit: usize,
        found: &mut Vec<Arc<Entry>>,
    ) -> Option<Cursor> {
        let mut left = limit;
        while left > 0 {
            let level = self.levels.get(cursor.level)?;
            let shard = level.get().and_then(|level| level.lists.get(cursor.list));
            cursor = match shard {
                None => Cursor { level: cursor.level + 1, ..Cursor::default() },
                Some(shard) => match shard.list.lock().visit(cursor.node, left, found) {
                    Some(node) => Cursor { node, ..cursor },
                    None => Cursor { list: cursor.list + 1, node: 0, ..cursor },
                },
            };
            left = limit.saturating_sub(found.len());
        }
        Some(cursor)
    }

    fn uncount(&self, level: &Level, shard: &Shard, charge: usize) {
        shard.bytes.fetch_sub(charge, Ordering::Relaxed);
        level.bytes.fetch_sub(charge, Ordering::Relaxed);
        self.bytes.fetch_sub(charge, Ordering::Relaxed);
    }
}

impl Level {
    fn lists(number: usize) -> Box<[CachePadded<Shard>]> {
        (0..number).map(|_| CachePadded::default()).collect()
    }

    /// Multiplies the hash's upper half into the range, so that the number need not be a power of
    /// two, and the bits that choose a slot of the lookup table are not used again.
    fn home(&self, hash: KeyHash) -> usize {
        let upper = u128::from(hash.0.rotate_left(24));
        let home = (upper * self.lists.len() as u128) >> 64;
        usize::try_from(home).unwrap_or(0)
    }

    fn holds_any(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > 0
    }

    /// The first list from the home of `near` on that holds its share. One always does, but for
    /// changes in between; then the home serves.
    fn shard_to_evict_from(&self, near: KeyHash) -> &Shard {
        let home = self.home(near);
        let number = self.lists.len();
        let share = self.bytes.load(Ordering::Relaxed) / number;
        (0..number)
            .map(|offset| &self.lists[(home + offset) % number])
            .find(|shard| shard.bytes.load(Ordering::Relaxed) >= share.max(1))
            .unwrap_or(&self.lists[home])
    }
}
