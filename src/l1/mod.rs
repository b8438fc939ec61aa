//! `L1`: the memory tier. A sharded map finds entries, [`Sieve`] orders them, one budget bounds
//! them.
//!
//! An entry may be
//! - in its SIEVE list and in the map: held;
//! - in the map only: an eviction or removal has unlinked it, and no reader finds it, although the
//!   map still has to drop it;
//! - in neither: held only by callers with a hit.
//!
//! It moves only downwards. The caller that unlinks it, and no other, releases its accounting, so
//! that happens once.

mod list;
mod sieve;

use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{iter, mem};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;

pub(crate) use self::list::{EntryOwner, Victim};
pub(crate) use self::sieve::Cursor;
use self::sieve::Sieve;
use crate::config::cores;
use crate::entry::{ENTRY_BYTES, Entry};
use crate::key::{Identity, KeyHash};

/// A map table that grows stalls its shard; tables of up to this many entries grow unnoticed.
const TABLE_ENTRIES_MAX: usize = 8192;

/// A table with room for this many times its entries is shrunk.
const SPARSE: usize = 4;

/// Average number of removals between checks for that.
const REMOVALS_UNASKED: u64 = 64;

#[derive(Debug)]
pub(crate) struct L1 {
    map: DashMap<u64, Arc<Entry>, BuildHasherDefault<Identity>>,
    sieve: Sieve,
    /// Bytes reserved by puts under way.
    reserved: AtomicUsize,
    bytes_max: AtomicUsize,
    quotas: Box<[L1Quota]>,
}

/// Room for an entry of `bytes` that replaces one of `spare` bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Room {
    pub(crate) bytes: usize,
    pub(crate) spare: usize,
}

/// The limit that leaves no room for an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scarce {
    /// The quota of its namespace.
    Quota,
    /// The memory budget.
    Budget,
}

/// The quota of a namespace, and the bytes that its puts under way have reserved.
#[derive(Debug)]
struct L1Quota {
    reserved: AtomicUsize,
    bytes_max: usize,
}

impl L1 {
    /// `quotas`: the byte limits of the namespaces with a quota.
    pub(crate) fn new(
        bytes_max: usize,
        lists: usize,
        quotas: impl Iterator<Item = Option<usize>>,
    ) -> Self {
        let quota = |max: Option<usize>| L1Quota {
            reserved: AtomicUsize::new(0),
            bytes_max: max.unwrap_or(usize::MAX),
        };
        // Bounded: by the quotas of the configuration.
        let quotas: Box<[_]> = quotas.map(quota).collect();
        let tables = bytes_max / ENTRY_BYTES / TABLE_ENTRIES_MAX;
        let tables = tables.max(4 * cores()).next_power_of_two().min(1 << 16);
        Self {
            map: DashMap::with_capacity_and_hasher_and_shard_amount(0, Default::default(), tables),
            sieve: Sieve::new(lists, quotas.len()),
            reserved: AtomicUsize::new(0),
            bytes_max: AtomicUsize::new(bytes_max),
            quotas,
        }
    }

