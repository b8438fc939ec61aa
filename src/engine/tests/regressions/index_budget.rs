//! At the index budget the oldest entries leave, and no call is refused or hangs.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join;

use crate::BlobCache;
use crate::batch::yield_now;
use crate::config::{BlobCacheConfig, BlobCacheConfigBuilder};
use crate::engine::tests::bench::{Bench, made};
use crate::failpoint::{Failpoint, plant};
use crate::footprint::{POSTING_BYTES, SLOT_BYTES};
use crate::modes::{L1Admission, L2Admission, L2Compression};
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;

fn builder(budget: usize) -> BlobCacheConfigBuilder {
    BlobCacheConfig::builder()
        .l1_bytes_max(64 << 10)
        .l2_path("simulated")
        .l2_bytes_max(16 << 20)
        .l2_segment_bytes(1 << 20)
        .l2_index_bytes_max(budget)
        .l2_compression(L2Compression::Off)
}

fn index_bytes(cache: &BlobCache) -> usize {
    let stats = cache.stats();
    stats.memory_index_bytes() + stats.memory_labels_bytes() + stats.memory_synopsis_bytes()
}

fn overfill(budget: usize, turns: usize, tags: &[&str]) {
    let mut bench = Bench::with(5, builder(budget).build().unwrap());
    let fitting = budget / (SLOT_BYTES + tags.len() * POSTING_BYTES);
    let count = turns * fitting;
    let cache = bench.cache();
    let most = bench.run(async {
        let mut most = 0;
        for number in 0..count {
            let put = made(&format!("{number:0100}"), tags);
            cache.put("a", format!("{number}"), put).await.unwrap();
            most = most.max(index_bytes(&cache));
            let (slots, max) = (cache.stats().l2_entries(), fitting);
            assert!(slots <= max, "{slots} slots where {max} fit");
        }
        cache.sync().await.unwrap();
        most
    });
    drop(cache);
    let stats = bench.cache.stats();
    let written = stats.l2_write_bytes() as f64 / (count * 170) as f64;
    println!(
        "{budget} bytes, {} tags: {most} at most, {} slots of {fitting} in the end, {written:.2} \
         bytes written for each byte of a record",
        tags.len(),
        stats.l2_entries()
    );
    assert!(most <= budget, "{most} bytes on a budget of {budget}");
    assert_eq!(stats.l2_full_rejections(), 0);
    assert!(stats.l2_entries() * 4 >= fitting * 3, "{} of {fitting}", stats.l2_entries());
    assert_eq!(stats.l2_reinserted(), 0);
    let newest = fitting * 3 / 4;
    for number in count - newest..count {
        let found = bench.get(&format!("{number}"));
        assert_eq!(found, Some(format!("{number:0100}")), "{number} of {count}");
    }
}

#[test]
fn the_oldest_entries_leave_for_the_newest() {
    overfill(64 << 10, 20, &[]);
    overfill(64 << 10, 20, &["t", "u", "v"]);
    overfill(256 << 10, 4, &[]);
}

#[test]
fn read_entries_stay_and_new_ones_find_room() {
    let mut bench = Bench::with(5, builder(64 << 10).build().unwrap());
    let cache = bench.cache();
    bench.run(async {
        for number in 0..20_000 {
            let put = made(&format!("{number:0100}"), &[]);
            cache.put("a", format!("{number}"), put).await.unwrap();
            // Every entry is read, so all would be reinserted.
            if number % 16 == 15 {
                cache.sync().await.unwrap();
                for read in number - 15..=number {
                    assert!(cache.get("a", format!("{read}")).await.is_some());
                }
            }
        }
    });
    let stats = cache.stats();
    assert_eq!(stats.l2_full_rejections(), 0);
    assert!(stats.l2_reinserted() > 0, "nothing was reinserted");
    assert!(index_bytes(&cache) <= 64 << 10);
}

/// Memory holds what the index has, which has room for others, and not for this one.
/// How many segments are reclaimed for it. None: the disk does not take it.
fn reclaimed_for_many_labels() -> Option<u64> {
    let config = builder(64 << 10).l1_bytes_max(4 << 20).labels_max(700);
    let config = config.l2_segment_bytes(64 << 10).l2_write_amplification_pct_max(400);
    let config = config.l2_admission(L2Admission::Always);
    let mut bench = Bench::with(5, config.build().unwrap());
    let cache = bench.cache();
    let put = |bench: &mut Bench, key: &str, labels: usize| {
        let policy = BlobCachePolicy::default().l1_admission(L1Admission::Always);
        let tags = (0..labels).map(|tag| format!("{key}/{tag}"));
        let put = BlobCachePut::new("value").with_tags(tags).with_policy(policy);
        bench.run(cache.put("a", key, put)).unwrap();
    };
    put(&mut bench, "k", 700);
    // The next segment is prepared meanwhile.
    bench.pass(Duration::from_secs(2));
    assert_eq!(cache.stats().l2_reclaimed_segments(), 0, "there is room for this one");
    put(&mut bench, "l", 600);
    let stats = cache.stats();
    assert_eq!(stats.entries(), 2, "memory holds both");
    (stats.l2_full_rejections() == 0).then_some(stats.l2_reclaimed_segments())
}

#[test]
fn a_put_with_many_labels_finds_room_though_memory_holds_what_the_index_has() {
    assert!(reclaimed_for_many_labels().is_some_and(|segments| segments < 8));
    {
        let _planted = plant(Failpoint::LabelsLeftBelow);
        assert_eq!(reclaimed_for_many_labels(), None, "LabelsLeftBelow is not found");
    }
    let _planted = plant(Failpoint::WantedIndexRoomKept);
    let is_found = reclaimed_for_many_labels().is_none_or(|segments| segments > 20);
    assert!(is_found, "WantedIndexRoomKept is not found");
}

