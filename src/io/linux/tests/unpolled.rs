//! Submitted requests are carried out even if no future is polled, whatever wakers do.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use futures::executor::block_on;
use futures::future::{join_all, maybe_done};
use futures::{FutureExt, join};

use super::super::transfer::SYNCS;
use super::file_disk::{ENGINES, directory, open, options, pin, wait_until};
use super::refusal::{in_child, is_child};
use crate::io::{AlignedBuffer, BLOCK_BYTES, Disk, DiskOptions, FileDisk, ReadRequest};

const MIB: usize = 1 << 20;

fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    future.now_or_never()
}

#[test]
fn submitted_requests_are_carried_out_without_a_poll() {
    for engine in ENGINES {
        let directory = directory();
        let options = DiskOptions { ring_entries: 16, ..options(engine, &directory, 16) };
        let disk = block_on(FileDisk::open(options)).expect("disk");
        let pins = Arc::new(AtomicUsize::new(0));
        let reads = (0..3000u64).map(|count| {
            let request = ReadRequest::new((count % 4096) << 12, BLOCK_BYTES).pinned(pin(&pins));
            disk.read(if count % 2 == 0 { request } else { request.background() })
        });
        let mut reads: Vec<_> = reads.collect();
        // Some may be answered in their first poll.
        reads.retain_mut(|read| poll_once(read).is_none());
        assert!(reads.len() > 1000);
        let writes = (0..8u64).map(|count| {
            let ones = AlignedBuffer::copy_from_slice(&[1; BLOCK_BYTES]);
            disk.write(count << 12, ones)
        });
        let mut writes: Vec<_> = writes.collect();
        writes.retain_mut(|write| poll_once(write).is_none());
        wait_until(|| pins.load(Ordering::SeqCst) == 0);
        let whole = || block_on(disk.read(ReadRequest::new(0, 8 * BLOCK_BYTES))).expect("read");
        wait_until(|| whole().iter().all(|&byte| byte == 1));
        for read in reads {
            assert_eq!(block_on(read).expect("read").len(), BLOCK_BYTES);
        }
    }
}

/// A waker that calls the disk, then panics.
struct Hostile(FileDisk);

impl Wake for Hostile {
    fn wake(self: Arc<Self>) {
        poll_once(&mut self.0.read(ReadRequest::new(0, BLOCK_BYTES)));
        poll_once(&mut self.0.sync());
        panic!("a planned panic");
    }
}

#[test]
fn wakers_that_panic_or_call_again_harm_neither_requests_nor_rings() {
    for engine in ENGINES {
        let directory = directory();
        let disk = open(engine, &directory, 16);
        let hostile = Waker::from(Arc::new(Hostile(disk.clone())));
        let mut context = Context::from_waker(&hostile);
        let mut others = Vec::new();
        for count in 0..100u64 {
            let mut read = maybe_done(disk.read(ReadRequest::new(count << 12, BLOCK_BYTES)));
            let long = ReadRequest::new(count << 12, 2 * MIB).background();
            let mut long = maybe_done(disk.read(long));
            let mut write = maybe_done(disk.write(count << 12, AlignedBuffer::zeroed(BLOCK_BYTES)));
            let mut sync = maybe_done(disk.sync());
            let _ = (read.poll_unpin(&mut context), long.poll_unpin(&mut context));
            let _ = (write.poll_unpin(&mut context), sync.poll_unpin(&mut context));
            let request = ReadRequest::new(count << 12, BLOCK_BYTES);
            others.push(disk.read(if count % 2 == 0 { request } else { request.background() }));
            if count % 2 == 0 {
                // In the other rounds the futures are dropped with their wakers.
                block_on(async { join!(&mut read, &mut long, &mut write, &mut sync) });
                Pin::new(&mut read).take_output().expect("done").expect("read");
                Pin::new(&mut long).take_output().expect("done").expect("read");
                Pin::new(&mut write).take_output().expect("done").0.expect("written");
                Pin::new(&mut sync).take_output().expect("done").expect("synced");
            }
        }
        for result in block_on(join_all(others)) {
            result.expect("read");
        }
        let mut ending = Box::pin(disk.close().wait());
        let _ = ending.poll_unpin(&mut context);
        block_on(ending);
    }
}

#[test]
fn syncs_that_wait_for_their_turn_share_one() {
    if !is_child() {
        in_child("io::linux::tests::unpolled::syncs_that_wait_for_their_turn_share_one", false);
        return;
    }
    for engine in ENGINES {
        let directory = directory();
        let disk = open(engine, &directory, 16);
        let before = SYNCS.load(Ordering::Relaxed);
        let syncs: Vec<_> = (0..1000).map(|_| disk.sync()).collect();
        for result in block_on(join_all(syncs)) {
            result.expect("synced");
        }
        let carried_out = SYNCS.load(Ordering::Relaxed) - before;
        assert!((1..=20).contains(&carried_out), "{carried_out} syncs for 1000 callers");
    }
}
