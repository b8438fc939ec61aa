//! `Index`: finds the last record of each key hash. The in-memory index of L2.
//!
//! # Contract
//! A map from the full 64-bit [`KeyHash`] to a [`Slot`], at about 22.4 bytes an entry in a large
//! index, all slack included. Calls never block for long: a lock guards one table of some hundred
//! slots and is held for one step on it. The index decides nothing: the commit section decides
//! which slots are replaced and removed.
//!
//! One writer at a time is expected (it holds the append lock), readers at any time. Racing writers
//! would be safe too; the outcome is one of the two orders.
//!
//! # Algorithm
//! Linear hashing (Litwin, 1980) over small tables that each grow alone. The low bits of the mixed
//! hash choose the table. Whenever there are more than `SHARE` entries for each table, the
//! next table in order splits in two by one more bit; a step therefore touches one table and its
//! new half, and nothing else moves. Unlike in Litwin's scheme a table has no fixed size, so tables
//! that are yet to split are up to twice as large. Inside a table: see `slot_table`. The high load
//! is cheap because a table of some hundred slots can be rebuilt for each tenth or so of growth.
//!
//! Readers read the number of tables without a lock, as a hint. A table knows its own depth (the
//! low bits that all its hashes share), under its lock; a late reader sees from it that a hash has
//! moved, and continues with the table of that depth.
//!
//! # Invariants
//! 1. Table `t < count` of depth `d` holds exactly the hashes whose mixed low `d` bits are `t`;
//!    tables from `count` on are empty.
//! 2. Entries move only to tables of higher number. So a reader that follows depths ends, and a
//!    scan in order of numbers meets all entries that stay.
//! 3. `len` and `tables_heap_bytes` are the sums over all tables, whenever no call runs.
//! 4. Locks: `splitting`, then a table, then the table it splits into. Readers hold one.
//!
//! Tables shrink with their entries, but never merge: an index that lost almost all of its entries
//! keeps 256 bytes for each table it once had, half a byte for each entry it once held.

mod bucket;
mod slot;
mod slot_table;
mod stored;
mod table_directory;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLockReadGuard, RwLockWriteGuard};

use self::slot_table::{Mixed, SlotTable};
use self::table_directory::TableDirectory;
use crate::key::KeyHash;
use crate::l2::format::Position;
use crate::meter;

pub(crate) use self::slot::{READS_MAX, Slot};
pub(crate) use self::slot_table::{SHARE, Settled, SpareChunks};
pub(crate) use self::stored::{IndexOfTables, StoredTable};

/// Groups of hashes, see [`Index::group`].
pub(crate) const GROUPS: usize = 2048;

/// Tables that one step clears: a table may hold a thousand entries.
const TABLES_CLEARED: usize = 1;

pub(crate) struct Index {
    directory: TableDirectory,
    /// Tables in use: updated after a table is added, under that table's lock.
    count: AtomicUsize,
    /// Held while a table is split, so that two writers do not split the same one.
    splitting: Mutex<()>,
    len: AtomicUsize,
    tables_heap_bytes: AtomicUsize,
}

/// The progress of an [`Index::scan`]. The default is the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ScanCursor {
    table: usize,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Index").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Default for Index {
    fn default() -> Self {
        Self::new()
    }
}

impl Index {
    /// An empty index: 384 bytes and nothing on the heap.
    pub(crate) fn new() -> Self {
        Self {
            directory: TableDirectory::default(),
            count: AtomicUsize::new(1),
            splitting: Mutex::new(()),
            len: AtomicUsize::new(0),
            tables_heap_bytes: AtomicUsize::new(0),
        }
    }

    pub(crate) fn get(&self, hash: KeyHash) -> Option<Slot> {
        // That of a cache in memory always is. A table's entries are counted under its lock, so
        // whoever could know of an entry sees it counted.
        if self.is_empty() {
            return None;
        }
        let mixed = Mixed::new(hash);
        self.read(mixed).get(hash, mixed)
    }

    /// Sets the slot of a hash and returns the replaced one.
    ///
    /// # Panics
    /// If the slot's position is not a multiple of eight.
    pub(crate) fn insert(&self, hash: KeyHash, slot: Slot) -> Option<Slot> {
        let mixed = Mixed::new(hash);
        let old = self.write(mixed, |table| table.insert(hash, mixed, slot));
        if old.is_none() && self.has_outgrown_tables() {
            self.split_next();
        }
        old
    }

