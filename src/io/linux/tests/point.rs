//! Point reads and the runtimes that reap them: whichever runtime or thread submits a read, and
//! whatever becomes of it, the read completes, and nobody else's read depends on it.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use std::{io, thread};

use futures::executor::block_on;
use futures::future::{BoxFuture, join_all};
use futures::{FutureExt, StreamExt, stream};
use rustix::process::{Signal, getpid, kill_process};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::file_disk::{ENGINES, directory, options, wait_until};
use crate::io::simulation::Dice;
use crate::io::{AlignedBuffer, BLOCK_BYTES, Disk, DiskEngine, DiskOptions, FileDisk, ReadRequest};

pub(super) const BLOCKS: u64 = 1024;

pub(super) type Reading = BoxFuture<'static, io::Result<AlignedBuffer>>;

/// A disk with one ring for all callers, whose blocks hold their own numbers.
pub(super) fn numbered(engine: DiskEngine, directory: &TempDir) -> FileDisk {
    numbered_with(DiskOptions { read_rings: 1, ..options(engine, directory, 4) })
}

/// A disk of 4 MiB whose blocks hold their own numbers.
pub(super) fn numbered_with(options: DiskOptions) -> FileDisk {
    let disk = block_on(FileDisk::open(options)).expect("disk");
    let mut image = AlignedBuffer::with_capacity(4 << 20);
    for number in 0..BLOCKS {
        image.append(&number.to_le_bytes());
        image.pad_to_block();
    }
    block_on(disk.write(0, image)).0.expect("write");
    disk
}

pub(super) fn read(disk: &FileDisk, number: u64) -> Reading {
    disk.read(ReadRequest::new(number << 12, BLOCK_BYTES))
}

pub(super) fn number_of(read: io::Result<AlignedBuffer>) -> u64 {
    let buffer = read.expect("read");
    assert_eq!(buffer.len(), BLOCK_BYTES);
    u64::from_le_bytes(buffer[..8].try_into().expect("8 bytes"))
}

/// A read that was polled once, and may be done.
pub(super) struct Begun(pub(super) Option<io::Result<AlignedBuffer>>, Reading);

impl Future for Begun {
    type Output = io::Result<AlignedBuffer>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.0.take() {
            Some(done) => Poll::Ready(done),
            None => self.1.poll_unpin(context),
        }
    }
}

pub(super) fn begin_with(disk: &FileDisk, number: u64, waker: &Waker) -> Begun {
    let mut reading = read(disk, number);
    let done = match reading.poll_unpin(&mut Context::from_waker(waker)) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    };
    Begun(done, reading)
}

pub(super) fn begin(disk: &FileDisk, number: u64) -> Begun {
    begin_with(disk, number, Waker::noop())
}

pub(super) fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("runtime")
}

/// Random reads, some at a time, by a caller without a runtime.
pub(super) fn all_is_well(disk: &FileDisk, seed: u64) {
    let mut dice = Dice::new(seed);
    let numbers: Vec<_> = (0..500).map(|_| dice.below(BLOCKS)).collect();
    let reads = numbers
        .iter()
        .map(|&number| read(disk, number).map(move |read| assert_eq!(number_of(read), number)));
    block_on(stream::iter(reads).buffer_unordered(16).count());
}

#[test]
fn a_runtime_that_computes_delays_no_read_of_others() {
    for engine in ENGINES {
        let directory = directory();
        let disk = numbered(engine, &directory);
        for round in 0..20 {
            let (submitted, signal) = mpsc::channel();
            let is_done = Arc::new(AtomicBool::new(false));
            let (busy, until) = (disk.clone(), Arc::clone(&is_done));
            let computing = thread::spawn(move || {
                current_thread().block_on(async move {
                    // This runtime reaps from now on.
                    assert_eq!(number_of(read(&busy, 7).await), 7);
                    let reading = begin(&busy, 8);
                    submitted.send(()).expect("the test listens");
                    wait_until(|| until.load(Ordering::Acquire));
                    assert_eq!(number_of(reading.await), 8);
                });
            });
            signal.recv().expect("submitted");
            // Each of these would wait for ever if only that runtime reaped.
            let other = if round % 2 == 0 { None } else { Some(current_thread()) };
            for number in 0..20 {
                let reading = read(&disk, number);
                let done = match &other {
                    Some(runtime) => runtime.block_on(reading),
                    None => block_on(reading),
                };
                assert_eq!(number_of(done), number);
            }
            is_done.store(true, Ordering::Release);
            computing.join().expect("joined");
        }
    }
}

#[test]
fn a_runtime_that_nobody_drives_is_replaced() {
    for engine in ENGINES {
        let directory = directory();
        let disk = numbered(engine, &directory);
        let runtime = current_thread();
        runtime.block_on(async { assert_eq!(number_of(read(&disk, 1).await), 1) });
        // Its reaper sleeps.
        all_is_well(&disk, 1);
        // Callers seem to be within it, and their futures are polled elsewhere.
        let _entered = runtime.enter();
        all_is_well(&disk, 2);
    }
}

