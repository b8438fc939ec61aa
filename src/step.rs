//! Bounded steps: no poll handles more than [`STEP_BYTES`], whatever the size of the job.

use std::future::poll_fn;
use std::task::Poll;

/// The most bytes that one poll copies, hashes or compresses.
pub(crate) const STEP_BYTES: usize = 256 * 1024;

/// The most entries that one poll visits in a walk over many.
pub(crate) const STEP_ENTRIES: usize = 256;

/// Hands the thread back to the executor once, on whatever executor the caller runs.
pub(crate) async fn pause() {
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
