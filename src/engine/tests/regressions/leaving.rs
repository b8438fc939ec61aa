//! Entries of a segment while it is reclaimed: prefixes still find them, and counts are right.

use futures::future::{Either, select};

use super::*;
use crate::batch::yield_now;
use crate::engine::background::expired_records;
use crate::engine::background::prefix_scan::PrefixScans;
use crate::engine::background::wakeup::Wakeup;
use crate::footprint::POSTING_BYTES;
use crate::l2::SegmentNumber;
use crate::modes::L2PromotionPolicy;
use crate::put::Value;

const SEGMENT: u64 = 4 << 20;

fn always(value: Vec<u8>, tags: &[&str]) -> BlobCachePut {
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Always);
    BlobCachePut::new(value).with_tags(tags.iter().copied()).with_policy(policy)
}

fn store(crash_safety: CrashSafety) -> Bench {
    let config = BlobCacheConfig::builder()
        .l1_bytes_max(256 << 10)
        .l2_path("simulated")
        .l2_bytes_max(4 * SEGMENT)
        .l2_segment_bytes(u32::try_from(SEGMENT).unwrap())
        .l2_index_bytes_max(64 << 20)
        .l2_promotion_policy(L2PromotionPolicy::Immediate)
        .crash_safety(crash_safety)
        .l2_compression(L2Compression::Off);
    Bench::with(1, config.build().unwrap())
}

/// The oldest segment is being reclaimed: its first slots are gone. Returns the keys, oldest first.
fn leaving(bench: &mut Bench) -> Vec<String> {
    let cache = bench.cache.clone();
    let mut keys = Vec::new();
    while cache.engine.parts.disk.l2().unwrap().log.segment() == SegmentNumber(0) {
        let key = format!("p{:06}", keys.len());
        let put = cache.put("a", &key, BlobCachePut::new(vec![7]).with_tags(["t"]));
        bench.simulation.block_on(put).unwrap().unwrap();
        keys.push(key);
    }
    bench.simulation.block_on(cache.sync()).unwrap().unwrap();
    let until = async {
        let log = &cache.engine.parts.disk.l2().unwrap().log;
        let namespace = cache.engine.parts.namespaces.find("a").unwrap();
        let (mut most, mut number) = (0, 0);
        while namespace.index().len() >= most {
            most = namespace.index().len();
            if log.segment() < SegmentNumber(3) {
                number += 1;
                let mut put = made("", &[]);
                put.value = Value::Shared(vec![8; 900 << 10].into());
                cache.put("a", format!("q{number}"), put).await.unwrap();
            } else {
                yield_now().await;
            }
        }
    };
    bench.simulation.block_on(until).unwrap();
    keys
}

/// Keys that are only on disk; the last ones are in memory.
fn below(keys: &[String], some: usize) -> Vec<&String> {
    keys.iter().rev().skip(2000).take(some).collect()
}

async fn found(cache: &BlobCache, keys: &[&String]) -> usize {
    let mut found = 0;
    for key in keys {
        found += usize::from(cache.get("a", key).await.is_some());
    }
    found
}

#[test]
fn a_prefix_scan_includes_segments_being_reclaimed() {
    let mut bench = store(CrashSafety::Cold);
    let keys = leaving(&mut bench);
    let cache = bench.cache.clone();
    let stale = async {
        cache.invalidate_prefix("a", "p").await.unwrap();
        found(&cache, &below(&keys, 200)).await
    };
    assert_eq!(bench.simulation.block_on(stale).unwrap(), 0);
}

#[test]
fn entries_read_during_an_invalidation_do_not_return() {
    let mut bench = store(CrashSafety::Process);
    let keys = leaving(&mut bench);
    let cache = bench.cache.clone();
    let last = below(&keys, 50);
    let is_done = std::cell::Cell::new(false);
    let invalidation = async {
        cache.invalidate_prefix("a", "p").await.unwrap();
        is_done.set(true);
    };
    let reader = async {
        while !is_done.get() {
            found(&cache, &last).await;
            yield_now().await;
        }
    };
    bench.simulation.block_on(futures::future::join(invalidation, reader)).unwrap();
    let runner = bench.simulation.task_runner();
    bench.simulation.block_on(runner.sleep(Duration::from_secs(5))).unwrap();
    assert_eq!(bench.simulation.block_on(found(&cache, &last)).unwrap(), 0);
}

#[test]
fn reclaimed_entries_count_for_the_pending_invalidation() {
    let mut bench = store(CrashSafety::Cold);
    leaving(&mut bench);
    let cache = bench.cache.clone();
    let invalidation = async {
        // Each has one label. No slot is removed between this and the first poll of the call.
        let live = cache.stats().memory_labels_bytes() / POSTING_BYTES;
        assert_eq!(cache.invalidate_tags("a", &["t"]).await, Ok(live));
    };
    bench.simulation.block_on(invalidation).unwrap();
}

