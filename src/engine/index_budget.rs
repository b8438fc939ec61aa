//! `IndexBudget`: memory for finding records on disk: slots, labels, access times, renewed
//! deadlines, and what flushes have left of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::access_times::AccessTimes;
use crate::commit_lock::Section;
use crate::disk_admission::{DiskAdmission, IndexUse};
use crate::disposal::{Freeing, Unfreed};
use crate::entry::{Entry, Mark};
use crate::footprint::{POSTING_BYTES, SLOT_BYTES};
use crate::l2::{L2, Outlines};
use crate::namespace::{Figures, Generation};
use crate::renewals::Renewals;

/// The oldest segments are reclaimed once less than this share of the budget is free.
pub(crate) const CROWDED_SHARE: usize = 16;

/// Access times may take this share, if there are idle ttls.
pub(crate) const ACCESSES_SHARE: usize = 8;

/// The times of records that are stale before their time may take this share, if there are any.
pub(crate) const EXPIRIES_SHARE: usize = 16;

/// Renewed deadlines of records may take this share, if there are any.
pub(crate) const RENEWALS_SHARE: usize = 16;

/// Slots and labels change in commit sections only.
pub(crate) struct IndexBudget {
    bytes_max: usize,
    access_times: Arc<AccessTimes>,
    expiry_times: Arc<AccessTimes>,
    renewals: Arc<Renewals>,
    /// Those of the disk tier, if there is one.
    outlines: Option<Arc<Outlines>>,
    disk_admission: Arc<DiskAdmission>,
    freeing: Arc<Freeing>,
    /// Of all generations that have not ended, like the others.
    slots: AtomicUsize,
    postings: AtomicUsize,
    /// Postings of entries without a record. The memory budget counts them.
    labels_above: AtomicUsize,
}

impl IndexBudget {
    pub(crate) fn new(
        bytes_max: usize,
        [access_times, expiry_times]: [Arc<AccessTimes>; 2],
        renewals: Arc<Renewals>,
        outlines: Option<Arc<Outlines>>,
        disk_admission: Arc<DiskAdmission>,
        freeing: Arc<Freeing>,
    ) -> Self {
        let (slots, postings) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let labels_above = AtomicUsize::new(0);
        Self {
            bytes_max,
            access_times,
            expiry_times,
            renewals,
            outlines,
            disk_admission,
            freeing,
            slots,
            postings,
            labels_above,
        }
    }

    /// Bytes of the outlines of segments.
    pub(crate) fn outline_bytes(&self) -> usize {
        self.outlines.as_ref().map_or(0, |outlines| outlines.bytes())
    }

    /// What is left, for what needs no more than an estimate.
    pub(crate) fn usage(&self) -> IndexUse {
        let used = self.budgeted_bytes().saturating_add(self.freeing.bytes());
        IndexUse { records: self.slots(), bytes_free: self.bytes_max.saturating_sub(used) }
    }

    pub(crate) fn slots(&self) -> usize {
        self.slots.load(Ordering::Relaxed)
    }

