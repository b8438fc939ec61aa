//! Contains the panics of tasks, so that a runner goes on.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::task_runner::{TaskEnd, TaskOutcome};
use crate::telemetry::tell;

/// Wraps a task so that a panic ends it alone and its end is reported.
pub(super) fn contained(
    name: &'static str,
    task: BoxFuture<'static, ()>,
) -> (impl Future<Output = ()> + Send + 'static, TaskEnd) {
    let (sender, receiver) = oneshot::channel();
    let contained = async move {
        let ended = AssertUnwindSafe(task).catch_unwind().await;
        let is_finished = ended.is_ok();
        let outcome = if is_finished { TaskOutcome::Finished } else { TaskOutcome::Panicked };
        let _ = sender.send(outcome);
        if let Err(panic) = ended {
            tell!(error, "io", task = name, cause = message(&*panic), "a background task panicked");
        }
    };
    (contained, TaskEnd(receiver))
}

/// The message of a panic.
pub(super) fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
