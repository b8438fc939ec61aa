//! The budget of what leads to records: slots and synopses, labels, and last accesses.

use std::sync::atomic::Ordering;

use crate::cache::shared::Shared;
use crate::entry::Entry;
use crate::footprint::SLOT_BYTES;
use crate::order::Section;

/// The part of the budget that last accesses take, where there are idle ttls.
pub(super) const ACCESSES_SHARE: usize = 8;

impl Shared {
    /// Whether there is no room for another slot.
    pub(super) fn is_index_full(&self, section: &mut Section<'_>) -> bool {
        self.budgeted_bytes(section) >= self.config.l2_index_bytes_max
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
        let beside = section.labels().bytes() + self.accesses.bytes_set_aside();
        slots.saturating_add(beside)
    }
}
