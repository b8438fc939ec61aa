//! `Wakeup`: how a task that sleeps while there is nothing to do is woken, and ended.

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
    /// There is something to do, now or when the task asks next.
    pub(crate) fn notify(&self) {
        self.notified.notify_one();
    }

    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.closed.notify_one();
        self.notify();
    }

    /// Waits until it is rung. False once it is closed.
    pub(crate) async fn notified(&self) -> bool {
        self.notified.notified().await;
        !self.is_closed()
    }

    /// Waits until that is over, or the bell is closed: whoever closes it need not wait.
    pub(crate) async fn rest(&self, pause: impl Future<Output = ()> + Unpin) {
        select(pause, pin!(self.closed.notified())).await;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }
}
