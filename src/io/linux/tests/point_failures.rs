//! Point reads where something fails: the kernel refuses them, a thread breaks down, a waker or a
//! pin panics, or the file system reads through the page cache.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::{env, fs, io, thread};

use futures::executor::block_on;
use futures::future::join_all;
use futures::{FutureExt, StreamExt, stream};
use rustix::fs::{Advice, fadvise};
use rustix::io::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use tempfile::TempDir;
use tokio::runtime::Builder;

use super::super::request::Request;
use super::file_disk::{ENGINES, directory, options, wait_until};
use super::point::{
    BLOCKS, Begun, Reading, all_is_well, begin, begin_with, current_thread, number_of, numbered,
    numbered_with, read,
};
use super::refusal::IO_URING_ENTER;
use crate::io::{BLOCK_BYTES, Disk, DiskOptions, FileDisk, ReadRequest, Urgency};

/// Makes the kernel refuse to enter a ring from this thread.
fn refuse_entries() {
    let target = env::consts::ARCH.try_into().expect("architecture");
    let refusal = SeccompAction::Errno(Errno::AGAIN.raw_os_error().cast_unsigned());
    let calls = BTreeMap::from([(IO_URING_ENTER, vec![])]);
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, refusal, target).expect("filter");
    let program: BpfProgram = filter.try_into().expect("program");
    seccompiler::apply_filter(&program).expect("applied");
}

/// Reads from a thread whose entries are refused, and which exits.
fn refused(disk: &FileDisk, then: impl FnOnce() + Send + 'static) -> Vec<Begun> {
    let own = disk.clone();
    let submitting = thread::spawn(move || {
        refuse_entries();
        let begun = (0..40).map(|number| begin(&own, number)).collect();
        then();
        begun
    });
    submitting.join().expect("joined")
}

/// The results, which must come within a time.
fn results(begun: Vec<Begun>) -> Vec<io::Result<crate::io::AlignedBuffer>> {
    let waiting = thread::spawn(move || block_on(join_all(begun)));
    wait_until(|| waiting.is_finished());
    waiting.join().expect("joined")
}

#[test]
fn reads_that_the_kernel_refuses_are_submitted_later() {
    for engine in ENGINES {
        let directory = directory();
        let disk = numbered(engine, &directory);
        for _ in 0..20 {
            let done = results(refused(&disk, || ()));
            for (number, read) in done.into_iter().enumerate() {
                assert_eq!(number_of(read), number as u64);
            }
        }
    }
}

#[test]
fn a_close_loses_no_read_that_the_kernel_has_refused() {
    for engine in ENGINES {
        let directory = directory();
        for _ in 0..20 {
            let disk = numbered(engine, &directory);
            let closed = disk.clone();
            let begun = refused(&disk, move || drop(closed.close()));
            let done = results(begun);
            for (number, read) in done.into_iter().enumerate() {
                assert_eq!(number_of(read), number as u64);
            }
            wait_until(|| disk.termination().is_over());
        }
    }
}

#[test]
fn a_close_loses_no_read_that_ends_short() {
    for engine in ENGINES {
        let directory = directory();
        for _ in 0..5 {
            let disk = numbered(engine, &directory);
            let file = fs::OpenOptions::new().write(true).open(&disk.facts().path).expect("open");
            file.set_len(0).expect("shorten");
            let begun = (0..200).map(|number| begin(&disk, number)).collect();
            let termination = disk.close();
            for read in results(begun) {
                assert_eq!(read.expect_err("cut off").kind(), io::ErrorKind::UnexpectedEof);
            }
            block_on(termination.wait());
            file.set_len(4 << 20).expect("lengthen");
        }
    }
}

#[test]
fn reads_in_flight_are_answered_though_the_thread_breaks_down() {
    for engine in ENGINES {
        for _ in 0..20 {
            let directory = directory();
            let disk = numbered(engine, &directory);
            let queue = disk.queue(Urgency::Point);
            let begun = refused(&disk, move || assert!(queue.send(Request::Panic).is_ok()));
            for (number, read) in results(begun).into_iter().enumerate() {
                match read {
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::BrokenPipe),
                    read => assert_eq!(number_of(read), number as u64),
                }
            }
        }
    }
}

#[test]
fn a_runtime_that_is_not_driven_collects_no_reapers() {
    for engine in ENGINES {
        let directory = directory();
        let disk = numbered(engine, &directory);
        let idle = current_thread();
        for number in 0..200 {
            let entered = idle.enter();
            let reading = begin(&disk, number);
            drop(entered);
            assert_eq!(number_of(block_on(reading)), number);
            assert_eq!(number_of(block_on(read(&disk, number))), number);
        }
        let reapers = idle.metrics().num_alive_tasks();
        assert!(reapers <= 1, "{reapers} tasks wait in a runtime that nobody drives");
    }
}

#[test]
fn a_runtime_that_was_shut_down_is_not_asked() {
    for engine in ENGINES {
        let directory = directory();
        let disk = numbered(engine, &directory);
        let runtime = current_thread();
        let handle = runtime.handle().clone();
        drop(runtime);
        let _entered = handle.enter();
        all_is_well(&disk, 4);
    }
}

/// Panics when it is called.
struct Panicking(AtomicUsize);

impl Wake for Panicking {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("as planned");
    }
}

/// Panics when it is dropped.
struct Bomb(Arc<AtomicUsize>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("as planned");
    }
}

