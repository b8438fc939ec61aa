//! `Bell`: how a task that sleeps while there is nothing to do is woken, and ended.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::select;
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Notify,
    closed: Notify,
    is_closed: AtomicBool,
}

impl Bell {
    /// There is something to do, now or when the task asks next.
    pub(super) fn ring(&self) {
        self.rung.notify_one();
    }

    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.closed.notify_one();
        self.ring();
    }

    /// Waits until it is rung. False once it is closed.
    pub(super) async fn is_rung(&self) -> bool {
        self.rung.notified().await;
        !self.is_closed()
    }

    /// Waits until that is over, or the bell is closed: whoever closes it need not wait.
    pub(super) async fn rest(&self, pause: impl Future<Output = ()> + Unpin) {
        select(pause, pin!(self.closed.notified())).await;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }
}
