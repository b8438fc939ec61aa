//! Belongs to the copy of `src/io/mod.rs`: the simulated disk, whose requests and tasks the
//! scheduler runs.

use std::time::Duration;

use futures::channel::{mpsc, oneshot};
use futures::future::{Either, select};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use shuttle::future::{spawn, yield_now};

use super::task_runner::TaskEnd;
use super::contained::contained;
use super::*;

/// A simulated disk. Each request is a task of its own: it is carried out whichever future is
/// polled.
pub(crate) struct ModelDisk(SimulatedDisk);

impl ModelDisk {
    pub(crate) fn new(seed: u64, bytes: u64) -> Self {
        Self(SimulatedDisk::new(seed, bytes))
    }
}

async fn beside<T: Send + 'static>(request: BoxFuture<'static, T>) -> T {
    let (sender, answer) = oneshot::channel();
    drop(spawn(async move { drop(sender.send(request.await)) }));
    answer.await.expect("each request is carried out")
}

impl Disk for ModelDisk {
    fn length(&self) -> u64 {
        self.0.length()
    }

    fn resize(&self, length: u64) -> BoxFuture<'static, io::Result<()>> {
        beside(self.0.resize(length)).boxed()
    }

    fn read(&self, request: ReadRequest) -> BoxFuture<'static, io::Result<AlignedBuffer>> {
        beside(self.0.read(request)).boxed()
    }

    fn write(
        &self,
        offset: u64,
        buffer: AlignedBuffer,
    ) -> BoxFuture<'static, (io::Result<()>, AlignedBuffer)> {
        beside(self.0.write(offset, buffer)).boxed()
    }

    fn begun(&self) -> BoxFuture<'static, ()> {
        yield_now().boxed()
    }

    fn sync(&self) -> BoxFuture<'static, io::Result<()>> {
        beside(self.0.sync()).boxed()
    }
}

/// One thread for all tasks, which change only at awaits.
pub(crate) struct Runner(mpsc::UnboundedSender<BoxFuture<'static, ()>>);

impl Runner {
    pub(crate) fn start() -> Self {
        let (sender, mut added) = mpsc::unbounded();
        drop(spawn(async move {
            let mut tasks = FuturesUnordered::new();
            loop {
                match select(added.next(), tasks.next()).await {
                    Either::Left((Some(task), _)) => tasks.push(task),
                    Either::Left((None, _)) => break,
                    Either::Right((Some(()), _)) => {}
                    Either::Right((None, adding)) => match adding.await {
                        Some(task) => tasks.push(task),
                        None => break,
                    },
                }
            }
            while tasks.next().await.is_some() {}
        }));
        Self(sender)
    }
}

impl TaskRunner for Runner {
    /// A panic is not contained: it fails the schedule.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> TaskEnd {
        let (tell, end) = contained(name, std::future::ready(()).boxed());
        let task = async move {
            task.await;
            tell.await;
        };
        drop(self.0.unbounded_send(task.boxed()));
        end
    }

    /// Any time.
    fn sleep(&self, _duration: Duration) -> BoxFuture<'static, ()> {
        async {
            for _ in 0..3 {
                yield_now().await;
            }
        }
        .boxed()
    }
}
