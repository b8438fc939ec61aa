//! The budget of what leads to records: slots and synopses, labels, and last accesses.

use std::sync::atomic::Ordering;

use crate::cache::shared::Shared;
use crate::entry::Entry;
use crate::footprint::{POSTING_BYTES, SLOT_BYTES};
use crate::l2::L2;
use crate::order::Section;

/// What is left of the budget when the oldest segments begin to go.
const CROWDED_SHARE: usize = 16;

/// The part of the budget that last accesses take, where there are idle ttls.
pub(super) const ACCESSES_SHARE: usize = 8;

impl Shared {
    /// Whether there is no room for so many bytes more.
    pub(super) fn is_index_full(&self, bytes: usize, section: &mut Section<'_>) -> bool {
        self.budgeted_bytes(section).saturating_add(bytes) > self.config.l2_index_bytes_max
    }

    /// Whether room is to be made before it is needed.
    pub(super) fn is_index_crowded(&self, wanted: usize, section: &mut Section<'_>) -> bool {
        self.is_index_full(wanted.max(self.config.l2_index_bytes_max / CROWDED_SHARE), section)
    }

    /// The most that an entry on disk takes, besides the slot that its hash may have: a slot, and
    /// what its labels lead to it by.
    pub(super) fn index_bytes_of(entry: &Entry, is_fresh: bool) -> usize {
        let slot = if is_fresh { SLOT_BYTES } else { 0 };
        slot + entry.labels().len() * POSTING_BYTES
    }

    /// Whether the log can make room for so many bytes by what it has on file. What is in memory
    /// only has labels as well, which do not leave with any segment.
    pub(super) fn can_make_index_room(&self, l2: &L2, bytes: usize) -> bool {
        bytes <= self.config.l2_index_bytes_max / 2 && l2.log.can_make_index_room()
    }

    /// Whether accesses of an entry that is on disk, or is going to be, ought to be remembered and
    /// are not.
    pub(super) fn misses_accesses(&self, entry: &Entry) -> bool {
        entry.idle_ttl().is_some() && !self.accesses.has_room()
    }

    /// Sets room for last accesses aside. Where the index has taken it before, they are remembered
    /// once enough of that has been reclaimed.
    pub(super) fn want_accesses(&self, section: &mut Section<'_>) {
        self.accesses.want();
        if self.budgeted_bytes(section) <= self.config.l2_index_bytes_max {
            self.accesses.give_room();
        }
    }

    fn budgeted_bytes(&self, section: &mut Section<'_>) -> usize {
        let slots = self.slots.load(Ordering::Relaxed).saturating_mul(SLOT_BYTES);
        let above = self.labels_above.load(Ordering::Relaxed).saturating_mul(POSTING_BYTES);
        let labels = section.labels().bytes().saturating_sub(above);
        slots.saturating_add(labels).saturating_add(self.accesses.bytes_set_aside())
    }
}
