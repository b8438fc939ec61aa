//! Calls that were polled and then neither polled again nor dropped, as in a `select!` loop, a set
//! of futures or a struct. They delay no other call, and their share of the budgets is returned.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod engine;

use std::future::Future;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::executor::block_on;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tamis::{
    BlobCache, BlobCacheConfig, BlobCacheConfigBuilder, BlobCachePolicy, BlobCachePut, CrashSafety,
    L1Admission, L2Compression, L2State,
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Far longer than any undelayed call takes.
const PATIENCE: Duration = Duration::from_secs(60);

type Call<T> = Pin<Box<dyn Future<Output = T>>>;

fn builder(directory: &Path) -> BlobCacheConfigBuilder {
    BlobCacheConfig::builder()
        .l1_bytes_max(MIB)
        .l2_path(directory)
        .l2_engine(engine::engine(0))
        .l2_bytes_max(4 << 20)
        .l2_segment_bytes(256 << 10)
        .l2_compression(L2Compression::Off)
}

fn open(builder: BlobCacheConfigBuilder) -> BlobCache {
    block_on(BlobCache::open(builder.build().unwrap())).unwrap()
}

/// An entry that only the disk holds.
fn on_disk(value: impl Into<Bytes>) -> BlobCachePut {
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    BlobCachePut::new(value).with_policy(policy)
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    StdRng::seed_from_u64(seed).fill_bytes(&mut noise);
    noise
}

fn poll<T>(call: &mut Call<T>) -> Poll<T> {
    call.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls a call that many times and then leaves it. None if it has completed.
fn asleep<T>(mut call: Call<T>, polls: usize) -> Option<Call<T>> {
    for _ in 0..polls {
        if poll(&mut call).is_ready() {
            return None;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Some(call)
}

/// The result of a call that must not hang.
fn ends<T>(what: &str, call: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let call = runtime.block_on(async { tokio::time::timeout(PATIENCE, call).await });
    call.unwrap_or_else(|_| panic!("{what} does not end"))
}

fn key(number: usize) -> [u8; 8] {
    number.to_le_bytes()
}

fn get(cache: &BlobCache, number: usize) -> Call<bool> {
    let cache = cache.clone();
    Box::pin(async move { cache.get("n", key(number)).await.is_some() })
}

#[test]
fn an_unpolled_get_keeps_no_segment() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(builder(directory.path()));
    for number in 0..64 {
        block_on(cache.put("n", key(number), on_disk(noise(1, 4000)))).unwrap();
    }
    block_on(cache.sync()).unwrap();
    let sleepers: Vec<_> = (0..64).filter_map(|number| asleep(get(&cache, number), 1)).collect();
    assert!(!sleepers.is_empty());
    // Several times the size of the store.
    for number in 0..4000 {
        let put = cache.put("n", key(1000 + number % 2000), on_disk(noise(2, 4000)));
        ends("a put", put).unwrap();
    }
    ends("a put for memory only", cache.put("m", "key", "value")).unwrap();
    ends("an invalidation", cache.invalidate_key("n", key(1999))).unwrap();
    ends("a sync", cache.sync()).unwrap();
    assert_eq!(cache.stats().l2_state(), L2State::Healthy);
    ends("a close", cache.close()).unwrap();
    let again = ends("an open", BlobCache::open(builder(directory.path()).build().unwrap()));
    again.unwrap();
    drop(sleepers);
}

#[test]
fn a_select_over_a_get_and_puts_in_one_task_ends() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(builder(directory.path()));
    block_on(async {
        cache.put("n", "wanted", on_disk(noise(1, 4000))).await.unwrap();
        cache.sync().await.unwrap();
    });
    let puts = async {
        let mut wanted = pin!(cache.get("n", "wanted"));
        // Polled once; then the loop is busy elsewhere.
        let mut context = Context::from_waker(Waker::noop());
        assert!(wanted.as_mut().poll(&mut context).is_pending());
        for number in 0..3000 {
            cache.put("n", key(number), on_disk(noise(2, 4000))).await.unwrap();
        }
        wanted.await;
    };
    ends("the loop", puts);
}

#[test]
fn thousands_of_unpolled_gets_delay_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(builder(directory.path()).l2_read_bytes_max(MIB));
    for number in 0..200 {
        block_on(cache.put("n", key(number), on_disk(noise(1, 4000)))).unwrap();
    }
    block_on(cache.sync()).unwrap();
    let mut sleepers: Vec<_> =
        (0..5000).filter_map(|number| asleep(get(&cache, number % 200), 1)).collect();
    assert!(sleepers.len() > 4000);
    for number in 0..200 {
        assert!(ends("a get", get(&cache, number)), "{number}");
        assert!(cache.stats().memory_reads_bytes() <= MIB / 4);
    }
    // They complete when they are polled again.
    let awake: Vec<_> = sleepers.drain(..500).collect();
    assert!(ends("the sleepers", join_all(awake)).into_iter().all(|found| found));
    drop(sleepers);
    assert_eq!(cache.stats().l2_state(), L2State::Healthy);
}

#[test]
fn long_reads_asleep_in_every_stage_delay_no_other_read() {
    let directory = tempfile::tempdir().unwrap();
    let builder = builder(directory.path())
        .l2_bytes_max(64 << 20)
        .l2_segment_bytes(8 << 20)
        .l2_compression(L2Compression::On)
        .l2_read_bytes_max(8 * MIB);
    let cache = open(builder);
    let long: Bytes = noise(1, KIB).repeat(2 * KIB).into();
    block_on(async {
        cache.put("n", key(0), on_disk(long.clone())).await.unwrap();
        cache.put("n", key(1), on_disk(noise(2, 2 * MIB))).await.unwrap();
        cache.put("n", key(2), on_disk(noise(3, 100))).await.unwrap();
        cache.sync().await.unwrap();
    });
    let mut sleepers = Vec::new();
    for polls in 1..8 {
        for number in 0..2 {
            let mut call = get(&cache, number);
            for _ in 0..polls {
                if poll(&mut call).is_ready() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            sleepers.push(call);
        }
    }
    for _ in 0..5 {
        for number in 0..3 {
            assert!(ends("a get", get(&cache, number)));
        }
    }
    let hit = ends("a get", cache.get("n", key(0))).unwrap();
    assert!(hit.value() == long);
    drop(sleepers);
    assert_eq!(cache.stats().memory_reads_bytes(), 0);
}

fn long_put(cache: &BlobCache, number: usize, value: &Bytes) -> Call<()> {
    let (cache, value) = (cache.clone(), value.clone());
    Box::pin(async move { cache.put("n", key(number), value).await.unwrap() })
}

#[test]
fn an_unpolled_long_put_delays_no_other_in_memory() {
    let config = BlobCacheConfig::builder().l1_bytes_max(64 * MIB).build().unwrap();
    let cache = block_on(BlobCache::open(config)).unwrap();
    let value = Bytes::from(vec![7; 7 * MIB]);
    let sleepers: Vec<_> =
        (0..20).filter_map(|number| asleep(long_put(&cache, number, &value), 3)).collect();
    assert!(!sleepers.is_empty());
    for number in 100..110 {
        ends("a put", long_put(&cache, number, &value));
        assert!(cache.stats().memory_buffers_bytes() <= 8 * MIB);
    }
    assert_eq!(cache.stats().memory_buffers_bytes(), 0, "the memory was returned");
    ends("the sleepers", join_all(sleepers));
}

#[test]
fn an_unpolled_long_put_delays_no_other_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let builder = builder(directory.path()).l2_bytes_max(128 << 20).l2_segment_bytes(16 << 20);
    let cache = open(builder.l2_compression(L2Compression::On));
    let value: Bytes = noise(1, 6 * MIB).into();
    let put = |number| -> Call<()> {
        let (cache, value) = (cache.clone(), value.clone());
        Box::pin(async move { cache.put("n", key(number), on_disk(value)).await.unwrap() })
    };
    let sleepers: Vec<_> =
        (0..10).filter_map(|number| asleep(put(number), 1 + 5 * number)).collect();
    assert!(!sleepers.is_empty());
    for number in 100..110 {
        ends("a long put", put(number));
        ends("a short put", cache.put("n", key(number), "short")).unwrap();
    }
    ends("the sleepers", join_all(sleepers));
    ends("a close", cache.close()).unwrap();
}

#[test]
fn puts_that_wait_for_room_hold_no_copies() {
    let directory = tempfile::tempdir().unwrap();
    let builder = builder(directory.path()).l2_bytes_max(64 << 20).l2_segment_bytes(1 << 20);
    let cache = open(builder);
    // A pending call waits: for room, or for its record, over a key on disk, to be on file.
    let value: Bytes = noise(1, 200 * KIB).into();
    let mut calls: Vec<_> = (0..1000)
        .map(|number| -> Call<()> {
            let (cache, value) = (cache.clone(), value.clone());
            Box::pin(async move { cache.put("n", key(number), on_disk(value)).await.unwrap() })
        })
        .collect();
    let mut most = 0;
    for _ in 0..3 {
        calls.retain_mut(|call| poll(call).is_pending());
        most = most.max(cache.stats().memory_buffers_bytes());
    }
    assert!(!calls.is_empty(), "no call waits");
    // Pending records, one more by which each may exceed the limit, and compression buffers.
    assert!(most <= 20 * MIB, "{most} bytes are held");
    ends("the puts", join_all(calls));
}

struct Counted(AtomicUsize);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn each_of_many_waiting_puts_is_woken_a_few_times() {
    let directory = tempfile::tempdir().unwrap();
    let builder = builder(directory.path()).l2_bytes_max(256 << 20).l2_segment_bytes(16 << 20);
    let cache = open(builder.crash_safety(CrashSafety::Cold));
    let value: Bytes = noise(1, 12 * KIB).into();
    let count = 8000;
    let mut polls = 0;
    let mut calls: Vec<_> = (0..count)
        .map(|number| {
            let (cache, value) = (cache.clone(), value.clone());
            let call: Call<()> =
                Box::pin(async move { cache.put("n", key(number), on_disk(value)).await.unwrap() });
            (call, Arc::new(Counted(AtomicUsize::new(1))), 0)
        })
        .collect();
    let end = std::time::Instant::now() + PATIENCE;
    while !calls.is_empty() {
        assert!(std::time::Instant::now() < end, "{} puts hang", calls.len());
        calls.retain_mut(|(call, woken, seen)| {
            let now = woken.0.load(Ordering::Relaxed);
            if now == std::mem::replace(seen, now) {
                return true;
            }
            polls += 1;
            let waker = Waker::from(Arc::clone(woken));
            call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
        });
    }
    assert!(polls <= 4 * count, "{polls} polls of {count} puts");
}
