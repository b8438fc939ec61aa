//! Stands for `src/io/mod.rs`.

pub(crate) mod buffer;
pub(crate) mod linux;
#[path = "../../../src/io/reply.rs"]
pub(crate) mod reply;

pub(crate) type RequestPin = std::sync::Arc<dyn std::any::Any + Send + Sync>;

/// Stands for a span of another file, which no model shares.
pub(crate) struct ReadRequest;

/// Stands for `src/io/task_runner.rs`.
pub(crate) mod task_runner {
    use std::sync::Arc;

    use futures::future::BoxFuture;
    use shuttle::future::JoinHandle;
    use shuttle::sync::Mutex;

    pub(crate) trait TaskRunner {
        fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> TaskEnd;
    }

    #[must_use]
    pub(crate) struct TaskEnd;

    #[derive(Clone, Default)]
    pub(crate) struct TaskRunnerHandle(Arc<Mutex<Vec<JoinHandle<()>>>>);

    impl TaskRunner for TaskRunnerHandle {
        fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) -> TaskEnd {
            let task = shuttle::future::spawn(task);
            self.0.lock().expect("no thread panics").push(task);
            TaskEnd
        }
    }

    impl TaskRunnerHandle {
        /// Drops all tasks.
        pub(crate) fn abort(&self) {
            self.0.lock().expect("no thread panics").iter().for_each(JoinHandle::abort);
        }

        pub(crate) fn tasks(&self) -> Vec<JoinHandle<()>> {
            std::mem::take(&mut *self.0.lock().expect("no thread panics"))
        }
    }
}
