//! Stands for `tokio`: runtimes that are numbers. A task of one that ends is dropped.

pub(crate) mod runtime {
    use std::cell::RefCell;
    use std::future::Future;

    use shuttle::future::{JoinHandle, spawn};

    thread_local! {
        static ENDED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
        static TASKS: RefCell<Vec<(u64, JoinHandle<()>)>> = const { RefCell::new(Vec::new()) };
    }

    shuttle::thread_local! {
        static CURRENT: RefCell<Option<Handle>> = RefCell::new(None);
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Id(u64);

    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Handle(u64);

    #[must_use]
    pub(crate) struct Spawned;

    impl Handle {
        pub(crate) fn try_current() -> Result<Self, ()> {
            CURRENT.with(|current| *current.borrow()).ok_or(())
        }

        pub(crate) fn id(self) -> Id {
            Id(self.0)
        }

        pub(crate) fn spawn(self, task: impl Future<Output = ()> + Send + 'static) -> Spawned {
            if ENDED.with_borrow(|ended| ended.contains(&self.0)) {
                return Spawned;
            }
            let task = spawn(async move {
                enter(Some(self.0));
                task.await;
            });
            TASKS.with_borrow_mut(|tasks| tasks.push((self.0, task)));
            Spawned
        }
    }

    /// Makes this thread one of a runtime, or of none.
    pub(crate) fn enter(number: Option<u64>) {
        CURRENT.with(|current| *current.borrow_mut() = number.map(Handle));
    }

    /// Ends a runtime: drops its tasks, and those that come later.
    pub(crate) fn shut_down(number: u64) {
        ENDED.with_borrow_mut(|ended| ended.push(number));
        // Another thread may run at each abort.
        let tasks = TASKS.take();
        tasks.iter().filter(|(of, _)| *of == number).for_each(|(_, task)| task.abort());
        TASKS.with_borrow_mut(|newer| newer.extend(tasks));
    }

    /// Waits for the ends of all tasks. No handle may outlive its schedule.
    pub(crate) async fn end() {
        ENDED.take();
        for (_, task) in TASKS.take() {
            drop(task.await);
        }
    }
}

pub(crate) mod sync {
    pub(crate) use real_tokio::sync::{Notify, mpsc};
}

pub(crate) mod time {
    use std::time::Duration;

    /// Any time.
    pub(crate) async fn sleep(_duration: Duration) {
        for _ in 0..3 {
            shuttle::future::yield_now().await;
        }
    }
}
