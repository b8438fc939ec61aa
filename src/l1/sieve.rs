//! `Sieve`: the order in which entries leave memory.
//!
//! SIEVE (Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024, Algorithm 1): a new entry goes to
//! the head of its list, unvisited. A hit marks it visited and moves nothing. To find a victim, a
//! hand walks on from where it last stopped, from older to newer: it clears and spares visited
//! entries, and evicts the first other one. Past the head it starts again at the tail.
//!
//! A dead entry, whose namespace was flushed or whose lifetime has ended, is not spared even if it
//! was visited.
//!
//! Each priority in use has its own SIEVE, and victims come from the lowest one with entries. So
//! that threads can insert and remove at the same time, a SIEVE can be cut into lists by hash.
//! There is still one hand: lists know when each entry was inserted, so the hand continues in the
//! list with the oldest entry that it has not passed, as if all were one list. So the algorithm
//! is followed exactly, whatever the number of lists.
//!
//! Invariants, under a list's lock: an entry's `ListNode` names its node while it is linked, and
//! nothing otherwise; the list's part of the hand is on one of its nodes, or past its head. The
//! hand's own lock is taken before a list's, and only to evict.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::{iter, mem, ptr};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use crate::entry::Entry;
use crate::key::KeyHash;

use super::list::{EntryOwner, List, Victim};

const PRIORITIES: usize = 256;

/// In a walk over all entries, passing so many empty nodes, or one list, counts as one entry.
const EMPTY_NODES: usize = 64;

#[derive(Debug)]
pub(crate) struct Sieve {
    /// By priority; created at first use.
    levels: Box<[OnceLock<Level>]>,
    /// Bit set of the priorities that have a level, so that an eviction need not visit all.
    priorities: [AtomicU64; PRIORITIES / 64],
    lists: usize,
    /// The bytes of each namespace with a quota, whose entries have their own lists.
    quotas: Box<[AtomicUsize]>,
    /// The bytes of all entries.
    bytes: AtomicUsize,
    /// The number of insertions so far.
    insertions: AtomicU64,
    /// How often an entry was replaced by one in another list.
    moves: AtomicU64,
}

/// The entries of one priority.
#[derive(Debug)]
struct Level {
    /// Chosen by hash.
    lists: Box<[CachePadded<Shard>]>,
    /// Each for the entries of one namespace with a quota; created at first use.
    quotas: Box<[OnceLock<Box<Shard>>]>,
    /// Held while the hand moves.
    hand: Mutex<()>,
}

#[derive(Debug)]
struct Shard {
    list: Mutex<List>,
    /// The insertion number of the entry that the hand would meet here: changed under the lock,
    /// read without it to choose a list. The highest number if the hand is past the head.
    next: AtomicU64,
    /// Likewise.
    is_empty: AtomicBool,
}

/// A place in a walk over all entries: level, list, node. Walks go upwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Cursor {
    level: usize,
    list: usize,
    node: usize,
}

impl Sieve {
    pub(crate) fn new(lists: usize, quotas: usize) -> Self {
        // Bounded: by the priorities.
        let levels = (0..PRIORITIES).map(|_| OnceLock::new()).collect();
        // Bounded: by the quotas of the configuration.
        let quotas = (0..quotas).map(|_| AtomicUsize::new(0)).collect();
        Self {
            levels,
            priorities: Default::default(),
            lists,
            quotas,
            bytes: AtomicUsize::new(0),
            insertions: AtomicU64::new(0),
            moves: AtomicU64::new(0),
        }
    }

    /// Takes all lists, to free them in pieces: each item frees a part, and is its number of
    /// entries.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = usize> + Send + use<> {
        let levels = self.levels.iter().filter_map(OnceLock::get);
        let shards =
            levels.flat_map(|level| (0..level.places()).filter_map(|place| level.at(place)));
        // Bounded: by the number of lists.
        let lists: Vec<List> = shards.map(|shard| mem::take(&mut *shard.list.lock())).collect();
        lists.into_iter().flat_map(List::pieces)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The bytes of the namespace with the quota of that number, including generations that have
    /// ended.
    pub(crate) fn bytes_of(&self, quota: usize) -> usize {
        self.quotas[quota].load(Ordering::Relaxed)
    }