#[test]
fn reads_outlive_the_runtime_in_which_they_were_submitted() {
    for engine in ENGINES {
        let directory = directory();
        let disk = numbered(engine, &directory);
        for round in 0..100 {
            let runtime = match round % 3 {
                0 => current_thread(),
                1 => {
                    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("one")
                }
                _ => {
                    Builder::new_multi_thread().worker_threads(1).build().expect("one without I/O")
                }
            };
            let own = disk.clone();
            let submitted = runtime.block_on(async move {
                (0..40).map(|number| begin(&own, number)).collect::<Vec<_>>()
            });
            if round % 2 == 0 {
                drop(runtime)
            } else {
                runtime.shutdown_background()
            }
            let done = block_on(join_all(submitted));
            for (number, read) in done.into_iter().enumerate() {
                assert_eq!(number_of(read), number as u64);
            }
        }
        all_is_well(&disk, 3);
    }
}

#[test]
fn reads_outlive_the_thread_that_submitted_them() {
    for engine in ENGINES {
        let directory = directory();
        let disk = numbered(engine, &directory);
        for round in 0..200 {
            let own = disk.clone();
            let submitting = thread::spawn(move || {
                (0..8).map(|number| (number, begin(&own, number))).collect::<Vec<_>>()
            });
            let submitted = submitting.join().expect("joined");
            if round % 2 == 0 {
                let runtime = current_thread();
                for (number, reading) in submitted {
                    assert_eq!(number_of(runtime.block_on(reading)), number);
                }
            } else {
                for (number, reading) in submitted {
                    assert_eq!(number_of(block_on(reading)), number);
                }
            }
        }
    }
}

#[test]
fn many_runtimes_share_one_ring() {
    for engine in ENGINES {
        let directory = directory();
        let disk = numbered(engine, &directory);
        thread::scope(|scope| {
            for seed in 0..6 {
                let disk = &disk;
                scope.spawn(move || match seed % 3 {
                    0 => all_is_well(disk, seed),
                    1 => {
                        let runtime = current_thread();
                        for number in 0..500 {
                            assert_eq!(number_of(runtime.block_on(read(disk, number))), number);
                        }
                    }
                    _ => {
                        let runtime =
                            tokio_uring::Runtime::new(&tokio_uring::builder()).expect("runtime");
                        for number in 0..500 {
                            assert_eq!(number_of(runtime.block_on(read(disk, number))), number);
                        }
                    }
                });
            }
        });
    }
}

/// Blocks until it is told to go on.
struct Blocking(AtomicBool);

impl Wake for Blocking {
    fn wake(self: Arc<Self>) {
        wait_until(|| self.0.load(Ordering::Acquire));
    }
}

#[test]
fn a_waker_that_blocks_a_runtime_delays_no_read_of_others() {
    for engine in ENGINES {
        let directory = directory();
        let disk = numbered(engine, &directory);
        let runtime =
            Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("one");
        let blocking = Arc::new(Blocking(AtomicBool::new(false)));
        let own = disk.clone();
        let waker = Waker::from(Arc::clone(&blocking));
        let blocked = runtime.spawn(async move {
            assert_eq!(number_of(read(&own, 1).await), 1);
            Some(begin_with(&own, 2, &waker))
        });
        let reading = block_on(blocked).expect("spawned").expect("begun");
        // Whether the runtime or the thread calls the waker first is left to chance; a read of
        // others goes through either way.
        let others =
            Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("one");
        for number in 0..50 {
            let reading = read(&disk, number);
            assert_eq!(number_of(others.block_on(reading)), number);
        }
        blocking.0.store(true, Ordering::Release);
        assert_eq!(number_of(block_on(reading)), 2);
    }
}

#[test]
fn a_storm_of_signals_loses_no_read() {
    for engine in ENGINES {
        let directory = directory();
        let disk = numbered(engine, &directory);
        let runtime =
            Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("one");
        let handled = Arc::new(AtomicBool::new(false));
        let raised = Signal::USR1.as_raw();
        signal_hook::flag::register(raised, Arc::clone(&handled)).expect("a handler");
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    kill_process(getpid(), Signal::USR1).expect("a signal");
                    thread::sleep(Duration::from_micros(50));
                }
            });
            for seed in 0..4 {
                all_is_well(&disk, seed);
                let reads = (0..500).map(|number| read(&disk, number));
                let done = runtime.block_on(stream::iter(reads).buffered(16).collect::<Vec<_>>());
                for (number, read) in done.into_iter().enumerate() {
                    assert_eq!(number_of(read), number as u64);
                }
            }
            is_over.store(true, Ordering::Release);
        });
        assert!(handled.load(Ordering::Acquire));
    }
}

#[test]
fn a_close_within_a_runtime_frees_the_rings() {
    for engine in ENGINES {
        let directory = directory();
        let runtime =
            Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("one");
        let rings = || {
            let links = std::fs::read_dir("/proc/self/fd").expect("descriptors");
            let targets = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok());
            let data = directory.path().join("data");
            targets.filter(|target| *target == data).count()
        };
        for _ in 0..5 {
            let disk = numbered(engine, &directory);
            let begun = async { (0..100).map(|number| begin(&disk, number)).collect::<Vec<_>>() };
            let left = runtime.block_on(begun);
            block_on(disk.close().wait());
            assert_eq!(rings(), 0, "the file is closed though handles are left");
            for read in block_on(join_all(left)) {
                read.expect("submitted before the close");
            }
            assert!(block_on(read(&disk, 0)).is_err(), "closed");
        }
        // The reapers end when they hear of it.
        wait_until(|| runtime.metrics().num_alive_tasks() == 0);
    }
}
