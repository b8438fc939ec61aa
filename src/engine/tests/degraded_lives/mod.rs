//! Caches that begin without their disk, on a simulated one.

mod model;
mod world;

use std::time::Duration;

use self::world::{Leaving, MODES, World, is_degraded, patient};
use crate::cache::BlobCache;
use crate::error::CacheError;
use crate::io::{Fault, OperationKind, TaskRunner};
use crate::modes::{CrashSafety, L1Admission};
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;

fn below(value: &'static str) -> BlobCachePut {
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    BlobCachePut::new(value).with_policy(policy)
}

fn stored(world: &mut World, cache: &BlobCache, key: &str) -> Option<Vec<u8>> {
    let hit = world.run(cache.get("a", key));
    hit.map(|hit| hit.value().to_vec())
}

/// It would be tried after a second, and later each time.
#[test]
fn a_tier_that_a_failing_device_turned_off_begins_at_once() {
    for mode in MODES {
        let mut world = World::new(1, mode);
        let cache = world.open();
        world.run(cache.put("a", "old", below("old"))).unwrap();
        world.run(cache.sync()).unwrap();
        world.disk.fail(OperationKind::Write, 0, Fault::Io, true);
        let _ = world.run(cache.put("a", "k", below("lost")));
        world.run(cache.sync()).unwrap_err();
        let runner = world.simulation.task_runner();
        world.run(runner.sleep(Duration::from_millis(1)));
        assert!(is_degraded(&cache));
        for _ in 0..3 {
            let begun = world.simulation.elapsed();
            let failed = world.reopen(&cache).unwrap_err();
            assert!(matches!(failed, CacheError::L2Io { .. }), "{failed:?}");
            assert!(world.simulation.elapsed() - begun < Duration::from_millis(500));
        }
        world.disk.heal();
        let begun = world.simulation.elapsed();
        world.reopen(&cache).unwrap();
        assert!(world.simulation.elapsed() - begun < Duration::from_millis(500), "{mode:?}");
        assert!(!is_degraded(&cache));
        assert_eq!(cache.stats().l2_restarts(), 1);
        world.run(cache.put("a", "k", below("new"))).unwrap();
        world.run(cache.sync()).unwrap();
        assert_eq!(stored(&mut world, &cache, "k").unwrap(), b"new");
        assert_eq!(stored(&mut world, &cache, "old"), None);
        world.reopen(&cache).unwrap();
        assert_eq!(cache.stats().l2_restarts(), 1, "nothing is done");
    }
}

#[test]
fn a_device_that_fails_while_the_tier_is_reopened_leaves_memory() {
    let mut taken_over = 0;
    for after in 0..40 {
        let kind = [OperationKind::Write, OperationKind::Sync, OperationKind::Read][after % 3];
        let mut world = World::new(after as u64, MODES[after % 2 + 1]);
        let before = world.open();
        world.run(before.put("a", "k", below("old"))).unwrap();
        world.run(before.close()).unwrap();
        world.simulation.kill();
        let cache = world.open_without();
        world.run(cache.put("a", "held", "in memory")).unwrap();
        world.run(cache.invalidate_key("a", "k")).unwrap();
        assert!(world.mark.is_left());
        world.disk.fail(kind, after as u64 / 3, Fault::Io, true);
        if let Err(failed) = world.reopen(&cache) {
            assert!(matches!(failed, CacheError::L2Io { .. }), "{failed:?}");
            assert!(is_degraded(&cache), "{after}");
        }
        taken_over += u32::from(!world.mark.is_left());
        assert_eq!(stored(&mut world, &cache, "held").unwrap(), b"in memory");
        assert_eq!(stored(&mut world, &cache, "k"), None);
        world.disk.heal();
        if after % 4 != 0 {
            world.reopen(&cache).unwrap();
            world.run(cache.put("a", "new", below("new"))).unwrap();
            world.run(cache.sync()).unwrap();
        }
        world.kill();
        let later = world.open();
        assert_eq!(stored(&mut world, &later, "k"), None, "STALE, {after}");
        assert_eq!(stored(&mut world, &later, "new").is_some(), after % 4 != 0, "{after}");
    }
    assert!((5..40).contains(&taken_over), "{taken_over}");
}

