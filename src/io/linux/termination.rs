//! `Termination`: reports that the threads of a disk have ended.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use rustix::fs::FlockOperation;

use crate::blocking;
use crate::waiters::Waiters;

#[derive(Debug, Default)]
struct TerminationState {
    is_over: AtomicBool,
    waiters: Waiters,
}

/// Resolves once all threads have ended and the file is closed and unlocked.
///
/// It keeps nothing alive, and may be awaited after the disk was dropped.
#[derive(Debug, Clone)]
pub(crate) struct Termination(Arc<TerminationState>);

/// Held by each thread; dropping the last one completes the [`Termination`].
#[derive(Debug, Clone)]
pub(super) struct Alive(Arc<End>);

/// As long as a thread is there, the threads may become more.
#[derive(Debug)]
pub(super) struct WhileAlive(Weak<End>);

#[derive(Debug)]
struct End {
    state: Arc<TerminationState>,
    /// The file to unlock at the end.
    file: OnceLock<File>,
    /// Operations may be in flight for ever.
    is_broken: AtomicBool,
}

impl Alive {
    pub(super) fn new() -> (Self, Termination) {
        let state = Arc::<TerminationState>::default();
        let (file, is_broken) = (OnceLock::new(), AtomicBool::new(false));
        let end = End { state: Arc::clone(&state), file, is_broken };
        (Self(Arc::new(end)), Termination(state))
    }

    /// The file to unlock when all threads have ended: a process that was forked meanwhile may keep
    /// it open for longer.
    pub(super) fn unlock_at_the_end(&self, file: File) {
        let _ = self.0.file.set(file);
    }

    /// A ring has broken down: the file stays locked, because the kernel may still write to it.
    pub(super) fn note_broken(&self) {
        self.0.is_broken.store(true, Ordering::Release);
    }

    pub(super) fn downgrade(&self) -> WhileAlive {
        WhileAlive(Arc::downgrade(&self.0))
    }
}

impl WhileAlive {
    /// For another thread. None if all have ended.
    pub(super) fn join(&self) -> Option<Alive> {
        self.0.upgrade().map(Alive)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(file) = self.file.take().filter(|_| !self.is_broken.load(Ordering::Acquire)) {
            let _ = rustix::fs::flock(&file, FlockOperation::Unlock);
        }
        self.state.is_over.store(true, Ordering::Release);
        // Few callers wait: those that close it, and those that open it again.
        self.state.waiters.wake_all_at_once();
    }
}

impl Termination {
    /// Whether the threads have ended.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::Acquire)
    }

    /// Whether both belong to one disk.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Blocks this thread until the threads have ended.
    pub(super) fn wait_blocking(self) {
        blocking::block_on(self.wait());
    }

    /// Waits for the end of the threads. Dropping the future changes nothing.
    pub(crate) async fn wait(self) {
        self.0.waiters.until((), || self.is_over().then_some(())).await;
    }
}
