//! Which new values the disk takes, and that a value that it does not take leaves nothing stale.

use super::bench::Bench;
use crate::config::BlobCacheConfig;
use crate::modes::{L1Admission, L2Admission, L2Compression};
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;

const VALUE_BYTES: usize = 1000;

/// Records that surely fit the file, and surely do not.
const FITTING: usize = 1500;
const BEYOND: usize = 2100;

fn config(admission: L2Admission) -> BlobCacheConfig {
    BlobCacheConfig::builder()
        .l1_bytes_max(64 << 10)
        .l2_path("simulated")
        .l2_bytes_max(2 << 20)
        .l2_segment_bytes(64 << 10)
        .l2_compression(L2Compression::Off)
        .l2_admission(admission)
        .build()
        .unwrap()
}

fn put(bench: &mut Bench, key: &str, byte: u8) {
    let cache = bench.cache();
    bench.run(cache.put("a", key, vec![byte; VALUE_BYTES])).unwrap();
}

/// The first byte of the value.
fn get(bench: &mut Bench, key: &str) -> Option<u8> {
    let cache = bench.cache();
    bench.run(cache.get("a", key)).map(|hit| hit.value()[0])
}

/// Whether it was a hit. If not, puts it.
fn request(bench: &mut Bench, key: &str) -> bool {
    let is_hit = get(bench, key).is_some();
    if !is_hit {
        put(bench, key, 1);
    }
    is_hit
}

fn not_admitted(bench: &Bench) -> u64 {
    bench.cache().stats().l2_not_admitted()
}

fn pretend_scans(bench: &Bench) {
    bench.cache.engine.parts.disk_admission.pretend_scans();
}

/// Values of a higher priority fill memory, and then leave it.
fn push_out_of_memory(bench: &mut Bench) {
    let cache = bench.cache();
    let first = BlobCachePolicy::default().priority(255);
    for number in 0..100 {
        let value = BlobCachePut::new(vec![2; VALUE_BYTES]).with_policy(first.clone());
        bench.run(cache.put("b", format!("first {number}"), value)).unwrap();
    }
    bench.run(cache.invalidate_namespace("b")).unwrap();
}

/// A full disk that takes known keys only.
fn full(seed: u64) -> Bench {
    let mut bench = Bench::with(seed, config(L2Admission::Adaptive));
    pretend_scans(&bench);
    for number in 0..BEYOND {
        put(&mut bench, &format!("filler {number}"), 1);
    }
    assert!(not_admitted(&bench) > 0);
    bench
}

#[test]
fn scans_do_not_push_out_what_is_asked_for_again() {
    let hits = |admission| {
        let mut bench = Bench::with(1, config(admission));
        let mut hits = 0;
        for round in 0..14 {
            for number in 0..1000 {
                for scanned in [0, 1] {
                    request(&mut bench, &format!("scanned {round} {number} {scanned}"));
                }
                let is_hit = request(&mut bench, &format!("again {number}"));
                hits += usize::from(is_hit && round >= 10);
            }
        }
        let stats = bench.cache().stats();
        assert_eq!(stats.l2_not_admitted() > 0, admission == L2Admission::Adaptive);
        let bytes = |records: u64| records * (VALUE_BYTES as u64 + 100);
        let put = bytes(stats.misses());
        let written = bytes(stats.misses() - stats.l2_not_admitted()) + stats.l2_reinserted_bytes();
        assert!(written * 100 <= put * 130, "{written} of {put}");
        hits
    };
    let (adaptive, always) = (hits(L2Admission::Adaptive), hits(L2Admission::Always));
    assert!(adaptive > 3000 && always < 2000, "{adaptive} and {always} of 4000");
}

#[test]
fn a_disk_with_room_takes_everything() {
    for seed in 0..3 {
        let mut bench = Bench::with(seed, config(L2Admission::Adaptive));
        pretend_scans(&bench);
        for number in 0..FITTING {
            put(&mut bench, &number.to_string(), 1);
        }
        assert_eq!(not_admitted(&bench), 0, "seed {seed}");
        let found = (0..FITTING).filter(|number| get(&mut bench, &number.to_string()).is_some());
        assert_eq!(found.count(), FITTING, "seed {seed}");
    }
}

#[test]
fn a_disk_that_has_grown_takes_everything_again() {
    for seed in 0..3 {
        let mut bench = full(seed);
        let cache = bench.cache();
        bench.run(cache.set_l2_bytes_max(6 << 20)).unwrap();
        let before = not_admitted(&bench);
        for number in 0..FITTING {
            put(&mut bench, &number.to_string(), 1);
        }
        assert_eq!(not_admitted(&bench), before, "seed {seed}");
        let found = (0..FITTING).filter(|number| get(&mut bench, &number.to_string()).is_some());
        assert_eq!(found.count(), FITTING, "seed {seed}");
    }
}

#[test]
fn a_disk_that_was_emptied_takes_everything_again() {
    type Empty = fn(&mut Bench);
    let ways: [Empty; 3] = [
        |bench| {
            let cache = bench.cache();
            bench.run(cache.invalidate_namespace("a")).unwrap();
        },
        |bench| {
            let cache = bench.cache();
            bench.run(cache.invalidate_all()).unwrap();
        },
        |bench| {
            let cache = bench.cache();
            bench.run(cache.invalidate_prefix("a", "filler")).unwrap();
        },
    ];
    for (way, empty) in ways.into_iter().enumerate() {
        let mut bench = full(way as u64);
        empty(&mut bench);
        let before = not_admitted(&bench);
        for number in 0..FITTING / 2 {
            put(&mut bench, &format!("later {number}"), 1);
        }
        assert_eq!(not_admitted(&bench), before, "way {way}");
    }
}