    /// Inserts a new entry at the head of its list.
    pub(crate) fn insert(&self, entry: &Arc<Entry>) {
        let level = self.level_of(entry.priority);
        self.count(entry);
        level.shard(entry).change(|list| list.push(entry, self.next_insertion()));
    }

    /// The same in place of an entry. False if another caller has unlinked that before.
    pub(crate) fn replace(&self, old: &Entry, entry: &Arc<Entry>) -> bool {
        let level = self.level_of(entry.priority);
        let shard = level.shard(entry);
        let same = old.priority == entry.priority && ptr::eq(level.shard(old), shard);
        if !same {
            self.insert(entry);
            self.moves.fetch_add(1, Ordering::Release);
            return self.remove(old);
        }
        self.count(entry);
        let replaced = shard.change(|list| list.replace(old, entry, self.next_insertion()));
        if replaced {
            self.uncount(old);
        }
        replaced
    }

    /// Puts a copy of an entry in its place, of the same list. False if another caller has unlinked
    /// that before: then nothing has changed.
    pub(crate) fn swap(&self, old: &Entry, copy: &Arc<Entry>) -> bool {
        let shard = self.level_of(copy.priority).shard(copy);
        self.count(copy);
        let swapped = shard.change(|list| list.swap(old, copy, self.next_insertion()));
        self.uncount(if swapped { old } else { copy });
        swapped
    }

    /// As long as this stays the same, no key has got an entry in another list than before.
    pub(crate) fn moves(&self) -> u64 {
        self.moves.load(Ordering::Acquire)
    }

    fn level_of(&self, priority: u8) -> &Level {
        self.levels[usize::from(priority)].get_or_init(|| {
            let bits = &self.priorities[usize::from(priority) / 64];
            bits.fetch_or(1 << (priority % 64), Ordering::Relaxed);
            self.level()
        })
    }

