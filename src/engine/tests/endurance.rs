//! Writes that the flash is spared: admission on second sight, and the write rate.

use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::bench::{Bench, made, two_tiers};
use crate::clock::Clock;
use crate::config::BlobCacheConfigBuilder;
use crate::modes::{L1Admission, L2Admission};
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;
use crate::write_rate::WriteRate;

const VALUE_BYTES: usize = 1000;

fn builder(clock: &Clock) -> BlobCacheConfigBuilder {
    two_tiers(clock).l1_bytes_max(64 << 10)
}

fn on_second_sight(seed: u64) -> Bench {
    let config = builder(&Clock::manual(SystemTime::UNIX_EPOCH));
    Bench::with(seed, config.l2_admission(L2Admission::OnSecondSight).build().unwrap())
}

fn put(bench: &mut Bench, key: &str, byte: u8, admission: L1Admission) {
    let policy = BlobCachePolicy::default().l1_admission(admission);
    let put = BlobCachePut::new(vec![byte; VALUE_BYTES]).with_policy(policy);
    let cache = bench.cache();
    bench.run(cache.put("a", key, put)).unwrap();
}

fn get(bench: &mut Bench, key: &str) -> Option<u8> {
    let cache = bench.cache();
    bench.run(cache.get("a", key)).map(|hit| hit.value()[0])
}

fn written(bench: &mut Bench) -> u64 {
    let cache = bench.cache();
    bench.run(cache.sync()).unwrap();
    cache.stats().l2_write_bytes()
}

#[test]
fn keys_that_never_come_again_are_hardly_written() {
    let mut bench = on_second_sight(1);
    let before = written(&mut bench);
    for number in 0..5000 {
        put(&mut bench, &format!("once {number}"), 1, L1Admission::Auto);
    }
    // Some are taken for others: one in forty, if as many are remembered as can be.
    let taken = 5000 - bench.cache().stats().l2_not_admitted();
    assert!(taken <= 125, "{taken}");
    let written = written(&mut bench) - before;
    assert!(written <= taken * 8192 + (32 << 10), "{written} bytes for {taken} values");
}

#[test]
fn a_key_that_comes_again_goes_to_disk_however_many_came_between() {
    let mut bench = on_second_sight(2);
    put(&mut bench, "k", 1, L1Admission::Auto);
    for number in 0..20_000 {
        put(&mut bench, &format!("once {number}"), 1, L1Admission::Auto);
    }
    assert_eq!(get(&mut bench, "k"), None, "it was in memory alone");
    let before = bench.cache().stats().l2_not_admitted();
    put(&mut bench, "k", 2, L1Admission::Auto);
    assert_eq!(bench.cache().stats().l2_not_admitted(), before);
    for number in 0..200 {
        put(&mut bench, &format!("then {number}"), 1, L1Admission::Auto);
    }
    assert_eq!(get(&mut bench, "k"), Some(2));
    assert_eq!(bench.cache().stats().l2_hits(), 1);
    written(&mut bench);
    bench.kill();
    assert_eq!(get(&mut bench, "k"), Some(2));
    // It is held: no first sight, though a new process remembers nothing.
    put(&mut bench, "k", 3, L1Admission::Auto);
    assert_eq!(bench.cache().stats().l2_not_admitted(), 0);
    bench.kill();
    assert_ne!(get(&mut bench, "k"), Some(2));
}

#[test]
fn what_memory_must_not_hold_needs_no_second_sight() {
    let mut bench = on_second_sight(3);
    put(&mut bench, "k", 1, L1Admission::Never);
    assert_eq!(get(&mut bench, "k"), Some(1));
    assert_eq!(bench.cache().stats().l2_not_admitted(), 0);
}

#[test]
fn memory_for_keys_seen_once_is_bounded_and_counted() {
    let mut bench = on_second_sight(4);
    let budget = bench.config.l2_index_bytes_max();
    for number in 0..60_000 {
        put(&mut bench, &number.to_string(), 1, L1Admission::Auto);
    }
    let bytes = bench.cache().engine.parts.disk_admission.bytes();
    assert!(bytes > 10_000 && bytes <= budget / 8 + 4096, "{bytes} of {budget}");
    assert!(bench.cache().stats().memory_index_bytes() >= bytes);
}

/// Of a rate, without the records of overwrites: what a seed writes at most, beyond rate and burst.
const SLACK_BYTES: u64 = 64 << 10;

#[test]
fn new_keys_are_written_within_the_rate() {
    for seed in 0..20 {
        let mut random = StdRng::seed_from_u64(seed);
        let clock = Clock::manual(SystemTime::UNIX_EPOCH);
        let (rate, burst) = (random.random_range(1000..100_000), random.random_range(1..500_000));
        let config = builder(&clock).l2_write_rate_max(WriteRate::new(rate).burst_bytes(burst));
        let mut bench = Bench::with(seed, config.build().unwrap());
        let before = bench.cache().stats().l2_write_bytes();
        let mut elapsed = Duration::ZERO;
        for number in 0..2000 {
            let pause = Duration::from_millis(random.random_range(0..40));
            clock.advance(pause);
            elapsed += pause;
            // Batches of one key, or what comes together.
            if random.random_range(0..4) == 0 {
                written(&mut bench);
            }
            put(&mut bench, &number.to_string(), 1, L1Admission::Auto);
        }
        let all = written(&mut bench) - before;
        let gained = u128::from(rate) * elapsed.as_millis() / 1000;
        let most = burst + u64::try_from(gained).unwrap() + SLACK_BYTES;
        assert!(all <= most, "seed {seed}: {all} of {most}");
        let refused = bench.cache().stats().l2_write_rate_rejections();
        assert!(refused > 0, "seed {seed}");
        assert!(all * 4 > most - SLACK_BYTES || refused < 100, "seed {seed}: {all} of {most}");
    }
}