/// What was on its way when the tier came back has no record, and is numbered all the same.
#[test]
fn mutations_while_it_is_missing_do_not_delay_it() {
    for mutations in [0, 1, 5, 1000, 100_000] {
        let mut world = World::new(1, CrashSafety::Process);
        let before = world.open();
        world.run(before.put("a", "held", below("old"))).unwrap();
        world.run(before.close()).unwrap();
        world.simulation.kill();
        let cache = world.open_without();
        for _ in 0..mutations {
            world.run(cache.put("a", "held", "newer")).unwrap();
        }
        world.reopen(&cache).unwrap();
        world.run(cache.put("a", "held", "newest")).unwrap();
        world.run(cache.sync()).unwrap();
        world.kill();
        let later = world.open();
        assert_eq!(stored(&mut world, &later, "held").unwrap(), b"newest", "{mutations}");
    }
}

/// Another process has the store in between, and its records lie where those of this one will.
#[test]
fn a_store_that_is_taken_over_twice_has_nothing_of_the_time_between() {
    for seed in 0..100 {
        let mut world = World::new(seed, CrashSafety::Process);
        let cache = world.open_without();
        world.run(cache.put("a", "k", "here")).unwrap();
        // Given up at some time, often after the store is void.
        let setup = world.setup();
        let polls = u32::try_from(seed).unwrap();
        drop(world.run(patient(cache.engine.reopen_on(setup), polls)));
        let runner = world.simulation.task_runner();
        world.run(runner.sleep(Duration::from_millis(100)));
        if !is_degraded(&cache) || cache.engine.parts.disk.has_file() {
            continue;
        }
        let other = world.open();
        for number in 0..50 {
            let key = format!("other {number}");
            world.run(other.put("a", &key, below("other"))).unwrap();
        }
        world.run(other.close()).unwrap();
        drop(other);
        world.reopen(&cache).unwrap();
        world.run(cache.put("a", "k", below("there"))).unwrap();
        world.run(cache.sync()).unwrap();
        for _ in 0..3 {
            world.kill();
            let later = world.open();
            assert_eq!(stored(&mut world, &later, "k").unwrap(), b"there", "{seed}");
            for number in 0..50 {
                let key = format!("other {number}");
                assert_eq!(stored(&mut world, &later, &key), None, "{seed}");
            }
            assert_eq!(later.stats().recovery_dropped(), 0, "{seed}");
        }
    }
}

/// The store that was voided and given back is marked again before a mutation returns.
#[test]
fn a_store_that_was_given_back_and_filled_by_another_is_covered() {
    let mut given_back = 0;
    for seed in 0..150 {
        let mut world = World::new(seed, CrashSafety::Process);
        let cache = world.open_without();
        world.run(cache.put("a", "k", "here")).unwrap();
        let setup = world.setup();
        let polls = u32::try_from(seed).unwrap();
        drop(world.run(patient(cache.engine.reopen_on(setup), polls)));
        let runner = world.simulation.task_runner();
        world.run(runner.sleep(Duration::from_millis(100)));
        if !is_degraded(&cache) || cache.engine.parts.disk.has_file() {
            continue;
        }
        given_back += 1;
        assert!(world.mark.is_left(), "a store that is not used keeps its mark, {seed}");
        let other = world.open();
        world.run(other.put("a", "k", below("other"))).unwrap();
        world.run(other.close()).unwrap();
        drop(other);
        world.mark.set(Leaving::Works);
        let covered = world.run(cache.invalidate_key("a", "k"));
        world.kill();
        let later = world.open();
        let found = stored(&mut world, &later, "k");
        assert!(covered.is_ok() && found.is_none(), "STALE, {seed}: {found:?}");
    }
    assert!(given_back > 0);
}
