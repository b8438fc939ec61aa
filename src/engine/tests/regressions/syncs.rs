//! Syncs: one that fails beside others, and one that there is nothing to write for.

use std::future::poll_fn;
use std::task::Poll;

use futures::future::{join, join_all};

use super::super::bench::opening_as;
use super::*;
use crate::config::BlobCacheConfigBuilder;
use crate::engine::open::Identity;
use crate::failpoint::{Failpoint, plant};
use crate::io::{Fault, OperationKind};
use crate::stats::L2State;

fn builder() -> BlobCacheConfigBuilder {
    BlobCacheConfig::builder()
        .l1_bytes_max(64 << 10)
        .l2_path("simulated")
        .l2_bytes_max(8 * (64 << 10))
        .l2_segment_bytes(64 << 10)
        .l2_compression(L2Compression::Off)
}

/// Overwrites a key until the sync after the next `after` has failed, then the power fails. Gives
/// the last version that a put has acknowledged, and the one that is found.
fn found_after_a_failed_sync(seed: u64, after: u64) -> (u32, Option<u32>) {
    let mut bench = Bench::with(seed, builder().crash_safety(CrashSafety::Power).build().unwrap());
    let delay = [2, 8, 60][(seed % 3) as usize];
    bench.disk.plan(|plan| plan.delay_polls_max = delay);
    let value = |version: u32| format!("{version:02000}");
    bench.put("k", &value(0), &[]);
    bench.disk.fail(OperationKind::Sync, after, Fault::Io, false);
    let mut acknowledged = 0;
    while bench.cache.stats().l2_io_errors() == 0 {
        let (cache, put) = (bench.cache(), made(&value(acknowledged + 1), &[]));
        if bench.run(async move { cache.put("a", "k", put).await }).is_err() {
            break;
        }
        acknowledged += 1;
    }
    bench.simulation.kill();
    bench.disk = bench.disk.crash();
    bench.reopen();
    (acknowledged, bench.get("k").map(|value| value.parse().unwrap()))
}

/// The sync of the superblock may be the one that fails, while a frame is being synced.
#[test]
fn what_is_acknowledged_beside_a_sync_that_fails_is_not_stale_after_a_power_loss() {
    let cases = (0..12).flat_map(|seed| (0..160).map(move |after| (seed, after)));
    let mut stale = Vec::new();
    for (seed, after) in cases {
        let (acknowledged, found) = found_after_a_failed_sync(seed, after);
        if found.is_some_and(|found| found < acknowledged) {
            stale.push((seed, after, acknowledged, found));
        }
    }
    assert!(stale.is_empty(), "{} stale: {stale:?}", stale.len());
}

#[test]
fn a_sync_that_fails_for_a_caller_turns_the_tier_off_and_voids_the_store() {
    for crash_safety in [CrashSafety::Process, CrashSafety::Power] {
        let mut bench = Bench::with(1, builder().crash_safety(crash_safety).build().unwrap());
        bench.put("k", "old", &[]);
        bench.disk.fail(OperationKind::Sync, 0, Fault::Io, false);
        let cache = bench.cache();
        assert!(bench.run(cache.sync()).is_err());
        bench.pass(Duration::from_millis(500));
        assert!(matches!(cache.stats().l2_state(), L2State::Degraded { .. }), "{crash_safety:?}");
        let put = cache.put("a", "k", made("new", &[]));
        assert_eq!(bench.run(put), Ok(()), "the store is void");
        assert!(bench.run(cache.sync()).is_err());
        bench.pass(Duration::from_secs(5));
        assert_eq!(bench.run(cache.sync()), Ok(()), "the log has begun anew");
        bench.kill();
        assert_eq!(bench.get("k"), None, "{crash_safety:?}");
    }
}

/// With a smaller budget the segment is sealed for the room in the index that a put wants, and the
/// log ends where no record is.
#[test]
fn a_sync_returns_after_a_put_that_was_dropped_while_it_waited_for_room_in_the_index() {
    let large = builder().l2_bytes_max(16 << 20).l2_segment_bytes(1 << 20);
    let budgets = [1 << 20, 64 << 10].map(|budget| large.clone().l2_index_bytes_max(budget));
    let [before, after] = budgets.map(|builder| builder.build().unwrap());
    let mut bench = Bench::with(1, before);
    for number in 0..8000 {
        let (cache, put) = (bench.cache(), made("v", &[]));
        bench.run(async move { cache.put("a", format!("{number}"), put).await }).unwrap();
    }
    let cache = bench.cache();
    bench.run(cache.close()).unwrap();
    bench.config = after;
    bench.reopen();
    let cache = bench.cache();
    let put = cache.put("a", "another", made("v", &[])).now_or_never();
    assert!(put.is_none(), "it waits for room in the index");
    let synced = bench.simulation.block_on(cache.sync());
    assert_eq!(synced, Some(Ok(())), "the sync does not return");
    drop(cache);
    bench.kill();
    let cache = bench.cache();
    bench.run(cache.put("a", "another", made("v", &[]))).unwrap();
    assert_eq!(bench.get("another").as_deref(), Some("v"));
}