#[test]
fn wakers_and_pins_that_panic_harm_no_read_of_others() {
    for engine in ENGINES {
        let directory = directory();
        let disk = numbered(engine, &directory);
        let runtime = current_thread();
        let panicking = Arc::new(Panicking(AtomicUsize::new(0)));
        let dropped = Arc::new(AtomicUsize::new(0));
        for round in 0..20 {
            let entered = (round % 2 == 0).then(|| runtime.enter());
            let waker = Waker::from(Arc::clone(&panicking));
            let begun: Vec<_> = (0..10).map(|number| begin_with(&disk, number, &waker)).collect();
            let pin: Arc<dyn Any + Send + Sync> = Arc::new(Bomb(Arc::clone(&dropped)));
            let mut pinned = disk.read(ReadRequest::new(0, BLOCK_BYTES).pinned(pin));
            let first = pinned.poll_unpin(&mut Context::from_waker(Waker::noop()));
            let others = (0..20).map(|number| read(&disk, number));
            for (number, read) in runtime_or_not(entered.is_some(), others).into_iter().enumerate()
            {
                assert_eq!(number_of(read), number as u64);
            }
            drop(entered);
            for (number, read) in block_on(join_all(begun)).into_iter().enumerate() {
                assert_eq!(number_of(read), number as u64);
            }
            if first.is_pending() {
                assert_eq!(number_of(block_on(pinned)), 0);
            }
        }
        assert_eq!(dropped.load(Ordering::SeqCst), 20);
        assert!(panicking.0.load(Ordering::SeqCst) > 0, "no waker was called");
    }
}

fn runtime_or_not(
    is_entered: bool,
    reads: impl Iterator<Item = Reading>,
) -> Vec<io::Result<crate::io::AlignedBuffer>> {
    let all = join_all(reads);
    if is_entered { block_on(all) } else { current_thread().block_on(all) }
}

/// Submits a read of its own when it is called.
struct Reentrant {
    disk: FileDisk,
    begun: Mutex<Vec<Begun>>,
}

impl Wake for Reentrant {
    fn wake(self: Arc<Self>) {
        let mut begun = self.begun.lock().expect("locked");
        while begun.len() < 1000 {
            let waker = Waker::from(Arc::clone(&self));
            let number = begun.len() as u64;
            begun.push(begin_with(&self.disk, number, &waker));
            // A read that was answered in its first poll wakes nobody.
            if begun.last().is_some_and(|last| last.0.is_none()) {
                break;
            }
        }
    }
}

#[test]
fn wakers_may_submit_reads() {
    for engine in ENGINES {
        let directory = directory();
        let disk = numbered(engine, &directory);
        let reentrant = Arc::new(Reentrant { disk, begun: Mutex::default() });
        for _ in 0..8 {
            Arc::clone(&reentrant).wake();
        }
        wait_until(|| reentrant.begun.lock().expect("locked").len() == 1000);
        let begun = std::mem::take(&mut *reentrant.begun.lock().expect("locked"));
        for (number, read) in results(begun).into_iter().enumerate() {
            assert_eq!(number_of(read), number as u64);
        }
    }
}

#[test]
fn ten_thousand_reads_at_a_time_are_served() {
    for engine in ENGINES {
        let directory = directory();
        for rings in [1, 16] {
            let disk =
                numbered_with(DiskOptions { read_rings: rings, ..options(engine, &directory, 4) });
            let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
            let runtime = runtime.expect("runtime");
            let crowd = || (0..10_000).map(|number| read(&disk, number % BLOCKS));
            let done = [block_on(join_all(crowd())), runtime.block_on(join_all(crowd()))];
            for done in done {
                for (number, read) in done.into_iter().enumerate() {
                    assert_eq!(number_of(read), number as u64 % BLOCKS);
                }
            }
            let spawned: Vec<_> = crowd().map(|read| runtime.spawn(read)).collect();
            for (number, read) in block_on(join_all(spawned)).into_iter().enumerate() {
                assert_eq!(number_of(read.expect("spawned")), number as u64 % BLOCKS);
            }
            block_on(disk.close().wait());
        }
    }
}

/// Threads that submit and exit, and runtimes that end, while pages are read for the first time.
fn survives_exits(disk: &FileDisk, path: &std::path::Path) {
    for round in 0..60 {
        let data = fs::File::open(path).expect("the data file");
        let _ = fadvise(&data, 0, None, Advice::DontNeed);
        let own = disk.clone();
        let first = round * 16;
        let submitting = thread::spawn(move || match round % 3 {
            0 => (first..first + 40).map(|number| begin(&own, number % BLOCKS)).collect::<Vec<_>>(),
            _ => current_thread().block_on(async {
                (first..first + 40).map(|number| begin(&own, number % BLOCKS)).collect()
            }),
        });
        let done = results(submitting.join().expect("joined"));
        for (number, read) in (first..).zip(done) {
            assert_eq!(number_of(read), number % BLOCKS);
        }
    }
    all_is_well(disk, 5);
    let runtime = current_thread();
    let reads = (0..BLOCKS).map(|number| read(disk, number));
    let all = stream::iter(reads).buffered(32).map(number_of).collect::<Vec<_>>();
    assert_eq!(runtime.block_on(all), (0..BLOCKS).collect::<Vec<_>>());
}

#[test]
fn reads_through_the_page_cache_outlive_their_threads() {
    for engine in ENGINES {
        let directory = directory();
        let disk = numbered_with(DiskOptions {
            direct: false,
            read_rings: 1,
            ..options(engine, &directory, 4)
        });
        block_on(disk.sync()).expect("sync");
        survives_exits(&disk, &disk.facts().path);
    }
}

#[test]
fn reads_of_a_file_in_memory_outlive_their_threads() {
    for engine in ENGINES {
        let directory = TempDir::new_in("/dev/shm").expect("directory");
        let disk = numbered(engine, &directory);
        survives_exits(&disk, &disk.facts().path);
    }
}
