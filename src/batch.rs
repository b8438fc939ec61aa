//! Bounded steps: no poll handles more than [`BATCH_BYTES`], whatever the size of the job.

use std::future::poll_fn;
use std::task::Poll;

use crate::meter;

/// The most bytes that one poll copies, hashes or compresses.
pub(crate) const BATCH_BYTES: usize = 256 * 1024;

/// The most entries that one poll visits in a walk over many.
pub(crate) const BATCH_ENTRIES: usize = 256;

/// How much of a step a walk over many entries has used up. Tells the meter. A walk begins with a
/// pause, since nobody knows what the same poll has done before.
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
    /// One more entry is visited.
    pub(crate) async fn entry(&mut self) {
        self.entries(1).await;
    }

    /// So many more are, no more than a step has.
    pub(crate) async fn entries(&mut self, count: usize) {
        if self.entries + count > BATCH_ENTRIES {
            self.next().await;
        }
        self.entries += count;
        meter::entries(count);
    }

    /// So many bytes are handled, no more than a step has.
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

/// Hands the thread back to the executor once, on whatever executor the caller runs.
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
