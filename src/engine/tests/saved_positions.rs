//! Saved positions: what an open finds, whatever ended the process before and whatever the log has
//! lost since; and that all that was in force before one is in force with it.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::bench::{Bench, config, made, opening_as, seeds_of};
use crate::cache::BlobCache;
use crate::config::BlobCacheConfig;
use crate::engine::open::Identity;
use crate::error::CacheError;
use crate::failpoint::{Failpoint, plant};
use crate::io::{Fault, OperationKind};
use crate::modes::CrashSafety;

fn save(bench: &mut Bench, name: &str, position: &str) {
    let cache = bench.cache();
    bench.run(cache.save_position(name, position.to_owned())).unwrap();
}

fn saved(bench: &Bench, name: &str) -> Option<String> {
    let saved = bench.cache.saved_position(name)?;
    Some(String::from_utf8(saved.to_vec()).unwrap())
}

fn found(position: &str) -> Option<String> {
    Some(position.to_owned())
}

fn close(bench: &mut Bench) {
    let cache = bench.cache();
    bench.run(cache.close()).unwrap();
    drop(cache);
    bench.reopen();
}

fn with(set: impl FnOnce(&mut BlobCacheConfig)) -> BlobCacheConfig {
    let mut config = config(4096);
    set(&mut config);
    config
}

/// Until the log has gone around more than once.
fn fill(bench: &mut Bench) {
    let before = bench.cache.stats().l2_reclaimed_segments();
    let mut number = 0;
    while bench.cache.stats().l2_reclaimed_segments() < before + 9 {
        bench.put(&format!("f{}", number % 97), &"x".repeat(5000), &[]);
        number += 1;
        assert!(number < 1000, "nothing is reclaimed");
    }
}

/// The last one is found after a kill, after a close, and after both once more.
fn is_kept(bench: &mut Bench, name: &str, position: &str) -> bool {
    let mut is_kept = true;
    for kills in [true, false, false, true] {
        if kills {
            bench.kill()
        } else {
            close(bench)
        }
        is_kept &= saved(bench, name) == found(position);
    }
    is_kept
}

#[test]
fn the_last_one_of_each_name_is_found() {
    let mut bench = Bench::new(1);
    assert_eq!(saved(&bench, "stream"), None);
    save(&mut bench, "stream", "1");
    save(&mut bench, "other", "");
    save(&mut bench, "stream", "2");
    assert_eq!(saved(&bench, "stream"), found("2"));
    assert!(is_kept(&mut bench, "stream", "2"));
    save(&mut bench, "stream", "3");
    assert!(is_kept(&mut bench, "stream", "3"));
    assert_eq!((saved(&bench, "other"), saved(&bench, "none")), (found(""), None));
}

/// The segment in which the log ends has it already, so nothing is to be written.
#[test]
fn an_open_and_a_close_leave_the_log_as_it_is() {
    let mut bench = Bench::new(1);
    let tail = |bench: &Bench| bench.cache.engine.parts.disk.l2().unwrap().log.tail();
    save(&mut bench, "stream", "1");
    close(&mut bench);
    let before = tail(&bench);
    for _ in 0..3 {
        close(&mut bench);
        assert!(bench.cache.stats().recovery_from_image());
        assert_eq!((tail(&bench), saved(&bench, "stream")), (before, found("1")));
    }
}

#[test]
fn memory_keeps_it_for_the_life_of_the_cache() {
    let config = BlobCacheConfig::builder().l1_bytes_max(1 << 20).build().unwrap();
    let mut bench = Bench::in_memory(1, config);
    save(&mut bench, "stream", "1");
    let cache = bench.cache();
    bench.run(cache.invalidate_all()).unwrap();
    assert_eq!(saved(&bench, "stream"), found("1"));
    bench.run(cache.close()).unwrap();
    assert_eq!(saved(&bench, "stream"), found("1"));
    let refused = bench.run(cache.save_position("stream", "2"));
    assert_eq!(refused, Err(CacheError::Closed));
}