/// Puts until a sync of a superblock fails, the next one after `after`. Then the process is killed,
/// and the power fails after so many steps of the next open. Whether the store opens after that.
fn opens_after_a_cut_open(seed: u64, after: u64, steps: u64) -> bool {
    let mut bench = Bench::with(seed, builder().build().unwrap());
    bench.disk.fail(OperationKind::Sync, after, Fault::Io, false);
    let cache = bench.cache();
    let mut putting = Box::pin(async {
        for version in 0..200 {
            let put = made(&format!("{version:020000}"), &[]);
            let _ = cache.put("a", "k", put).await;
        }
    });
    bench.run(poll_fn(|context| {
        context.waker().wake_by_ref();
        let is_over = putting.as_mut().poll(context).is_ready();
        let has_failed = cache.stats().l2_io_errors() > 0;
        if is_over || has_failed { Poll::Ready(()) } else { Poll::Pending }
    }));
    drop(putting);
    bench.simulation.kill();
    bench.disk = bench.disk.kill();
    bench.simulation.limit_steps(steps);
    let cut_off = opening(&bench.simulation, &bench.disk, &bench.config);
    drop(bench.simulation.block_on(cut_off));
    bench.simulation.limit_steps(u64::MAX);
    bench.simulation.kill();
    bench.disk = bench.disk.crash();
    let booted = (1, Identity::of(0));
    let opened = opening_as(&bench.simulation, &bench.disk, &bench.config, booted);
    bench.simulation.block_on(opened).unwrap().is_ok()
}

/// A failed sync leaves what it covers in the kernel's memory, where an open reads it.
#[test]
fn one_superblock_is_good_after_a_failed_sync_a_kill_and_a_power_loss_during_the_next_open() {
    let cases = || {
        let of_seed = |seed| (0..6).map(move |after| (seed, after));
        let cut = |(seed, after)| (0..40).map(move |cut| (seed, after, 8 * cut + seed));
        (6..10).flat_map(of_seed).flat_map(cut)
    };
    let refused = |&(seed, after, steps): &_| !opens_after_a_cut_open(seed, after, steps);
    assert_eq!(cases().find(refused), None);
    let _planted = plant(Failpoint::SuperblockNotKept);
    let found = cases().position(|case| refused(&case));
    println!("SuperblockNotKept: found in case {found:?}");
    assert!(found.is_some(), "the planted bug is not found");
}

/// The sync fails of a frame that begins with an invalidation. The process is killed; the next one
/// invalidates the same, and finds nothing; then the power fails. Whether the entry is back.
fn is_back_after_a_failed_sync(seed: u64, after: u64) -> bool {
    let power = builder().crash_safety(CrashSafety::Power).build().unwrap();
    let mut bench = Bench::with(seed, power);
    bench.put("k", "value", &["t"]);
    bench.disk.fail(OperationKind::Sync, after, Fault::Io, false);
    let cache = bench.cache();
    let puts = (0..4).map(|number| {
        let put = made(&format!("{number:05000}"), &[]);
        cache.put("a", format!("{number}"), put)
    });
    let mut calls = Box::pin(join(cache.invalidate_tags("a", &["t"]), join_all(puts)));
    bench.run(poll_fn(|context| {
        context.waker().wake_by_ref();
        let is_over = calls.as_mut().poll(context).is_ready();
        let has_failed = cache.stats().l2_io_errors() > 0;
        if is_over || has_failed { Poll::Ready(()) } else { Poll::Pending }
    }));
    drop(calls);
    bench.kill();
    let cache = bench.cache();
    let is_acknowledged = bench.run(cache.invalidate_tags("a", &["t"])).is_ok();
    bench.simulation.kill();
    bench.disk = bench.disk.crash();
    let booted = (1, Identity::of(0));
    let opened = opening_as(&bench.simulation, &bench.disk, &bench.config, booted);
    let engine = bench.simulation.block_on(opened).unwrap().unwrap();
    let hit = bench.simulation.block_on(BlobCache { engine }.get("a", "k")).unwrap();
    is_acknowledged && hit.is_some()
}

#[test]
fn what_was_invalidated_again_after_a_failed_sync_and_a_kill_does_not_come_back() {
    let cases = || (0..60).flat_map(|seed| (0..4).map(move |after| (seed, after)));
    let is_back = |&(seed, after): &_| is_back_after_a_failed_sync(seed, after);
    assert_eq!(cases().find(is_back), None);
    let _planted = plant(Failpoint::LastFrameNotKept);
    let found = cases().position(|case| is_back(&case));
    println!("LastFrameNotKept: found in case {found:?}");
    assert!(found.is_some(), "the planted bug is not found");
}
