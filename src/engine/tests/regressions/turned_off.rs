//! Faults with a tier that is turned off, a refused put, and a dropped caller.

use std::time::SystemTime;

use futures::FutureExt;

use super::*;
use crate::clock::Clock;
use crate::failpoint::{Failpoint, plant};
use crate::io::{Fault, OperationKind};
use crate::stats::L2State;

fn large_config() -> BlobCacheConfig {
    BlobCacheConfig::builder()
        .l1_bytes_max(4 << 20)
        .l2_path("simulated")
        .l2_bytes_max(8 << 20)
        .l2_segment_bytes(1 << 20)
        .crash_safety(CrashSafety::Process)
        .l2_compression(L2Compression::Off)
        .build()
        .unwrap()
}

fn plain(value: &str, tags: &[&str]) -> BlobCachePut {
    BlobCachePut::copy_from_slice(value.as_bytes()).with_tags(tags.iter().copied())
}

impl Bench {
    fn put_of(&mut self, key: &str, put: BlobCachePut) -> Result<(), crate::CacheError> {
        let cache = self.cache.clone();
        self.simulation.block_on(cache.put("a", key, put)).unwrap()
    }
    fn turn_off(&mut self, heal: bool) {
        self.disk.fail(OperationKind::Write, 0, Fault::NoSpace, true);
        let _ = self.put_of("fresh", plain("fresh", &[]));
        let cache = self.cache.clone();
        assert!(self.simulation.block_on(cache.sync()).unwrap().is_err());
        if heal {
            self.heal_until_void();
        }
    }

    /// The store is marked void, and the log has not begun anew yet.
    fn heal_until_void(&mut self) {
        self.disk.heal();
        let cache = self.cache.clone();
        while cache.engine.parts.disk.l2().is_some_and(|l2| !l2.health().is_voided()) {
            self.pass(Duration::from_millis(50));
        }
        assert!(matches!(cache.stats().l2_state(), L2State::Degraded { .. }));
    }
}

#[test]
fn a_promotion_of_an_entry_invalidated_without_a_record() {
    let mut bench = Bench::with(1, large_config());
    bench.put_of("k", plain("old", &[])).unwrap();
    let cache = bench.cache.clone();
    bench.simulation.block_on(cache.sync()).unwrap().unwrap();
    drop(cache);
    bench.kill();
    let cache = bench.cache.clone();
    // A slow read.
    let mut slow = Box::pin(cache.get("a", "k"));
    assert!((&mut slow).now_or_never().is_none());
    bench.turn_off(true);
    let invalidated = bench.simulation.block_on(cache.invalidate_key("a", "k")).unwrap();
    assert!(invalidated.is_ok());
    assert_eq!(bench.get("k"), None, "in force");
    assert!(bench.simulation.block_on(slow).is_some());
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.get("k"), None, "STALE: promoted after its invalidation returned Ok");
}

#[test]
fn entries_of_a_disabled_tier_count_once() {
    let mut bench = Bench::with(1, large_config());
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never).version(7);
    bench.put_of("k", plain("old", &[]).with_policy(policy)).unwrap();
    let cache = bench.cache.clone();
    bench.simulation.block_on(cache.sync()).unwrap().unwrap();
    bench.turn_off(false);
    let fresh = bench.put_of("never-seen", plain("x", &[]));
    assert_eq!(fresh, Ok(()), "no record on file can replace it");
    bench.heal_until_void();
    let mut counts = Vec::new();
    for _ in 0..3 {
        counts.push(bench.simulation.block_on(cache.invalidate_key("a", "k")).unwrap());
    }
    let policy = BlobCachePolicy::default().version(3);
    let put = bench.put_of("k", plain("new", &[]).with_policy(policy));
    assert_eq!(counts, [Ok(1), Ok(0), Ok(0)]);
    assert!(put.is_ok());
}

#[test]
fn a_removed_version_does_not_block_when_the_tier_is_off() {
    let mut bench = Bench::with(1, large_config());
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never).version(7);
    bench.put_of("k", plain("old", &[]).with_policy(policy)).unwrap();
    let cache = bench.cache.clone();
    bench.simulation.block_on(cache.sync()).unwrap().unwrap();
    bench.turn_off(true);
    bench.simulation.block_on(cache.invalidate_key("a", "k")).unwrap().unwrap();
    let policy = BlobCachePolicy::default().version(3);
    let put = bench.put_of("k", plain("new", &[]).with_policy(policy));
    assert!(put.is_ok(), "{put:?}");
}

#[test]
fn pending_invalidations_of_a_tier_turned_off_before_its_first_record() {
    let mut met = 0;
    for seed in 0..300 {
        let mut bench = Bench::with(seed, large_config());
        bench.put_of("k", plain("old", &["t"])).unwrap();
        let cache = bench.cache.clone();
        bench.simulation.block_on(cache.sync()).unwrap().unwrap();
        drop(cache);
        // A new segment is begun, so that there is something to write at once.
        let failpoint = plant(Failpoint::TornSegmentSealed);
        bench.kill();
        drop(failpoint);
        bench.disk.fail(OperationKind::Write, 0, Fault::NoSpace, true);
        let cache = bench.cache.clone();
        assert!(bench.get("k").is_none_or(|value| value == "old"));
        bench.pass(Duration::from_secs(3));
        let in_memory = bench.get("k").is_some();
        let is_off = matches!(cache.stats().l2_state(), L2State::Degraded { .. });
        if !in_memory || !is_off {
            continue;
        }
        met += 1;
        bench.disk.heal();
        bench.pass(Duration::from_secs(3));
        let removed = bench.simulation.block_on(cache.invalidate_tags("a", &["t"])).unwrap();
        let got = bench.get("k");
        assert_eq!(got, None, "STALE, seed {seed}: invalidate_tags said {removed:?}");
    }
    assert!(met > 0);
}

