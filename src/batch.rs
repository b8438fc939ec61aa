//! Batches: no poll handles more than [`BATCH_BYTES`], however large the job.

use std::future::poll_fn;
use std::task::Poll;

use crate::meter;

/// The most bytes that one poll copies, hashes or compresses.
pub(crate) const BATCH_BYTES: usize = 256 * 1024;

/// The most entries that one poll visits in a walk over many.
pub(crate) const BATCH_ENTRIES: usize = 256;

/// Counts the work of a batch for the meter, and yields when it is full. A walk starts with a
/// yield, because the same poll may have done other work before.
#[derive(Debug)]
pub(crate) struct Pacer {
    entries: usize,
    bytes: usize,
}

impl Default for Pacer {
    fn default() -> Self {
        Self { entries: BATCH_ENTRIES, bytes: BATCH_BYTES }
    }
}

impl Pacer {
    /// For a walk that begins with its call, in a poll that has done nothing else.
    pub(crate) const fn at_once() -> Self {
        Self { entries: 0, bytes: 0 }
    }

    /// Whether the next entry is for the next poll.
    pub(crate) const fn is_full(&self) -> bool {
        self.entries >= BATCH_ENTRIES
    }

    pub(crate) async fn entry(&mut self) {
        self.entries(1).await;
    }

    pub(crate) async fn entries(&mut self, count: usize) {
        if self.entries + count > BATCH_ENTRIES {
            self.next().await;
        }
        self.entries += count;
        meter::entries(count);
    }

    pub(crate) async fn bytes(&mut self, count: usize) {
        if self.bytes + count > BATCH_BYTES {
            self.next().await;
        }
        self.bytes += count;
        meter::bytes(count);
    }

    async fn next(&mut self) {
        *self = Self::at_once();
        yield_now().await;
    }
}

/// What the calls have handled that one poll runs one after the other or side by side. They count
/// for themselves; before each, this says whether the poll has room for it.
#[derive(Debug)]
pub(crate) struct PollShare {
    /// What the thread had handled when the poll began.
    begun: usize,
}

impl PollShare {
    /// At the beginning of a poll.
    pub(crate) fn begin() -> Self {
        Self { begun: meter::bytes_so_far() }
    }

    /// Whether so many more bytes are too much for this poll. A call that is the first is not. On
    /// another thread, after a wait, the answer may be yes without need.
    pub(crate) fn is_used_up_by(&self, bytes: usize) -> bool {
        let handled = meter::bytes_so_far().wrapping_sub(self.begun);
        handled > 0 && handled.saturating_add(bytes) > BATCH_BYTES
    }
}

/// Sorts items, however many, in batches: a batch each, then by merging.
pub(crate) async fn sort_in_batches<T: Copy + Ord>(mut items: Vec<T>, steps: &mut Pacer) -> Vec<T> {
    for batch in items.chunks_mut(BATCH_ENTRIES) {
        steps.entries(batch.len()).await;
        batch.sort_unstable();
    }
    let mut merged = Vec::with_capacity(items.len());
    let mut width = BATCH_ENTRIES;
    while width < items.len() {
        for pair in items.chunks(2 * width) {
            let (mut left, mut right) = pair.split_at(width.min(pair.len()));
            while !left.is_empty() || !right.is_empty() {
                steps.entries(BATCH_ENTRIES.min(left.len() + right.len())).await;
                merge_batch(&mut left, &mut right, &mut merged);
            }
        }
        std::mem::swap(&mut items, &mut merged);
        merged.clear();
        width *= 2;
    }
    items
}

/// Bits of a key that one pass of [`sort_by_key`] sorts by.
const DIGIT_BITS: u32 = 11;

/// Sorts pairs by their first part, in batches. Those of one key stay in order.
pub(crate) async fn sort_by_key(mut items: Vec<(u32, u32)>, steps: &mut Pacer) -> Vec<(u32, u32)> {
    let mut bits = 0;
    for batch in items.chunks(BATCH_ENTRIES) {
        steps.entries(batch.len()).await;
        bits = batch.iter().fold(bits, |bits, (key, _)| bits | key);
    }
    let mut sorted = Vec::with_capacity(items.len());
    let mut shift = 0;
    // Bounded: by the digits of a key.
    while shift < u32::BITS && bits >> shift > 0 {
        let digit = |key: u32| (key >> shift & ((1 << DIGIT_BITS) - 1)) as usize;
        let mut places = vec![0; 1 << DIGIT_BITS];
        sorted.clear();
        for batch in items.chunks(BATCH_ENTRIES) {
            steps.entries(batch.len()).await;
            sorted.resize(sorted.len() + batch.len(), (0, 0));
            batch.iter().for_each(|(key, _)| places[digit(*key)] += 1);
        }
        let mut end = 0;
        // Bounded: by the values of a digit.
        places.iter_mut().for_each(|place| end += std::mem::replace(place, end));
        for batch in items.chunks(BATCH_ENTRIES) {
            steps.entries(batch.len()).await;
            // Bounded: by a batch.
            for item in batch {
                let place = &mut places[digit(item.0)];
                sorted[*place] = *item;
                *place += 1;
            }
        }
        std::mem::swap(&mut items, &mut sorted);
        shift += DIGIT_BITS;
    }
    items
}

/// Moves a batch of the least items of two sorted lists.
fn merge_batch<'a, T: Copy + Ord>(left: &mut &'a [T], right: &mut &'a [T], merged: &mut Vec<T>) {
    // Bounded: by a batch.
    for _ in 0..BATCH_ENTRIES {
        let is_left = match (left.first(), right.first()) {
            (Some(from_left), Some(from_right)) => from_left <= from_right,
            (from_left, _) => from_left.is_some(),
        };
        let from = if is_left { &mut *left } else { &mut *right };
        let Some((first, rest)) = from.split_first() else { return };
        merged.push(*first);
        *from = rest;
    }
}

/// Yields to the executor once; works on any executor.
pub(crate) async fn yield_now() {
    let mut paused = false;
    // It owns what it changes: a future that refers into itself is beyond what Miri can follow.
    poll_fn(move |context| {
        if paused {
            return Poll::Ready(());
        }
        paused = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn items_are_sorted_in_batches() {
        let mut rng = StdRng::seed_from_u64(1);
        for count in [0, 1, 2, 255, 256, 257, 511, 512, 513, 769, 5000, 65_536, 70_001] {
            let most = rng.random_range(1..100_000);
            let items: Vec<u32> = (0..count).map(|_| rng.random_range(0..most)).collect();
            let mut expected = items.clone();
            expected.sort_unstable();
            let (sorted, work) =
                meter::measured(|| block_on(sort_in_batches(items, &mut Pacer::default())));
            assert_eq!(sorted, expected);
            assert!(work.entries >= count);
        }
    }

    #[test]
    fn pairs_are_sorted_by_key_in_their_order() {
        let mut rng = StdRng::seed_from_u64(2);
        for count in [0, 1, 2, 255, 256, 257, 5000, 70_001] {
            for bits in [0, 1, 10, 11, 12, 22, 23, 32] {
                let key = |rng: &mut StdRng| rng.random::<u32>().checked_shr(32 - bits);
                let items: Vec<(u32, u32)> =
                    (0..count).map(|number| (key(&mut rng).unwrap_or(0), number)).collect();
                let mut expected = items.clone();
                expected.sort_unstable();
                let sorted = block_on(sort_by_key(items, &mut Pacer::default()));
                assert!(sorted == expected, "{count} of {bits} bits");
            }
        }
    }
}