#[test]
fn labels_of_memory_only_entries_block_no_call() {
    let config = builder(64 << 10).l1_bytes_max(4 << 20).build().unwrap();
    let mut bench = Bench::with(5, config);
    let cache = bench.cache();
    bench.run(async {
        for number in 0..3000 {
            let tags = (0..20).map(|tag| format!("{number}/{tag}"));
            let put = BlobCachePut::new("value").with_tags(tags);
            let put = put.with_policy(BlobCachePolicy::default());
            cache.put("a", format!("{number}"), put).await.unwrap();
            assert!(cache.get("a", format!("{number}")).await.is_some());
        }
        // More labels than there is room for.
        let tags = (0..64).map(|tag| format!("{tag}"));
        cache.put("a", "k", BlobCachePut::new("value").with_tags(tags)).await.unwrap();
        cache.close().await.unwrap();
    });
}

/// Memory of a namespace besides the budget.
const NAMESPACE_BYTES: usize = 1 << 10;

#[test]
fn many_namespaces_take_a_kibibyte_each_besides_the_budget() {
    for (budget, spaces, keys) in
        [(64 << 10, 2000, 1), (64 << 10, 256, 20), (256 << 10, 256, 40), (1 << 20, 3000, 2)]
    {
        let config = builder(budget).max_namespaces(spaces).build().unwrap();
        let mut bench = Bench::with(7, config);
        let cache = bench.cache();
        let most = budget + spaces * NAMESPACE_BYTES;
        for number in 0..spaces * keys {
            let put = made("v", &["t"]);
            let space = format!("n{}", number % spaces);
            bench.run(cache.put(&space, format!("{number}"), put)).unwrap();
            if number % 97 == 0 {
                let held = index_bytes(&cache);
                assert!(held <= most, "{held} of {most} at {number}, {spaces} namespaces");
            }
        }
        bench.run(cache.sync()).unwrap();
        drop(cache);
        bench.kill();
        let held = index_bytes(&bench.cache);
        assert!(held <= most, "{held} of {most} after a restart, {spaces} namespaces");
    }
}

/// The directory of the open segment is sealed early, and a scan's copy of one is reported.
#[test]
fn open_directories_are_bounded_and_their_copies_are_reported() {
    let budget = 1 << 20;
    let config = BlobCacheConfig::builder()
        .l1_bytes_max(64 << 10)
        .l2_path("simulated")
        .l2_bytes_max(64 << 20)
        .l2_segment_bytes(16 << 20)
        .l2_index_bytes_max(budget)
        .l2_compression(L2Compression::Off);
    let mut bench = Bench::with(9, config.build().unwrap());
    let cache = bench.cache();
    let mut directory = 0;
    for number in 0..12_000 {
        // A long key takes more of the directory than of the index.
        let put = made("v", &[]);
        bench.run(cache.put("a", format!("{number:0300}"), put)).unwrap();
        if number % 50 == 0 {
            bench.run(cache.sync()).unwrap();
            // Nothing waits to be written: the open directory is all that is buffered.
            directory = directory.max(cache.stats().memory_buffers_bytes());
        }
    }
    println!("at most {directory} bytes of a directory");
    assert!((32 << 10..=budget / 8 + (64 << 10)).contains(&directory), "{directory} bytes");
    bench.run(cache.sync()).unwrap();
    let before = cache.stats().memory_buffers_bytes();
    let is_over = Cell::new(false);
    let scan = async {
        assert_eq!(cache.invalidate_prefix("a", "none").await, Ok(0));
        is_over.set(true);
    };
    let watch = async {
        let mut most = 0;
        while !is_over.get() {
            most = most.max(cache.stats().memory_buffers_bytes());
            yield_now().await;
        }
        most
    };
    let ((), most) = bench.run(join(scan, watch));
    println!("{before} bytes before the scan, at most {most} in it");
    assert!(most > before, "the scan's copy is not reported: {most}, {before}");
    assert!(most <= before + 3 * (budget / 8 + (64 << 10)), "{most} bytes");
}

/// Otherwise others could fill the budget meanwhile, however long the caller is held up there.
#[test]
fn what_a_flush_leaves_counts_without_a_gap() {
    let mut bench = Bench::with(5, builder(1 << 20).build().unwrap());
    let engine = Arc::clone(&bench.cache.engine);
    let (parts, cache) = (&engine.parts, bench.cache());
    for round in 0..60 {
        for number in 0..1500 {
            bench.run(cache.put("a", format!("{number}"), made("v", &[]))).unwrap();
        }
        let generation = parts.namespaces.find("a").unwrap();
        let (looks, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let uncounted = thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut most = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let section = parts.commit_lock.section();
                    let counted = parts.budget.slots() * SLOT_BYTES + parts.freeing.bytes();
                    drop(section);
                    // It only sinks.
                    let held = generation.index().memory_bytes();
                    most = most.max(held.saturating_sub(2 * counted));
                    looks.fetch_add(1, Ordering::Relaxed);
                }
                most
            });
            while looks.load(Ordering::Relaxed) < 100 {
                thread::yield_now();
            }
            if round % 2 == 0 {
                drop(cache.invalidate_namespace("a").now_or_never());
            } else {
                drop(cache.invalidate_all().now_or_never());
            }
            is_over.store(true, Ordering::Relaxed);
            watch.join().unwrap()
        });
        assert_eq!(uncounted, 0, "bytes in round {round}");
    }
}