    /// Sets the slot of a hash that has none. Returns whether it had none. Takes no lock.
    ///
    /// # Panics
    /// If the slot's position is not a multiple of eight.
    pub(crate) fn insert_new(&mut self, hash: KeyHash, slot: Slot) -> bool {
        let mixed = Mixed::new(hash);
        let mut number = self.hint(mixed);
        // Bounded: by the depth of the index.
        let table = loop {
            let owner = mixed.low_bits(self.directory.table_mut(number).depth);
            if owner == number {
                break self.directory.table_mut(number);
            }
            number = owner;
        };
        let heap_bytes = table.heap_bytes();
        if !table.insert_new(hash, mixed, slot) {
            return false;
        }
        let heap_bytes_now = table.heap_bytes();
        *self.len.get_mut() += 1;
        add_change(&self.tables_heap_bytes, heap_bytes, heap_bytes_now);
        if self.has_outgrown_tables() {
            self.split_next();
        }
        true
    }

    /// Adds a slot whatever its hash has: until the index is settled, only this may be called.
    /// Takes no lock. Adds to `shadowed` the records whose slots it drops, if newer ones of their
    /// hashes are many.
    ///
    /// # Panics
    /// If the slot's position is not a multiple of eight.
    pub(crate) fn collect(&mut self, hash: KeyHash, slot: Slot, shadowed: &mut Vec<Position>) {
        let mixed = Mixed::new(hash);
        let number = self.hint(mixed);
        let table = self.directory.table_mut(number);
        let (heap_bytes, dropped_before) = (table.heap_bytes(), shadowed.len());
        table.collect(hash, slot, shadowed);
        let heap_bytes_now = table.heap_bytes();
        *self.len.get_mut() += 1;
        *self.len.get_mut() -= shadowed.len() - dropped_before;
        add_change(&self.tables_heap_bytes, heap_bytes, heap_bytes_now);
        if self.has_outgrown_tables() {
            self.split_next();
        }
    }

    /// Loads what the next [`Self::collect`] of a hash needs, as [`Self::prefetch`] does.
    pub(crate) fn prefetch_end(&mut self, hash: KeyHash) {
        let number = self.hint(Mixed::new(hash));
        self.directory.table_mut(number).prefetch_end();
    }

    /// The number of tables.
    pub(crate) fn tables(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Settles a table: of each hash the slot of the newest record stays. Others may settle other
    /// tables meanwhile.
    pub(crate) fn settle(&self, number: usize, spare: &mut SpareChunks, settled: &mut Settled) {
        let mut table = self.lock(number);
        let (len, heap_bytes) = (table.len(), table.heap_bytes());
        table.settle(spare, settled);
        add_change(&self.len, len, table.len());
        add_change(&self.tables_heap_bytes, heap_bytes, table.heap_bytes());
    }

    /// Loads what the next [`Self::insert_new`] of a hash needs into the processor's cache. Those
    /// of many hashes, one after the other, are loaded at the same time.
    pub(crate) fn prefetch(&mut self, hash: KeyHash) {
        let mixed = Mixed::new(hash);
        let number = self.hint(mixed);
        self.directory.table_mut(number).prefetch(mixed);
    }

    /// Splits a table ahead of need, if there will be so many entries. Returns whether it did.
    pub(crate) fn split_for(&mut self, entries: usize) -> bool {
        let count = *self.count.get_mut();
        let is_needed = entries > count * SHARE && count < TableDirectory::TABLES_MAX;
        if is_needed {
            self.split();
        }
        is_needed
    }

    /// The group of a hash. Those of one group are in few tables, so that many which are inserted
    /// group by group find them in the processor's cache.
    pub(crate) fn group(hash: KeyHash) -> usize {
        Mixed::new(hash).low_bits(GROUPS.ilog2())
    }

    /// Removes the slot of a hash if it still holds `position`. Returns whether it did.
    pub(crate) fn remove_if(&self, hash: KeyHash, position: Position) -> bool {
        let mixed = Mixed::new(hash);
        self.write(mixed, |table| table.remove_if(hash, mixed, position))
    }

    /// Replaces the slot of a hash if it still holds `position`. Returns whether it did.
    ///
    /// # Panics
    /// If the new slot's position is not a multiple of eight.
    pub(crate) fn replace_if(&self, hash: KeyHash, position: Position, slot: Slot) -> bool {
        let mixed = Mixed::new(hash);
        self.write(mixed, |table| table.replace_if(hash, mixed, position, slot))
    }

    /// Marks the record at `position` as read if the hash's slot still holds it. Returns whether it
    /// was marked before. Takes only the read side of a lock, and writes only if the bit is clear.
    pub(crate) fn mark_read(&self, hash: KeyHash, position: Position) -> bool {
        let mixed = Mixed::new(hash);
        self.read(mixed).mark_read(hash, mixed, position)
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All memory of the index as requested from the allocator, including itself.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.directory.heap_bytes()
            + self.tables_heap_bytes.load(Ordering::Relaxed)
    }

    /// Appends to `found` the slots whose position lies in `positions`, from `cursor` on; returns
    /// where to continue, or `None` at the end. Visits whole tables until it has passed `slots_max`
    /// slots or more, so at most one table beyond.
    ///
    /// A hash that stays in the index from the first call to the last, with a position in the
    /// range, is reported at least once, however much the index grows or shrinks between calls or
    /// during one; some are reported twice if their table splits meanwhile. A reported slot may
    /// have changed since: act through [`Index::remove_if`] and [`Index::replace_if`].
    pub(crate) fn scan(
        &self,
        cursor: ScanCursor,
        positions: Range<Position>,
        slots_max: usize,
        found: &mut Vec<(KeyHash, Slot)>,
    ) -> Option<ScanCursor> {
        let mut number = cursor.table;
        let mut walked = 0;
        // The count is read again after each table: a table that was split before the scan came
        // to it has put its half behind the old count.
        while number < self.count.load(Ordering::Acquire) {
            if walked >= slots_max.max(1) {
                return Some(ScanCursor { table: number });
            }
            let table = self.directory.table(number).read().unwrap_or_else(PoisonError::into_inner);
            meter::entries(table.len());
            found.extend(table.iter().filter(|(_, slot)| positions.contains(&slot.position)));
            walked += table.slots().max(1);
            number += 1;
        }
        None
    }

    /// Frees a few tables of an ended index. Returns where to continue; None at the end.
    pub(crate) fn clear(&self, cursor: ScanCursor) -> Option<ScanCursor> {
        let tables = cursor.table..self.count.load(Ordering::Acquire);
        for number in tables.clone().take(TABLES_CLEARED) {
            let mut table = self.lock(number);
            let (len, heap_bytes) = (table.len(), table.heap_bytes());
            meter::entries(1);
            table.clear();
            self.len.fetch_sub(len, Ordering::Relaxed);
            add_change(&self.tables_heap_bytes, heap_bytes, table.heap_bytes());
        }
        let next = cursor.table + TABLES_CLEARED;
        (next < tables.end).then_some(ScanCursor { table: next })
    }

    fn read(&self, mixed: Mixed) -> RwLockReadGuard<'_, SlotTable> {
        let mut number = self.hint(mixed);
        // Bounded: by the depth of the index.
        loop {
            let table = self.directory.table(number).read().unwrap_or_else(PoisonError::into_inner);
            let owner = mixed.low_bits(table.depth);
            if owner == number {
                return table;
            }
            number = owner;
        }
    }

