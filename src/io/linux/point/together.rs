//! Reads that one poll begins, and that go to the kernel in one call.
//!
//! A call of the kernel for each of many reads is work that one call can do for all. So while
//! [`together`] runs, the rings keep what this thread submits, until its end. Reads of other
//! threads into such a ring take those along, and so does the watch within a tick: nothing depends
//! on the end.

use std::cell::RefCell;
use std::sync::Arc;

use super::point_ring::PointRing;

thread_local! {
    /// The rings that wait for a call, while this thread is in [`together`].
    static HELD: RefCell<Option<Vec<Arc<PointRing>>>> = const { RefCell::new(None) };
}

/// Makes the kernel take what was held, whether the poll ends or panics.
struct Release;

impl Drop for Release {
    fn drop(&mut self) {
        let held = HELD.with(RefCell::take);
        // Bounded: by the rings.
        held.into_iter().flatten().for_each(|ring| ring.flush());
    }
}

/// Runs a poll. The reads that it submits go to the kernel together, at its end.
pub(crate) fn together<T>(poll: impl FnOnce() -> T) -> T {
    let is_outermost = HELD.with_borrow_mut(|held| {
        let is_outermost = held.is_none();
        held.get_or_insert_default();
        is_outermost
    });
    let _release = is_outermost.then(|| Release);
    poll()
}

/// Whether the reads that this thread submits are held.
pub(super) fn is_holding() -> bool {
    HELD.with_borrow(Option::is_some)
}

/// A read was submitted to a ring, and the kernel was not called.
pub(super) fn hold(ring: &Arc<PointRing>) {
    HELD.with_borrow_mut(|held| {
        if let Some(held) = held {
            // Bounded: by the rings.
            if !held.iter().any(|other| Arc::ptr_eq(other, ring)) {
                held.push(Arc::clone(ring));
            }
        }
    });
}

#[cfg(not(modelled))]
#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use futures::executor::block_on;
    use tokio::sync::mpsc;

    use super::super::super::request::Read;
    use super::super::shared_ring::SharedRing;
    use super::super::trust::Trust;
    use super::*;
    use crate::io::reply::exchange;

    fn submit(ring: &Arc<PointRing>) {
        let (reply, _) = exchange();
        let read = Read { offset: 0, length: 4096, pin: None, reply };
        assert!(ring.submit(read, is_holding()).is_ok());
        hold(ring);
    }

    /// Whether so many reads complete by themselves.
    fn is_reaped(ring: &Arc<PointRing>, count: usize) -> bool {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let mut reaped = 0;
        while reaped < count && std::time::Instant::now() < end {
            reaped += usize::from(ring.reap());
            std::thread::yield_now();
        }
        reaped == count && !ring.reap()
    }

    #[test]
    fn held_reads_go_to_the_kernel_at_the_end_and_after_a_panic() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(4096).expect("a length");
        let ring = SharedRing::new(&file, 8).expect("a ring");
        let ring = PointRing::new(ring, Arc::<Trust>::default(), mpsc::unbounded_channel().0);
        let ring = Arc::new(ring);
        together(|| {
            submit(&ring);
            together(|| submit(&ring));
            assert_eq!(ring.progress().in_flight, 2);
            assert!(is_holding() && !ring.reap(), "the kernel has taken one");
        });
        assert!(!is_holding() && is_reaped(&ring, 2));
        let panics = || {
            together(|| {
                submit(&ring);
                panic!("as planned");
            })
        };
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        assert!(!is_holding() && is_reaped(&ring, 1));
        submit(&ring);
        assert!(is_reaped(&ring, 1), "nothing is held outside");
        block_on(async { together(|| ()) });
    }
}
