//! `IndexBudget`: the memory that leads to records on disk may take: slots, labels, last accesses.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::access_times::AccessTimes;
use crate::commit_lock::Section;
use crate::entry::Entry;
use crate::footprint::{POSTING_BYTES, SLOT_BYTES};
use crate::l2::L2;

/// What is left of the budget when the oldest segments begin to go.
const CROWDED_SHARE: usize = 16;

/// The part of the budget that last accesses take, where there are idle ttls.
pub(crate) const ACCESSES_SHARE: usize = 8;

/// See the module. Slots and labels are counted in append sections.
pub(crate) struct IndexBudget {
    bytes_max: usize,
    access_times: Arc<AccessTimes>,
    /// Slots of all indexes.
    slots: AtomicUsize,
    /// Labels of entries without a record: the budget of memory counts them.
    labels_above: AtomicUsize,
}

impl IndexBudget {
    pub(crate) fn new(bytes_max: usize, access_times: Arc<AccessTimes>) -> Self {
        let (slots, labels_above) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { bytes_max, access_times, slots, labels_above }
    }

    pub(crate) fn slots(&self) -> usize {
        self.slots.load(Ordering::Relaxed)
    }

    pub(crate) fn add_slots(&self, count: usize) {
        self.slots.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn remove_slots(&self, count: usize) {
        self.slots.fetch_sub(count, Ordering::Relaxed);
    }

    pub(crate) fn remove_all_slots(&self) {
        self.slots.store(0, Ordering::Relaxed);
    }

    /// Labels of entries that are in memory only.
    pub(crate) fn labels_above(&self) -> usize {
        self.labels_above.load(Ordering::Relaxed)
    }

    /// An entry without a record has come into memory.
    pub(crate) fn add_labels_of(&self, entry: &Entry) {
        self.labels_above.fetch_add(entry.labels().len(), Ordering::Relaxed);
    }

    /// It has left.
    pub(crate) fn remove_labels_of(&self, entry: &Entry) {
        self.labels_above.fetch_sub(entry.labels().len(), Ordering::Relaxed);
    }

    /// Whether there is no room for so many bytes more.
    pub(crate) fn is_index_full(&self, bytes: usize, section: &mut Section<'_>) -> bool {
        self.budgeted_bytes(section).saturating_add(bytes) > self.bytes_max
    }

    /// Whether room is to be made before it is needed.
    pub(crate) fn is_index_crowded(&self, wanted: usize, section: &mut Section<'_>) -> bool {
        self.is_index_full(wanted.max(self.bytes_max / CROWDED_SHARE), section)
    }

    /// The most that an entry on disk takes, besides the slot that its hash may have: a slot, and
    /// what its labels lead to it by.
    pub(crate) fn index_bytes_of(entry: &Entry, is_fresh: bool) -> usize {
        let slot = if is_fresh { SLOT_BYTES } else { 0 };
        slot + entry.labels().len() * POSTING_BYTES
    }

    /// Whether the log can make room for so many bytes by what it has on file. What is in memory
    /// only has labels as well, which do not leave with any segment.
    pub(crate) fn can_make_index_room(&self, l2: &L2, bytes: usize) -> bool {
        bytes <= self.bytes_max / 2 && l2.log.can_make_index_room()
    }

    /// Whether accesses of an entry that is on disk, or is going to be, ought to be remembered and
    /// are not.
    pub(crate) fn misses_accesses(&self, entry: &Entry) -> bool {
        entry.idle_ttl().is_some() && !self.access_times.has_room()
    }

    /// Sets room for last accesses aside. Where the index has taken it before, they are remembered
    /// once enough of that has been reclaimed.
    pub(crate) fn want_accesses(&self, section: &mut Section<'_>) {
        self.access_times.want();
        if self.budgeted_bytes(section) <= self.bytes_max {
            self.access_times.give_room();
        }
    }

    fn budgeted_bytes(&self, section: &mut Section<'_>) -> usize {
        let slots = self.slots().saturating_mul(SLOT_BYTES);
        let above = self.labels_above().saturating_mul(POSTING_BYTES);
        let labels = section.labels().bytes().saturating_sub(above);
        slots.saturating_add(labels).saturating_add(self.access_times.bytes_set_aside())
    }
}
