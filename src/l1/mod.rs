//! `L1`: the memory tier. A sharded map finds entries, [`Sieve`] orders them, one budget bounds
//! them.
//!
//! An entry may be
//! - in its SIEVE list and in the map: held;
//! - in the map only: it was unlinked by its eviction or removal, and to every reader
//!   it is gone, though the map has still to let go of it;
//! - in neither: with callers that hold a hit.
//!
//! It moves downwards only. Whoever takes it out of its list, and nobody else, settles what hangs
//! on it: that happens once.

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

/// A table with room for so many times what it holds is made smaller.
const SPARSE: usize = 4;

/// Removals from one to the next after which that is looked at, on average.
const REMOVALS_UNASKED: u64 = 64;

#[derive(Debug)]
pub(crate) struct L1 {
    map: DashMap<u64, Arc<Entry>, BuildHasherDefault<Identity>>,
    sieve: Sieve,
    /// What puts under way will count.
    reserved: AtomicUsize,
    bytes_max: usize,
    quotas: Box<[L1Quota]>,
}

/// Room for an entry of `bytes` that is to take the place of one with `spare`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Room {
    pub(crate) bytes: usize,
    pub(crate) spare: usize,
}

/// What has no room for an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scarce {
    /// The quota of its namespace.
    Quota,
    /// The budget of all.
    Budget,
}

/// What the entries of a namespace may count, and what its puts under way will.
#[derive(Debug)]
struct L1Quota {
    reserved: AtomicUsize,
    bytes_max: usize,
}

impl L1 {
    /// `quotas`: what each of the namespaces that have one may count.
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
            bytes_max,
            quotas,
        }
    }

    /// Empties a tier that is not used any more: each item frees a part, and says how many entries
    /// that was.
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
        self.bytes_max
    }

    pub(crate) fn bytes(&self) -> usize {
        self.sieve.bytes()
    }

    fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }

    /// How many entries its tables have room for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.map.capacity()
    }

    /// All that the tables hold, also what has gone and waits to be removed.
    #[cfg(test)]
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.map.iter().map(|entry| Arc::clone(&entry)).collect()
    }

    /// The entry under a hash, if it is `wanted`, which is asked under the read side of one shard,
    /// and has to ask whether it is held.
    #[inline]
    pub(crate) fn find(
        &self,
        hash: KeyHash,
        wanted: impl FnOnce(&Entry) -> bool,
    ) -> Option<Arc<Entry>> {
        let look = |_: &u64, entry: &Arc<Entry>| wanted(entry).then(|| Arc::clone(entry));
        self.map.view(&hash.0, look).flatten()
    }

    /// The place of a hash, with its shard locked for writing for as long as the slot lives.
    pub(crate) fn lock_place(&self, hash: KeyHash) -> LockedPlace<'_> {
        LockedPlace { sieve: &self.sieve, place: self.map.entry(hash.0) }
    }

    /// Removes the entry under a hash if `unwanted`. None where it is not, or where somebody else
    /// has taken it out before.
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

    /// Gives back memory of the table that has just lost this hash, should it hold next to nothing:
    /// tables grow by themselves, but do not shrink. Asked after one removal in so many, which the
    /// hash decides.
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

    /// Counts what is wanted against the budget from now on, until the reservation is dropped, and
    /// against the quota of that number.
    ///
    /// # Errors
    ///
    /// What has no room for it yet; then nothing is counted.
    pub(crate) fn reserve(
        &self,
        room: Room,
        quota: Option<usize>,
    ) -> Result<Reservation<'_>, Scarce> {
        let quota = match quota {
            Some(number) => Some(self.reserve_of(number, room).ok_or(Scarce::Quota)?),
            None => None,
        };
        self.reserved.fetch_add(room.bytes, Ordering::Relaxed);
        let reservation = Reservation { l1: self, quota, bytes: room.bytes };
        // Counted first, so that of two who reserve at a time one at least sees the other.
        match self.is_over(Room { bytes: 0, ..room }) {
            true => Err(Scarce::Budget),
            false => Ok(reservation),
        }
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

    /// Whether what is held is more than the quota of that number.
    pub(crate) fn is_beyond(&self, quota: usize) -> bool {
        self.sieve.bytes_of(quota) > self.quotas[quota].bytes_max
    }

    /// Evicts while there is not so much room, for as long as `steps` last, which it uses up. Gives
    /// one victim at a time. Pacer are left where there is nothing to evict, of priorities up to
    /// `priority`.
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

    /// Evicts an entry of the namespace that has the quota of that number, likewise, whether or not
    /// the budget asks for it.
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
            self.map.remove_if(&entry.hash.0, |_, held| Arc::ptr_eq(held, entry));
            self.give_back(entry.hash);
        }
        victim
    }

    /// Whether there is less room than that, and evicting can give more.
    pub(crate) fn is_over(&self, Room { bytes, spare }: Room) -> bool {
        let used = self.bytes();
        let wanted = used.saturating_add(self.reserved()).saturating_add(bytes);
        used > 0 && wanted > self.bytes_max.saturating_add(spare)
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
    /// What is held there.
    pub(crate) fn entry(&self) -> Option<&Arc<Entry>> {
        match &self.place {
            MapEntry::Occupied(place) => Some(place.get()).filter(|entry| entry.is_held()),
            MapEntry::Vacant(_) => None,
        }
    }

    /// Puts `entry` there. Gives what it replaces, unless somebody else has taken that out before.
    pub(crate) fn put(self, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        self.sieve.insert(&entry);
        match self.place {
            MapEntry::Occupied(mut place) => {
                let old = place.insert(entry);
                self.sieve.remove(&old).then_some(old)
            }
            MapEntry::Vacant(place) => {
                place.insert(entry);
                None
            }
        }
    }

    /// Empties the place. Gives what was there, likewise.
    pub(crate) fn remove(self) -> Option<Arc<Entry>> {
        let MapEntry::Occupied(place) = self.place else { return None };
        let old = place.remove();
        self.sieve.remove(&old).then_some(old)
    }
}

/// Budget that a put under way has set aside.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    l1: &'a L1,
    quota: Option<&'a L1Quota>,
    bytes: usize,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.l1.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
        if let Some(quota) = self.quota {
            quota.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}
