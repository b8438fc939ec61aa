//! The simulated disk loses, tears and reorders as it says.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use futures::executor::block_on;
use futures::future::{join_all, poll_fn};
use futures::{FutureExt, future};
use rustix::io::Errno;

use crate::io::simulation::Dice;
use crate::io::{
    AlignedBuffer, BLOCK_BYTES, Disk, Fault, OperationKind, ReadRequest, SimulatedDisk, Simulation,
    TaskRunner,
};

const BYTES: u64 = 16 * BLOCK_BYTES as u64;

fn block(byte: u8) -> AlignedBuffer {
    AlignedBuffer::copy_from_slice(&[byte; BLOCK_BYTES])
}

fn write(disk: &SimulatedDisk, offset: u64, byte: u8) -> io::Result<()> {
    block_on(disk.write(offset, block(byte))).0
}

fn read(disk: &SimulatedDisk, offset: u64) -> io::Result<AlignedBuffer> {
    block_on(disk.read(ReadRequest::new(offset, BLOCK_BYTES)))
}

fn poll_once(future: &mut (impl future::Future + Unpin)) {
    block_on(poll_fn(|context| {
        let _ = future.poll_unpin(context);
        std::task::Poll::Ready(())
    }));
}

#[test]
fn completed_writes_are_read_back() {
    let disk = SimulatedDisk::new(1, BYTES);
    let mut model = vec![0; BYTES as usize];
    let mut dice = Dice::new(2);
    for round in 0..500u32 {
        let blocks = 1 + dice.below(4);
        let offset = dice.below(16 - blocks + 1) * BLOCK_BYTES as u64;
        let bytes = vec![round as u8; blocks as usize * BLOCK_BYTES];
        model[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        let (result, buffer) = block_on(disk.write(offset, AlignedBuffer::copy_from_slice(&bytes)));
        result.expect("write");
        assert_eq!(buffer.len(), bytes.len());
        let whole = block_on(disk.read(ReadRequest::new(0, BYTES as usize))).expect("read");
        assert!(whole[..] == model[..]);
    }
}

#[test]
fn a_crash_keeps_synced_sectors_and_a_mixture_of_the_rest() {
    let mut seen = BTreeSet::new();
    for seed in 0..300 {
        let disk = SimulatedDisk::new(seed, BYTES);
        write(&disk, 0, 1).expect("write");
        write(&disk, 4096, 1).expect("write");
        block_on(disk.sync()).expect("sync");
        write(&disk, 4096, 2).expect("write");
        write(&disk, 4096, 3).expect("write");
        let next = disk.crash();
        assert!(read(&disk, 0).is_err(), "the old process still reads");
        assert!(read(&next, 0).expect("read").iter().all(|&byte| byte == 1));
        for sector in read(&next, 4096).expect("read").chunks(512) {
            assert!(sector.iter().all(|byte| (1..=3).contains(byte)));
            seen.insert((sector[0], sector[511]));
        }
    }
    assert_eq!(seen.len(), 9, "nine outcomes of two unsynced writes: {seen:?}");
}

#[test]
fn a_kill_keeps_completed_writes_but_does_not_make_them_durable() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = SimulatedDisk::new(seed, BYTES);
        write(&disk, 0, 1).expect("write");
        let mut in_flight = disk.write(4096, block(2));
        poll_once(&mut in_flight);
        let next = disk.kill();
        assert!(read(&next, 0).expect("read").iter().all(|&byte| byte == 1));
        assert!(read(&next, 4096).expect("read").iter().all(|byte| [0, 2].contains(byte)));
        lost += usize::from(next.crash().snapshot(0, 4096).contains(&0));
    }
    assert!(lost > 25, "a kill made writes durable: only {lost} of 50 were lost");
}

#[test]
fn a_sync_covers_only_writes_completed_before_it() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = SimulatedDisk::new(seed, BYTES);
        disk.plan(|plan| plan.delay_polls_max = 0);
        write(&disk, 0, 1).expect("write");
        disk.plan(|plan| plan.delay_polls_max = 100);
        let mut sync = disk.sync();
        poll_once(&mut sync);
        disk.plan(|plan| plan.delay_polls_max = 0);
        write(&disk, 0, 2).expect("write");
        block_on(sync).expect("sync");
        let kept = disk.crash().snapshot(0, 4096);
        assert!(kept.iter().all(|byte| [1, 2].contains(byte)));
        lost += usize::from(kept.contains(&1));
    }
    assert!(lost > 25, "the sync covered a later write: only {lost} of 50 were lost");
}

#[test]
fn a_lost_sync_makes_nothing_durable() {
    let lost = (0..50).filter(|&seed| {
        let disk = SimulatedDisk::new(seed, BYTES);
        disk.plan(|plan| plan.sync_loss = 1.0);
        write(&disk, 0, 1).expect("write");
        block_on(disk.sync()).expect("it says that it succeeded");
        disk.crash().snapshot(0, 4096).contains(&0)
    });
    assert!(lost.count() > 25);
}

