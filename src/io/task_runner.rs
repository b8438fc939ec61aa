//! `TaskRunner`: runs the long-lived background futures of a store.
//!
//! A runner is one thread. Tasks take turns on it, so each must await often; a task that panics
//! ends alone. Closing a runner refuses new tasks and waits for the running ones. It does not
//! cancel them: their owner must tell them to end.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::oneshot;

/// A thread for long-lived futures, with a timer.
pub(crate) trait TaskRunner: Send + Sync + 'static {
    /// Runs `task` on the runner, at once and whether or not the returned future is polled.
    ///
    /// `name` appears in the log if the task panics.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> TaskEnd;

    /// Resolves after `duration`, or early once the runner has ended. Starts when first polled;
    /// may be polled anywhere.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskOutcome {
    /// It ran to its end.
    Finished,
    /// It panicked; the log has its name and message.
    Panicked,
    /// The runner was closed before the task began, or broke down under it.
    Dropped,
}

/// Resolves when a task has ended. Dropping it changes nothing for the task.
#[must_use = "a task that panics or is refused tells so here"]
pub(crate) struct TaskEnd(pub(super) oneshot::Receiver<TaskOutcome>);

/// The end of a task that no runner has taken.
#[cfg(all(any(test, feature = "cli"), feature = "disk", target_os = "linux"))]
pub(super) fn refused() -> TaskEnd {
    TaskEnd(oneshot::channel().1)
}

impl Future for TaskEnd {
    type Output = TaskOutcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<TaskOutcome> {
        let outcome = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(outcome.unwrap_or(TaskOutcome::Dropped))
    }
}
