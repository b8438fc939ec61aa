//! Disks on real files, on rings and on threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use futures::executor::block_on;
use futures::future::{join_all, poll_fn};
use futures::{FutureExt, StreamExt, stream};
use tempfile::TempDir;

use super::super::request::Request;
use crate::io::simulation::Dice;
use crate::io::{
    AlignedBuffer, BLOCK_BYTES, Disk, DiskEngine, DiskError, DiskOptions, FileDisk, ReadRequest,
    RequestPin, TaskOutcome, Urgency,
};

const MIB: usize = 1 << 20;

pub(super) const ENGINES: [DiskEngine; 2] = [DiskEngine::IoUring, DiskEngine::Threads];

pub(super) fn options(engine: DiskEngine, directory: &TempDir, mebibytes: u64) -> DiskOptions {
    DiskOptions { engine: Some(engine), ..DiskOptions::new(directory.path(), mebibytes << 20) }
}

pub(super) fn open(engine: DiskEngine, directory: &TempDir, mebibytes: u64) -> FileDisk {
    let disk = block_on(FileDisk::open(options(engine, directory, mebibytes))).expect("disk");
    assert_eq!(disk.engine(), engine);
    disk
}

pub(super) fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("directory")
}

fn noise(dice: &mut Dice, length: usize) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::with_capacity(length);
    for _ in 0..length / 8 {
        buffer.append(&dice.next().to_le_bytes());
    }
    buffer
}

fn span(dice: &mut Dice, blocks_max: u64, disk_bytes: u64) -> (u64, usize) {
    let blocks = 1 + dice.below(blocks_max);
    let start = dice.below(disk_bytes / BLOCK_BYTES as u64 - blocks + 1);
    (start * BLOCK_BYTES as u64, blocks as usize * BLOCK_BYTES)
}

/// Random writes and reads, of up to 5 MiB, against a plain vector.
fn agrees_with_a_model(options: DiskOptions, rounds: usize) {
    let disk = block_on(FileDisk::open(options)).expect("disk");
    let mut model = vec![0; disk.length() as usize];
    let mut dice = Dice::new(11);
    for round in 0..rounds {
        let blocks_max = if round % 4 == 0 { 5 * MIB / BLOCK_BYTES } else { 20 } as u64;
        let (offset, length) = span(&mut dice, blocks_max, disk.length());
        let buffer = noise(&mut dice, length);
        model[offset as usize..][..length].copy_from_slice(&buffer);
        let (result, buffer) = block_on(disk.write(offset, buffer));
        result.expect("write");
        assert_eq!(buffer.len(), length, "the buffer has changed its length");
        if round % 16 == 0 {
            block_on(disk.sync()).expect("sync");
        }
        let reads = (0..8).map(|count| {
            let (offset, length) = span(&mut dice, blocks_max, disk.length());
            let request = ReadRequest::new(offset, length);
            let request = if count % 2 == 0 { request } else { request.background() };
            disk.read(request).map(move |result| (offset, length, result.expect("read")))
        });
        for (offset, length, buffer) in block_on(join_all(reads)) {
            assert_eq!(buffer.len(), length);
            assert!(buffer[..] == model[offset as usize..][..length], "read at {offset}");
        }
    }
}

#[test]
fn direct_transfers_agree_with_a_model() {
    for engine in ENGINES {
        let directory = directory();
        agrees_with_a_model(options(engine, &directory, 64), 200);
    }
}

#[test]
fn buffered_transfers_agree_with_a_model() {
    for engine in ENGINES {
        let directory = directory();
        agrees_with_a_model(DiskOptions { direct: false, ..options(engine, &directory, 16) }, 60);
    }
}

#[test]
fn the_smallest_ring_serves_a_crowd() {
    for engine in ENGINES {
        let directory = directory();
        let disk = block_on(FileDisk::open(DiskOptions {
            ring_entries: 16,
            ..options(engine, &directory, 16)
        }))
        .expect("disk");
        let reads = (0..300).map(|count| {
            let length = if count % 3 == 0 { 3 * MIB } else { BLOCK_BYTES };
            disk.read(ReadRequest::new(count % 13 * MIB as u64, length))
        });
        for result in block_on(join_all(reads)) {
            result.expect("read");
        }
    }
}

struct Pinned(Arc<AtomicUsize>);

