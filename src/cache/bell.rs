//! `Bell`: how a task that sleeps while there is nothing to do is woken, and ended.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Notify,
    is_closed: AtomicBool,
}

impl Bell {
    /// There is something to do, now or when the task asks next.
    pub(super) fn ring(&self) {
        self.rung.notify_one();
    }

    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.ring();
    }

    pub(super) async fn until_rung(&self) {
        self.rung.notified().await;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }
}
