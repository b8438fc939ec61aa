//! `Renewal`: whether the synopses want looking after.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// How the task that renews them is woken, and ended.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    wanted: Notify,
    is_closed: AtomicBool,
}

impl Renewal {
    pub(super) fn wake(&self) {
        self.wanted.notify_one();
    }

    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }
}
