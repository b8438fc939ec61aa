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

#[cfg(not(modelled))]
#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::runtime::{Builder, Runtime};
    use tokio::sync::mpsc;
    use tokio::time::sleep;

    use super::super::super::request::Read;
    use super::super::shared_ring::SharedRing;
    use super::super::trust::Trust;
    use super::*;
    use crate::io::reply::exchange;

    /// A ring of a file of one block.
    fn ring() -> (Arc<PointRing>, Arc<Trust>) {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(4096).expect("a length");
        let trust = Arc::<Trust>::default();
        let ring = SharedRing::new(&file, 4).expect("a ring");
        (Arc::new(PointRing::new(ring, Arc::clone(&trust), mpsc::unbounded_channel().0)), trust)
    }

    fn driven() -> Runtime {
        Builder::new_current_thread().enable_all().build().expect("runtime")
    }

    fn place(runtime: &Runtime) -> Place {
        Place::Runtime(runtime.handle().id())
    }

    async fn read(ring: &PointRing) {
        let (reply, answer) = exchange();
        assert!(ring.submit(Read { offset: 0, length: 4096, pin: None, reply }, false).is_ok());
        assert_eq!(answer.await.expect("answered").expect("read").len(), 4096);
    }

    #[test]
    fn a_reaper_that_its_runtime_never_polls_leaves_its_office() {
        let ((ring, trust), runtime) = (ring(), driven());
        let place = place(&runtime);
        assert!(ring.appoint(place));
        assert!(!ring.appoint(place), "it is there already");
        drop(reap(Arc::clone(&ring), place));
        assert!(!trust.trusts(runtime.handle().id()));
        assert!(ring.appoint(place), "it is gone");
    }

    #[test]
    fn a_runtime_without_io_is_excluded() {
        let (ring, trust) = ring();
        let runtime = Builder::new_current_thread().build().expect("runtime");
        let place = place(&runtime);
        assert!(ring.appoint(place));
        runtime.block_on(reap(Arc::clone(&ring), place));
        assert!(!trust.trusts(runtime.handle().id()));
        std::thread::sleep(Duration::from_millis(1100));
        assert!(!trust.trusts(runtime.handle().id()), "for longer than one that was late");
        assert!(ring.appoint(place), "it is gone");
    }

    #[test]
    fn a_runtime_that_is_late_again_and_again_is_not_trusted() {
        let ((ring, trust), runtime) = (ring(), driven());
        let place = place(&runtime);
        assert!(ring.appoint(place));
        for _ in 0..3 {
            ring.relieve();
        }
        assert!(ring.serve(place) && trust.trusts(runtime.handle().id()), "it is back in time");
        for _ in 0..4 {
            assert!(trust.trusts(runtime.handle().id()));
            ring.relieve();
        }
        assert!(!trust.trusts(runtime.handle().id()));
        assert!(!ring.appoint(place), "it may come back");
        assert!(ring.serve(place));
    }

    #[test]
    fn a_reaper_ends_once_it_hears_that_it_was_replaced() {
        let ((ring, _), runtime) = (ring(), driven());
        let place = place(&runtime);
        assert!(ring.appoint(place));
        let reaper = runtime.spawn(reap(Arc::clone(&ring), place));
        let ended = runtime.block_on(async {
            read(&ring).await;
            assert!(ring.appoint(Place::Thread));
            assert!(!ring.appoint(place), "it has not heard of it");
            read(&ring).await;
            assert!(!reaper.is_finished());
            assert!(!ring.appoint(Place::Thread), "the other one was not started");
            read(&ring).await;
            // Bounded: by the time that a task may take to end.
            for _ in 0..5000 {
                if reaper.is_finished() {
                    break;
                }
                sleep(Duration::from_millis(1)).await;
            }
            reaper.is_finished()
        });
        assert!(ended);
        assert!(ring.appoint(place), "a new one is needed");
    }
}
