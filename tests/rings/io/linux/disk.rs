//! A disk whose callers read through the rings, and the scenes.

use std::fs::File;
use std::sync::Arc;

use real_tokio::sync::mpsc;
use shuttle::future::{block_on, spawn};
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::thread;

use super::point::{self, PointReads};
use super::request::{Read, Request};
use crate::io::buffer::{self, BufferPool};
use crate::io::reply::exchange;
use crate::io::task_runner::TaskRunnerHandle;
use crate::kernel;
use crate::runtimes::runtime;

const RUNTIMES: u64 = 2;

const READS: u64 = 3;

/// What goes wrong in a scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// Nothing.
    Nothing,
    /// Runtimes end while reads are in flight.
    Shutdown,
    /// The tasks on the disk's thread are dropped, and nothing is carried out there any more.
    Breakdown,
}

/// Stands for `FileDisk`.
struct Disk {
    reads: PointReads,
    queue: mpsc::UnboundedSender<Request>,
    has_broken_down: AtomicBool,
}

impl Disk {
    /// Reads as a disk does. Some callers stop waiting.
    async fn read(&self) {
        let (reply, answer) = exchange();
        let read = Read { offset: 0, length: 4096, pin: Some(Arc::new(())), reply };
        if let Err(read) = self.reads.submit(read) {
            drop(self.queue.send(Request::Read(read)));
        }
        if thread_rng().gen_range(0..4) == 0 {
            return;
        }
        match answer.await {
            Some(Ok(buffer)) => assert_eq!(buffer.len(), 4096),
            Some(Err(error)) => panic!("nobody answers with an error: {error}"),
            None => assert!(self.has_broken_down.load(Ordering::SeqCst), "a read is lost"),
        }
    }

    async fn call(&self) {
        for _ in 0..READS {
            self.read().await;
        }
    }
}

/// The disk's thread: carries out what the rings did not.
async fn carry_out(mut queue: mpsc::UnboundedReceiver<Request>) {
    while let Some(Request::Read(read)) = queue.recv().await {
        let mut buffer = BufferPool.buffer(read.length).expect("memory");
        buffer::write(buffer.pointer().addr().get(), read.length);
        buffer.assume_length(read.length);
        read.reply.send(Ok(buffer));
    }
}

/// Runs a scene under the schedule of the caller.
///
/// # Panics
///
/// The rings break a promise.
pub fn scene(mishap: Mishap) {
    kernel::begin();
    buffer::begin();
    point::bell::begin();
    let is_over = Arc::new(AtomicBool::new(false));
    let device = thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || {
            while !is_over.load(Ordering::SeqCst) || kernel::is_busy() {
                kernel::work();
                thread::yield_now();
            }
        }
    });
    let file = File::open("/dev/null").expect("a file");
    let (queue, requests) = mpsc::unbounded_channel();
    let worker = spawn(carry_out(requests));
    let thread = TaskRunnerHandle::default();
    let rings = thread_rng().gen_range(1..3);
    let reads = PointReads::new(&file, rings, thread.clone(), &queue);
    let disk =
        Arc::new(Disk { reads, queue: queue.clone(), has_broken_down: AtomicBool::new(false) });
    let callers: Vec<_> = (0..thread_rng().gen_range(2..5))
        .map(|number| {
            let disk = Arc::clone(&disk);
            thread::spawn(move || {
                runtime::enter(Some(number % (RUNTIMES + 1)).filter(|it| *it < RUNTIMES));
                block_on(disk.call());
            })
        })
        .collect();
    match mishap {
        Mishap::Nothing => {}
        Mishap::Shutdown => (0..RUNTIMES).for_each(|number| {
            (0..thread_rng().gen_range(0..50)).for_each(|_| thread::yield_now());
            runtime::shut_down(number);
        }),
        Mishap::Breakdown => {
            (0..thread_rng().gen_range(0..100)).for_each(|_| thread::yield_now());
            disk.has_broken_down.store(true, Ordering::SeqCst);
            worker.abort();
            thread.abort();
        }
    }
    let closes_early = thread_rng().gen_range(0..2) == 0;
    if closes_early {
        disk.reads.close();
    }
    for caller in callers {
        caller.join().expect("no caller panics");
    }
    if !closes_early {
        disk.reads.close();
    }
    let tasks = thread.tasks();
    drop((disk, queue));
    block_on(async {
        for task in tasks {
            drop(task.await);
        }
        runtime::end().await;
        drop(worker.await);
    });
    is_over.store(true, Ordering::SeqCst);
    device.join().expect("the device does not panic");
}