#[test]
fn entries_evicted_under_a_pending_invalidation_count_once() {
    const ENTRIES: usize = 2000;
    let config = BlobCacheConfig::builder()
        .l1_bytes_max(2 << 20)
        .l2_path("simulated")
        .l2_bytes_max(8 << 20)
        .l2_segment_bytes(1 << 20)
        .l1_charge(|_, value| 1000 + value.len())
        .l2_compression(L2Compression::Off);
    let mut bench = Bench::with(1, config.build().unwrap());
    let cache = bench.cache.clone();
    for number in 0..ENTRIES {
        let put = cache.put("a", format!("k{number}"), always(vec![1], &["t"]));
        bench.simulation.block_on(put).unwrap().unwrap();
    }
    bench.simulation.block_on(cache.sync()).unwrap().unwrap();
    let mut tags = Box::pin(cache.invalidate_tags("a", &["t"]));
    assert!((&mut tags).now_or_never().is_none());
    let big = cache.put("a", "big", always(vec![2; 900 << 10], &[]));
    bench.simulation.block_on(big).unwrap().unwrap();
    assert_eq!(bench.simulation.block_on(tags).unwrap(), Ok(ENTRIES));
    assert_eq!(cache.stats().invalidations(), ENTRIES as u64);
}

#[test]
fn labels_of_memory_only_entries_are_removed_with_them() {
    let config = BlobCacheConfig::builder()
        .l1_bytes_max(1 << 20)
        .l2_path("simulated")
        .l2_bytes_max(8 * (64 << 10))
        .l2_segment_bytes(64 << 10)
        .l2_compression(L2Compression::Off);
    let mut bench = Bench::with(1, config.build().unwrap());
    let cache = bench.cache.clone();
    bench.put("k", "old", &[]);
    // Too large for a segment, so a tombstone replaces the old value.
    let large = |tags| always(vec![1; 100 << 10], tags);
    bench.simulation.block_on(cache.put("a", "k", large(&["t", "u", "v"]))).unwrap().unwrap();
    for number in 0..12 {
        let put = cache.put("a", format!("o{number}"), large(&[]));
        bench.simulation.block_on(put).unwrap().unwrap();
    }
    assert_eq!(bench.get("k"), None);
    assert_eq!(cache.stats().memory_labels_bytes(), 0);
}

/// A close need not wait until the task has rested.
#[test]
fn the_expiry_task_ends_when_it_is_stopped() {
    for is_resting in [false, true] {
        let mut bench = Bench::new(1);
        let (runner, wakeup) = (bench.simulation.task_runner(), Arc::new(Wakeup::default()));
        let records = Arc::downgrade(&bench.cache.engine.expired_records);
        let on = Arc::new(runner.clone());
        let mut search = Box::pin(expired_records::run(Arc::clone(&wakeup), on, records));
        if is_resting {
            wakeup.notify();
        }
        let begun = bench.run(select(&mut search, runner.sleep(Duration::from_millis(10))));
        assert!(matches!(begun, Either::Right(_)), "it waits");
        wakeup.close();
        let ended = bench.run(select(&mut search, runner.sleep(Duration::from_millis(1))));
        assert!(matches!(ended, Either::Left(_)), "resting: {is_resting}");
    }
}

/// The tasks of the disk tier are gone, including the prefix scan.
#[test]
fn a_dropped_scan_blocks_no_call_and_nothing_stale_is_served() {
    let mut bench = Bench::new(1);
    bench.put("k", "old", &[]);
    let cache = bench.cache();
    let mut invalidation = Box::pin(cache.invalidate_prefix("a", "k"));
    assert!((&mut invalidation).now_or_never().is_none());
    bench.simulation.kill();
    assert!(bench.simulation.block_on(invalidation).is_some(), "it returns");
    assert_eq!(bench.get("k"), None);
}

/// The scan has failed, so its results are unknown.
#[test]
fn a_failed_scan_flushes_its_namespaces_for_good() {
    let mut bench = Bench::new(1);
    bench.put("k", "old", &[]);
    bench.put("other", "old", &[]);
    let cache = bench.cache();
    let mut invalidation = Box::pin(cache.invalidate_prefix("a", "k"));
    assert!((&mut invalidation).now_or_never().is_none());
    assert!(PrefixScans::new(&cache.engine.parts).flush_unscanned().now_or_never().is_some());
    assert_eq!(bench.simulation.block_on(invalidation).unwrap(), Ok(0));
    assert_eq!((bench.get("k"), bench.get("other")), (None, None));
    bench.run(cache.sync()).unwrap();
    drop(cache);
    bench.kill();
    assert_eq!((bench.get("k"), bench.get("other")), (None, None));
}
