//! `Termination`: how it is told that the threads of a disk have ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::waiters::Waiters;

#[derive(Debug, Default)]
struct State {
    is_over: AtomicBool,
    waiters: Waiters,
}

/// Resolves once both threads have ended and the file is closed and unlocked.
///
/// It keeps nothing alive, and may be waited for after the disk has been dropped.
#[derive(Debug, Clone)]
pub(crate) struct Termination(Arc<State>);

/// Held by each thread; when the last is dropped, the [`Termination`] comes.
#[derive(Debug, Clone)]
pub(super) struct Alive(
    // Held for its drop.
    #[allow(dead_code)] Arc<End>,
);

#[derive(Debug)]
struct End(Arc<State>);

impl Alive {
    pub(super) fn new() -> (Self, Termination) {
        let state = Arc::<State>::default();
        (Self(Arc::new(End(Arc::clone(&state)))), Termination(state))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
        // Few wait: those who close it, and those who open it again.
        self.0.waiters.wake_all_at_once();
    }
}

impl Termination {
    /// Whether it has come.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::Acquire)
    }

    /// Waits for it. Dropping the future changes nothing.
    pub(crate) async fn wait(self) {
        self.0.waiters.until((), || self.is_over().then_some(())).await;
    }
}