const START: SystemTime = SystemTime::UNIX_EPOCH;

/// An entry with a label in both tiers, whose ttl of 100 seconds has just passed.
fn expired() -> (Bench, Clock) {
    let clock = Clock::manual(START);
    let mut config = large_config();
    config.clock = clock.clone();
    let mut bench = Bench::with(1, config);
    let policy = BlobCachePolicy::default().ttl(Duration::from_secs(100));
    bench.put_of("k", plain("old", &["t"]).with_policy(policy)).unwrap();
    let cache = bench.cache.clone();
    bench.simulation.block_on(cache.sync()).unwrap().unwrap();
    clock.advance(Duration::from_secs(101));
    (bench, clock)
}

#[test]
fn a_label_of_an_entry_that_has_expired_in_memory_and_the_clock_steps_back() {
    let (mut bench, clock) = expired();
    let cache = bench.cache.clone();
    assert_eq!(bench.get("k"), None);
    let invalidated = bench.simulation.block_on(cache.invalidate_tags("a", &["t"])).unwrap();
    assert_eq!(invalidated, Ok(0), "known to be expired");
    bench.simulation.block_on(cache.close()).unwrap().unwrap();
    clock.set(START + Duration::from_secs(50));
    bench.reopen();
    assert_eq!(bench.get("k"), None, "invalidated by tag, and back after a restart");
}

#[test]
fn a_label_of_an_entry_that_had_expired_at_one_open_and_not_at_the_next() {
    let (mut bench, clock) = expired();
    let cache = bench.cache.clone();
    drop(cache);
    bench.kill();
    let cache = bench.cache.clone();
    let invalidated = bench.simulation.block_on(cache.invalidate_tags("a", &["t"])).unwrap();
    assert_eq!(invalidated, Ok(0), "known to be expired");
    drop(cache);
    clock.set(START + Duration::from_secs(50));
    bench.kill();
    assert_eq!(bench.get("k"), None, "invalidated by tag, and back after a restart");
}

#[test]
fn a_put_after_a_flush_whose_record_was_taken_and_could_not_be_written() {
    let mut bench = Bench::new(1);
    bench.put("k", "old", &[]);
    let cache = bench.cache.clone();
    bench.disk.fail(crate::io::OperationKind::Write, 0, crate::io::Fault::NoSpace, true);
    assert!(bench.simulation.block_on(cache.invalidate_namespace("a")).unwrap().is_err());
    let put = bench.simulation.block_on(cache.put("a", "k", made("new", &[]))).unwrap();
    assert!(put.is_err(), "the old generation is still what is on file");
    assert_eq!(bench.get("k"), None, "not in this process");
}

#[test]
fn a_store_survives_a_power_loss_after_a_failed_sync_and_another_while_it_opens() {
    for seed in 0..300 {
        let mut bench = Bench::new(seed);
        bench.put("k", "value", &[]);
        bench.disk.fail(crate::io::OperationKind::Sync, seed % 4, crate::io::Fault::Io, false);
        bench.disk.fail(crate::io::OperationKind::Write, 4 + seed % 3, crate::io::Fault::Io, true);
        let cache = bench.cache.clone();
        for number in 0..40 {
            let put = cache.put("a", format!("{number}"), plain(&"v".repeat(3000), &[]));
            drop(bench.simulation.block_on(put).unwrap());
        }
        drop(cache);
        for polls in [0, seed % 40] {
            bench.simulation.kill();
            bench.disk = bench.disk.crash();
            // The next process gets this far.
            let mut opening = opening(&bench.simulation, &bench.disk, &bench.config).boxed();
            for _ in 0..polls {
                if (&mut opening).now_or_never().is_some() {
                    break;
                }
            }
        }
        bench.simulation.kill();
        bench.disk = bench.disk.crash();
        bench.reopen();
    }
}

#[test]
fn a_refused_put_leaves_no_namespace() {
    let mut bench = Bench::new(1);
    let cache = bench.cache.clone();
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    let put = plain(&"x".repeat((64 << 10) - 4096), &[]).with_policy(policy);
    let refused = bench.put_of("k", put);
    assert!(refused.is_err());
    assert_eq!(cache.stats().namespaces(), 0);
    assert_eq!(bench.simulation.block_on(cache.invalidate_namespace("a")).unwrap(), Ok(false));
}

#[test]
fn an_unpolled_put_does_not_delay_small_ones() {
    let config = BlobCacheConfig::builder().l1_bytes_max(4 << 20).build().unwrap();
    let cache = BlobCache { engine: in_memory(config) };
    let large = bytes::Bytes::from(vec![1; 600 << 10]);
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Always);
    let mut first = Box::pin(cache.put("a", "large", BlobCachePut::new(large).with_policy(policy)));
    assert!((&mut first).now_or_never().is_none());
    let mut second = Box::pin(cache.put("b", "small", "v"));
    let mut polls = 0;
    while (&mut second).now_or_never().is_none() && polls < 10_000 {
        polls += 1;
    }
    assert!(polls < 10_000, "a put of one byte waits for one that is not polled");
}

#[test]
fn a_dropped_handle_is_not_kept_alive_by_a_scan() {
    let mut bench = Bench::new(1);
    for number in 0..40 {
        bench.put(&format!("{number}/key"), "value", &[]);
    }
    let weak = Arc::downgrade(&bench.cache.engine);
    assert!(bench.cache.invalidate_prefix("a", "1").now_or_never().is_none());
    let empty = BlobCache { engine: in_memory(BlobCacheConfig::default()) };
    bench.cache = empty;
    assert!(weak.upgrade().is_none(), "no handle is left, but the store is not being closed");
}
