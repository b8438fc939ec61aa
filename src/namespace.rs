//! `Namespaces`: names in use, each with the generation that its entries belong to.
//!
//! A [`Namespace`] is one generation: it begins when a put first needs the name, and ends, once and
//! for all, when it is flushed or gives up its slot after running empty. Entries point to their
//! generation, so that a flush is one store, seen by every reader, whatever the number of entries.
//!
//! Locks: the table comes behind the map shard and before the append section.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::clock::Timestamp;
use crate::error::CacheError;
use crate::io::BLOCK_BYTES;
use crate::key::KeyHash;
use crate::l2::{Generation, Index, Position, RecoveredNamespace, ScanCursor, Slot};
use crate::order::{Order, Section};
use crate::quota::{Quota, Quotas};
use crate::sequence::Sequence;
use crate::synopsis::Synopsis;

/// One generation of a namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: Box<str>,
    /// Its number on file.
    generation: Generation,
    /// Where its records lie; empty without a disk tier.
    index: Index,
    /// What the index surely does not hold.
    synopsis: Synopsis,
    /// Set under the append lock, never cleared: what belongs to this generation is gone.
    ended: AtomicBool,
    entries: AtomicUsize,
    bytes: AtomicUsize,
    /// Blocks that live records touch beyond their first ones.
    blocks: AtomicU64,
    quota: Option<Quota>,
    /// No live record ends by itself before that, by what is known.
    ends_on_disk: AtomicU64,
    emptied: Emptied,
}

/// The blocks that a slot's record touches beyond its first one; none where it holds nothing.
fn further_blocks(slot: Slot) -> u64 {
    if slot.gone { 0 } else { u64::from(slot.blocks).saturating_sub(1) }
}

/// How often a generation has run empty, or begun: where none has since somebody looked for an
/// empty one in vain, there is none to be found.
type Emptied = Arc<AtomicU64>;

impl Namespace {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// Asked before the index, by those who only look.
    pub(crate) fn synopsis(&self) -> &Synopsis {
        &self.synopsis
    }

    /// Points a hash to a record. True where it had no slot before.
    pub(crate) fn set_slot(&self, hash: KeyHash, slot: Slot) -> bool {
        let held = self.index.get(hash);
        if held.is_none() {
            self.synopsis.insert(hash);
        }
        self.index.insert(hash, slot);
        self.blocks.fetch_add(further_blocks(slot), Ordering::Relaxed);
        self.uncount(held);
        held.is_none()
    }

    /// A slot holds nothing any more.
    fn uncount(&self, held: Option<Slot>) {
        self.blocks.fetch_sub(held.map_or(0, further_blocks), Ordering::Relaxed);
    }

