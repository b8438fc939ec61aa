//! The totals of `stats` equal a full walk; dropped structures are freed elsewhere.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use futures::executor::block_on;
use futures::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::bench::{Bench, config};
use crate::cache::BlobCache;
use crate::config::BlobCacheConfig;
use crate::disposal::Remains;
use crate::entry::{Entry, Mark};
use crate::key::KeyHash;
use crate::l2::Position;
use crate::namespace::Figures;
use crate::put::BlobCachePut;

/// Returns the number of labels in memory of entries without a record, or whose record has left.
fn assert_exact(bench: &Bench, at: &str) -> usize {
    let engine = &bench.cache.engine;
    let all = engine.parts.namespaces.all();
    let sum = |of: fn(&crate::namespace::Generation) -> usize| all.iter().map(|it| of(it)).sum();
    let walked = Figures {
        entries: sum(|it| it.entries()),
        live: sum(|it| it.live()),
        index_bytes: sum(|it| it.index().memory_bytes()),
        synopsis_bytes: sum(|it| it.synopsis().bytes()),
    };
    assert_eq!(engine.parts.namespaces.totals(), walked, "{at}");
    for namespace in &all {
        let (mut found, mut cursor) = (Vec::new(), Some(Default::default()));
        while let Some(from) = cursor {
            let all = Position::FIRST..Position::LAST;
            cursor = namespace.index().scan(from, all, 1, &mut found);
        }
        let live = found.iter().filter(|(_, slot)| !slot.dead).count();
        assert_eq!(namespace.live(), live, "{at}");
    }
    let entries = engine.parts.l1.all();
    let is_above = |it: &&Arc<Entry>| {
        let has_record = || it.generation.has_slot(it.hash, it.sequence());
        !it.generation.has_ended() && (!it.is(Mark::Recorded) || !has_record())
    };
    let above = entries.iter().filter(is_above).map(|it| it.labels().len()).sum();
    assert_eq!(engine.parts.budget.labels_above(), above, "{at}");
    let slots: usize = sum(|it| it.index().len());
    assert_eq!(bench.cache.stats().l2_entries(), slots, "{at}");
    let mut section = engine.parts.commit_lock.section();
    let postings: usize = all.iter().map(|it| it.labels(&mut section).len()).sum();
    assert_eq!(engine.parts.budget.postings(), postings, "{at}");
    above
}

#[test]
fn totals_equal_a_full_walk_after_any_operation() {
    let mut labels = 0;
    for seed in 0..20 {
        let mut random = StdRng::seed_from_u64(seed);
        // With a small budget, many entries have no record.
        let index_bytes_max = [128 << 20, 4 << 10][usize::from(seed % 2 == 1)];
        let config = BlobCacheConfig { l2_index_bytes_max: index_bytes_max, ..config(64) };
        let mut bench = Bench::with(seed, config);
        for step in 0..400 {
            let cache = bench.cache();
            let namespace = format!("n{}", random.random_range(0..6));
            let key = format!("k{}", random.random_range(0..400));
            let drawn = random.random_range(0..1000);
            match drawn {
                0..600 => {
                    let put = BlobCachePut::new(vec![1; random.random_range(0..900)]);
                    bench.run(cache.put(&namespace, &key, put.with_tags(["t", "u"]))).unwrap();
                }
                600..750 => _ = bench.run(cache.get(&namespace, &key)),
                750..850 => _ = bench.run(cache.invalidate_key(&namespace, &key)).unwrap(),
                850..890 => _ = bench.run(cache.invalidate_prefix(&namespace, "k1")).unwrap(),
                890..930 => _ = bench.run(cache.invalidate_tags(&namespace, &["t"])).unwrap(),
                930..960 => _ = bench.run(cache.invalidate_namespace(&namespace)).unwrap(),
                960..970 => bench.run(cache.invalidate_all()).unwrap(),
                970..990 => bench.pass(Duration::from_secs(1)),
                _ => {
                    drop(cache);
                    bench.kill();
                }
            }
            labels += assert_exact(&bench, &format!("seed {seed}, step {step}, {drawn}"));
        }
    }
    assert!(labels > 0, "no entry was without a record");
}

#[test]
fn a_flush_of_everything_resets_the_totals() {
    let mut bench = Bench::new(1);
    let cache = bench.cache();
    for number in 0..200 {
        bench.run(cache.put(&format!("n{number}"), "k", "v")).unwrap();
    }
    bench.run(cache.invalidate_all()).unwrap();
    let stats = cache.stats();
    let figures = (stats.namespaces(), stats.entries(), stats.namespace_flushes());
    assert_eq!(figures, (0, 0, 200));
    assert_eq!(stats.synopsis_bytes(), 0);
    for number in 0..200 {
        assert!(bench.run(cache.get(&format!("n{number}"), "k")).is_none());
    }
    bench.run(cache.put("n7", "k", "new")).unwrap();
    assert_eq!(bench.run(cache.get("n7", "k")).unwrap().value(), b"new");
    assert_exact(&bench, "anew");
}

#[test]
fn the_index_of_flushed_entries_counts_until_it_is_freed() {
    let mut bench = Bench::new(1);
    let cache = bench.cache();
    // Without what admission remembers.
    let index_bytes =
        || cache.stats().memory_index_bytes() - cache.engine.parts.disk_admission.bytes();
    for flush in ["namespace", "all"] {
        for number in 0..2000u64 {
            bench.run(cache.put("a", number.to_le_bytes(), "v")).unwrap();
        }
        let before = index_bytes();
        let mut flushing: BoxFuture<'_, ()> = match flush {
            "all" => Box::pin(async { cache.invalidate_all().await.unwrap() }),
            _ => Box::pin(async { assert_eq!(cache.invalidate_namespace("a").await, Ok(true)) }),
        };
        // In force with the first poll, before any task has run.
        let _ = flushing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(cache.stats().entries(), 0);
        // A batch was freed.
        assert!(index_bytes() >= before / 2, "{flush}");
        assert!(cache.engine.parts.freeing.bytes() > 0, "{flush}");
        bench.run(flushing);
        bench.pass(Duration::from_secs(1));
        assert!(index_bytes() < before / 10, "{flush}");
        assert_eq!(cache.engine.parts.freeing.bytes(), 0, "{flush}");
    }
}

/// Blocks the freeing thread until the sender is dropped.
fn hold() -> mpsc::Sender<()> {
    let (hold, held): (_, Receiver<()>) = mpsc::channel();
    drop(Remains::new([()].into_iter().map(move |()| {
        let _ = held.recv();
        1
    })));
    hold
}

#[test]
fn dropping_the_last_handle_does_not_free_in_place() {
    let cache = block_on(BlobCache::open(BlobCacheConfig::default())).unwrap();
    for number in 0..2000u64 {
        let put = BlobCachePut::new("v").with_tags(["t"]);
        block_on(cache.put("a", number.to_le_bytes(), put)).unwrap();
    }
    let namespace = cache.engine.parts.hasher.namespace("a");
    let hash: KeyHash = cache.engine.parts.hasher.key(namespace.seed, &7u64.to_le_bytes());
    let entry = Arc::downgrade(&cache.engine.parts.l1.find(hash, |_| true).unwrap());
    let (engine, held) = (Arc::downgrade(&cache.engine), hold());
    drop(cache);
    assert_eq!(engine.strong_count(), 0);
    assert!(entry.upgrade().is_some(), "it waits for the thread");
    drop(held);
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while entry.strong_count() > 0 && std::time::Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(entry.strong_count(), 0);
}
