//! The state restored by an open stays within its budgets, and no poll of an open is long.

use std::future::poll_fn;
use std::pin::pin;

use crate::BlobCache;
use crate::batch::{BATCH_BYTES, BATCH_ENTRIES};
use crate::config::{BlobCacheConfig, BlobCacheConfigBuilder};
use crate::engine::tests::bench::{Bench, made, opening};
use crate::meter::{Work, measured};
use crate::modes::L2Compression;
use crate::quota::NamespaceQuota;

const KIB: usize = 1 << 10;

fn builder() -> BlobCacheConfigBuilder {
    BlobCacheConfig::builder()
        .l1_bytes_max(64 << 10)
        .l2_path("simulated")
        .l2_bytes_max(16 << 20)
        .l2_segment_bytes(1 << 20)
        .l2_index_bytes_max(16 << 20)
        .l2_compression(L2Compression::Off)
}

fn index_bytes(cache: &BlobCache) -> usize {
    let stats = cache.stats();
    stats.memory_index_bytes() + stats.memory_labels_bytes() + stats.memory_synopsis_bytes()
}

fn fill(bench: &mut Bench, count: usize, tags: &[&str]) {
    for number in 0..count {
        let cache = bench.cache();
        let put = made(&format!("{number:0100}"), tags);
        bench.run(cache.put("a", format!("{number}"), put)).unwrap();
    }
    let cache = bench.cache();
    bench.run(cache.sync()).unwrap();
}

/// Ends the process, and opens again with another configuration. Returns the largest poll.
fn reopen(bench: &mut Bench, is_killed: bool, config: BlobCacheConfig) -> Work {
    if !is_killed {
        let cache = bench.cache();
        bench.run(cache.close()).unwrap();
    }
    bench.simulation.kill();
    bench.disk = bench.disk.kill();
    bench.config = config;
    let opening = opening(&bench.simulation, &bench.disk, &bench.config);
    let (mut opening, mut most) = (pin!(opening), Work::default());
    let watched = poll_fn(|context| {
        let (polled, work) = measured(|| opening.as_mut().poll(context));
        most = most.max(work);
        polled
    });
    let engine = bench.simulation.block_on(watched).unwrap().unwrap();
    bench.cache = BlobCache { engine };
    most
}

#[test]
fn an_open_stays_within_the_index_budget() {
    for (tags, is_killed) in [(&[][..], true), (&["t", "u"], true), (&["t"], false)] {
        let mut bench = Bench::with(3, builder().build().unwrap());
        // An open may drop a whole segment, so the last one is far from empty in each case.
        let count = 21_000;
        fill(&mut bench, count, tags);
        for budget in [512 * KIB, 256 * KIB, 64 * KIB] {
            let config = builder().l2_index_bytes_max(budget).build().unwrap();
            reopen(&mut bench, is_killed, config);
            bench.pass(std::time::Duration::from_secs(2));
            let (held, slots) = (index_bytes(&bench.cache), bench.cache.stats().l2_entries());
            let ratio = held as f64 / budget as f64;
            println!("{budget} bytes, {} tags: {slots} slots, {held} bytes: {ratio}", tags.len());
            assert!(held <= budget, "{held} bytes on a budget of {budget}");
            assert!(held * 4 >= budget, "{held} bytes of {budget}: too much was dropped");
            // The newest are kept.
            assert_eq!(bench.get(&format!("{}", count - 1)), Some(format!("{:0100}", count - 1)));
            assert!(bench.get(&format!("{}", count - slots)).is_some());
            assert_eq!(bench.get(&format!("{}", count - slots - 1)), None);
        }
        // Dropped entries do not return with a larger budget.
        let slots = bench.cache.stats().l2_entries();
        reopen(&mut bench, is_killed, builder().build().unwrap());
        assert_eq!(bench.cache.stats().l2_entries(), slots);
    }
}

#[test]
fn no_poll_of_an_open_is_long() {
    let mut bench = Bench::with(3, builder().build().unwrap());
    fill(&mut bench, 30_000, &["t", "u"]);
    let cache = bench.cache();
    for number in 0..3000 {
        bench.run(cache.invalidate_prefix("a", format!("{number:05}/"))).unwrap();
    }
    bench.run(cache.invalidate_prefix("a", "0")).unwrap();
    bench.run(cache.put("a", "large", made(&"x".repeat(700 * KIB), &[]))).unwrap();
    bench.run(cache.sync()).unwrap();
    drop(cache);
    for is_killed in [true, false] {
        let most = reopen(&mut bench, is_killed, builder().build().unwrap());
        println!("the longest poll of an open: {most:?}");
        assert!(most.entries <= BATCH_ENTRIES + 16 && most.bytes <= BATCH_BYTES, "{most:?}");
        assert!(most.entries > BATCH_ENTRIES / 2 && most.bytes > BATCH_BYTES / 2, "{most:?}");
        assert!(bench.cache.stats().l2_entries() >= 30_000);
        assert!(bench.get("large").is_some());
    }
}