#[test]
fn flushes_do_not_remove_it() {
    let mut bench = Bench::new(1);
    let cache = bench.cache();
    bench.put("k", "v", &[]);
    save(&mut bench, "stream", "1");
    bench.run(cache.invalidate_namespace("a")).unwrap();
    bench.run(cache.invalidate_all()).unwrap();
    drop(cache);
    assert!(is_kept(&mut bench, "stream", "1"));
    assert_eq!(bench.get("k"), None);
}

fn is_kept_by_reclaim() -> bool {
    let mut bench = Bench::new(1);
    save(&mut bench, "stream", "1");
    save(&mut bench, "other", &"y".repeat(512));
    save(&mut bench, "stream", "2");
    fill(&mut bench);
    let is_kept_once = is_kept(&mut bench, "stream", "2");
    fill(&mut bench);
    is_kept_once
        && is_kept(&mut bench, "stream", "2")
        && saved(&bench, "other") == found(&"y".repeat(512))
}

#[test]
fn reclaim_never_loses_it() {
    assert!(is_kept_by_reclaim());
}

/// Records that take a whole segment leave no room for it there.
#[test]
fn records_as_large_as_a_segment_do_not_displace_it() {
    let mut bench = Bench::new(1);
    save(&mut bench, "stream", &"p".repeat(512));
    let largest = (50_000..(64 << 10)).rev().find(|bytes| {
        let cache = bench.cache();
        bench.run(cache.put("a", "k", made(&"x".repeat(*bytes), &[]))).is_ok()
    });
    let largest = largest.unwrap();
    for round in 0..30 {
        bench.put("k", &"x".repeat(largest), &[]);
        bench.put("small", "v", &[]);
        if round % 10 == 9 {
            assert!(is_kept(&mut bench, "stream", &"p".repeat(512)), "{round}");
        }
    }
}

#[test]
fn a_store_that_begins_empty_has_none() {
    // Cold.
    let mut bench = Bench::with(1, with(|config| config.crash_safety = CrashSafety::Cold));
    save(&mut bench, "stream", "1");
    bench.kill();
    assert_eq!(saved(&bench, "stream"), None);
    // Another boot.
    for (mode, kept) in [(CrashSafety::Process, None), (CrashSafety::Power, found("1"))] {
        let mut bench = Bench::with(1, with(|config| config.crash_safety = mode));
        bench.put("k", "v", &[]);
        save(&mut bench, "stream", "1");
        bench.simulation.kill();
        bench.disk = bench.disk.crash();
        let identity = (1, Identity::of(0));
        let opening = opening_as(&bench.simulation, &bench.disk, &bench.config, identity);
        let engine = bench.simulation.block_on(opening).unwrap().unwrap();
        bench.cache = BlobCache { engine };
        assert_eq!(
            (saved(&bench, "stream"), bench.get("k").is_some()),
            (kept.clone(), kept.is_some())
        );
    }
}

#[test]
fn a_log_that_begins_anew_has_it_behind_nothing() {
    let mut bench = Bench::new(1);
    bench.put("k", "old", &[]);
    save(&mut bench, "stream", "1");
    bench.disk.fail(OperationKind::Write, 0, Fault::NoSpace, true);
    let cache = bench.cache();
    bench.run(cache.put("a", "k", "new")).ok();
    bench.run(cache.sync()).unwrap_err();
    let refused = bench.run(cache.save_position("stream", "2"));
    assert!(matches!(refused, Err(CacheError::L2Io { .. })), "{refused:?}");
    assert_eq!(saved(&bench, "stream"), found("2"), "in this process");
    bench.disk.heal();
    bench.run(cache.reopen_l2()).unwrap();
    drop(cache);
    bench.put("k", "newer", &[]);
    assert!(is_kept(&mut bench, "stream", "2"));
    assert_eq!(bench.get("k"), found("newer"));
}

#[test]
fn a_smaller_file_keeps_it() {
    let mut bench = Bench::new(1);
    save(&mut bench, "stream", "1");
    fill(&mut bench);
    let cache = bench.cache();
    bench.run(cache.close()).unwrap();
    drop(cache);
    bench.config.l2_bytes_max /= 2;
    bench.reopen();
    assert!(bench.cache.stats().recovery_dropped() > 0);
    assert!(is_kept(&mut bench, "stream", "1"));
}