    /// Frees a tier that is out of use, in pieces: each item frees a part, and is its number of
    /// entries.
    pub(crate) fn pieces(self: Arc<Self>) -> impl Iterator<Item = usize> + Send {
        let lists = Arc::clone(&self);
        let tables = (0..self.map.shards().len()).map(move |table| {
            let mut table = self.map.shards()[table].write();
            mem::take(&mut *table)
        });
        let entries = tables.flat_map(|table| table.into_iter().map(|_| 1));
        entries.chain(iter::once_with(move || lists.sieve.pieces()).flatten())
    }

    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max.load(Ordering::SeqCst)
    }

    /// Changes the budget. What exceeds a smaller one has to be evicted by the caller: see
    /// [`Self::is_over`].
    pub(crate) fn set_bytes_max(&self, bytes: usize) {
        self.bytes_max.store(bytes, Ordering::SeqCst);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.sieve.bytes()
    }

    fn reserved(&self) -> usize {
        self.reserved.load(Ordering::SeqCst)
    }

    /// The number of entries that its tables have room for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.map.capacity()
    }

    /// All entries of the tables, including those that were unlinked and wait to be removed.
    #[cfg(test)]
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.map.iter().map(|entry| Arc::clone(&entry)).collect()
    }

    /// The entry of a hash if `wanted` accepts it. `wanted` runs under the read lock of one shard,
    /// and must check whether the entry is held.
    #[inline]
    pub(crate) fn find(
        &self,
        hash: KeyHash,
        wanted: impl FnOnce(&Entry) -> bool,
    ) -> Option<Arc<Entry>> {
        let table = self.map.shards()[self.map.determine_map(&hash.0)].read();
        let (_, entry) = table.get(hash.0, |(key, _)| *key == hash.0)?;
        let entry = entry.get();
        wanted(entry).then(|| Arc::clone(entry))
    }

    /// The place of a hash. Its shard is locked for writing as long as the result lives.
    pub(crate) fn lock_place(&self, hash: KeyHash) -> LockedPlace<'_> {
        LockedPlace { sieve: &self.sieve, place: self.map.entry(hash.0) }
    }

    /// Removes the entry of a hash if it is `unwanted`. None if it is not, or another caller has
    /// unlinked it before.
    pub(crate) fn remove(
        &self,
        hash: KeyHash,
        unwanted: impl FnOnce(&Entry) -> bool,
    ) -> Option<Arc<Entry>> {
        let (_, entry) = self.map.remove_if(&hash.0, |_, entry| unwanted(entry))?;
        self.give_back(hash);
        self.sieve.remove(&entry).then_some(entry)
    }

    /// Removes this very entry.
    pub(crate) fn remove_entry(&self, entry: &Entry) -> bool {
        self.remove(entry.hash, |held| std::ptr::eq(held, entry)).is_some()
    }

    /// Shrinks the table that has just lost this hash, if it is nearly empty: tables grow by
    /// themselves, but do not shrink. Checks only after some removals, chosen by the hash.
    pub(crate) fn give_back(&self, hash: KeyHash) {
        if hash.0 % REMOVALS_UNASKED != 0 {
            return;
        }
        let table = &self.map.shards()[self.map.determine_map(&hash.0)];
        let is_roomy = |entries: usize, capacity: usize| capacity > SPARSE * entries.max(64);
        let (entries, capacity) = {
            let table = table.read();
            (table.len(), table.capacity())
        };
        if is_roomy(entries, capacity) {
            let mut table = table.write();
            let room = 2 * table.len();
            table.shrink_to(room, |(hash, _)| *hash);
        }
    }

    /// Reserves room in the budget, and in the quota of that number, until the reservation is
    /// dropped.
    ///
    /// # Errors
    ///
    /// The limit that leaves no room yet; then nothing is reserved.
    pub(crate) fn reserve(
        &self,
        room: Room,
        quota: Option<usize>,
    ) -> Result<Reservation<'_>, Scarce> {
        let quota = match quota {
            Some(number) => Some(self.reserve_of(number, room).ok_or(Scarce::Quota)?),
            None => None,
        };
        // SeqCst: this sees a new budget, or the caller that sets it sees this.
        self.reserved.fetch_add(room.bytes, Ordering::SeqCst);
        let reservation = Reservation { l1: self, quota, bytes: room.bytes };
        // Reserved before the check, so that of two concurrent callers one at least sees the other.
        let fits = !self.is_over(Room { bytes: 0, ..room }) && self.could_hold(room);
        if fits { Ok(reservation) } else { Err(Scarce::Budget) }
    }

    fn reserve_of(&self, number: usize, Room { bytes, spare }: Room) -> Option<&L1Quota> {
        let quota = &self.quotas[number];
        let max = quota.bytes_max.saturating_add(spare);
        let reserve = |reserved: usize| {
            let used = self.sieve.bytes_of(number).saturating_add(reserved);
            (used.saturating_add(bytes) <= max).then(|| reserved.saturating_add(bytes))
        };
        let order = Ordering::Relaxed;
        quota.reserved.fetch_update(order, order, reserve).is_ok().then_some(quota)
    }

    /// See [`Sieve::bytes_of`].
    pub(crate) fn bytes_of(&self, quota: usize) -> usize {
        self.sieve.bytes_of(quota)
    }

    /// Whether the entries exceed the quota of that number.
    pub(crate) fn is_beyond(&self, quota: usize) -> bool {
        self.sieve.bytes_of(quota) > self.quotas[quota].bytes_max
    }

    /// Evicts one entry if there is too little room, as long as `steps` last, which it uses up.
    /// Steps are left if no entry of a priority up to `priority` can be evicted.
    pub(crate) fn evict(
        &self,
        room: Room,
        priority: u8,
        steps: &mut usize,
        owner: &dyn EntryOwner,
    ) -> Option<Victim> {
        if !self.is_over(room) {
            return None;
        }
        let victim = self.sieve.evict(priority, steps, owner)?;
        Some(self.unmapped(victim))
    }

    /// Whether there are entries of priorities up to `priority`.
    pub(crate) fn holds_any(&self, priority: u8) -> bool {
        self.sieve.holds_any(priority)
    }

    /// Evicts an entry of the namespace with the quota of that number, likewise, whether or not the
    /// budget requires it.
    pub(crate) fn evict_of(
        &self,
        quota: usize,
        priority: u8,
        steps: &mut usize,
        owner: &dyn EntryOwner,
    ) -> Option<Victim> {
        let victim = self.sieve.evict_of(quota, priority, steps, owner)?;
        Some(self.unmapped(victim))
    }

    fn unmapped(&self, victim: Victim) -> Victim {
        if let Victim::Evicted(entry) = &victim {
            let mut table = self.map.shards()[self.map.determine_map(&entry.hash.0)].write();
            entry.prefetch_value();
            table.remove_entry(entry.hash.0, |(_, held)| Arc::ptr_eq(held.get(), entry));
            drop(table);
            self.give_back(entry.hash);
        }
        victim
    }

    /// Whether the budget has room for such an entry if it holds nothing else.
    pub(crate) fn could_hold(&self, room: Room) -> bool {
        room.bytes <= self.bytes_max()
    }

    /// Whether entries, and puts that have reserved room for theirs, exceed the budget.
    pub(crate) fn exceeds_budget(&self) -> bool {
        // Before the bytes: an entry counts there before its reservation ends.
        let reserved = self.reserved();
        self.bytes().saturating_add(reserved) > self.bytes_max()
    }

    /// Whether there is too little room, and an eviction can help.
    pub(crate) fn is_over(&self, Room { bytes, spare }: Room) -> bool {
        // Before the bytes: an entry counts there before its reservation ends.
        let reserved = self.reserved();
        let used = self.bytes();
        let wanted = used.saturating_add(reserved).saturating_add(bytes);
        used > 0 && wanted > self.bytes_max().saturating_add(spare)
    }

    /// See [`Sieve::moves`].
    pub(crate) fn moves(&self) -> u64 {
        self.sieve.moves()
    }

    /// See [`Sieve::visit`].
    pub(crate) fn visit(
        &self,
        cursor: Cursor,
        limit: usize,
        found: &mut Vec<Arc<Entry>>,
    ) -> Option<Cursor> {
        self.sieve.visit(cursor, limit, found)
    }
}

