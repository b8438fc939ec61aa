//! Caches in front of a source of truth, and races of versions.
//!
//! A reader that misses takes a read point, reads the source and puts the value; a writer changes
//! the source and invalidates. Once the invalidation has returned, no later get finds anything
//! older than the source was then, whatever the readers were doing.

use std::future::Future;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::thread;

use futures::executor::block_on;
use tamis::{BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, CacheError};

use crate::cases::for_each_round;

const KEYS: [&str; 4] = ["a/1", "a/2", "b/1", "b/2"];
const WRITES: usize = 240;
const READERS: usize = 2;

/// Enough that a tiny cache with these values evicts all the time.
const BALLAST: usize = 60;
const VALUE_BYTES: usize = 2000;

/// One row of the source.
#[derive(Debug, Default)]
struct Row {
    value: AtomicU64,
    /// A lower bound of the value when the last completed invalidation began.
    confirmed: AtomicU64,
}

struct Service {
    cache: BlobCache,
    rows: [Row; KEYS.len()],
    is_over: AtomicBool,
    hits: AtomicU64,
    gets: AtomicU64,
}

fn open(l1_bytes_max: usize, key_hash_bits: u32) -> BlobCache {
    let builder = BlobCacheConfig::builder().l1_bytes_max(l1_bytes_max);
    let config = builder.key_hash_bits(key_hash_bits).build().expect("in its range");
    block_on(BlobCache::open(config)).expect("a cache in memory opens")
}

fn bytes_of(value: u64) -> Vec<u8> {
    let mut bytes = vec![0; VALUE_BYTES];
    bytes[..8].copy_from_slice(&value.to_le_bytes());
    bytes
}

