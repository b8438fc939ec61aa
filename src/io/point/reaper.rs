//! Reapers: tasks that take the completions of a ring as soon as its bell rings.
//!
//! A read is cheapest if the runtime that waits for it also reaps: the bell is in that runtime's
//! own epoll, so a completion costs one wakeup. So each ring has one reaper, in the runtime that
//! submitted to it last, or on the disk's thread if the caller has no runtime. A reaper that is
//! replaced ends at the next ring of the bell. Nothing depends on it: if it is slow, blocked or
//! gone, the [watch](super::watch) takes over.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::point_ring::PointRing;
use crate::batch::{BATCH_ENTRIES, yield_now};

/// Resigns when the reaper ends, for whatever reason.
struct InOffice {
    ring: Arc<PointRing>,
    term: u64,
}

impl Drop for InOffice {
    fn drop(&mut self) {
        self.ring.resign(self.term);
    }
}

/// The reaper of one term.
pub(super) async fn reap(ring: Arc<PointRing>, term: u64) {
    let office = InOffice { ring, term };
    let ring = &office.ring;
    let Some(bell) = ring.bell() else { return };
    let Some(bell) = bell.listen() else {
        if let Ok(runtime) = Handle::try_current() {
            ring.exclude(runtime.id());
        }
        return;
    };
    // Bounded: a wait in each turn.
    while bell.rung().await.is_ok() {
        let is_in_office = ring.serve(term);
        let mut reaped = 0;
        // Bounded: by the reads in flight.
        while ring.reap() {
            reaped += 1;
            if reaped % BATCH_ENTRIES == 0 {
                yield_now().await;
            }
        }
        if !is_in_office {
            return;
        }
    }
}