#[test]
fn a_backup_has_the_position_of_its_entries() {
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let open = |name| {
        let builder = BlobCacheConfig::builder().l1_bytes_max(1 << 20);
        let builder = builder.l2_path(folder.path().join(name)).l2_bytes_max(1 << 20);
        let config = builder.l2_segment_bytes(256 << 10).build().unwrap();
        block_on(BlobCache::open(config)).unwrap()
    };
    let cache = open("own");
    block_on(async {
        cache.put("a", "k", "1").await.unwrap();
        cache.save_position("stream", "1").await.unwrap();
        cache.backup(folder.path().join("copy")).await.unwrap();
        cache.put("a", "k", "2").await.unwrap();
        cache.save_position("stream", "2").await.unwrap();
        cache.close().await.unwrap();
    });
    for (name, position) in [("own", "2"), ("copy", "1")] {
        let cache = open(name);
        assert_eq!(cache.saved_position("stream").unwrap(), position);
        assert_eq!(block_on(cache.get("a", "k")).unwrap().value(), position.as_bytes());
        block_on(cache.close()).unwrap();
    }
}

#[test]
fn it_is_small_and_there_are_few() {
    let mut bench = Bench::new(1);
    let cache = bench.cache();
    let mut save = |name: &str, bytes: usize| bench.run(cache.save_position(name, vec![7; bytes]));
    assert_eq!(save(&"n".repeat(64), 512), Ok(()));
    let refused = Err(CacheError::PositionTooLarge { size: 65, max: 64 });
    assert_eq!(save(&"n".repeat(65), 1), refused);
    let refused = Err(CacheError::PositionTooLarge { size: 513, max: 512 });
    assert_eq!(save("n", 513), refused);
    for number in 1..8 {
        assert_eq!(save(&number.to_string(), 512), Ok(()));
    }
    assert_eq!(save("ninth", 1), Err(CacheError::TooManyPositions { max: 8 }));
    assert_eq!(save("1", 1), Ok(()));
    drop(cache);
    fill(&mut bench);
    for kills in [true, false] {
        if kills {
            bench.kill()
        } else {
            close(&mut bench)
        }
        let bytes = |name: &str| bench.cache.saved_position(name).map(|it| it.len());
        assert_eq!(
            (bytes(&"n".repeat(64)), bytes("1"), bytes("7")),
            (Some(512), Some(1), Some(512))
        );
        assert_eq!((bytes("ninth"), bytes("n")), (None, None));
    }
}

