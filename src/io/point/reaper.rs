//! Reapers: tasks that take the completions of a ring as soon as its bell rings.
//!
//! A read is cheapest if the runtime that waits for it also reaps: the bell is in that runtime's
//! own epoll, so a completion costs one wakeup. So each ring has one reaper, in the runtime that
//! submitted to it last, or on the disk's thread if the caller has no runtime. A reaper that is
//! replaced ends at the next ring of the bell. Nothing depends on it: if it is slow, blocked or
//! gone, the [watch](super::watch) takes over.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::appointment::Place;
use super::point_ring::PointRing;
use crate::batch::{BATCH_ENTRIES, yield_now};

/// Resigns when the reaper ends by itself, for whatever reason.
struct InOffice {
    ring: Arc<PointRing>,
    place: Place,
    /// Another reaper has taken its place.
    is_replaced: bool,
}

impl Drop for InOffice {
    fn drop(&mut self) {
        if !self.is_replaced {
            self.ring.resign(self.place);
        }
    }
}

/// A reaper, appointed in `place`. A runtime that is shutting down drops it before its first poll,
/// so it is in office from the beginning.
pub(super) fn reap(
    ring: Arc<PointRing>,
    place: Place,
) -> impl Future<Output = ()> + Send + 'static {
    let office = InOffice { ring, place, is_replaced: false };
    serve(office)
}

async fn serve(mut office: InOffice) {
    let ring = Arc::clone(&office.ring);
    let Some(bell) = ring.bell() else { return };
    let Some(bell) = bell.listen() else {
        if let Ok(runtime) = Handle::try_current() {
            ring.exclude(runtime.id());
        }
        return;
    };
    // Bounded: a wait in each turn.
    while bell.rung().await.is_ok() {
        office.is_replaced = !ring.serve(office.place);
        let mut reaped = 0;
        // Bounded: by the reads in flight.
        while ring.reap() {
            reaped += 1;
            if reaped % BATCH_ENTRIES == 0 {
                yield_now().await;
            }
        }
        if office.is_replaced || ring.is_closed() {
            return;
        }
    }
}
