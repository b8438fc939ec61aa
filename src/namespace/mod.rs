//! `Namespaces`: names in use, each with the generation that its entries belong to.
//!
//! A [`Namespace`] is one generation: it begins when a put first needs the name, and ends, once and
//! for all, when it is flushed or gives up its slot after running empty. Entries point to their
//! generation, so that a flush is one store, seen by every reader, whatever the number of entries;
//! generations point to their era, so that a flush of everything is one, too.
//!
//! What a generation holds is counted in sections only: so the totals over all of them are exact.
//!
//! Locks: the table comes behind the map shard and before the append section.

mod era;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use self::era::Era;
pub(crate) use self::era::Figures;
pub(crate) use self::table::{Ended, Namespaces, Searched};
use crate::clock::Timestamp;
use crate::commit_lock::Section;
use crate::io::BLOCK_BYTES;
use crate::key::KeyHash;
use crate::l2::{Generation, Index, NamedGeneration, Position, ScanCursor, Slot};
use crate::quota::Quota;
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
    era: Arc<Era>,
    /// Where it is in the table.
    place: usize,
    entries: AtomicUsize,
    bytes: AtomicUsize,
    /// Blocks that live records touch beyond their first ones.
    blocks: AtomicU64,
    /// Slots that hold something.
    live: AtomicUsize,
    /// From then on nothing in it is alive, as far as is known: zero where it holds nothing.
    alive_until: AtomicU64,
    quota: Option<Quota>,
    /// No live record ends by itself before that, by what is known.
    ends_on_disk: AtomicU64,
    ends: Arc<Ends>,
}

/// The blocks that a slot's record touches beyond its first one; none where it holds nothing.
fn further_blocks(slot: Slot) -> u64 {
    if slot.gone { 0 } else { u64::from(slot.blocks).saturating_sub(1) }
}

/// When there may be a generation that can give its place to another.
#[derive(Debug, Default)]
struct Ends {
    /// No generation has ended before that, by what is known.
    soonest: AtomicU64,
    /// How often that has been brought forward.
    changes: AtomicU64,
}

impl Ends {
    fn soonest(&self) -> Timestamp {
        Timestamp(self.soonest.load(Ordering::Acquire))
    }

    fn bring_forward(&self, to: Timestamp) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.soonest.fetch_min(to.0, Ordering::AcqRel);
    }
}

