//! `TableDirectory`: the tables of an index, in an array that grows without moving.
//!
//! # Contract
//! Table `number` has one address for the index's whole life, so readers need no lock to get to
//! it, and growth copies nothing. Unused tables take no memory; the first lies inside, so a
//! small index is one table.
//!
//! # Algorithm
//! Levels of doubling size (level `l` holds the tables `2^l..2^(l+1)`), each made of chunks of at
//! most [`CHUNK`] tables. Levels and chunks are allocated at the first use of a table in them
//! and stay until the end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

use super::slot_table::SlotTable;

/// One more than the highest level: room for 2^26 tables, tens of billions of entries.
const LEVELS: usize = 26;
/// The most tables that are allocated at once: 16 KiB, some microseconds.
const CHUNK: usize = 64;

const _: () = assert!(size_of::<Shelf>() == 256);

/// A table behind its lock, in cache lines of its own, so that neighbours do not disturb each
/// other and the lock shares a line with the fields that are read first.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct Shelf(pub(super) RwLock<SlotTable>);

type Chunk = OnceLock<Box<[Shelf]>>;
type Level = OnceLock<Box<[Chunk]>>;

#[derive(Default)]
pub(super) struct TableDirectory {
    first: Shelf,
    levels: OnceLock<Box<[Level]>>,
    /// Heap bytes of levels and chunks.
    heap_bytes: AtomicUsize,
}

impl TableDirectory {
    pub(super) const TABLES_MAX: usize = 1 << LEVELS;

    /// Table `number`, empty if it did not exist.
    ///
    /// # Panics
    /// If `number` is not below [`Self::TABLES_MAX`].
    pub(super) fn table(&self, number: usize) -> &RwLock<SlotTable> {
        let Some(level) = number.checked_ilog2() else {
            return &self.first.0;
        };
        let size = 1_usize << level;
        let offset = number - size;
        let levels = self.levels.get_or_init(|| self.allocate(LEVELS));
        let chunks = levels[level as usize].get_or_init(|| self.allocate(size.div_ceil(CHUNK)));
        let chunk = chunks[offset / CHUNK].get_or_init(|| self.allocate(size.min(CHUNK)));
        &chunk[offset % CHUNK].0
    }

    /// Table `number`, which must be in use, for an owner.
    pub(super) fn table_mut(&mut self, number: usize) -> &mut SlotTable {
        let level = number.checked_ilog2();
        let shelf = level.and_then(|level| {
            let offset = number - (1 << level);
            let chunks = self.levels.get_mut()?.get_mut(level as usize)?.get_mut()?;
            chunks.get_mut(offset / CHUNK)?.get_mut()?.get_mut(offset % CHUNK)
        });
        let shelf = shelf.unwrap_or(&mut self.first);
        shelf.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Heap bytes of the directory itself, without what the tables hold.
    pub(super) fn heap_bytes(&self) -> usize {
        self.heap_bytes.load(Ordering::Relaxed)
    }

    #[cold]
    fn allocate<T: Default>(&self, count: usize) -> Box<[T]> {
        self.heap_bytes.fetch_add(count * size_of::<T>(), Ordering::Relaxed);
        // Bounded: by tables over 64, each of a thousand slots.
        (0..count).map(|_| T::default()).collect()
    }
}
