//! `Namespaces`: names in use, each with its current generation.
//!
//! A [`Generation`] begins when a put first needs the name, and ends for good
//! when it is flushed, or gives up its slot when it is empty. Entries point to their generation, so
//! that a flush is one store that every reader sees, however many entries there are; generations
//! point to their era, so that a flush of everything is one store, too.
//!
//! A generation's contents are counted in sections only, so totals are exact.
//!
//! Locks: the table comes after the map shard and before the commit section.

mod closed;
mod era;
mod remains;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use self::era::Era;
pub(crate) use self::era::Figures;
pub(crate) use self::remains::Freed;
pub(crate) use self::table::{Ended, Namespaces, Searched};
use crate::clock::Timestamp;
use crate::commit_lock::Section;
use crate::expiries::Expiries;
use crate::gate::{Answerable, Governed};
use crate::io::BLOCK_BYTES;
use crate::key::KeyHash;
use crate::l2::{GenerationNumber, Index, NamedGeneration, Position, Slot};
use crate::labels::LabelIndex;
use crate::quota::Quota;
use crate::sequence::Sequence;
use crate::synopsis::Synopsis;
use crate::tallies::Tally;

#[derive(Debug)]
pub(crate) struct Generation {
    name: Box<str>,
    /// Its number on file.
    number: GenerationNumber,
    /// Positions of its records; empty without a disk tier.
    index: Index,
    synopsis: Synopsis,
    /// Of its entries in either tier. Changed in sections only.
    labels: Mutex<LabelIndex>,
    /// Postings of entries without a record.
    labels_above: AtomicUsize,
    /// Set under the commit lock, never cleared: all entries of this generation are removed.
    ended: AtomicBool,
    era: Arc<Era>,
    slot: usize,
    tally: Tally,
    entries: AtomicUsize,
    bytes: AtomicUsize,
    /// Blocks that live records touch, their first ones excluded.
    blocks: AtomicU64,
    live: AtomicUsize,
    /// No entry is alive after this time, as far as is known; zero if it is empty.
    alive_until: AtomicU64,
    quota: Option<Quota>,
    governed: Option<Governed>,
    /// A lower bound of the next expiry among live records.
    ends_on_disk: AtomicU64,
    ends: Arc<Ends>,
    /// Since when its older records are stale.
    expiries: Mutex<Expiries>,
    /// Live slots that are stale before their time. Those found by an open may be missing.
    expired: AtomicUsize,
}

/// What is configured for its name.
#[derive(Default)]
struct Settings {
    quota: Option<Quota>,
    governed: Option<Governed>,
}

/// When a generation may be able to give up its slot.
#[derive(Debug, Default)]
struct Ends {
    /// A lower bound of the time at which one has nothing alive.
    soonest: AtomicU64,
    /// How often that was brought forward.
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

impl Generation {
    /// Its name and number, as records store them.
    pub(crate) fn named(&self) -> NamedGeneration<'_> {
        NamedGeneration { name: self.name(), generation: self.number() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn number(&self) -> GenerationNumber {
        self.number
    }

    /// Its hits and misses.
    #[inline]
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    pub(crate) fn synopsis(&self) -> &Synopsis {
        &self.synopsis
    }

    /// The postings of its entries.
    pub(crate) fn labels(&self, _section: &mut Section<'_>) -> MutexGuard<'_, LabelIndex> {
        self.labels.lock()
    }

    /// The number of postings of entries without a record.
    pub(crate) fn labels_above(&self) -> &AtomicUsize {
        &self.labels_above
    }

    /// Points a hash to a record. `present`: the slot that it has in this section.
    pub(crate) fn set_slot(&self, hash: KeyHash, slot: Slot, present: Option<Slot>) {
        self.counted(|| {
            if present.is_none() {
                self.synopsis.insert(hash);
            }
            self.index.insert(hash, slot);
            self.count_slot(present, Some(slot));
        });
        self.note_if_vacant();
    }

    /// Counts a slot in place of another. Without a read-modify-write, as in `set_entries`.
    fn count_slot(&self, before: Option<Slot>, after: Option<Slot>) {
        let live = |slot: Option<Slot>| usize::from(slot.is_some_and(|slot| !slot.dead));
        let blocks = |slot: Option<Slot>| slot.map_or(0, Slot::further_blocks);
        self.live.store(self.live() + live(after) - live(before), Ordering::Relaxed);
        let touched = self.blocks.load(Ordering::Relaxed) + blocks(after) - blocks(before);
        self.blocks.store(touched, Ordering::Relaxed);
        let expired = |slot: Option<Slot>| slot.is_some_and(|slot| slot.expired && !slot.dead);
        let change = (expired(before), expired(after));
        if change.0 != change.1 {
            let others = self.expired.load(Ordering::Relaxed);
            let count = if change.1 { others + 1 } else { others.saturating_sub(1) };
            self.expired.store(count, Ordering::Relaxed);
        }
    }

    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Approximate number of entries in either tier: each in both counts once, and so does each
    /// pair of one only in memory and one only on disk.
    pub(crate) fn entries_approx(&self) -> usize {
        self.entries().max(self.live())
    }

    /// An entry may be alive until `end`.
    pub(crate) fn outlives(&self, end: Timestamp) {
        if self.alive_until.load(Ordering::Relaxed) < end.0
            && self.alive_until.fetch_max(end.0, Ordering::Relaxed) == 0
        {
            self.ends.bring_forward(end);
        }
    }

    pub(crate) fn alive_until(&self) -> Timestamp {
        Timestamp(self.alive_until.load(Ordering::Relaxed))
    }

    /// Whether its slot can be given to another name.
    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        self.alive_until() <= now || self.is_vacant()
    }

    /// Approximate bytes of its live records on disk: on average, a record touches as many bytes'
    /// worth of blocks after its first one as it has bytes, wherever it begins.
    pub(crate) fn l2_bytes(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed).saturating_mul(BLOCK_BYTES as u64)
    }

