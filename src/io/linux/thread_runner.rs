//! `ThreadRunner`: a runner on an ordinary thread, for tests that need no ring.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::LocalSet;

use super::task_server::TaskRunnerHandle;
use crate::io::task_runner::{TaskEnd, TaskRunner};

/// A runner on an ordinary thread, for tests and disks that have no ring of their own.
///
/// Dropping the last clone closes it; the thread continues until its tasks have ended.
#[derive(Clone)]
pub(crate) struct ThreadRunner {
    handle: Arc<TaskRunnerHandle>,
}

impl ThreadRunner {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// If the operating system refuses the thread or its descriptors.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (handle, mut server) = TaskRunnerHandle::new();
        thread::Builder::new().name("tamis-runner".into()).spawn(move || {
            LocalSet::new().block_on(&runtime, server.serve(false));
        })?;
        Ok(Self { handle: Arc::new(handle) })
    }

    /// Refuses new tasks from now on; running tasks continue to their ends.
    pub(crate) fn close(&self) {
        self.handle.close();
    }
}

impl TaskRunner for ThreadRunner {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> TaskEnd {
        self.handle.spawn(name, task)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.handle.sleep(duration)
    }
}
