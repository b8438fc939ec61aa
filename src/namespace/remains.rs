//! What an ended generation leaves, freed piece by piece.

use std::iter;
use std::sync::Arc;

use super::Generation;
use crate::l2::ScanCursor;

/// Chunks of postings are freed at once, however many postings they have.
const CHUNK_ENTRIES: usize = 64;

/// A piece that was freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Freed {
    /// The work of it, in entries.
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

impl Generation {
    /// The bytes of its index, filter and postings.
    pub(crate) fn bytes_to_free(&self) -> usize {
        self.index_and_filter_bytes() + self.labels.lock().heap_bytes()
    }

    /// Whether there is anything to free.
    pub(crate) fn leaves_anything(&self) -> bool {
        !self.index.is_empty() || self.labels.lock().heap_bytes() > 0
    }

    /// Each item frees a piece of an ended generation.
    pub(crate) fn pieces(self: Arc<Self>) -> impl Iterator<Item = Freed> + Send {
        debug_assert!(self.has_ended(), "its entries are in use");
        let other = Arc::clone(&self);
        let labels = iter::from_fn(move || {
            let bytes = other.labels.lock().free_some()?;
            Some(Freed { entries: CHUNK_ENTRIES, bytes })
        });
        let mut next = Some(ScanCursor::default());
        let index = iter::from_fn(move || {
            let (from, before) = (next?, self.index_and_filter_bytes());
            let slots = self.index.len();
            self.synopsis.clear();
            next = self.index.clear(from);
            let entries = 1 + slots - self.index.len();
            Some(Freed { entries, bytes: before.saturating_sub(self.index_and_filter_bytes()) })
        });
        labels.chain(index)
    }

    fn index_and_filter_bytes(&self) -> usize {
        self.index.memory_bytes() + self.synopsis.bytes()
    }
}