impl Drop for Pinned {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(super) fn pin(count: &Arc<AtomicUsize>) -> RequestPin {
    count.fetch_add(1, Ordering::SeqCst);
    Arc::new(Pinned(Arc::clone(count)))
}

pub(super) fn wait_until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "the condition has not come true in 30 s"
        );
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn thousands_of_dropped_futures_leave_nothing_behind() {
    for engine in ENGINES {
        let directory = directory();
        let disk = open(engine, &directory, 32);
        let pins = Arc::new(AtomicUsize::new(0));
        let mut dice = Dice::new(5);
        for round in 0..8000u64 {
            let (offset, length) = span(&mut dice, 4, disk.length() / 2);
            let request = ReadRequest::new(offset, length).pinned(pin(&pins));
            if round % 5 == 0 {
                let place = disk.length() / 2 + offset;
                let mut write = disk.write(place, AlignedBuffer::zeroed(length));
                block_on(poll_fn(|context| {
                    let _ = write.poll_unpin(context);
                    Poll::Ready(())
                }));
            }
            let mut read = disk.read(request);
            for _ in 0..dice.below(3) {
                if block_on(poll_fn(|context| Poll::Ready(read.poll_unpin(context).is_ready()))) {
                    break;
                }
            }
        }
        wait_until(|| pins.load(Ordering::SeqCst) == 0);
        let buffer = noise(&mut dice, MIB);
        let expected = buffer.to_vec();
        block_on(disk.write(0, buffer)).0.expect("write");
        assert!(block_on(disk.read(ReadRequest::new(0, MIB))).expect("read")[..] == expected[..]);
    }
}

#[test]
fn a_pin_is_dropped_before_the_answer_is_sent() {
    for engine in ENGINES {
        let directory = directory();
        let disk = open(engine, &directory, 1);
        let pins = Arc::new(AtomicUsize::new(0));
        for _ in 0..200 {
            let read = disk.read(ReadRequest::new(0, BLOCK_BYTES).pinned(pin(&pins)));
            assert_eq!(pins.load(Ordering::SeqCst), 1);
            block_on(read).expect("read");
            assert_eq!(pins.load(Ordering::SeqCst), 0);
        }
    }
}

#[test]
fn nothing_happens_before_the_first_poll() {
    for engine in ENGINES {
        let directory = directory();
        let disk = open(engine, &directory, 1);
        drop(disk.write(0, AlignedBuffer::copy_from_slice(&[1; BLOCK_BYTES])));
        let buffer = block_on(disk.read(ReadRequest::new(0, BLOCK_BYTES))).expect("read");
        assert!(buffer.iter().all(|&byte| byte == 0));
    }
}

#[test]
fn closing_drains_requests_in_flight() {
    for engine in ENGINES {
        for round in 0..20 {
            let directory = directory();
            let disk = open(engine, &directory, 32);
            let read = |count: u64| disk.read(ReadRequest::new(count << 16, 4 * BLOCK_BYTES));
            let mut reads = join_all((0..100).map(read));
            let write = disk.write(16 << 20, AlignedBuffer::zeroed(4 * MIB));
            let writing = thread::spawn(move || block_on(write).0);
            let at_hand = round % 2 == 0;
            if at_hand {
                block_on(poll_fn(|context| Poll::Ready(reads.poll_unpin(context).is_pending())));
            }
            let termination = disk.close();
            for result in block_on(reads) {
                match result {
                    Ok(buffer) => assert_eq!(buffer.len(), 4 * BLOCK_BYTES),
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
                        assert!(!at_hand, "a request that was queued before the close was refused");
                    }
                }
            }
            let _ = writing.join().expect("writer");
            block_on(termination.wait());
            let late = block_on(disk.read(ReadRequest::new(0, BLOCK_BYTES)));
            assert_eq!(late.expect_err("closed").kind(), io::ErrorKind::BrokenPipe);
            drop(open(engine, &directory, 32));
        }
    }
}

