//! `FetchTasks`: gives fetches to the tasks of the user's executor, and takes them back when the
//! cache is closed.
//!
//! Bounded by count: a task counts from the moment when it is given to the executor until it ends
//! or is dropped, since until then the executor keeps it, polled or not.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::remote::{Remote, RemoteHandle, Stop, Work, remote};
use crate::spawn::Spawn;
use crate::timer::Timer;
use crate::wake::contained;

pub(crate) struct FetchTasks {
    /// None: the configuration has none.
    spawner: Option<Arc<dyn Spawn>>,
    tasks_max: usize,
    tasks: Arc<Mutex<TaskTable>>,
}

#[derive(Default)]
struct TaskTable {
    under_way: HashMap<u64, Weak<dyn Stop>>,
    last: u64,
    is_closed: bool,
}

/// The place of a task in the table.
struct Registered {
    tasks: Arc<Mutex<TaskTable>>,
    number: u64,
}

impl FetchTasks {
    pub(crate) fn new(spawner: Option<Arc<dyn Spawn>>, tasks_max: usize) -> Self {
        Self { spawner, tasks_max, tasks: Arc::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.tasks.lock().under_way.len()
    }

    /// Gives work to a task. The work itself, if there are too many tasks, or the cache is closed.
    pub(super) fn spawn<W: Work>(
        &self,
        work: W,
        timer: &Timer,
    ) -> Result<RemoteHandle<W, W::Output>, W> {
        let Some(spawner) = &self.spawner else { return Err(work) };
        let Some(number) = self.reserve() else { return Err(work) };
        let registered = Registered { tasks: Arc::clone(&self.tasks), number };
        let (remote, handle) = remote(work, timer);
        registered.register(&remote);
        let task = async move {
            remote.await;
            drop(registered);
        };
        // If it panics, the task has been dropped, or runs all the same.
        contained(|| spawner.spawn(Box::pin(task)));
        Ok(handle)
    }

    /// A place for a task, without one yet.
    fn reserve(&self) -> Option<u64> {
        let mut tasks = self.tasks.lock();
        if tasks.is_closed || tasks.under_way.len() >= self.tasks_max {
            return None;
        }
        tasks.last += 1;
        let number = tasks.last;
        tasks.under_way.insert(number, Weak::<Nothing>::new());
        Some(number)
    }

    /// Takes all work out of the tasks: callers that wait run theirs, the rest is dropped.
    pub(crate) fn close(&self) {
        let mut tasks = self.tasks.lock();
        tasks.is_closed = true;
        let all = mem::take(&mut tasks.under_way);
        drop(tasks);
        // Bounded: by the most tasks at one time.
        all.into_values().filter_map(|task| task.upgrade()).for_each(|task| task.stop());
    }
}

impl Registered {
    /// Stops it at once if the cache was closed since the place was reserved.
    fn register<W: Work>(&self, remote: &Remote<W>) {
        let stopper = remote.stopper();
        let mut tasks = self.tasks.lock();
        let is_closed = tasks.is_closed;
        tasks.under_way.insert(self.number, Weak::clone(&stopper));
        drop(tasks);
        if is_closed {
            // Bounded: one.
            stopper.upgrade().into_iter().for_each(|task| task.stop());
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.tasks.lock().under_way.remove(&self.number);
    }
}

/// What a reserved place has.
struct Nothing;

impl Stop for Nothing {
    fn stop(&self) {}
}
