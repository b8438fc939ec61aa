//! What is in use stays on disk, whichever tier answers.

use super::bench::{Bench, made};
use crate::config::BlobCacheConfig;
use crate::modes::{L1Admission, L2Compression};
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;

const HOT: usize = 20;

const VALUE_BYTES: usize = 3000;

fn config(l1_bytes_max: usize) -> BlobCacheConfig {
    BlobCacheConfig::builder()
        .l1_bytes_max(l1_bytes_max)
        .l2_path("simulated")
        .l2_bytes_max(2 << 20)
        .l2_segment_bytes(64 << 10)
        .l2_compression(L2Compression::Off)
        // A value of one byte fills memory, and no disk.
        .l1_charge(|key, value| if value.len() == 1 { 20_000 } else { key.len() + value.len() })
        .build()
        .unwrap()
}

fn put_hot(bench: &mut Bench) {
    let cache = bench.cache();
    for key in 0..HOT {
        bench.run(cache.put("a", format!("hot {key}"), vec![7; VALUE_BYTES])).unwrap();
    }
}

/// Cold records pass through the log, and no hot one is read from disk.
fn turn_over(bench: &mut Bench, colds: usize, get_hot: bool) {
    let cache = bench.cache();
    let value = "7".repeat(VALUE_BYTES);
    for number in 0..colds {
        bench.run(cache.put("a", format!("cold {number}"), made(&value, &[]))).unwrap();
        if get_hot {
            let key = format!("hot {}", number % HOT);
            assert!(bench.run(cache.get("a", key)).is_some());
        }
    }
    assert_eq!(cache.stats().l2_hits(), 0);
}

fn push_out_of_memory(bench: &mut Bench) {
    let cache = bench.cache();
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Always).priority(255);
    for number in 0..55 {
        let put = BlobCachePut::new(vec![7]).with_policy(policy.clone());
        bench.run(cache.put("b", format!("{number}"), put)).unwrap();
    }
}

fn hot_on_disk(bench: &mut Bench) -> usize {
    let cache = bench.cache();
    let hits = |key: &usize| bench.run(cache.get("a", format!("hot {key}"))).is_some();
    (0..HOT).filter(hits).count()
}

#[test]
fn values_that_memory_answers_are_on_disk_when_memory_loses_them() {
    for seed in 0..4 {
        let mut bench = Bench::with(seed, config(1 << 20));
        put_hot(&mut bench);
        turn_over(&mut bench, 7000, true);
        push_out_of_memory(&mut bench);
        assert_eq!(hot_on_disk(&mut bench), HOT, "seed {seed}");
    }
}

#[test]
fn values_that_memory_answers_are_there_after_a_restart_with_less_memory() {
    for seed in 0..4 {
        let mut bench = Bench::with(seed, config(1 << 20));
        put_hot(&mut bench);
        turn_over(&mut bench, 2000, true);
        bench.run(bench.cache().close()).unwrap();
        bench.disk = bench.disk.kill();
        bench.config = config(64 << 10);
        bench.reopen();
        assert_eq!(hot_on_disk(&mut bench), HOT, "seed {seed}");
    }
}

#[test]
fn a_value_that_was_hit_before_it_left_memory_gets_another_turn_of_the_log() {
    let mut bench = Bench::with(0, config(1 << 20));
    put_hot(&mut bench);
    let cache = bench.cache();
    for key in 0..HOT / 2 {
        assert!(bench.run(cache.get("a", format!("hot {key}"))).is_some());
    }
    push_out_of_memory(&mut bench);
    assert_eq!(cache.stats().l2_hits(), 0);
    // More than one turn of the log, and less than two: the file holds some 600 of them.
    turn_over(&mut bench, 800, false);
    let is_there = |key: usize| bench.run(cache.get("a", format!("hot {key}"))).is_some();
    let there: Vec<bool> = (0..HOT).map(is_there).collect();
    assert_eq!(there, (0..HOT).map(|key| key < HOT / 2).collect::<Vec<_>>());
}

/// Bytes of records that were written, and of those that were put.
fn written(bench: &Bench, puts: usize) -> (u64, u64) {
    let put = puts as u64 * record_bytes() as u64;
    (put + bench.cache().stats().l2_reinserted_bytes(), put)
}

/// A little more than a value: its record has a head and a key.
fn record_bytes() -> usize {
    VALUE_BYTES + 100
}

#[test]
fn one_key_overwritten_all_the_time_pushes_out_none_that_are_read() {
    const READ: usize = 100;
    for seed in 0..4 {
        // Memory holds next to nothing: they are read from disk.
        let mut bench = Bench::with(seed, config(64 << 10));
        let cache = bench.cache();
        let value = "7".repeat(VALUE_BYTES);
        for key in 0..READ {
            bench.run(cache.put("a", format!("read {key}"), made(&value, &[]))).unwrap();
        }
        let puts = 10_000;
        for number in 0..puts {
            bench.run(cache.put("a", "overwritten", made(&value, &[]))).unwrap();
            let hit = bench.run(cache.get("a", format!("read {}", number % READ)));
            assert!(hit.is_some(), "seed {seed}: {} after {number}", number % READ);
        }
        let (written, put) = written(&bench, puts + READ);
        assert!(written * 100 <= put * 130, "{written} of {put}");
        // Each turn of the log takes about 600 records, a hundred of them again.
        assert!(written * 100 >= put * 110, "{written} of {put}");
    }
}

#[test]
fn what_is_written_again_is_bounded_though_all_records_are_in_use() {
    for (percent, opens) in [(100, 1), (110, 1), (130, 1), (130, 40), (400, 1)] {
        let mut settings = config(64 << 10);
        settings.l2_write_amplification_pct_max = percent;
        let mut bench = Bench::with(7, settings);
        let value = "7".repeat(VALUE_BYTES);
        let (mut puts, mut again) = (0, 0);
        for _ in 0..opens {
            let cache = bench.cache();
            for _ in 0..4000 / opens {
                bench.run(cache.put("a", format!("{puts}"), made(&value, &[]))).unwrap();
                let hit = bench.run(cache.get("a", format!("{puts}")));
                assert!(hit.is_some());
                puts += 1;
            }
            again += cache.stats().l2_reinserted_bytes();
            bench.run(cache.close()).unwrap();
            bench.disk = bench.disk.kill();
            bench.reopen();
        }
        let put = (puts * record_bytes()) as u64;
        assert!((put + again) * 100 <= put * u64::from(percent), "{percent}, {opens}: {again}");
        assert_eq!(again == 0, percent == 100, "{percent}, {opens}");
        if opens == 1 {
            // Each is read once, and so written again once.
            let wanted = put * u64::from(percent - 100).min(100) / 100;
            assert!(again >= wanted * 3 / 4, "{percent}: {again} of {wanted}");
        }
    }
}