    /// Changes the table of a hash, and updates the sums.
    fn write<R>(&self, mixed: Mixed, change: impl FnOnce(&mut SlotTable) -> R) -> R {
        let mut number = self.hint(mixed);
        // Bounded: by the depth of the index.
        let mut table = loop {
            let table = self.lock(number);
            let owner = mixed.low_bits(table.depth);
            if owner == number {
                break table;
            }
            number = owner;
        };
        let (len, heap_bytes) = (table.len(), table.heap_bytes());
        let answer = change(&mut table);
        add_change(&self.len, len, table.len());
        add_change(&self.tables_heap_bytes, heap_bytes, table.heap_bytes());
        answer
    }

    fn lock(&self, number: usize) -> RwLockWriteGuard<'_, SlotTable> {
        self.directory.table(number).write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the table of a hash by linear hashing for the present count. A concurrent
    /// split may outdate it, but it is never too high.
    fn hint(&self, mixed: Mixed) -> usize {
        let count = self.count.load(Ordering::Acquire);
        let depth = count.ilog2();
        let number = mixed.low_bits(depth + 1);
        if number < count { number } else { mixed.low_bits(depth) }
    }

    fn has_outgrown_tables(&self) -> bool {
        let count = self.count.load(Ordering::Relaxed);
        self.len() > count * SHARE && count < TableDirectory::TABLES_MAX
    }

    #[cold]
    fn split_next(&self) {
        let _one_at_a_time = self.splitting.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.has_outgrown_tables() {
            return; // another writer was faster
        }
        self.split();
    }

    /// Gives an index without entries beyond the tables before its table `number`.
    fn put_table(&mut self, number: usize, table: SlotTable) {
        *self.len.get_mut() += table.len();
        *self.tables_heap_bytes.get_mut() += table.heap_bytes();
        *self.directory.table(number).write().unwrap_or_else(PoisonError::into_inner) = table;
        *self.count.get_mut() = number + 1;
    }

    /// Splits the next table in order. One caller at a time.
    fn split(&self) {
        let count = self.count.load(Ordering::Relaxed);
        let mut parent = self.lock(count - (1 << count.ilog2()));
        let mut child = self.lock(count);
        let heap_bytes = parent.heap_bytes();
        *child = parent.split();
        let heap_bytes_now = parent.heap_bytes() + child.heap_bytes();
        add_change(&self.tables_heap_bytes, heap_bytes, heap_bytes_now);
        // Published before the locks open, so that a reader of the split table without its other
        // half also sees the table that has that half.
        self.count.store(count + 1, Ordering::Release);
    }
}

/// Adds `after - before`, which may be negative; wrapping gets it right.
fn add_change(total: &AtomicUsize, before: usize, after: usize) {
    if before != after {
        total.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }
}