#[test]
fn dropping_the_last_handle_ends_the_threads() {
    for engine in ENGINES {
        let directory = directory();
        for round in 0..20 {
            let disk = open(engine, &directory, 8);
            // Refused only after a second, in which the owner might have ended.
            if round < 2 {
                let refused = block_on(FileDisk::open(options(engine, &directory, 8)));
                assert!(matches!(refused, Err(DiskError::Locked { .. })));
            }
            let termination = disk.termination();
            for count in 0..64 {
                let mut read = disk.read(ReadRequest::new(count << 12, BLOCK_BYTES));
                block_on(poll_fn(|context| {
                    let _ = read.poll_unpin(context);
                    Poll::Ready(())
                }));
            }
            drop(disk);
            block_on(termination.wait());
        }
    }
}

#[test]
fn an_opening_that_was_dropped_ends_by_itself() {
    for engine in ENGINES {
        let directory = directory();
        for _ in 0..10 {
            let mut opening = Box::pin(FileDisk::open(options(engine, &directory, 8)));
            block_on(poll_fn(|context| {
                // On a busy machine the disk may be open already; then it is dropped.
                let _ = opening.poll_unpin(context);
                Poll::Ready(())
            }));
            drop(opening);
            wait_until(|| block_on(FileDisk::open(options(engine, &directory, 8))).is_ok());
            wait_until(|| {
                fs::File::open(directory.path().join("data")).is_ok_and(|file| {
                    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
                        .is_ok()
                })
            });
        }
    }
}

#[test]
fn bad_spans_are_refused() {
    for engine in ENGINES {
        let directory = directory();
        let disk = open(engine, &directory, 1);
        let cases = [
            (1, 4096),
            (0, 100),
            (0, 0),
            (1 << 20, 4096),
            (u64::MAX - 4095, 4096),
            (4096, 1 << 20),
        ];
        for (offset, length) in cases {
            let read = block_on(disk.read(ReadRequest::new(offset, length)));
            assert_eq!(read.expect_err("refused").kind(), io::ErrorKind::InvalidInput);
            let (write, buffer) = block_on(disk.write(offset, AlignedBuffer::zeroed(length)));
            assert_eq!(write.expect_err("refused").kind(), io::ErrorKind::InvalidInput);
            assert_eq!(buffer.len(), length);
        }
    }
}

#[test]
fn the_end_of_a_shortened_file_is_an_error() {
    for engine in ENGINES {
        let directory = directory();
        let disk = open(engine, &directory, 8);
        let file = fs::OpenOptions::new().write(true).open(&disk.facts().path).expect("open");
        file.set_len(4 << 20).expect("shorten");
        for length in [BLOCK_BYTES, 2 * MIB] {
            let read = disk.read(ReadRequest::new((4 << 20) + 4096, length));
            assert_eq!(block_on(read).expect_err("end").kind(), io::ErrorKind::UnexpectedEof);
        }
        let across = block_on(disk.read(ReadRequest::new((4 << 20) - 4096, 8192)));
        assert_eq!(across.expect_err("end").kind(), io::ErrorKind::UnexpectedEof);
        block_on(disk.read(ReadRequest::new(0, 4 << 20)))
            .expect("the rest of the file is readable");
    }
}

#[test]
fn a_forked_child_is_refused() {
    for engine in ENGINES {
        let directory = directory();
        let disk = open(engine, &directory, 1);
        disk.set_forked(true);
        let read = block_on(disk.read(ReadRequest::new(0, BLOCK_BYTES)));
        assert!(read.expect_err("refused").to_string().contains("fork"));
        assert!(block_on(disk.sync()).is_err());
        // It would need locks that a thread may have held for ever.
        drop(disk.close());
        disk.set_forked(false);
        block_on(disk.sync()).expect("this is no fork");
        block_on(disk.read(ReadRequest::new(0, BLOCK_BYTES))).expect("nor has it been closed");
    }
}

#[test]
fn the_runner_writes_and_is_drained() {
    for engine in ENGINES {
        let directory = directory();
        let disk = open(engine, &directory, 1);
        let runner = disk.task_runner();
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<u8>();
        let (own, timer) = (disk.clone(), disk.task_runner());
        let writer = runner.spawn(
            "writer",
            async move {
                while let Some(byte) = receiver.recv().await {
                    timer.sleep(Duration::from_millis(1)).await;
                    let buffer = AlignedBuffer::copy_from_slice(&[byte; BLOCK_BYTES]);
                    own.write(u64::from(byte) << 12, buffer).await.0.expect("write");
                }
                own.sync().await.expect("sync");
            }
            .boxed(),
        );
        assert_eq!(
            block_on(runner.spawn("panicking", async { panic!("on purpose") }.boxed())),
            TaskOutcome::Panicked
        );
        for byte in 0..100 {
            sender.send(byte).expect("the writer listens");
        }
        let termination = disk.close();
        drop(sender);
        assert_eq!(block_on(writer), TaskOutcome::Finished);
        block_on(termination.wait());
        let again = open(engine, &directory, 1);
        let buffer = block_on(again.read(ReadRequest::new(99 << 12, BLOCK_BYTES))).expect("read");
        assert!(buffer.iter().all(|&byte| byte == 99));
    }
}

