//! The watch: a task on the disk's thread that takes completions which no reaper takes in time,
//! and frees the rings at the end.
//!
//! It looks at the rings once in a [`TICK`] while reads come or are in flight, and sleeps
//! otherwise. So a runtime that computes, blocks or ends delays nobody else's read by more than
//! a few ticks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::Notify;

use super::point_ring::PointRing;
use super::shared_ring::Progress;

const TICK: Duration = Duration::from_millis(1);

/// Ticks in which no completion is taken before the reaper counts as late.
const LATE_TICKS: u32 = 4;

/// Ticks without any read before the watch sleeps.
const QUIET_TICKS: u32 = 3;

/// Calls the watch.
#[derive(Debug, Default)]
pub(super) struct Watch {
    is_awake: AtomicBool,
    is_closing: AtomicBool,
    bell: Notify,
}

impl Watch {
    /// Wakes the watch, after a read was submitted.
    pub(super) fn call(&self) {
        if !self.is_awake.load(Ordering::Acquire) && !self.is_awake.swap(true, Ordering::AcqRel) {
            self.bell.notify_one();
        }
    }

    /// Makes the watch end once nothing is in flight.
    pub(super) fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
        self.bell.notify_one();
    }

    fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }
}

type Seen = SmallVec<[Progress; 16]>;

fn look(rings: &[Arc<PointRing>]) -> Seen {
    // Bounded: by the rings.
    rings.iter().map(|ring| ring.progress()).collect()
}

/// Abandons the rings when the watch ends early, with the thread.
struct OnDuty(Arc<[Arc<PointRing>]>);

impl Drop for OnDuty {
    fn drop(&mut self) {
        // Bounded: by the rings.
        self.0.iter().for_each(|ring| ring.abandon());
    }
}

/// Watches until it is closed and nothing is in flight; then frees the rings. If it is dropped
/// before, even before its first poll, the reads in flight are answered with an error.
pub(super) fn watch(
    rings: Arc<[Arc<PointRing>]>,
    watch: Arc<Watch>,
) -> impl Future<Output = ()> + Send + 'static {
    let duty = OnDuty(rings);
    until_freed(duty, watch)
}

async fn until_freed(duty: OnDuty, watch: Arc<Watch>) {
    let rings = &duty.0;
    // Bounded: a wait in each turn.
    while !watch.is_closing() {
        watch.bell.notified().await;
        until_quiet(rings, &watch).await;
    }
    // Bounded: by the rings.
    while !rings.iter().all(|ring| ring.free()) {
        tokio::time::sleep(TICK).await;
        // Bounded: by the rings.
        for ring in rings.iter() {
            // The kernel may have refused reads before the close.
            ring.flush();
            ring.relieve();
        }
    }
}

async fn until_quiet(rings: &[Arc<PointRing>], watch: &Watch) {
    let (mut before, mut quiet) = (look(rings), 0);
    let mut late = SmallVec::<[u32; 16]>::from_elem(0, rings.len());
    // Bounded: a wait in each turn.
    while !watch.is_closing() {
        tokio::time::sleep(TICK).await;
        let now = look(rings);
        // Bounded: by the rings.
        for (number, ring) in rings.iter().enumerate() {
            let (before, now) = (before[number], now[number]);
            let is_waiting = now.is_ready && before.is_ready && now.reaped == before.reaped;
            late[number] = if is_waiting { late[number] + 1 } else { 0 };
            if late[number] >= LATE_TICKS {
                ring.relieve();
            }
            if now.in_flight > 0 {
                ring.flush();
            }
        }
        // Bounded: by the rings.
        let is_quiet = now == before && now.iter().all(|ring| ring.in_flight == 0);
        quiet = if is_quiet { quiet + 1 } else { 0 };
        before = now;
        if quiet >= QUIET_TICKS {
            watch.is_awake.store(false, Ordering::Release);
            // A read that was submitted before this has not called; a later one calls.
            // Bounded: by the rings.
            if look(rings).iter().all(|ring| ring.in_flight == 0) {
                return;
            }
            watch.is_awake.store(true, Ordering::Release);
            quiet = 0;
        }
    }
}