#[test]
fn a_key_that_was_refused_is_taken_when_it_is_put_again() {
    let mut bench = full(1);
    let before = not_admitted(&bench);
    put(&mut bench, "k", 1);
    assert_eq!(not_admitted(&bench), before + 1);
    put(&mut bench, "k", 2);
    assert_eq!(not_admitted(&bench), before + 1);
    // Out of memory.
    (0..100).for_each(|number| put(&mut bench, &format!("other {number}"), 1));
    assert_eq!(get(&mut bench, "k"), Some(2));
}

#[test]
fn a_refused_value_that_memory_answered_is_known_when_it_comes_back() {
    let mut bench = full(1);
    let keys: Vec<_> = (0..8).map(|number| format!("answered {number}")).collect();
    let before = not_admitted(&bench);
    keys.iter().for_each(|key| put(&mut bench, key, 1));
    assert_eq!(not_admitted(&bench), before + keys.len() as u64);
    // More than are remembered, so that the refusals of these keys are forgotten.
    for number in 0..3 * BEYOND {
        put(&mut bench, &format!("scanned {number}"), 1);
        if number % 10 == 0 {
            assert!(keys.iter().all(|key| get(&mut bench, key) == Some(1)));
        }
    }
    push_out_of_memory(&mut bench);
    assert!(keys.iter().all(|key| get(&mut bench, key).is_none()));
    let before = not_admitted(&bench);
    keys.iter().for_each(|key| put(&mut bench, key, 2));
    assert_eq!(not_admitted(&bench), before);
}

#[test]
fn values_that_memory_must_not_hold_are_always_taken() {
    let mut bench = full(1);
    let (cache, before) = (bench.cache(), not_admitted(&bench));
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    for number in 0..20 {
        let value = BlobCachePut::new(vec![2; VALUE_BYTES]).with_policy(policy.clone());
        bench.run(cache.put("a", format!("never {number}"), value)).unwrap();
        assert_eq!(get(&mut bench, &format!("never {number}")), Some(2));
    }
    assert_eq!(not_admitted(&bench), before);
}

#[test]
fn a_refused_value_may_take_half_of_memory() {
    let mut bench = full(1);
    let cache = bench.cache();
    for (bytes, is_taken) in [(6000, false), (10_000, false), (30_000, false), (34_000, true)] {
        let (key, before) = (format!("{bytes}"), not_admitted(&bench));
        bench.run(cache.put("a", key.as_str(), vec![2; bytes])).unwrap();
        assert_eq!(not_admitted(&bench) == before, is_taken, "{key}");
        assert_eq!(get(&mut bench, &key), Some(2), "{key}");
    }
}

#[test]
fn an_overwrite_is_taken_and_leaves_nothing_stale() {
    for seed in 0..8 {
        let mut bench = full(seed);
        // Some of the last fillers that were taken.
        let held = |bench: &mut Bench| {
            let names = (0..BEYOND).map(|number| format!("filler {number}"));
            names.filter(|name| get(bench, name) == Some(1)).collect::<Vec<_>>()
        };
        let keys = held(&mut bench);
        assert!(keys.len() > FITTING / 2);
        let before = not_admitted(&bench);
        for key in keys.iter().take(200) {
            put(&mut bench, key, 2);
        }
        assert_eq!(not_admitted(&bench), before, "seed {seed}");
        for key in keys.iter().take(200) {
            assert_ne!(get(&mut bench, key), Some(1), "seed {seed}, {key}");
        }
        bench.kill();
        for key in keys.iter().take(200) {
            assert_ne!(get(&mut bench, key), Some(1), "seed {seed}, {key} after a kill");
        }
    }
}

#[test]
fn a_value_that_memory_has_no_room_for_is_taken() {
    let mut bench = full(1);
    let (cache, before) = (bench.cache(), not_admitted(&bench));
    let first = BlobCachePolicy::default().priority(255);
    for number in 0..200 {
        let value = BlobCachePut::new(vec![2; VALUE_BYTES]).with_policy(first.clone());
        bench.run(cache.put("a", format!("first {number}"), value)).unwrap();
    }
    let refused = not_admitted(&bench);
    assert!(refused > before, "memory has room for some of them");
    for (key, bytes) in [("last", VALUE_BYTES), ("large", 10_000)] {
        let last = BlobCachePolicy::default().priority(0);
        let value = BlobCachePut::new(vec![3; bytes]).with_policy(last);
        bench.run(cache.put("a", key, value)).unwrap();
        assert_eq!(get(&mut bench, key), Some(3), "{key}");
    }
    assert_eq!(not_admitted(&bench), refused);
}

#[test]
fn memory_is_counted_within_the_index_budget() {
    let mut bench = Bench::with(1, config(L2Admission::Adaptive));
    let bytes = |bench: &Bench| bench.cache.engine.parts.disk_admission.bytes();
    assert_eq!(bytes(&bench), 0);
    for number in 0..20_000 {
        request(&mut bench, &(number % 5003).to_string());
    }
    let bytes = bytes(&bench);
    assert!(bytes > 1000 && bytes < 160 << 10, "{bytes}");
    assert!(bench.cache().stats().memory_index_bytes() > bytes);
}
