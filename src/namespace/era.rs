//! `Era`: state shared by all generations that one flush of everything ends.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

/// A flush of everything ends the era with one store and begins another. Every reader of an entry
/// checks it; so the flag shares its cache line with nothing that changes.
#[derive(Debug, Default)]
pub(super) struct Era {
    ended: CachePadded<AtomicBool>,
    pub(super) totals: Totals,
}

/// Sums over all generations of the era that have not ended. Changed in sections only.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    entries: AtomicUsize,
    live: AtomicUsize,
    index_bytes: AtomicUsize,
    synopsis_bytes: AtomicUsize,
}

/// The contribution of one generation.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) entries: usize,
    pub(crate) live: usize,
    pub(crate) index_bytes: usize,
    pub(crate) synopsis_bytes: usize,
}

impl Era {
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }
}

impl Totals {
    /// Applies a change of one generation's figures.
    pub(super) fn change(&self, before: Figures, after: Figures) {
        self.change_entries(before.entries, after.entries);
        change(&self.live, before.live, after.live);
        change(&self.index_bytes, before.index_bytes, after.index_bytes);
        change(&self.synopsis_bytes, before.synopsis_bytes, after.synopsis_bytes);
    }

    /// The same if nothing but the number of entries changes.
    pub(super) fn change_entries(&self, before: usize, after: usize) {
        change(&self.entries, before, after);
    }

    pub(super) fn sums(&self) -> Figures {
        Figures {
            entries: self.entries.load(Ordering::Relaxed),
            live: self.live.load(Ordering::Relaxed),
            index_bytes: self.index_bytes.load(Ordering::Relaxed),
            synopsis_bytes: self.synopsis_bytes.load(Ordering::Relaxed),
        }
    }
}

fn change(total: &AtomicUsize, before: usize, after: usize) {
    if before != after {
        // Wrapping subtraction handles a decrease. Sections exclude each other, so this needs no
        // read-modify-write.
        let change = after.wrapping_sub(before);
        total.store(total.load(Ordering::Relaxed).wrapping_add(change), Ordering::Relaxed);
    }
}
