//! `Tallies`: hits and misses of each namespace, striped over threads as `Counters` are.
//!
//! A namespace has a column in a table, and each thread a row of its own: a hit writes one word
//! that no other thread writes, where the count of all hits would be, which is the sum of the
//! table. So columns are never cleared: the next namespace in a column begins at the sums that it
//! finds there. A hit that was found before a flush and is counted after it may count for the next
//! namespace of the column.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::thread_number::thread_number;

/// Columns of a block. A row of a block is a few cache lines.
const COLUMNS: usize = 32;

const HIT: usize = 0;
const MISS: usize = 1;

/// The cells of one thread, or of those without a row of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Row([[AtomicU64; COLUMNS]; 2]);

#[derive(Debug, Clone, Default)]
struct Block {
    /// Of one thread each.
    own: Arc<[Row]>,
    /// Their number is a power of two.
    shared: Arc<[Row]>,
}

#[derive(Debug)]
pub(crate) struct Tallies {
    blocks: Mutex<Vec<Block>>,
    own: usize,
    shared: usize,
}

/// The column of a namespace, and the sums that were there when it began.
#[derive(Debug)]
pub(crate) struct Tally {
    block: Block,
    column: usize,
    hits_before: u64,
    misses_before: u64,
}

impl Tallies {
    pub(crate) fn new(cores: usize) -> Self {
        let (own, shared) = (2 * cores, cores.next_power_of_two());
        Self { blocks: Mutex::default(), own: own.clamp(16, 128), shared: shared.min(32) }
    }

    /// The tally of a namespace that takes the slot of this number.
    pub(crate) fn begin(&self, slot: usize) -> Tally {
        let (number, column) = (slot / COLUMNS, slot % COLUMNS);
        let mut blocks = self.blocks.lock();
        // Bounded: by the most namespaces.
        while blocks.len() <= number {
            blocks.push(Block::new(self.own, self.shared));
        }
        let block = blocks[number].clone();
        drop(blocks);
        let mut tally = Tally { block, column, hits_before: 0, misses_before: 0 };
        (tally.hits_before, tally.misses_before) = (tally.sum(HIT), tally.sum(MISS));
        tally
    }

    /// Hits of all namespaces there ever were.
    pub(crate) fn hits(&self) -> u64 {
        // Summed without the lock: whoever begins a namespace waits for it.
        let blocks = self.blocks.lock().clone();
        let rows = blocks.iter().flat_map(Block::rows);
        // Bounded: by the cores, times the most namespaces at a time.
        rows.flat_map(|row| &row.0[HIT]).map(|hits| hits.load(Ordering::Relaxed)).sum()
    }

    #[cfg(test)]
    fn rows(&self) -> usize {
        self.own + self.shared
    }
}

impl Block {
    fn new(own: usize, shared: usize) -> Self {
        // Bounded: by the cores.
        let rows = |number: usize| (0..number).map(|_| Row::default()).collect();
        Self { own: rows(own), shared: rows(shared) }
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.own.iter().chain(&*self.shared)
    }
}

impl Row {
    #[inline]
    fn cell(&self, column: usize, what: usize) -> &AtomicU64 {
        // A mask is cheaper than a comparison, and a hit in memory comes here.
        &self.0[what][column % COLUMNS]
    }
}

impl Tally {
    /// Of a generation that no reader finds: counts nothing.
    pub(crate) fn nowhere() -> Self {
        Self { block: Block::default(), column: 0, hits_before: 0, misses_before: 0 }
    }

    #[inline]
    pub(crate) fn count_hit(&self) {
        self.count(HIT);
    }

    pub(crate) fn count_miss(&self) {
        self.count(MISS);
    }

    pub(crate) fn hits(&self) -> u64 {
        self.sum(HIT) - self.hits_before
    }

    pub(crate) fn misses(&self) -> u64 {
        self.sum(MISS) - self.misses_before
    }

    #[inline]
    fn count(&self, what: usize) {
        let thread = thread_number();
        match self.block.own.get(thread) {
            Some(row) => {
                let count = row.cell(self.column, what);
                count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            }
            None => self.count_shared(thread, what),
        }
    }

    #[inline(never)]
    fn count_shared(&self, thread: usize, what: usize) {
        let shared = &self.block.shared;
        if !shared.is_empty() {
            let row = &shared[thread & (shared.len() - 1)];
            row.cell(self.column, what).fetch_add(1, Ordering::Relaxed);
        }
    }

    fn sum(&self, what: usize) -> u64 {
        // Bounded: by the rows, some for each core.
        self.block.rows().map(|row| row.cell(self.column, what).load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use crate::rounds::rounds;

    /// Three times as many threads as have rows of their own, at the same time.
    #[test]
    fn hits_of_all_threads_count_for_their_namespace_and_for_all() {
        let tallies = Tallies::new(2);
        let (first, other) = (tallies.begin(0), tallies.begin(COLUMNS + 1));
        let (threads, hits) = (3 * tallies.rows(), rounds(1000, 10));
        let begin = Barrier::new(threads);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    first.count_miss();
                    begin.wait();
                    (0..hits).for_each(|_| first.count_hit());
                    other.count_hit();
                });
            }
        });
        let threads = threads as u64;
        assert_eq!((first.hits(), first.misses()), (threads * hits, threads));
        assert_eq!((other.hits(), other.misses()), (threads, 0));
        assert_eq!(tallies.hits(), threads * (hits + 1));
    }

    #[test]
    fn the_next_namespace_of_a_column_begins_at_zero_and_the_sum_keeps_all() {
        let tallies = Tallies::new(1);
        let first = tallies.begin(3);
        first.count_hit();
        first.count_miss();
        let next = tallies.begin(3);
        assert_eq!((next.hits(), next.misses()), (0, 0));
        next.count_hit();
        assert_eq!((next.hits(), tallies.hits()), (1, 2));
        let nowhere = Tally::nowhere();
        nowhere.count_hit();
        assert_eq!((nowhere.hits(), tallies.hits()), (0, 2));
    }
}
