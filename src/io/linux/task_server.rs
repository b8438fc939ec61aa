//! `TaskRunnerHandle` and `TaskRunnerServer`: a runner on a thread of a disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::turns::{Turn, Turns};
use crate::io::contained::contained;
use crate::io::task_runner::{TaskEnd, TaskRunner};

pub(super) enum Command {
    Spawn(BoxFuture<'static, ()>),
    Sleep(Duration, oneshot::Sender<()>),
    Close,
}

/// A handle to a runner on a thread of its own. Clones share the runner.
#[derive(Clone)]
pub(super) struct TaskRunnerHandle {
    commands: mpsc::UnboundedSender<Command>,
    /// Set before the command is sent, so that no task overtakes it.
    closed: Arc<AtomicBool>,
}

impl TaskRunnerHandle {
    /// A runner, and its other end, which a thread must serve.
    pub(super) fn new() -> (Self, TaskRunnerServer) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let handle = Self { commands: sender, closed: Arc::default() };
        (handle, TaskRunnerServer { commands: receiver, tasks: JoinSet::new() })
    }

    /// Refuses new tasks from now on; running tasks continue to their ends.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let _ = self.commands.send(Command::Close);
    }
}

impl TaskRunner for TaskRunnerHandle {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> TaskEnd {
        let (task, end) = contained(name, task);
        // A refused task is dropped, which reports its end.
        if !self.closed.load(Ordering::Acquire) {
            let _ = self.commands.send(Command::Spawn(task.boxed()));
        }
        end
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let commands = self.commands.downgrade();
        async move {
            let (sender, receiver) = oneshot::channel();
            if let Some(commands) = commands.upgrade() {
                let _ = commands.send(Command::Sleep(duration, sender));
            }
            let _ = receiver.await;
        }
        .boxed()
    }
}

/// The end of a runner that runs the tasks.
pub(super) struct TaskRunnerServer {
    commands: mpsc::UnboundedReceiver<Command>,
    tasks: JoinSet<()>,
}

impl TaskRunnerServer {
    /// Runs tasks until the runner is closed or all its handles are dropped, and all tasks have
    /// ended. Must be polled within a `LocalSet`. On the thread of a ring tasks that yield give it
    /// turns, with one operation in flight.
    pub(super) async fn serve(&mut self, is_on_ring: bool) {
        let turns = is_on_ring.then(Turns::new);
        let (turns, mut wanted) = turns.unzip();
        let (mut open, mut closed) = (true, false);
        // Bounded: a wait in each turn.
        while open && !closed || !self.tasks.is_empty() {
            tokio::select! {
                command = self.commands.recv(), if open => match command {
                    Some(Command::Spawn(task)) => { self.spawn(task, turns.as_ref()); }
                    Some(Command::Sleep(duration, wake)) => {
                        tokio::task::spawn_local(sleep(duration, wake));
                    }
                    Some(Command::Close) => closed = true,
                    None => open = false,
                },
                Some(turn) = next_turn(turns.as_ref(), &mut wanted) => {
                    self.tasks.spawn_local(turn.take());
                }
                Some(_) = self.tasks.join_next() => {}
            }
        }
    }

    fn spawn(&mut self, task: BoxFuture<'static, ()>, turns: Option<&Turns>) {
        match turns {
            Some(turns) => self.tasks.spawn_local(turns.task(task)),
            None => self.tasks.spawn_local(task),
        };
    }

    /// Drops all tasks, whatever their progress.
    pub(super) async fn abandon(&mut self) {
        self.commands.close();
        self.tasks.shutdown().await;
    }
}

/// The next turn that is wanted. None without a ring.
async fn next_turn(
    turns: Option<&Turns>,
    wanted: &mut Option<mpsc::UnboundedReceiver<()>>,
) -> Option<Turn> {
    wanted.as_mut()?.recv().await?;
    turns.map(Turns::turn)
}

async fn sleep(duration: Duration, mut wake: oneshot::Sender<()>) {
    tokio::select! {
        () = tokio::time::sleep(duration) => { let _ = wake.send(()); }
        () = wake.closed() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::thread_runner::ThreadRunner;
    use crate::io::TaskOutcome;
    use std::time::Instant;

    use futures::executor::block_on;

    use super::*;

    #[test]
    fn runs_tasks_and_contains_panics() {
        let runner = ThreadRunner::start().expect("runner");
        let panicking = runner.spawn("panicking", async { panic!("on purpose") }.boxed());
        let timer = runner.clone();
        let sleeping = runner
            .spawn("sleeping", async move { timer.sleep(Duration::from_millis(20)).await }.boxed());
        let start = Instant::now();
        assert_eq!(block_on(panicking), TaskOutcome::Panicked);
        assert_eq!(block_on(sleeping), TaskOutcome::Finished);
        assert!(start.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn closing_waits_for_tasks_and_refuses_new_ones() {
        let runner = ThreadRunner::start().expect("runner");
        let (sender, receiver) = oneshot::channel::<()>();
        let waiting = runner.spawn("waiting", receiver.map(|_| ()).boxed());
        runner.close();
        assert_eq!(block_on(runner.spawn("late", async {}.boxed())), TaskOutcome::Dropped);
        block_on(runner.sleep(Duration::from_millis(1)));
        sender.send(()).expect("the task waits");
        assert_eq!(block_on(waiting), TaskOutcome::Finished);
        block_on(runner.sleep(Duration::from_secs(3600)));
    }
}