/// The place of one hash, locked.
pub(crate) struct LockedPlace<'a> {
    sieve: &'a Sieve,
    place: MapEntry<'a, u64, Arc<Entry>>,
}

impl LockedPlace<'_> {
    /// The entry that is held there.
    pub(crate) fn entry(&self) -> Option<&Arc<Entry>> {
        match &self.place {
            MapEntry::Occupied(place) => Some(place.get()).filter(|entry| entry.is_held()),
            MapEntry::Vacant(_) => None,
        }
    }

    /// Puts `entry` there. Returns the replaced entry, unless another caller has unlinked it
    /// before.
    pub(crate) fn put(self, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        match self.place {
            MapEntry::Occupied(mut place) => {
                let is_replaced = self.sieve.replace(place.get(), &entry);
                let old = place.insert(entry);
                is_replaced.then_some(old)
            }
            MapEntry::Vacant(place) => {
                self.sieve.insert(&entry);
                place.insert(entry);
                None
            }
        }
    }

    /// Puts a copy in place of the entry that is there, in whose node a walk meets it. None if
    /// another caller has unlinked that: then nothing has changed.
    pub(crate) fn replace(self, copy: Arc<Entry>) -> Option<Arc<Entry>> {
        let MapEntry::Occupied(mut place) = self.place else { return None };
        self.sieve.swap(place.get(), &copy).then(|| place.insert(copy))
    }

    /// Empties the place. Returns its entry, likewise.
    pub(crate) fn remove(self) -> Option<Arc<Entry>> {
        let MapEntry::Occupied(place) = self.place else { return None };
        let old = place.remove();
        self.sieve.remove(&old).then_some(old)
    }
}

/// Budget that a put under way has reserved.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    l1: &'a L1,
    quota: Option<&'a L1Quota>,
    bytes: usize,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.l1.reserved.fetch_sub(self.bytes, Ordering::SeqCst);
        if let Some(quota) = self.quota {
            quota.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}