    pub(crate) fn quota(&self) -> Option<Quota> {
        self.quota
    }

    /// Asks its gate, if it has one: before an entry is found to be in force, so that no mutation
    /// before the gate was opened is missed.
    #[inline]
    pub(crate) fn ask_gate(&self) -> Answerable {
        self.governed.as_ref().map_or(Answerable::AsItIs, Governed::ask)
    }

    pub(crate) fn next_end_on_disk(&self) -> Timestamp {
        Timestamp(self.ends_on_disk.load(Ordering::Relaxed))
    }

    pub(crate) fn note_end_on_disk(&self, end: Timestamp) {
        self.ends_on_disk.fetch_min(end.0, Ordering::Relaxed);
    }

    pub(crate) fn forget_ends_on_disk(&self) {
        self.ends_on_disk.store(Timestamp::NEVER.0, Ordering::Relaxed);
    }

    /// Whether a record of `bytes`, in place of the slot `present`, exceeds its quota.
    pub(crate) fn is_beyond(&self, bytes: u64, present: Option<Slot>) -> bool {
        let max = self.quota.and_then(|quota| quota.limits.l2_bytes_max);
        let spare = present.map_or(0, Slot::further_blocks).saturating_mul(BLOCK_BYTES as u64);
        max.is_some_and(|max| self.l2_bytes().saturating_add(bytes) > max.saturating_add(spare))
    }

    /// Removes the slot of a hash if it still has `position`. True if it did.
    pub(crate) fn remove_slot(&self, hash: KeyHash, position: Position) -> bool {
        let present = self.index.get(hash);
        let is_removed = self.counted(|| {
            let is_removed = self.index.remove_if(hash, position);
            if is_removed {
                self.count_slot(present, None);
            }
            is_removed
        });
        if is_removed {
            self.synopsis.forget();
            self.note_if_vacant();
        }
        is_removed
    }

    /// The slot of a hash, if its record is live and has that sequence.
    pub(crate) fn live_slot(&self, hash: KeyHash, sequence: Sequence) -> Option<Slot> {
        let slot = self.index.get(hash)?;
        let is_live = slot.position.value() == sequence.0 && !slot.dead && !self.has_ended();
        is_live.then_some(slot)
    }

    /// Marks such a slot dead. It stays while its record exists on file, and so may the records
    /// that it shadows. False if there was none. The section is proof that the lock is held.
    pub(crate) fn mark_dead(
        &self,
        hash: KeyHash,
        sequence: Sequence,
        _section: &mut Section<'_>,
    ) -> bool {
        self.live_slot(hash, sequence).is_some_and(|slot| self.replace_with_dead(hash, slot))
    }

    /// The same for a mutation without a record of its own, after the log has ended.
    pub(crate) fn mark_slot_dead(&self, hash: KeyHash, present: Slot, _section: &mut Section<'_>) {
        self.replace_with_dead(hash, present);
    }

    fn replace_with_dead(&self, hash: KeyHash, present: Slot) -> bool {
        let dead = Slot { dead: true, ..present };
        let is_marked = self.index.replace_if(hash, present.position, dead);
        if is_marked {
            self.counted(|| self.count_slot(Some(present), Some(dead)));
            self.note_if_vacant();
        }
        is_marked
    }

    /// Marks a live slot as stale before its time. False if it has changed.
    pub(crate) fn mark_expired(
        &self,
        hash: KeyHash,
        present: Slot,
        _section: &mut Section<'_>,
    ) -> bool {
        let expired = Slot { expired: true, ..present };
        let is_marked = self.index.replace_if(hash, present.position, expired);
        if is_marked {
            self.count_slot(Some(present), Some(expired));
        }
        is_marked
    }

    /// Marks a live slot as one with a deadline that a touch has made earlier.
    pub(crate) fn mark_shortened(&self, hash: KeyHash, present: Slot, _section: &mut Section<'_>) {
        let shortened = Slot { shortened: true, ..present };
        self.index.replace_if(hash, present.position, shortened);
    }

    /// Counts a live slot that an open has found to be stale before its time.
    pub(crate) fn count_expired(&self, found: Slot, _section: &mut Section<'_>) {
        self.expired.fetch_add(usize::from(found.expired), Ordering::Relaxed);
    }