    pub(crate) fn add_slots(&self, count: usize) {
        if count > 0 {
            self.slots.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub(crate) fn remove_slots(&self, count: usize) {
        self.slots.fetch_sub(count, Ordering::Relaxed);
    }

    pub(crate) fn postings(&self) -> usize {
        self.postings.load(Ordering::Relaxed)
    }

    pub(crate) fn add_postings(&self, count: usize) {
        if count > 0 {
            self.postings.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub(crate) fn remove_postings(&self, count: usize) {
        if count > 0 {
            self.postings.fetch_sub(count, Ordering::Relaxed);
        }
    }

    /// A generation ends: what it leaves counts as unfreed instead, without a gap.
    pub(crate) fn end(&self, generation: &Generation, section: &mut Section<'_>) -> Unfreed {
        self.remove_slots(generation.index().len());
        self.remove_postings(generation.labels(section).len());
        let above = generation.labels_above().load(Ordering::Relaxed);
        self.labels_above.fetch_sub(above, Ordering::Relaxed);
        self.freeing.count(generation.bytes_to_free())
    }

    /// All generations end, likewise. `sums`: over all of them.
    pub(crate) fn end_all(&self, sums: Figures, _section: &mut Section<'_>) -> Unfreed {
        let postings = self.postings().saturating_mul(POSTING_BYTES);
        // Bounded: three.
        for count in [&self.slots, &self.postings, &self.labels_above] {
            count.store(0, Ordering::Relaxed);
        }
        self.freeing.count(sums.index_bytes + sums.synopsis_bytes + postings)
    }

    pub(crate) fn labels_above(&self) -> usize {
        self.labels_above.load(Ordering::Relaxed)
    }

    /// An entry has no record: it has been inserted without one, or that has left the log.
    pub(crate) fn add_labels_of(&self, entry: &Entry, _section: &mut Section<'_>) {
        if !entry.labels().is_empty() && !entry.is(Mark::LabelsAbove) {
            entry.mark_shared(Mark::LabelsAbove);
            let above = entry.generation.labels_above();
            // Bounded: two.
            for count in [&self.labels_above, above] {
                count.fetch_add(entry.labels().len(), Ordering::Relaxed);
            }
        }
    }

    /// An entry has been removed. The end of its generation has subtracted its labels.
    pub(crate) fn remove_labels_of(&self, entry: &Entry, _section: &mut Section<'_>) {
        if entry.is(Mark::LabelsAbove) && !entry.generation.has_ended() {
            let above = entry.generation.labels_above();
            // Bounded: two.
            for count in [&self.labels_above, above] {
                count.fetch_sub(entry.labels().len(), Ordering::Relaxed);
            }
        }
    }

    /// Whether the index has no room for so many bytes.
    pub(crate) fn is_index_full(&self, bytes: usize, _section: &mut Section<'_>) -> bool {
        let unfreed = self.freeing.bytes();
        self.budgeted_bytes().saturating_add(unfreed).saturating_add(bytes) > self.bytes_max
    }

    /// Whether it will have more without any reclaim.
    pub(crate) fn is_unfreed(&self) -> bool {
        self.freeing.is_at_work()
    }

    /// Whether the log should reclaim segments ahead of need.
    pub(crate) fn is_index_crowded(&self, wanted: usize, _section: &mut Section<'_>) -> bool {
        let wanted = wanted.max(self.bytes_max / CROWDED_SHARE);
        self.budgeted_bytes().saturating_add(wanted) > self.bytes_max
    }

    /// The most that an entry on disk takes: a slot, unless its hash has one, and its labels.
    pub(crate) fn index_bytes_of(entry: &Entry, is_fresh: bool) -> usize {
        let slot = if is_fresh { SLOT_BYTES } else { 0 };
        slot + entry.labels().len() * POSTING_BYTES
    }

    /// Whether reclaim can free so many bytes, and leave as many. Labels of entries in memory stay.
    pub(crate) fn can_make_index_room(&self, l2: &L2, bytes: usize) -> bool {
        let reclaimable = self.bytes_max.saturating_sub(self.bytes_reserved());
        bytes <= reclaimable / 2 && l2.log.can_make_index_room()
    }

    /// Whether the access time of this entry should be kept, and there is no room for it yet.
    pub(crate) fn misses_accesses(&self, entry: &Entry) -> bool {
        entry.idle_ttl().is_some() && !self.has_room_for_accesses()
    }

    pub(crate) fn has_room_for_accesses(&self) -> bool {
        self.access_times.has_room()
    }

    /// Reserves room for times since when records are stale, likewise.
    pub(crate) fn want_expiries(&self, section: &mut Section<'_>) {
        if !self.expiry_times.has_room() {
            self.expiry_times.request();
            if !self.is_index_full(0, section) {
                self.expiry_times.enable();
            }
        }
    }

    /// Reserves room for renewed deadlines, likewise.
    pub(crate) fn want_renewals(&self, section: &mut Section<'_>) {
        if !self.renewals.has_room() {
            self.renewals.request();
            if !self.is_index_full(0, section) {
                self.renewals.enable();
            }
        }
    }

    /// Reserves room for access times, which they use once enough has been reclaimed.
    pub(crate) fn want_accesses(&self, section: &mut Section<'_>) {
        self.access_times.request();
        if !self.is_index_full(0, section) {
            self.access_times.enable();
        }
    }

    fn budgeted_bytes(&self) -> usize {
        let slots = self.slots().saturating_mul(SLOT_BYTES);
        let below = self.postings().saturating_sub(self.labels_above());
        let labels = below.saturating_mul(POSTING_BYTES);
        let beside = self.outline_bytes() + self.bytes_reserved();
        slots.saturating_add(labels).saturating_add(beside)
    }

    /// What no reclaim frees.
    fn bytes_reserved(&self) -> usize {
        self.access_times.bytes_reserved()
            + self.expiry_times.bytes_reserved()
            + self.renewals.bytes_reserved()
            + self.disk_admission.bytes_reserved()
    }
}
