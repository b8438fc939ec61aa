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
        *self = Self { entries: 0, bytes: 0 };
        yield_now().await;
    }
}

/// Yields to the executor once; works on any executor.
pub(crate) async fn yield_now() {
    let mut paused = false;
    poll_fn(|context| {
        if paused {
            return Poll::Ready(());
        }
        paused = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