/// A disk tier with "held", and a bucket that is empty.
fn over_rate(seed: u64, clock: &Clock) -> Bench {
    let config = builder(clock).l2_write_rate_max(WriteRate::new(1).burst_bytes(20_000));
    let mut bench = Bench::with(seed, config.build().unwrap());
    put(&mut bench, "held", 1, L1Admission::Never);
    for number in 0.. {
        put(&mut bench, &format!("filler {number}"), 1, L1Admission::Auto);
        written(&mut bench);
        if bench.cache().stats().l2_write_rate_rejections() > 0 {
            break;
        }
    }
    bench
}

#[test]
fn overwrites_and_invalidations_pass_and_leave_nothing_stale() {
    for seed in 0..8 {
        let clock = Clock::manual(SystemTime::UNIX_EPOCH);
        let mut bench = over_rate(seed, &clock);
        let before = bench.cache().stats().l2_write_rate_rejections();
        let cache = bench.cache();
        if seed % 2 == 0 {
            put(&mut bench, "held", 2, L1Admission::Never);
            assert_eq!(get(&mut bench, "held"), Some(2), "seed {seed}");
        } else {
            assert_eq!(bench.run(cache.invalidate_key("a", "held")).unwrap(), 1);
            assert_eq!(get(&mut bench, "held"), None, "seed {seed}");
        }
        assert_eq!(bench.cache().stats().l2_write_rate_rejections(), before);
        drop(cache);
        bench.kill();
        assert_ne!(get(&mut bench, "held"), Some(1), "seed {seed}");
    }
}

#[test]
fn a_value_that_no_tier_takes_replaces_the_older_one() {
    let clock = Clock::manual(SystemTime::UNIX_EPOCH);
    let mut bench = over_rate(1, &clock);
    put(&mut bench, "k", 1, L1Admission::Auto);
    assert_eq!(get(&mut bench, "k"), Some(1), "in memory");
    let before = bench.cache().stats().l2_write_rate_rejections();
    put(&mut bench, "k", 2, L1Admission::Never);
    assert_eq!(get(&mut bench, "k"), None);
    assert_eq!(bench.cache().stats().l2_write_rate_rejections(), before + 1);
    // The same put once there is something left.
    clock.advance(Duration::from_secs(100_000));
    put(&mut bench, "k", 3, L1Admission::Never);
    assert_eq!(get(&mut bench, "k"), Some(3));
}

#[test]
fn a_value_too_large_for_its_share_of_memory_is_held_alone() {
    let clock = Clock::manual(SystemTime::UNIX_EPOCH);
    let mut bench = over_rate(1, &clock);
    let cache = bench.cache();
    for (bytes, is_held) in [(6000, true), (20_000, true), (40_000, false)] {
        let key = bytes.to_string();
        bench.run(cache.put("a", &key, vec![2; bytes])).unwrap();
        assert_eq!(get(&mut bench, &key), is_held.then_some(2), "{bytes}");
    }
}

#[test]
fn a_clock_that_steps_back_neither_fills_nor_locks_the_bucket() {
    let clock = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 20));
    let mut bench = over_rate(1, &clock);
    clock.set(SystemTime::UNIX_EPOCH);
    put(&mut bench, "k", 1, L1Admission::Never);
    assert_eq!(get(&mut bench, "k"), None);
    clock.advance(Duration::from_secs(100_000));
    put(&mut bench, "k", 1, L1Admission::Never);
    assert_eq!(get(&mut bench, "k"), Some(1));
}

#[test]
fn a_write_rate_of_nothing_is_refused() {
    for rate in [WriteRate::new(0), WriteRate::new(1).burst_bytes(0)] {
        let error = builder(&Clock::default()).l2_write_rate_max(rate).build().unwrap_err();
        assert!(error.to_string().contains("l2_write_rate_max"), "{error}");
    }
}

#[test]
fn labels_of_a_value_in_memory_alone_are_right() {
    let clock = Clock::manual(SystemTime::UNIX_EPOCH);
    let mut bench = over_rate(1, &clock);
    let cache = bench.cache();
    let alone = BlobCachePut::new("alone").with_tags(["t"]);
    bench.run(cache.put("a", "alone", alone)).unwrap();
    bench.run(cache.put("a", "nowhere", made("nowhere", &["t"]))).unwrap();
    assert_eq!(bench.run(cache.invalidate_tags("a", &["t"])).unwrap(), 1);
}