impl Service {
    /// Like a service: reads the cache or the source, and stores unless something has changed.
    fn read(&self, number: usize) {
        let (key, row) = (KEYS[number], &self.rows[number]);
        let floor = row.confirmed.load(Ordering::SeqCst);
        self.gets.fetch_add(1, Ordering::Relaxed);
        if let Some(hit) = block_on(self.cache.get("rows", key)) {
            let value = u64::from_le_bytes(*hit.value().first_chunk().expect("eight bytes"));
            assert!(value >= floor, "{key}: {value} after {floor} was confirmed");
            assert!(
                value <= row.value.load(Ordering::SeqCst),
                "{key}: a value that the source never had"
            );
            self.hits.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let point = self.cache.read_point();
        let value = row.value.load(Ordering::SeqCst);
        if value % 3 == 0 {
            thread::yield_now();
        }
        let put = BlobCachePut::from(bytes_of(value))
            .with_tags(["rows", key])
            .with_dependencies([key])
            .read_at(point);
        block_on(self.cache.put("rows", key, put)).expect("it fits");
    }

    /// Changes the source, then updates the cache, in a different way each time.
    fn write(&self, turn: usize) {
        let number = turn / 8 % KEYS.len();
        let (key, row) = (KEYS[number], &self.rows[number]);
        let value = row.value.fetch_add(1, Ordering::SeqCst) + 1;
        let cache = &self.cache;
        block_on(async {
            match turn % 8 {
                0 | 1 => drop(cache.invalidate_key("rows", key).await),
                2 => drop(cache.invalidate_prefix("rows", &key[..2]).await),
                3 => drop(cache.invalidate_tags("rows", &[key]).await),
                4 => drop(cache.invalidate_dependencies("rows", &["other", key]).await),
                5 => drop(cache.invalidate_namespace("rows").await),
                6 => drop(cache.put("rows", key, bytes_of(value)).await),
                _ => {
                    let mut call = Box::pin(cache.invalidate_prefix("rows", key));
                    let mut context = Context::from_waker(Waker::noop());
                    let _ = call.as_mut().poll(&mut context);
                }
            }
        });
        row.confirmed.fetch_max(value, Ordering::SeqCst);
    }
}

/// Returns hits and gets.
fn serve(l1_bytes_max: usize, key_hash_bits: u32, seed: u64) -> (u64, u64) {
    let service = Service {
        cache: open(l1_bytes_max, key_hash_bits),
        rows: Default::default(),
        is_over: AtomicBool::new(false),
        hits: AtomicU64::new(0),
        gets: AtomicU64::new(0),
    };
    let is_tiny = l1_bytes_max < 1 << 20;
    thread::scope(|scope| {
        for reader in 0..READERS {
            let service = &service;
            scope.spawn(move || {
                let mut turn = reader + usize::from(seed % 2 == 0);
                while !service.is_over.load(Ordering::SeqCst) {
                    service.read(turn * turn % 7 % KEYS.len());
                    if is_tiny && turn % 5 == 0 {
                        let ballast = format!("ballast/{}", turn % BALLAST);
                        let put = service.cache.put("rows", ballast, bytes_of(0));
                        block_on(put).expect("it fits");
                    }
                    turn += 1;
                    if turn % 16 == 0 {
                        thread::yield_now();
                    }
                }
            });
        }
        // Ends the readers even if a write has failed.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let _over = Over(&service.is_over);
        for turn in 0..WRITES {
            service.write(turn);
            thread::yield_now();
        }
    });
    (service.hits.into_inner(), service.gets.into_inner())
}

#[test]
fn no_reader_restores_an_overwritten_value() {
    for (l1_bytes_max, bits) in [(64 << 20, 64), (64 << 20, 8), (64 << 10, 64), (64 << 10, 2)] {
        let (mut hits, mut gets) = (0, 0);
        let rounds = for_each_round(80, |seed| {
            let (more_hits, more_gets) = serve(l1_bytes_max, bits, seed);
            hits += more_hits;
            gets += more_gets;
        });
        println!("{l1_bytes_max} bytes, {bits} bits: {rounds:?} rounds, {hits} hits, {gets} gets");
        assert!(hits * 10 >= gets, "{hits} hits of {gets} gets");
    }
}

#[test]
fn exactly_one_put_of_each_version_wins() {
    const THREADS: u32 = 3;
    const VERSIONS: u64 = 300;
    let rounds = for_each_round(10, |_| {
        let (cache, barrier) = (open(64 << 20, 64), Barrier::new(THREADS as usize));
        let winner = AtomicU64::new(0);
        let compete = |thread: u64| {
            let mut won = 0;
            for version in 0..VERSIONS {
                let value = version * u64::from(THREADS) + thread;
                let policy = BlobCachePolicy::default().version(version);
                let put = BlobCachePut::from(bytes_of(value)).with_policy(policy);
                barrier.wait();
                match block_on(cache.put("n", "key", put)) {
                    Ok(()) => {
                        winner.store(value, Ordering::SeqCst);
                        won += 1;
                    }
                    Err(CacheError::VersionMismatch { existing, attempted }) => {
                        assert_eq!((existing, attempted), (version, version));
                    }
                    Err(error) => panic!("{error}"),
                }
                barrier.wait();
                let hit = block_on(cache.get("n", "key")).expect("one of them has won");
                assert_eq!(hit.version(), Some(version));
                assert_eq!(hit.value(), bytes_of(winner.load(Ordering::SeqCst)));
                barrier.wait();
            }
            won
        };
        let wins: u64 = thread::scope(|scope| {
            let compete = &compete;
            let threads: Vec<_> = (0..u64::from(THREADS))
                .map(|thread| scope.spawn(move || compete(thread)))
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(wins, VERSIONS, "each version was put once");
        assert_eq!(cache.stats().version_mismatches(), u64::from(THREADS - 1) * VERSIONS);
    });
    println!("{rounds:?} rounds of {VERSIONS} versions");
}

/// In whatever order they arrive, the highest version remains.
#[test]
fn the_highest_of_concurrent_versions_remains() {
    for_each_round(40, |_| {
        let cache = open(64 << 20, 64);
        thread::scope(|scope| {
            for thread in 0..3 {
                let cache = &cache;
                scope.spawn(move || {
                    for version in (thread..90).step_by(3) {
                        let policy = BlobCachePolicy::default().version(version);
                        let put = BlobCachePut::from(bytes_of(version)).with_policy(policy);
                        let result = block_on(cache.put("n", "key", put));
                        let hit = block_on(cache.get("n", "key")).expect("nothing removes it");
                        assert!(hit.version() >= Some(version), "{result:?}, then {hit:?}");
                    }
                });
            }
        });
        let hit = block_on(cache.get("n", "key")).expect("nothing removes it");
        assert_eq!((hit.version(), hit.value()), (Some(89), bytes_of(89).as_slice()));
    });
}
