//! Thousands of caches, each opened, called by hostile callers, and ended in one of many ways.

use std::future::poll_fn;
use std::mem;
use std::path::Path;
use std::sync::Barrier;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use futures::FutureExt;
use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tamis::{BlobCache, BlobCacheConfig, CrashSafety};
use tempfile::TempDir;

use super::call::{self, Call, Kept, polled, survive};
use super::census::{Census, live, step};

/// Folders of stores, which are opened in turn: most of them are opened again.
const FOLDERS: usize = 6;

/// Caches that are open at the same time.
const TOGETHER: usize = 3;

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) caches: usize,
    pub(super) calls: usize,
    /// Left before their end, and dropped late.
    pub(super) left: usize,
    pub(super) unclosed: usize,
}

/// A cache under way, and what its callers have left.
struct Life {
    cache: BlobCache,
    left: Vec<Call>,
    kept: Vec<Kept>,
}

fn config(path: Option<&Path>, random: &mut StdRng) -> BlobCacheConfig {
    let builder = BlobCacheConfig::builder().l1_bytes_max(4 << 20);
    let Some(path) = path else { return builder.build().unwrap() };
    let safety = [CrashSafety::Cold, CrashSafety::Process][random.random_range(0..2)];
    let engine = crate::engine::engine(random.random_range(0..2));
    let builder = builder.l2_path(path).l2_engine(engine).crash_safety(safety);
    builder.l2_bytes_max(1 << 20).l2_segment_bytes(128 << 10).build().unwrap()
}

/// The end of a call that panics at most on purpose.
fn run(mut call: Call) -> Option<Kept> {
    block_on(poll_fn(|context| match survive(|| call.as_mut().poll(context)) {
        Some(Poll::Pending) => Poll::Pending,
        Some(Poll::Ready(kept)) => Poll::Ready(Some(kept)),
        None => Poll::Ready(None),
    }))
}

impl Life {
    fn begin(path: Option<&Path>, random: &mut StdRng, tally: &mut Tally) -> Self {
        let cache = block_on(BlobCache::open(config(path, random))).unwrap();
        let mut life = Self { cache, left: Vec::new(), kept: Vec::new() };
        tally.caches += 1;
        for _ in 0..random.random_range(0..24) {
            tally.calls += 1;
            let call = call::draw(&life.cache, random);
            let polls = [0, 1, 1, 2, 3, 8][random.random_range(0..6)];
            let waker = call::waker(&life.cache, random);
            let left = polled(call, polls, &waker, &mut life.kept);
            survive(|| drop(waker));
            match left {
                Some(call) if random.random_bool(0.3) => _ = survive(|| drop(call)),
                left => life.left.extend(left),
            }
        }
        tally.left += life.left.len();
        life
    }

    /// Drops calls, kept answers and the last handle in any order, after a close or without one.
    fn end(mut self, random: &mut StdRng, tally: &mut Tally) {
        match random.random_range(0..6) {
            0 | 1 => drop(run(call::close(&self.cache))),
            2 => {
                // The same close, begun and dropped halfway; or polled to its end at the very end.
                self.left.extend(call::close(&self.cache).now_or_never().map_or_else(
                    || Some(call::close(&self.cache)),
                    |kept| {
                        self.kept.push(kept);
                        None
                    },
                ));
            }
            _ => tally.unclosed += 1,
        }
        let mut leavings: Vec<Box<dyn FnOnce()>> = Vec::new();
        for call in mem::take(&mut self.left) {
            leavings.push(Box::new(move || drop(call)));
        }
        for kept in mem::take(&mut self.kept) {
            let fate = random.random_range(0..3);
            leavings.push(Box::new(move || match kept {
                Kept::Refresh(refresh) if fate == 0 => drop(refresh.now_or_never()),
                kept => drop(kept),
            }));
        }
        let cache = self.cache;
        leavings.push(Box::new(move || drop(cache)));
        leavings.shuffle(random);
        for leave in leavings {
            survive(leave);
        }
    }
}

fn live_through(caches: usize, folders: &[TempDir], seed: u64, tally: &mut Tally) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut under_way: Vec<Life> = Vec::new();
    for number in 0..caches {
        step(&format!("cache {number} of seed {seed}"));
        let path = (!folders.is_empty()).then(|| folders[number % folders.len()].path());
        if under_way.len() == TOGETHER {
            under_way.swap_remove(random.random_range(0..TOGETHER)).end(&mut random, tally);
        }
        // A store that is still open cannot be opened.
        while under_way.iter().any(|life| path.is_some() && life.cache.config().l2_path() == path) {
            under_way.remove(0).end(&mut random, tally);
        }
        under_way.push(Life::begin(path, &mut random, tally));
    }
    for life in under_way {
        life.end(&mut random, tally);
    }
}

