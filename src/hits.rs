//! `Hits`: what hits leave behind in an entry. SIEVE's hand takes one mark, the log the other.

use std::sync::atomic::{AtomicU8, Ordering};

/// Since the hand of its SIEVE list last passed.
const VISITED: u8 = 1;

/// Since its record was written.
const IN_USE: u8 = 2;

#[derive(Debug, Default)]
pub(crate) struct Hits(AtomicU8);

impl Hits {
    /// Writes only the first time, because the line is shared by all readers.
    #[inline]
    pub(crate) fn note(&self) {
        if self.0.load(Ordering::Relaxed) != VISITED | IN_USE {
            self.0.store(VISITED | IN_USE, Ordering::Relaxed);
        }
    }

    /// Clears the mark for SIEVE's hand, and returns whether it was set.
    pub(crate) fn take_visited(&self) -> bool {
        let marks = self.0.load(Ordering::Relaxed);
        let is_visited = marks & VISITED != 0;
        if is_visited {
            // A read-modify-write would cost more, and a hit meanwhile may come before or after.
            self.0.store(marks & !VISITED, Ordering::Relaxed);
        }
        is_visited
    }

    /// Whether there was a hit since the record was written.
    pub(crate) fn is_in_use(&self) -> bool {
        self.0.load(Ordering::Relaxed) & IN_USE != 0
    }

    /// The record has been written again.
    pub(crate) fn note_rewritten(&self) {
        self.0.fetch_and(!IN_USE, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_is_taken_by_its_owner_alone() {
        let hits = Hits::default();
        assert!(!hits.take_visited() && !hits.is_in_use());
        hits.note();
        assert!(hits.take_visited() && !hits.take_visited() && hits.is_in_use());
        hits.note();
        hits.note_rewritten();
        assert!(!hits.is_in_use() && hits.take_visited());
        hits.note();
        assert!(hits.is_in_use() && hits.take_visited());
    }
}