impl Namespace {
    /// As records name it.
    pub(crate) fn named(&self) -> NamedGeneration<'_> {
        NamedGeneration { name: self.name(), generation: self.generation() }
    }

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
        self.counted(|| {
            if held.is_none() {
                self.synopsis.insert(hash);
            }
            self.index.insert(hash, slot);
            self.live.fetch_add(usize::from(!slot.gone), Ordering::Relaxed);
            self.uncount(held);
        });
        self.blocks.fetch_add(further_blocks(slot), Ordering::Relaxed);
        self.note_if_vacant();
        held.is_none()
    }

    /// A slot holds nothing any more.
    fn uncount(&self, held: Option<Slot>) {
        self.blocks.fetch_sub(held.map_or(0, further_blocks), Ordering::Relaxed);
        let live = held.is_some_and(|held| !held.gone);
        self.live.fetch_sub(usize::from(live), Ordering::Relaxed);
    }

    /// Slots that hold something.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// About how many entries it holds in either tier: those that are in both count once, but so
    /// do as many of those that are only in one as are only in the other.
    pub(crate) fn held(&self) -> usize {
        self.entries().max(self.live())
    }

    /// Something in it may be alive until then.
    pub(crate) fn outlives(&self, end: Timestamp) {
        if self.alive_until.load(Ordering::Relaxed) < end.0
            && self.alive_until.fetch_max(end.0, Ordering::Relaxed) == 0
        {
            self.ends.bring_forward(end);
        }
    }

    /// From then on nothing in it is alive, or later than that.
    pub(crate) fn alive_until(&self) -> Timestamp {
        Timestamp(self.alive_until.load(Ordering::Relaxed))
    }

    /// Whether its place can be given to another name.
    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        self.alive_until() <= now || self.is_vacant()
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
        let is_removed = self.counted(|| {
            let is_removed = self.index.remove_if(hash, position);
            self.uncount(held.filter(|_| is_removed));
            is_removed
        });
        if is_removed {
            self.synopsis.forget();
            self.note_if_vacant();
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
    pub(crate) fn mark_dead(
        &self,
        hash: KeyHash,
        sequence: Sequence,
        _section: &mut Section<'_>,
    ) -> bool {
        self.live_slot(hash, sequence).is_some_and(|slot| self.bury_slot(hash, slot))
    }

    /// What a hash has on file is not to be found any more, by a mutation that has no record of its
    /// own, since the log has ended. Likewise.
    pub(crate) fn mark_dead_held(&self, hash: KeyHash, held: Slot, _section: &mut Section<'_>) {
        self.bury_slot(hash, held);
    }

    fn bury_slot(&self, hash: KeyHash, held: Slot) -> bool {
        let gone = Slot { gone: true, ..held };
        let is_marked = self.index.replace_if(hash, held.position, gone);
        if is_marked {
            self.counted(|| self.uncount(Some(held)));
            self.note_if_vacant();
        }
        is_marked
    }

    /// Whether a hash's slot stands for that mutation, whatever there is of it. While it does, its
    /// record may be found again by another open.
    pub(crate) fn has_slot(&self, hash: KeyHash, sequence: Sequence) -> bool {
        let slot = self.index.get(hash).filter(|_| !self.has_ended());
        slot.is_some_and(|slot| slot.position.value() == sequence.0)
    }

    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire) || self.era.has_ended()
    }

    /// What it adds to the totals while it has not ended.
    fn figures(&self) -> Figures {
        Figures {
            entries: self.entries(),
            live: self.live(),
            index_bytes: self.index.memory_bytes(),
            synopsis_bytes: self.synopsis.bytes(),
        }
    }

    /// Does what changes its figures, in a section, and tells the totals. Those of an era that has
    /// ended nobody reads.
    fn counted<T>(&self, change: impl FnOnce() -> T) -> T {
        let before = self.figures();
        let done = change();
        if !self.ended.load(Ordering::Relaxed) {
            self.era.totals.change(before, self.figures());
        }
        done
    }

    /// Begins to make the synopsis anew. See [`Synopsis::begin`].
    pub(crate) fn begin_filter(&self, _section: &mut Section<'_>) -> bool {
        self.counted(|| self.synopsis.begin(self.index.len()))
    }

    /// The new synopsis takes over. Gives what is to be freed behind the section.
    pub(crate) fn finish_filter(&self, _section: &mut Section<'_>) -> impl Sized + use<> {
        self.counted(|| self.synopsis.finish())
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

    /// An entry of so many bytes comes in, in the section.
    pub(crate) fn grow(&self, bytes: usize, _section: &mut Section<'_>) {
        self.counted(|| self.entries.fetch_add(1, Ordering::Relaxed));
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// One leaves.
    pub(crate) fn shrink(&self, bytes: usize, _section: &mut Section<'_>) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if self.counted(|| self.entries.fetch_sub(1, Ordering::Relaxed)) == 1 {
            self.note_if_vacant();
        }
    }

    /// To be called where an entry or a slot has gone.
    fn note_if_vacant(&self) {
        if self.is_vacant() {
            self.alive_until.store(0, Ordering::Relaxed);
            self.ends.bring_forward(Timestamp(0));
        }
    }

    /// A generation that is in no table and has ended, for what is held nowhere.
    pub(crate) fn nowhere(name: &str) -> Arc<Self> {
        let (ends, era) = (Arc::default(), Arc::default());
        let generation = Self::begin(name, Generation(0), (&ends, &era), None);
        generation.ended.store(true, Ordering::Relaxed);
        Arc::new(generation)
    }

    fn begin(
        name: &str,
        generation: Generation,
        (ends, era): (&Arc<Ends>, &Arc<Era>),
        quota: Option<Quota>,
    ) -> Self {
        ends.bring_forward(Timestamp(0));
        Self {
            synopsis: Synopsis::default(),
            ends: Arc::clone(ends),
            name: name.into(),
            generation,
            index: Index::new(),
            ended: AtomicBool::new(false),
            era: Arc::clone(era),
            place: 0,
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            blocks: AtomicU64::new(0),
            live: AtomicUsize::new(0),
            alive_until: AtomicU64::new(0),
            quota,
            ends_on_disk: AtomicU64::new(Timestamp::NEVER.0),
        }
    }

    /// Whether it holds nothing. Its slots may shadow what is on file all the same.
    fn is_vacant(&self) -> bool {
        self.entries() == 0 && self.live() == 0
    }

    /// Whether nothing of it is on file either.
    fn is_empty(&self) -> bool {
        self.entries() == 0 && self.index.is_empty()
    }

    /// Takes the section as a witness that its lock is held.
    fn end(&self, _section: &mut Section<'_>) {
        if !self.ended.swap(true, Ordering::AcqRel) {
            self.era.totals.change(self.figures(), Figures::default());
        }
    }
}