    /// Called under the list's lock, so that each list is in the order of insertions.
    fn next_insertion(&self) -> u64 {
        self.insertions.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts an entry before it is linked: from then on it may be evicted and uncounted at any
    /// moment.
    fn count(&self, entry: &Entry) {
        self.bytes.fetch_add(entry.charge, Ordering::Relaxed);
        if let Some(quota) = entry.generation.quota() {
            self.quotas[quota.number].fetch_add(entry.charge, Ordering::Relaxed);
        }
    }

    /// Removes an entry. False if another caller has unlinked it before.
    pub(crate) fn remove(&self, entry: &Entry) -> bool {
        let Some(level) = self.levels[usize::from(entry.priority)].get() else { return false };
        let shard = level.shard(entry);
        let has_quota = entry.generation.quota().is_some();
        let removed = shard.change(|list| {
            let was_passed = list.is_passed();
            let removed = list.remove(entry);
            // As in `evict_of`; but if the common hand had passed this list, that stays so.
            if has_quota && !was_passed {
                list.start_again_if_passed();
            }
            removed
        });
        if removed {
            self.uncount(entry);
            if shard.is_passed() {
                level.start_again_if_passed();
            }
        }
        removed
    }

    /// Evicts the next victim of priorities up to `priority`, if the hand finds it within `steps`,
    /// which it uses up. None with steps left: no entry can be evicted.
    pub(crate) fn evict(
        &self,
        priority: u8,
        steps: &mut usize,
        owner: &dyn EntryOwner,
    ) -> Option<Victim> {
        let level = self.levels_up_to(priority).find(|level| level.holds_any())?;
        let victim = level.evict(steps, owner)?;
        Some(self.uncounted(victim))
    }

    /// Whether there are entries of priorities up to `priority`.
    pub(crate) fn holds_any(&self, priority: u8) -> bool {
        self.levels_up_to(priority).any(Level::holds_any)
    }

    /// Evicts the next victim from the list of a quota, likewise. Only its part of the hand moves,
    /// and starts again at its tail.
    pub(crate) fn evict_of(
        &self,
        quota: usize,
        priority: u8,
        steps: &mut usize,
        owner: &dyn EntryOwner,
    ) -> Option<Victim> {
        // Bounded: by the number of priorities.
        for level in self.levels_up_to(priority) {
            if let Some(victim) = level.evict_of(quota, steps, owner) {
                return Some(self.uncounted(victim));
            }
        }
        None
    }

    /// The levels of priorities up to `priority`, the lowest first.
    fn levels_up_to(&self, priority: u8) -> impl Iterator<Item = &Level> {
        // A level's bit is set before the level can be found.
        let words = self.priorities.iter().map(|bits| bits.load(Ordering::Relaxed)).enumerate();
        // Bounded: by the priorities in use.
        let numbers = words.flat_map(|(word, bits)| ones(bits).map(move |bit| 64 * word + bit));
        numbers
            .take_while(move |number| *number <= usize::from(priority))
            .filter_map(|number| self.levels[number].get())
    }

    fn level(&self) -> Level {
        Level::new(self.lists, self.quotas.len())
    }

    /// Adds up to `limit` entries from `cursor` on to `found`, and returns where to continue, at
    /// another entry if there is one near; None at the end. Does not visit entries that are
    /// inserted behind the cursor meanwhile.
    pub(crate) fn visit(
        &self,
        mut cursor: Cursor,
        limit: usize,
        found: &mut Vec<Arc<Entry>>,
    ) -> Option<Cursor> {
        let most = found.len() + limit;
        let mut nodes_left = (limit + self.lists) * EMPTY_NODES;
        // Bounded: by the nodes that are left.
        while nodes_left > 0 {
            let level = self.levels.get(cursor.level)?;
            let level = level.get().filter(|level| cursor.list < level.places());
            let Some(level) = level else {
                cursor = Cursor { level: cursor.level + 1, ..Cursor::default() };
                continue;
            };
            let (visited, next) = match level.at(cursor.list) {
                Some(shard) => shard.list.lock().visit(cursor.node, nodes_left, most, found),
                None => (0, None),
            };
            cursor = match next {
                Some(node) => Cursor { node, ..cursor },
                None => Cursor { list: cursor.list + 1, node: 0, ..cursor },
            };
            if next.is_some() && found.len() == most {
                break;
            }
            nodes_left = nodes_left.saturating_sub(visited.max(EMPTY_NODES));
        }
        Some(cursor)
    }

    fn uncounted(&self, victim: Victim) -> Victim {
        if let Victim::Evicted(entry) = &victim {
            self.uncount(entry);
        }
        victim
    }

    fn uncount(&self, entry: &Entry) {
        self.bytes.fetch_sub(entry.charge, Ordering::Relaxed);
        if let Some(quota) = entry.generation.quota() {
            self.quotas[quota.number].fetch_sub(entry.charge, Ordering::Relaxed);
        }
    }
}

/// The numbers of the bits that are set, the lowest first.
fn ones(mut bits: u64) -> impl Iterator<Item = usize> {
    iter::from_fn(move || {
        let lowest = bits.trailing_zeros() as usize;
        bits &= bits.wrapping_sub(1);
        (lowest < 64).then_some(lowest)
    })
}

impl Level {
    fn new(lists: usize, quotas: usize) -> Self {
        // Bounded: by the lists of the configuration.
        let lists = (0..lists).map(|_| CachePadded::new(Shard::new())).collect();
        // Bounded: by the quotas of the configuration.
        let quotas = (0..quotas).map(|_| OnceLock::new()).collect();
        Self { lists, quotas, hand: Mutex::new(()) }
    }

    /// The list of an entry: that of its namespace's quota, or one by hash.
    fn shard(&self, entry: &Entry) -> &Shard {
        match entry.generation.quota() {
            Some(quota) => self.quotas[quota.number].get_or_init(|| Box::new(Shard::new())),
            None => self.shard_of(entry.hash),
        }
    }

    /// The number of lists there may be.
    fn places(&self) -> usize {
        self.lists.len() + self.quotas.len()
    }