    /// About how many bytes its live records take on disk: one of so many bytes touches that many
    /// blocks' worth beyond its first block, on average, wherever it begins.
    pub(crate) fn l2_bytes(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed).saturating_mul(BLOCK_BYTES as u64)
    }

    /// What it may take of the tiers.
    pub(crate) fn quota(&self) -> Option<Quota> {
        self.quota
    }

    /// When the first of its records ends by itself, or earlier.
    pub(crate) fn next_end_on_disk(&self) -> Timestamp {
        Timestamp(self.ends_on_disk.load(Ordering::Relaxed))
    }

    pub(crate) fn note_end_on_disk(&self, end: Timestamp) {
        self.ends_on_disk.fetch_min(end.0, Ordering::Relaxed);
    }

    pub(crate) fn forget_ends_on_disk(&self) {
        self.ends_on_disk.store(Timestamp::NEVER.0, Ordering::Relaxed);
    }

    /// Whether a record of so many bytes, in place of what a hash has, is more than its quota.
    pub(crate) fn is_beyond(&self, bytes: u64, held: Option<Slot>) -> bool {
        let max = self.quota.and_then(|quota| quota.limits.l2_bytes_max);
        let spare = held.map_or(0, further_blocks).saturating_mul(BLOCK_BYTES as u64);
        max.is_some_and(|max| self.l2_bytes().saturating_add(bytes) > max.saturating_add(spare))
    }

    /// Removes the slot of a hash, if it still holds `position`. True where it did.
    pub(crate) fn remove_slot(&self, hash: KeyHash, position: Position) -> bool {
        let held = self.index.get(hash);
        let is_removed = self.index.remove_if(hash, position);
        if is_removed {
            self.uncount(held);
            self.synopsis.forget();
            self.note_if_empty();
        }
        is_removed
    }

    /// The slot of a hash, if it has a value and still stands for that mutation.
    pub(crate) fn live_slot(&self, hash: KeyHash, sequence: Sequence) -> Option<Slot> {
        let slot = self.index.get(hash)?;
        let is_live = slot.position.value() == sequence.0 && !slot.gone && !self.has_ended();
        is_live.then_some(slot)
    }

    /// Such a slot holds nothing any more. It stays, since its record is still on file, and so may
    /// be what it shadows. False where there was none. The section is a witness that its lock is
    /// held.
    pub(crate) fn bury(
        &self,
        hash: KeyHash,
        sequence: Sequence,
        _section: &mut Section<'_>,
    ) -> bool {
        self.live_slot(hash, sequence).is_some_and(|slot| self.bury_slot(hash, slot))
    }

    /// What a hash has on file is not to be found any more, by a mutation that has no record of its
    /// own, since the log has ended. Likewise.
    pub(crate) fn bury_held(&self, hash: KeyHash, held: Slot, _section: &mut Section<'_>) {
        self.bury_slot(hash, held);
    }

    fn bury_slot(&self, hash: KeyHash, held: Slot) -> bool {
        let gone = Slot { gone: true, ..held };
        let is_buried = self.index.replace_if(hash, held.position, gone);
        if is_buried {
            self.uncount(Some(held));
        }
        is_buried
    }

    /// Whether a hash's slot stands for that mutation, whatever there is of it. While it does, its
    /// record may be found again by another open.
    pub(crate) fn has_slot(&self, hash: KeyHash, sequence: Sequence) -> bool {
        let slot = self.index.get(hash).filter(|_| !self.has_ended());
        slot.is_some_and(|slot| slot.position.value() == sequence.0)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Frees a part of what leads to its records, once it has ended. Gives where to go on.
    pub(crate) fn clear(&self, from: ScanCursor) -> Option<ScanCursor> {
        debug_assert!(self.has_ended(), "its slots are wanted");
        self.synopsis.clear();
        self.index.clear(from)
    }

    pub(crate) fn entries(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn grow(&self, bytes: usize) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn shrink(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if self.entries.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.note_if_empty();
        }
    }

    /// To be called where an entry or a slot has gone.
    fn note_if_empty(&self) {
        if self.is_empty() {
            self.emptied.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A generation that is in no table and has ended, for what is held nowhere.
    pub(crate) fn nowhere(name: &str) -> Arc<Self> {
        let generation = Self::begin(name, Generation(0), &Emptied::default(), None);
        let generation = Arc::new(generation);
        generation.ended.store(true, Ordering::Relaxed);
        generation
    }

    fn begin(name: &str, generation: Generation, emptied: &Emptied, quota: Option<Quota>) -> Self {
        emptied.fetch_add(1, Ordering::Relaxed);
        Self {
            synopsis: Synopsis::default(),
            emptied: Arc::clone(emptied),
            name: name.into(),
            generation,
            index: Index::new(),
            ended: AtomicBool::new(false),
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            blocks: AtomicU64::new(0),
            quota,
            ends_on_disk: AtomicU64::new(Timestamp::NEVER.0),
        }
    }

    /// Whether its slot can be given to another name.
    fn is_empty(&self) -> bool {
        self.entries() == 0 && self.index.is_empty()
    }

    /// Takes the section as a witness that its lock is held.
    fn end(&self, _section: &mut Section<'_>) {
        self.ended.store(true, Ordering::Release);
    }
}

/// The generations that are alive, by name.
#[derive(Debug)]
pub(crate) struct Namespaces {
    table: RwLock<HashMap<Box<str>, Arc<Namespace>>>,
    max: usize,
    quotas: Quotas,
    emptied: Emptied,
    /// What that was when none was found empty.
    searched: AtomicU64,
}

impl Namespaces {
    pub(crate) fn new(max: usize, quotas: Quotas) -> Self {
        let table = RwLock::new(HashMap::new());
        Self { table, max, quotas, emptied: Emptied::default(), searched: AtomicU64::new(0) }
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Namespace>> {
        self.table.read().get(name).cloned()
    }

    /// The name's generation, begun if there is none. Where all slots are taken, one that has run
    /// empty is given up for it.
    pub(crate) fn find_or_begin(
        &self,
        name: &str,
        order: &Order,
        number: impl FnOnce() -> Generation,
    ) -> Result<Arc<Namespace>, CacheError> {
        if let Some(namespace) = self.find(name) {
            return Ok(namespace);
        }
        let mut table = self.table.write();
        if let Some(namespace) = table.get(name) {
            return Ok(Arc::clone(namespace));
        }
        if table.len() >= self.max {
            let full = CacheError::TooManyNamespaces { max: self.max };
            let emptied = self.emptied.load(Ordering::Relaxed);
            if emptied == self.searched.load(Ordering::Relaxed) {
                return Err(full);
            }
            // Under the append lock nothing can be put into a namespace that is found empty.
            let mut section = order.section();
            let empty = table.values().find(|namespace| namespace.is_empty()).cloned();
            let Some(empty) = empty else {
                self.searched.store(emptied, Ordering::Relaxed);
                return Err(full);
            };
            empty.end(&mut section);
            table.remove(empty.name());
        }
        let quota = self.quotas.of(name);
        let namespace = Arc::new(Namespace::begin(name, number(), &self.emptied, quota));
        table.insert(name.into(), Arc::clone(&namespace));
        Ok(namespace)
    }

    /// Does `then` while no generation can begin or end.
    pub(crate) fn with<T>(&self, name: &str, then: impl FnOnce(Option<&Arc<Namespace>>) -> T) -> T {
        let table = self.table.read();
        then(table.get(name))
    }

    /// Ends the name's generation, in one section with what `mark` does, which is told what ends.
    ///
    /// # Errors
    ///
    /// Those of `mark`; then nothing has been done.
    pub(crate) fn flush<E>(
        &self,
        name: &str,
        order: &Order,
        mark: impl FnOnce(&mut Section<'_>, Option<&Arc<Namespace>>) -> Result<(), E>,
    ) -> Result<Option<Arc<Namespace>>, E> {
        let mut table = self.table.write();
        let mut section = order.section();
        mark(&mut section, table.get(name))?;
        let flushed = table.remove(name);
        if let Some(namespace) = &flushed {
            namespace.end(&mut section);
        }
        Ok(flushed)
    }

    /// Ends every generation, likewise.
    pub(crate) fn flush_all<E>(
        &self,
        order: &Order,
        mark: impl FnOnce(&mut Section<'_>) -> Result<(), E>,
    ) -> Result<Vec<Arc<Namespace>>, E> {
        let mut table = self.table.write();
        let mut section = order.section();
        mark(&mut section)?;
        let flushed: Vec<_> = table.drain().map(|(_, namespace)| namespace).collect();
        for namespace in &flushed {
            namespace.end(&mut section);
        }
        Ok(flushed)
    }

    /// Gives up a generation that was begun for a put which has been refused, if nobody else has
    /// put anything into it.
    pub(crate) fn give_up(&self, namespace: &Arc<Namespace>, order: &Order) {
        let mut table = self.table.write();
        let is_current =
            table.get(namespace.name()).is_some_and(|held| Arc::ptr_eq(held, namespace));
        let mut section = order.section();
        if is_current && namespace.is_empty() {
            namespace.end(&mut section);
            table.remove(namespace.name());
        }
    }

    /// Takes in a generation that was found on file.
    pub(crate) fn restore(&self, name: &str, found: RecoveredNamespace) {
        let RecoveredNamespace { generation, index, further_blocks, .. } = found;
        let quota = self.quotas.of(name);
        let blank = Namespace::begin(name, generation, &self.emptied, quota);
        // Until it has been made from the index it says "maybe" to everything.
        let synopsis = if index.is_empty() { Synopsis::default() } else { Synopsis::blind() };
        let blocks = AtomicU64::new(further_blocks);
        // Nobody has asked when they end.
        let ends_on_disk = AtomicU64::new(0);
        let namespace = Arc::new(Namespace { index, synopsis, blocks, ends_on_disk, ..blank });
        self.table.write().insert(name.into(), namespace);
    }

    /// All generations that are alive.
    pub(crate) fn all(&self) -> Vec<Arc<Namespace>> {
        self.table.read().values().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.read().len()
    }

    /// Entries of all generations that are alive.
    pub(crate) fn entries(&self) -> usize {
        self.table.read().values().map(|namespace| namespace.entries()).sum()
    }
}
