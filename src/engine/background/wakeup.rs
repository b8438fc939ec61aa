//! `Wakeup`: wakes and ends a task that sleeps while it has nothing to do.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::select;
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(crate) struct Wakeup {
    notified: Notify,
    closed: Notify,
    is_closed: AtomicBool,
}

impl Wakeup {
    /// Wakes the task, now or when it waits next.
    pub(crate) fn notify(&self) {
        self.notified.notify_one();
    }

    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.closed.notify_one();
        self.notify();
    }

    /// Waits for a notification. False after a close.
    pub(crate) async fn notified(&self) -> bool {
        self.notified.notified().await;
        !self.is_closed()
    }

    /// Waits for `pause`, or until a close.
    pub(crate) async fn rest(&self, pause: impl Future<Output = ()> + Unpin) {
        select(pause, pin!(self.closed.notified())).await;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }
}