#[test]
fn a_ring_that_breaks_down_fails_everything_and_hangs_nothing() {
    for engine in ENGINES {
        let directory = directory();
        let disk = open(engine, &directory, 16);
        let task = disk.task_runner().spawn("waiting", std::future::pending().boxed());
        let writes = (0..4).map(|count| disk.write(count << 20, AlignedBuffer::zeroed(MIB)));
        let crowd: Vec<_> = writes.collect();
        let crowd = thread::spawn(move || block_on(join_all(crowd)));
        for urgency in [Urgency::Background, Urgency::Point] {
            assert!(disk.queue(urgency).send(Request::Panic).is_ok());
        }
        for (result, _) in crowd.join().expect("crowd") {
            if let Err(error) = result {
                assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            }
        }
        assert_eq!(block_on(task), TaskOutcome::Dropped);
        // The callers' rings accept reads until the thread has broken down.
        wait_until(|| block_on(disk.read(ReadRequest::new(0, 4096))).is_err());
        for request in [ReadRequest::new(0, 4096), ReadRequest::new(0, 4096).background()] {
            let error = block_on(disk.read(request)).expect_err("broken");
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        }
        block_on(disk.termination().wait());
    }
}

#[test]
fn any_executor_will_do() {
    for engine in ENGINES {
        let directory = directory();
        let disk = open(engine, &directory, 8);
        let read = |disk: FileDisk, count: u64| async move {
            disk.read(ReadRequest::new((count % 2048) << 12, BLOCK_BYTES))
                .await
                .expect("read")
                .len()
        };
        let crowd = |disk: FileDisk| {
            stream::iter(0..2000).map(move |count| read(disk.clone(), count)).buffer_unordered(64)
        };
        let multi = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
        let total = multi
            .expect("runtime")
            .block_on(crowd(disk.clone()).fold(0, async |sum, read| sum + read));
        assert_eq!(total, 2000 * BLOCK_BYTES);
        assert_eq!(block_on(crowd(disk.clone()).count()), 2000);
        let runtime = tokio_uring::Runtime::new(&tokio_uring::builder()).expect("runtime");
        assert_eq!(runtime.block_on(crowd(disk.clone()).count()), 2000);
    }
}

/// A ring's runtime submits when its thread parks.
#[test]
fn requests_go_on_beside_a_task_that_yields_all_the_time() {
    for engine in ENGINES {
        let directory = directory();
        let disk = open(engine, &directory, 16);
        let (stop, steps) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let ends = [disk.task_runner(), disk.read_task_runner()].map(|runner| {
            let (stop, steps) = (Arc::clone(&stop), Arc::clone(&steps));
            let deadline = Instant::now() + Duration::from_secs(30);
            let busy = async move {
                while stop.load(Ordering::Relaxed) == 0 && Instant::now() < deadline {
                    steps.fetch_add(1, Ordering::Relaxed);
                    crate::batch::yield_now().await;
                }
                assert!(Instant::now() < deadline, "the requests waited for this task");
            };
            runner.spawn("busy", busy.boxed())
        });
        for round in 0..100 {
            let bytes = AlignedBuffer::zeroed(BLOCK_BYTES);
            block_on(disk.write(round * BLOCK_BYTES as u64, bytes)).0.expect("written");
            let before = steps.load(Ordering::Relaxed);
            block_on(disk.sync()).expect("synced");
            let long = ReadRequest::new(0, 2 * MIB);
            assert_eq!(block_on(disk.read(long)).expect("read").len(), 2 * MIB);
            assert!(steps.load(Ordering::Relaxed) > before, "the tasks go on, too");
        }
        stop.store(1, Ordering::Relaxed);
        assert_eq!(block_on(join_all(ends)), [TaskOutcome::Finished; 2]);
    }
}