/// Live bytes once descriptors and threads are what they were.
fn measured(rest: &Census, caches: usize, folders: &[TempDir], seed: u64) -> (i64, Tally) {
    let mut tally = Tally::default();
    live_through(caches, folders, seed, &mut tally);
    rest.returns(&format!("{caches} caches of seed {seed}"));
    (live(), tally)
}

/// The table of waiting threads in `parking_lot` is made when the first one waits, grows with their
/// number, and stays: here for more of them than any case has.
fn wait_for_a_lock_on_many_threads() {
    const THREADS: usize = 256;
    let (lock, begun) = (parking_lot::Mutex::new(()), Barrier::new(THREADS + 1));
    thread::scope(|scope| {
        let held = lock.lock();
        for _ in 0..THREADS {
            scope.spawn(|| {
                begun.wait();
                drop(lock.lock());
            });
        }
        begun.wait();
        // Nearly all of them sleep by then, which is enough.
        thread::sleep(Duration::from_millis(50));
        drop(held);
    });
}

fn leave_nothing(caches: usize, folders: &[TempDir], rest: &Census) {
    // What a process keeps once: spare buffers, the capacity of lists, the threads' own.
    wait_for_a_lock_on_many_threads();
    let mut warm = Tally::default();
    live_through(caches / 8, folders, 0, &mut warm);
    rest.returns("the warm-up");
    let before = live();
    let (once, first) = measured(rest, caches / 3, folders, 1);
    let (twice, second) = measured(rest, 2 * caches / 3, folders, 2);
    println!("{before} bytes, then {once}, then {twice}; {first:?}; {second:?}");
    assert!(first.left > caches / 4 && second.unclosed > caches / 8, "{first:?} {second:?}");
    for after in [once, twice] {
        assert!(after - before <= TOLERANCE, "{before} bytes, then {once}, then {twice}");
    }
}

fn folders() -> Vec<TempDir> {
    let folder = || tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    (0..FOLDERS).map(|_| folder()).collect()
}

/// More than this is a leak, however many caches there were.
const TOLERANCE: i64 = 1 << 10;

pub(super) fn in_memory(caches: usize, rest: &Census) {
    leave_nothing(caches, &[], rest);
}

pub(super) fn on_disk(caches: usize, rest: &Census) {
    leave_nothing(caches, &folders(), rest);
}

/// What is kept here for a moment, any leak would keep for good.
pub(super) fn kept_handles_are_noticed(rest: &Census) {
    let folder = &folders()[0];
    let mut random = StdRng::seed_from_u64(4);
    let before = live();
    let is_leak = || live() - before > TOLERANCE;
    for path in [None, Some(folder.path())] {
        let cache = block_on(BlobCache::open(config(path, &mut random))).unwrap();
        block_on(cache.put("n", "key", vec![7; 2 << 10])).unwrap();
        let hit = block_on(cache.get("n", "key"));
        block_on(cache.close()).unwrap();
        drop(cache);
        rest.returns("a close");
        assert!(is_leak(), "a hit is kept");
        drop(hit);
        assert!(!is_leak());
        let kept = block_on(BlobCache::open(config(path, &mut random))).unwrap();
        let call = call::draw(&kept, &mut random);
        drop(kept);
        let returns = rest.returns_within(Duration::from_millis(100)).is_ok();
        assert!(is_leak() && returns == path.is_none(), "a call is kept");
        drop(call);
        rest.returns("the last call");
        assert!(!is_leak());
    }
}

/// The put is in force by then, so its caller must have the answer.
pub(super) fn a_value_may_panic_in_its_drop(rest: &Census) {
    let folder = &folders()[0];
    for path in [None, Some(folder.path())] {
        let cache = block_on(BlobCache::open(config(path, &mut StdRng::seed_from_u64(5)))).unwrap();
        for length in [100, 300_000] {
            assert_eq!(block_on(cache.put("n", "key", call::bomb(length))), Ok(()));
            assert_eq!(block_on(cache.get("n", "key")).unwrap().value().len(), length);
        }
        assert_eq!(block_on(cache.close()), Ok(()));
    }
    rest.returns("values that panic");
}