/// A look at each prefix for each record would be millions of entries.
#[test]
fn the_work_of_an_open_does_not_multiply_records_by_prefixes() {
    let (records, prefixes) = (5000, 1000);
    let [without, with] = [0, prefixes].map(|prefixes| {
        let mut bench = Bench::with(3, builder().build().unwrap());
        fill(&mut bench, records, &[]);
        let cache = bench.cache();
        for number in 0..prefixes {
            bench.run(cache.invalidate_prefix("a", format!("none {number:05}/"))).unwrap();
        }
        bench.run(cache.sync()).unwrap();
        drop(cache);
        let config = builder().build().unwrap();
        let (_, work) = measured(|| reopen(&mut bench, true, config));
        assert_eq!(bench.cache.stats().l2_entries(), records);
        work.entries
    });
    println!("{without} entries without prefixes, {with} with {prefixes}");
    assert!(without >= records, "{without}");
    assert!(with <= without + 16 * prefixes, "{with} entries, {without} without prefixes");
}

#[test]
fn namespaces_without_a_slot_at_open_are_gone_for_good() {
    let mut bench = Bench::with(3, builder().max_namespaces(600).build().unwrap());
    let cache = bench.cache();
    for number in 0..501 {
        bench.run(cache.put(&format!("n{number}"), "k", made("value", &[]))).unwrap();
    }
    bench.run(cache.sync()).unwrap();
    drop(cache);
    let found = |bench: &mut Bench| {
        let cache = bench.cache();
        (0..501)
            .filter(|it| bench.run(cache.get(&format!("n{it}"), "k")).is_some())
            .collect::<Vec<_>>()
    };
    reopen(&mut bench, true, builder().max_namespaces(16).build().unwrap());
    assert_eq!(bench.cache.stats().namespaces(), 16);
    let newest: Vec<_> = (485..501).collect();
    assert_eq!(found(&mut bench), newest);
    // None of its entries is known, so this writes no record.
    let cache = bench.cache();
    bench.run(cache.invalidate_key("n7", "k")).unwrap();
    bench.run(cache.invalidate_namespace("n500")).unwrap();
    bench.run(cache.put("new", "k", made("value", &[]))).unwrap();
    drop(cache);
    reopen(&mut bench, true, builder().max_namespaces(600).build().unwrap());
    assert_eq!(found(&mut bench), newest[..15], "it has come back");
}

#[test]
fn an_open_stays_within_a_smaller_quota() {
    let quota = |bytes| NamespaceQuota { l1_bytes_max: None, l2_bytes_max: Some(bytes) };
    let mut bench = Bench::with(3, builder().build().unwrap());
    for number in 0..100 {
        bench.put(&format!("{number}"), &"x".repeat(9000), &["t"]);
    }
    let config = builder().quota("a", quota(400_000)).build().unwrap();
    reopen(&mut bench, true, config);
    let used = bench.cache.namespace_stats("a").unwrap().l2_bytes_in_use();
    assert!((350_000..=400_000).contains(&used), "{used}");
    assert!(bench.get("99").is_some() && bench.get("60").is_some() && bench.get("50").is_none());
    // Records beyond the quota still shadow older ones, and labels lead to them.
    let cache = bench.cache();
    bench.run(cache.invalidate_key("a", "10")).unwrap();
    bench.run(cache.invalidate_tags("a", &["t"])).unwrap();
    bench.put("new", "value", &[]);
    drop(cache);
    reopen(&mut bench, true, builder().build().unwrap());
    assert_eq!((0..100).filter(|it| bench.get(&format!("{it}")).is_some()).count(), 0);
    assert!(bench.get("new").is_some());
}

#[test]
fn a_newest_record_over_the_budget_leaves_an_empty_working_store() {
    let builder = || builder().key_bytes_max(65_535);
    let mut bench = Bench::with(1, builder().build().unwrap());
    fill(&mut bench, 10, &[]);
    let cache = bench.cache();
    bench.run(cache.invalidate_prefix("a", vec![b'-'; 65_535])).unwrap();
    bench.run(cache.sync()).unwrap();
    bench.config = builder().l2_index_bytes_max(64 * KIB).build().unwrap();
    drop(cache);
    bench.kill();
    assert_eq!(bench.cache.stats().l2_entries(), 0);
    bench.put("key", "value", &[]);
    assert_eq!(bench.get("key").as_deref(), Some("value"));
    let cache = bench.cache();
    bench.run(cache.invalidate_prefix("a", "k")).unwrap();
    assert_eq!(bench.get("key"), None, "stale");
    bench.put("other", "value", &[]);
    let cache = bench.cache();
    bench.run(cache.close()).unwrap();
    bench.reopen();
    assert_eq!(bench.get("other").as_deref(), Some("value"));
}
