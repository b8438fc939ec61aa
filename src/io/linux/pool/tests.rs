//! Pools: what their threads take, in which order, and what is left of them.

use futures::FutureExt;

use super::*;
use crate::io::buffer::BLOCK_BYTES;

/// A pool without threads, so that the test sees what they would take.
fn pool(is_for_points: bool) -> PooledFile {
    let (alive, _) = Alive::new();
    let user = PoolUser::start("tamis-test", 0, is_for_points, &alive).expect("a pool");
    let file = tempfile::tempfile().expect("a file");
    user.pool.begin(file.try_clone().expect("a copy"), None);
    PooledFile { file, user }
}

fn read(length: usize) -> (Read, Answer<io::Result<AlignedBuffer>>) {
    let (reply, answer) = exchange();
    (Read { offset: 0, length, pin: None, reply }, answer)
}

fn piece() -> Piece {
    let mut split = Split::new(AlignedBuffer::zeroed(BLOCK_BYTES), BLOCK_BYTES);
    split.next_piece(BLOCK_BYTES).expect("a piece").1
}

/// What a thread takes next, after a point read or not.
fn next(pool: &Pool, was_point: bool) -> &'static str {
    match pool.next(was_point).expect("an operation").0 {
        Operation::Point(_) => "point",
        Operation::Read { .. } => "read",
        Operation::Write { .. } => "write",
        Operation::Sync { .. } => "sync",
    }
}

#[test]
fn long_reads_are_left_to_the_pump() {
    let file = pool(true);
    let (short, _short) = read(BATCH_BYTES);
    assert!(file.user.pool.submit(short).is_ok());
    let (long, _long) = read(BATCH_BYTES + BLOCK_BYTES);
    assert!(file.user.pool.submit(long).is_err());
}

#[test]
fn a_thread_that_holds_the_lock_for_long_stops_no_caller() {
    let file = pool(true);
    let pool = &file.user.pool;
    let (read, _answer) = read(BLOCK_BYTES);
    let held = pool.state.lock();
    let Err(read) = pool.submit(read) else { panic!("submitted without the lock") };
    drop(held);
    assert!(pool.submit(read).is_ok());
}

#[test]
fn what_the_pump_of_the_point_reads_asks_for_waits_for_no_short_read() {
    let file = pool(true);
    let answers = [(); 3].map(|()| {
        let (read, answer) = read(BLOCK_BYTES);
        assert!(file.user.pool.submit(read).is_ok());
        answer
    });
    assert!(file.read(piece(), 0).now_or_never().is_none());
    let taken = [false, false, true, true].map(|was_point| next(&file.user.pool, was_point));
    assert_eq!(taken, ["read", "point", "point", "point"]);
    drop(answers);
}

#[test]
fn writes_and_syncs_wait_for_no_background_read() {
    let file = pool(false);
    assert!(file.read(piece(), 0).now_or_never().is_none());
    assert!(file.write(piece(), 0).now_or_never().is_none());
    assert!(file.read(piece(), 0).now_or_never().is_none());
    assert!(file.sync().now_or_never().is_none());
    let taken = [(); 4].map(|()| next(&file.user.pool, false));
    assert_eq!(taken, ["write", "sync", "read", "read"]);
}

#[test]
fn the_pool_is_drained_once_the_last_point_read_is_over() {
    let file = pool(true);
    let pool = &file.user.pool;
    let mut drained = pool.points_drained();
    let (last, _answer) = read(BLOCK_BYTES);
    assert!(pool.submit(last).is_ok());
    pool.close_points();
    let (late, _late) = read(BLOCK_BYTES);
    assert!(pool.submit(late).is_err(), "closed");
    assert!((&mut drained).now_or_never().is_none(), "it waits");
    assert_eq!(next(pool, false), "point");
    assert!((&mut drained).now_or_never().is_none(), "it is under way");
    assert!(file.sync().now_or_never().is_none());
    assert_eq!(next(pool, true), "sync");
    assert_eq!(drained.now_or_never(), Some(None));
}

#[test]
fn a_pool_without_a_file_leaves_no_thread_behind() {
    for _ in 0..20 {
        let (alive, _) = Alive::new();
        let user = PoolUser::start("tamis-test", 8, true, &alive).expect("threads");
        let pool = user.pool();
        drop(user);
        assert_eq!(Arc::strong_count(&pool), 1, "threads are left");
    }
}