/// Whether it has returned. It is dropped if not.
fn polled_once<F: Future>(call: F) -> bool {
    pin!(call).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// A mutation, which may be dropped after its first poll: whether it has returned, and the keys
/// that it is about.
fn mutate(bench: &mut Bench, random: &mut StdRng, number: u64) -> (bool, Vec<usize>) {
    let cache = bench.cache();
    let (key, tag) = (random.random_range(0..4), random.random_range(0..2));
    let name = format!("k{key}");
    let tags = [format!("t{}", key % 2)];
    let awaits = random.random_bool(0.7);
    let bytes = random.random_range(0..9000);
    match random.random_range(0..10) {
        0..5 => {
            let text = format!("{number}:{}", "x".repeat(bytes));
            let put = cache.put("a", &name, made(&text, &[&tags[0]]));
            let is_done = if awaits { bench.run(put).is_ok() } else { polled_once(put) };
            (is_done, vec![key])
        }
        5..7 => {
            let call = cache.invalidate_key("a", &name);
            let is_done = if awaits { bench.run(call).is_ok() } else { polled_once(call) };
            (is_done, vec![key])
        }
        7..9 => {
            let tag = format!("t{tag}");
            let call = bench.run(cache.invalidate_tags("a", &[&tag]));
            (call.is_ok(), (0..4).filter(|key| format!("t{}", key % 2) == tag).collect())
        }
        _ => (bench.run(cache.invalidate_all()).is_ok(), (0..4).collect()),
    }
}

/// Puts, invalidations and flushes, each numbered; positions between them; kills at any time. Once
/// a position is found, no key has anything older than it had by then.
fn case(seed: u64) -> (u64, u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mode = if random.random_bool(0.5) { CrashSafety::Process } else { CrashSafety::Power };
    let mut bench = Bench::with(seed, with(|config| config.crash_safety = mode));
    // The number of the mutation that each key was last changed by, and each position's truth.
    let mut truth = [0_u64; 4];
    let mut truths: Vec<[u64; 4]> = vec![truth];
    let (mut number, mut found, mut hits, mut durable) = (0, 0, 0, 0);
    for _ in 0..6 {
        for _ in 0..random.random_range(1..60) {
            number += 1;
            let (is_done, changed) = mutate(&mut bench, &mut random, number);
            if is_done {
                changed.iter().for_each(|key| truth[*key] = number);
            }
            if random.random_bool(0.3) {
                truths.push(truth);
                let position = (truths.len() - 1).to_string();
                let cache = bench.cache();
                let saving = cache.save_position("p", position);
                if random.random_bool(0.5) {
                    bench.run(saving).unwrap();
                    durable = truths.len() - 1;
                } else {
                    polled_once(saving);
                }
            }
            if random.random_bool(0.1) {
                bench.pass(std::time::Duration::from_millis(random.random_range(0..1500)));
            }
        }
        match random.random_range(0..4) {
            0 => close(&mut bench),
            1 if mode == CrashSafety::Power => {
                bench.simulation.kill();
                bench.disk = bench.disk.crash();
                bench.reopen();
            }
            _ => bench.kill(),
        }
        let at = saved(&bench, "p").map_or(0, |at| at.parse::<usize>().unwrap());
        assert!(at >= durable, "position {at} is found, and {durable} had returned");
        found += u64::from(at > 0);
        let covered = truths[at];
        for (key, least) in covered.iter().enumerate() {
            if let Some(value) = bench.get(&format!("k{key}")) {
                let put: u64 = value.split(':').next().unwrap().parse().unwrap();
                assert!(put >= *least, "k{key} has {put} behind position {at}, which has {least}");
                hits += 1;
            }
        }
        // What is there now is the truth from now on: the crash may have forgotten the rest.
        truth = covered;
        truths.push(truth);
        durable = at;
    }
    (found, hits)
}

#[test]
fn all_that_was_in_force_before_a_position_that_is_found_is_in_force() {
    let (mut found, mut hits) = (0, 0);
    let seeds = seeds_of(150);
    for seed in seeds.clone() {
        let run = std::panic::AssertUnwindSafe(|| case(seed));
        match std::panic::catch_unwind(run) {
            Ok((more, of_keys)) => (found, hits) = (found + more, hits + of_keys),
            Err(_) => panic!("TAMIS_SEED={seed}"),
        }
    }
    println!("{seeds:?}: {found} positions found, {hits} hits behind them");
    let cases = seeds.end - seeds.start;
    assert!(cases < 100 || (found > 3 * cases && hits > 3 * cases));
}

#[test]
fn segments_that_do_not_repeat_it_are_noticed() {
    let _bug = plant(Failpoint::PositionNotCarried);
    assert!(!is_kept_by_reclaim());
}

#[test]
fn an_image_that_hides_it_is_noticed() {
    let _bug = plant(Failpoint::PositionNotInImage);
    let mut bench = Bench::new(1);
    save(&mut bench, "stream", "1");
    close(&mut bench);
    assert!(bench.cache.stats().recovery_from_image());
    assert_eq!(saved(&bench, "stream"), None);
}

#[test]
fn one_of_an_older_segment_that_counts_is_noticed() {
    let _bug = plant(Failpoint::PositionFromOlder);
    let mut bench = Bench::new(1);
    save(&mut bench, "stream", "1");
    fill(&mut bench);
    save(&mut bench, "stream", "2");
    bench.kill();
    assert_ne!(saved(&bench, "stream"), found("2"));
}