#[test]
fn failures_come_as_ordered() {
    let disk = SimulatedDisk::new(3, BYTES);
    disk.fail(OperationKind::Write, 2, Fault::NoSpace, false);
    disk.fail(OperationKind::Read, 1, Fault::Io, true);
    for (count, fails) in [false, false, true, false].into_iter().enumerate() {
        let result = write(&disk, 0, count as u8 + 1);
        assert_eq!(result.is_err(), fails);
        if let Err(error) = result {
            assert_eq!(error.raw_os_error(), Some(Errno::NOSPC.raw_os_error()));
            assert!(
                disk.snapshot(0, 4096).iter().all(|&byte| byte == 2),
                "the refused write has arrived"
            );
        }
    }
    for fails in [false, true, true] {
        assert_eq!(read(&disk, 0).is_err(), fails);
    }
    disk.heal();
    read(&disk, 0).expect("the disk is healed");
    disk.plan(|plan| (plan.write_failure, plan.sync_failure) = (1.0, 1.0));
    assert_eq!(write(&disk, 0, 9).expect_err("a failure was ordered").raw_os_error(), Some(5));
    assert_eq!(block_on(disk.sync()).expect_err("a failure was ordered").raw_os_error(), Some(5));
}

#[test]
fn bits_flip_on_the_way_or_for_good() {
    let disk = SimulatedDisk::new(3, BYTES);
    let ones = |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
    disk.plan(|plan| plan.read_bit_flip = 1.0);
    assert_eq!(ones(&read(&disk, 0).expect("read")), 1);
    disk.plan(|plan| plan.read_bit_flip = 0.0);
    assert_eq!(ones(&read(&disk, 0).expect("read")), 0);
    disk.flip_bit(17, 3);
    assert_eq!(read(&disk, 0).expect("read")[17], 8);
    assert_eq!(disk.crash().snapshot(17, 1), [8]);
}

#[test]
fn dropped_futures_leave_their_requests_to_the_disk() {
    let disk = SimulatedDisk::new(9, BYTES);
    disk.plan(|plan| plan.delay_polls_max = 50);
    let pin = Arc::new(());
    for offset in (0..BYTES).step_by(BLOCK_BYTES) {
        let mut read = disk.read(ReadRequest::new(offset, BLOCK_BYTES).pinned(pin.clone()));
        poll_once(&mut read);
        poll_once(&mut disk.write(offset, block(1)));
    }
    assert!(Arc::strong_count(&pin) > 1 && disk.in_flight() > 1);
    disk.complete_all();
    assert_eq!((Arc::strong_count(&pin), disk.in_flight()), (1, 0));
    assert!(disk.snapshot(0, BYTES as usize).iter().all(|&byte| byte == 1));
}

#[test]
fn a_submitted_request_is_carried_out_while_its_future_sleeps() {
    let mut simulation = Simulation::new(3);
    let disk = SimulatedDisk::new(3, BYTES);
    disk.plan(|plan| plan.delay_polls_max = 50);
    let pin = Arc::new(());
    let mut read = disk.read(ReadRequest::new(0, BLOCK_BYTES).pinned(pin.clone()));
    let mut write = disk.write(4096, block(1));
    let runner = simulation.task_runner();
    let passing = async {
        poll_once(&mut read);
        poll_once(&mut write);
        runner.sleep(std::time::Duration::from_secs(1)).await;
    };
    simulation.block_on(passing).expect("no deadlock");
    assert_eq!((Arc::strong_count(&pin), disk.in_flight()), (1, 0));
    assert!(disk.snapshot(4096, BLOCK_BYTES).iter().all(|&byte| byte == 1));
    assert_eq!(block_on(read).expect("read").len(), BLOCK_BYTES);
    block_on(write).0.expect("written");
}

#[test]
fn requests_overtake_one_another_the_same_way_each_time() {
    let run = |seed| {
        let mut simulation = Simulation::new(seed);
        let disk = SimulatedDisk::new(seed, BYTES);
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let ends = (0..16u64).map(|number| {
            let (disk, order) = (disk.clone(), order.clone());
            let task = async move {
                disk.write(number % 4 * 4096, block(number as u8)).await.0.expect("write");
                order.lock().expect("order").push(number);
            };
            simulation.task_runner().spawn("writer", task.boxed())
        });
        let ends: Vec<_> = ends.collect();
        simulation.block_on(join_all(ends)).expect("no deadlock");
        let image = disk.crash().snapshot(0, BYTES as usize);
        (Arc::try_unwrap(order).expect("all ended").into_inner().expect("order"), image)
    };
    assert!(run(1) == run(1));
    assert_ne!(run(1).0, run(2).0);
    assert_ne!(run(1).0, (0..16).collect::<Vec<_>>());
}