    /// All records before a mutation are stale since then. Nothing before `first` is on file.
    pub(crate) fn expire_before(
        &self,
        before: Sequence,
        since: Timestamp,
        first: Sequence,
        _section: &mut Section<'_>,
    ) {
        let mut expiries = self.expiries.lock();
        expiries.forget_before(first);
        expiries.add(before, since);
    }

    /// Since when a record is stale because all of them are, if it is.
    pub(crate) fn expired_since(&self, sequence: Sequence) -> Option<Timestamp> {
        self.expiries.lock().since(sequence)
    }

    /// Whether it may have records that are stale before their time, among those from `first` on.
    pub(crate) fn has_expired(&self, first: Sequence) -> bool {
        self.expired.load(Ordering::Relaxed) > 0 || self.expiries.lock().concern(first)
    }

    /// Whether a slot has that sequence, live or dead: then another open may find its record.
    pub(crate) fn has_slot(&self, hash: KeyHash, sequence: Sequence) -> bool {
        let slot = self.index.get(hash).filter(|_| !self.has_ended());
        slot.is_some_and(|slot| slot.position.value() == sequence.0)
    }

    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire) || self.era.has_ended()
    }

    /// Its contribution to the totals while it has not ended.
    fn figures(&self) -> Figures {
        Figures {
            entries: self.entries(),
            live: self.live(),
            index_bytes: self.index.memory_bytes(),
            synopsis_bytes: self.synopsis.bytes(),
        }
    }

    /// Applies a change of its figures, in a section, and updates the totals.
    fn counted<T>(&self, change: impl FnOnce() -> T) -> T {
        let before = self.figures();
        let done = change();
        if !self.ended.load(Ordering::Relaxed) {
            self.era.totals.change(before, self.figures());
        }
        done
    }

    pub(crate) fn begin_filter(&self, _section: &mut Section<'_>) -> bool {
        self.counted(|| self.synopsis.begin(self.index.len()))
    }

    /// Installs the rebuilt synopsis. Returns the old filters, to be freed after the section.
    pub(crate) fn finish_filter(&self, _section: &mut Section<'_>) -> impl Sized + use<> {
        self.counted(|| self.synopsis.finish())
    }

    pub(crate) fn entries(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn grow(&self, bytes: usize, section: &mut Section<'_>) {
        let (entries, bytes) = (self.entries() + 1, self.bytes() + bytes);
        self.set_entries(entries, bytes, section);
    }

    pub(crate) fn shrink(&self, bytes: usize, section: &mut Section<'_>) {
        let (entries, bytes) = (self.entries() - 1, self.bytes() - bytes);
        self.set_entries(entries, bytes, section);
        if entries == 0 {
            self.note_if_vacant();
        }
    }

    /// Without a read-modify-write: sections exclude each other, and nothing else sets them.
    fn set_entries(&self, entries: usize, bytes: usize, _section: &mut Section<'_>) {
        if !self.ended.load(Ordering::Relaxed) {
            self.era.totals.change_entries(self.entries(), entries);
        }
        self.entries.store(entries, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Called after an entry or a slot was removed.
    fn note_if_vacant(&self) {
        if self.is_vacant() {
            self.alive_until.store(0, Ordering::Relaxed);
            self.ends.bring_forward(Timestamp(0));
        }
    }

    /// An ended generation outside of the table, for entries that are in no tier.
    pub(crate) fn nowhere(name: &str) -> Arc<Self> {
        let (ends, era) = (Arc::default(), Arc::default());
        let generation = Self::begin(name, GenerationNumber(0), (&ends, &era), Settings::default());
        generation.ended.store(true, Ordering::Relaxed);
        Arc::new(generation)
    }

    fn begin(
        name: &str,
        number: GenerationNumber,
        (ends, era): (&Arc<Ends>, &Arc<Era>),
        Settings { quota, governed }: Settings,
    ) -> Self {
        ends.bring_forward(Timestamp(0));
        Self {
            synopsis: Synopsis::default(),
            labels: Mutex::default(),
            labels_above: AtomicUsize::new(0),
            ends: Arc::clone(ends),
            name: name.into(),
            number,
            index: Index::new(),
            ended: AtomicBool::new(false),
            era: Arc::clone(era),
            slot: 0,
            tally: Tally::nowhere(),
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            blocks: AtomicU64::new(0),
            live: AtomicUsize::new(0),
            alive_until: AtomicU64::new(0),
            quota,
            governed,
            ends_on_disk: AtomicU64::new(Timestamp::NEVER.0),
            expiries: Mutex::default(),
            expired: AtomicUsize::new(0),
        }
    }

    /// Whether it has no live entry. Its slots may still shadow records on file.
    fn is_vacant(&self) -> bool {
        self.entries() == 0 && self.live() == 0
    }

    /// Whether it has no records on file either.
    fn is_empty(&self) -> bool {
        self.entries() == 0 && self.index.is_empty()
    }

    /// The section is proof that the lock is held.
    fn end(&self, _section: &mut Section<'_>) {
        if !self.ended.swap(true, Ordering::AcqRel) {
            self.era.totals.change(self.figures(), Figures::default());
        }
    }
}