    fn at(&self, place: usize) -> Option<&Shard> {
        match place.checked_sub(self.lists.len()) {
            None => Some(&self.lists[place]),
            Some(quota) => self.quotas[quota].get().map(|shard| &**shard),
        }
    }

    fn shards(&self) -> impl Iterator<Item = &Shard> {
        let quotas = self.quotas.iter().filter_map(OnceLock::get).map(|shard| &**shard);
        self.lists.iter().map(|shard| &**shard).chain(quotas)
    }

    /// Multiplies the hash into the range, so that the number of lists need not be a power of two.
    /// Rotates it first, because its high bits already choose a place in the lookup table.
    fn shard_of(&self, hash: KeyHash) -> &Shard {
        let turned = u128::from(hash.0.rotate_left(24));
        let home = (turned * self.lists.len() as u128) >> 64;
        &self.lists[usize::try_from(home).unwrap_or(0)]
    }

    fn holds_any(&self) -> bool {
        self.shards().any(|shard| !shard.is_empty.load(Ordering::Relaxed))
    }

    /// Moves the hand to a victim.
    fn evict(&self, steps: &mut usize, owner: &dyn EntryOwner) -> Option<Victim> {
        let _hand = self.hand.lock();
        // Bounded: by the steps that are left, see `advance`.
        while *steps > 0 {
            let (shard, until) = self.next_list();
            let step = shard.change(|list| list.advance(until, steps, owner));
            if shard.is_passed() && self.next_list().0.is_passed() {
                self.start_again();
                *steps = steps.saturating_sub(1);
            }
            if step.is_some() {
                return step;
            }
        }
        None
    }

    /// The same in the list of a quota. Past its newest entry the hand starts again at once, so
    /// that it does not meet a new entry next.
    fn evict_of(&self, quota: usize, steps: &mut usize, owner: &dyn EntryOwner) -> Option<Victim> {
        let shard = self.quotas[quota].get()?;
        let _hand = self.hand.lock();
        // Bounded: by the steps that are left, see `advance`.
        while *steps > 0 {
            let (victim, is_empty) = shard.change(|list| {
                list.start_again_if_passed();
                let victim = list.advance(u64::MAX, steps, owner);
                list.start_again_if_passed();
                (victim, list.is_empty())
            });
            if victim.is_some() || is_empty {
                return victim;
            }
        }
        None
    }

    /// Moves the hand from past the newest entry of all back to the oldest.
    fn start_again(&self) {
        // Bounded: by the number of lists.
        self.shards().for_each(|shard| shard.change(List::start_again));
    }

    /// The same if a removal has left the hand there. If an eviction holds the hand, that does it.
    fn start_again_if_passed(&self) {
        if self.next_list().0.is_passed() {
            if let Some(_hand) = self.hand.try_lock() {
                self.start_again();
            }
        }
    }

    /// The list in which the hand continues, and the insertion number at which it would change
    /// lists.
    fn next_list(&self) -> (&Shard, u64) {
        let (mut first, mut first_at, mut second_at) = (&*self.lists[0], u64::MAX, u64::MAX);
        // Bounded: by the number of lists.
        for shard in self.shards() {
            let at = shard.next.load(Ordering::Relaxed);
            if at < first_at {
                (first, first_at, second_at) = (shard, at, first_at);
            } else {
                second_at = second_at.min(at);
            }
        }
        (first, second_at)
    }
}

impl Shard {
    fn new() -> Self {
        Self {
            list: Mutex::default(),
            next: AtomicU64::new(u64::MAX),
            is_empty: AtomicBool::new(true),
        }
    }

    /// Changes the list, and publishes where the hand would continue in it and whether it is empty.
    fn change<T>(&self, change: impl FnOnce(&mut List) -> T) -> T {
        let mut list = self.list.lock();
        let changed = change(&mut list);
        self.next.store(list.next_insertion(), Ordering::Relaxed);
        self.is_empty.store(list.is_empty(), Ordering::Relaxed);
        changed
    }

    /// Whether the hand is past the head here.
    fn is_passed(&self) -> bool {
        self.next.load(Ordering::Relaxed) == u64::MAX
    }
}
