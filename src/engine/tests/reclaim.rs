//! What a put waits for while the oldest segment is reclaimed, and touches that come meanwhile.

use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};

use super::bench::{Bench, config};
use crate::config::BlobCacheConfig;
use crate::modes::{L1Admission, L2Compression};
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;

const SEGMENT_BYTES: usize = 64 << 10;

const VALUE_BYTES: usize = 2000;

/// Puts that fill most of a segment: at rest the log has a whole one beside the one it writes.
const PUTS: usize = SEGMENT_BYTES * 7 / 10 / VALUE_BYTES;

/// An overwrite in Process mode waits until it is written.
#[test]
fn overwrites_go_on_while_a_reclaim_waits_for_its_reads() {
    for seed in 0..20 {
        let mut bench = Bench::with(seed, config(4096));
        let cache = bench.cache();
        let value = BlobCachePut::new(vec![7; VALUE_BYTES]);
        let overwrite = |bench: &mut Bench| {
            bench.run(cache.put("a", "k", value.clone())).unwrap();
        };
        while cache.stats().l2_reclaimed_segments() < 2 {
            overwrite(&mut bench);
        }
        // Another part of a segment is left for each seed.
        (0..seed).for_each(|_| overwrite(&mut bench));
        bench.pass(Duration::from_secs(1));
        let before = cache.stats();
        bench.disk.plan(|plan| plan.holds_reads = true);
        bench.simulation.limit_steps(100_000);
        (0..PUTS).for_each(|_| overwrite(&mut bench));
        let held = cache.stats();
        assert_eq!(held.l2_reclaimed_segments(), before.l2_reclaimed_segments(), "seed {seed}");
        bench.disk.plan(|plan| plan.holds_reads = false);
        (0..PUTS).for_each(|_| overwrite(&mut bench));
        let after = cache.stats();
        assert!(after.l2_reclaimed_segments() > held.l2_reclaimed_segments(), "seed {seed}");
    }
}

/// While its body is copied, touches come.
#[test]
fn a_record_that_is_touched_while_it_is_reinserted_stays() {
    let mut reinserted = 0;
    for seed in 0..4 {
        let config = BlobCacheConfig::builder()
            .l1_bytes_max(64 << 10)
            .l2_path("simulated")
            .l2_bytes_max(4 << 20)
            .l2_segment_bytes(1 << 20)
            .l2_compression(L2Compression::Off)
            .l2_write_amplification_pct_max(400);
        let mut bench = Bench::with(seed, config.build().unwrap());
        let cache = bench.cache();
        let never = BlobCachePolicy::default().l1_admission(L1Admission::Never);
        let put = BlobCachePut::new(vec![7; 300_000]).with_policy(never.clone());
        bench.run(cache.put("a", "k", put)).unwrap();
        let turning = async {
            for number in 0..120_u32 {
                let other = BlobCachePut::new(vec![7; 100_000]).with_policy(never.clone());
                cache.put("others", (number % 30).to_le_bytes(), other).await.unwrap();
                assert!(cache.get("a", "k").await.is_some(), "put {number} of seed {seed}");
            }
        };
        let touching = async {
            for number in 0_u64.. {
                let policy = never.clone().ttl(Duration::from_secs(1000 + number));
                assert!(cache.touch("a", "k", &policy).await.unwrap(), "seed {seed}");
            }
        };
        let (turning, touching) = (pin!(turning), pin!(touching));
        let ended = bench.simulation.block_on(select(turning, touching));
        assert!(matches!(ended, Some(Either::Left(_))), "a call hangs");
        reinserted += cache.stats().l2_reinserted();
    }
    assert!(reinserted >= 8, "{reinserted}");
}

/// In use or not: with the deadlines of the touch no segment has room for it.
#[test]
fn a_touched_record_that_has_become_too_long_leaves_with_its_segment() {
    for is_touched in [false, true] {
        let config = BlobCacheConfig::builder()
            .l1_bytes_max(64 << 10)
            .l2_path("simulated")
            .l2_bytes_max(8 * SEGMENT_BYTES as u64)
            .l2_segment_bytes(64 << 10)
            .l2_compression(L2Compression::Off)
            .l2_write_amplification_pct_max(400);
        let mut bench = Bench::with(7, config.build().unwrap());
        let cache = bench.cache();
        let never = BlobCachePolicy::default().l1_admission(L1Admission::Never);
        let longest = (0..SEGMENT_BYTES).rev().find(|length| {
            let put = BlobCachePut::new(vec![7; *length]).with_policy(never.clone());
            bench.run(cache.put("a", "k", put)).is_ok()
        });
        assert!(longest > Some(SEGMENT_BYTES / 2), "{longest:?}");
        if is_touched {
            let long = Duration::from_secs(1 << 30);
            let policy = never.clone().ttl(long).stale_serve(long).idle_ttl(long);
            assert!(bench.run(cache.touch("a", "k", &policy)).unwrap());
        }
        let mut uses = 0;
        while cache.stats().l2_reclaimed_segments() < 20 {
            let other = BlobCachePut::new(vec![7; VALUE_BYTES]).with_policy(never.clone());
            bench.run(cache.put("others", "k", other)).unwrap();
            uses += usize::from(bench.run(cache.get("a", "k")).is_some());
        }
        assert!(uses > 0 && bench.simulation.panics().is_empty());
        assert_eq!(bench.run(cache.get("a", "k")).is_none(), is_touched);
        assert_eq!(cache.stats().l2_reinserted() == 0, is_touched);
        assert_eq!(cache.stats().l2_corruptions(), 0);
        drop(cache);
        bench.kill();
        let cache = bench.cache();
        assert_eq!(bench.run(cache.get("a", "k")).is_none(), is_touched);
        assert!(bench.run(cache.get("others", "k")).is_some());
    }
}
