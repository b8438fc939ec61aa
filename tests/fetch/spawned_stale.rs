//! Stale entries and entries near their end, with fetches in tasks: soft timeouts, refreshes in a
//! task and ahead of time, and what needs a spawner.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::executor::block_on;
use tamis::{BlobCacheConfig, BlobCachePut, FetchError, FetchPolicy, FetchTask, L1Admission};

use crate::spawned::{Tasks, builder, leading, new, opened, patient, spawned, stale};
use crate::{Answer, Call, briefly, call, clock, counted, never, told, value};

#[test]
fn a_refresh_whose_task_is_dropped_is_left_to_the_next_caller() {
    let (cache, tasks, _) = stale(FetchPolicy::default());
    for spawned in 1..4 {
        let hit = block_on(cache.get_or_refresh_spawned("n", "key", never)).unwrap();
        assert!(hit.is_stale());
        assert_eq!((tasks.len(), cache.stats().fetches_spawned()), (1, spawned));
        tasks.shut_down();
    }
    assert_eq!((cache.stats().flights_under_way(), cache.stats().fetch_tasks()), (0, 0));
}

#[test]
fn beyond_the_bound_a_refresh_is_left_to_a_later_caller() {
    let (tasks, clock) = (Tasks::default(), clock());
    let cache = opened(builder(&tasks, &clock).spawned_fetches_max(1));
    let (_leader, _tell) = leading(&cache, &tasks);
    block_on(cache.put("n", "other", BlobCachePut::new("old").with_policy(briefly()))).unwrap();
    clock.advance(Duration::from_secs(10));
    let hit = block_on(cache.get_or_refresh_spawned("n", "other", never)).unwrap();
    assert!(hit.is_stale(), "answered at once all the same");
    assert_eq!((tasks.len(), cache.stats().fetches_not_spawned()), (1, 1));
    tasks.shut_down();
    let fetch = || async { Answer::Ok(new()) };
    assert!(block_on(cache.get_or_refresh_spawned("n", "other", fetch)).unwrap().is_stale());
    tasks.run();
    assert_eq!(block_on(cache.get("n", "other")).unwrap().value(), b"new");
}

#[test]
fn after_a_soft_timeout_the_stale_entry_answers_and_the_fetch_goes_on() {
    let (cache, tasks, _) = stale(FetchPolicy::default().soft_timeout(Duration::from_millis(20)));
    let (mut leader, tell) = leading(&cache, &tasks);
    tasks.run();
    let mut joiner = spawned(&cache, never);
    assert!(joiner.run().is_none());
    for caller in [&mut leader, &mut joiner] {
        let hit = patient(caller).unwrap();
        assert!(hit.is_stale() && hit.value() == b"old");
    }
    let stats = cache.stats();
    assert_eq!((stats.soft_timeouts(), stats.l1_stale_serves_total()), (2, 2));
    drop((leader, joiner));
    tell.send(Ok(new())).unwrap();
    tasks.run();
    assert_eq!(value(&spawned(&cache, never).run().unwrap()), b"new");
    assert_eq!((cache.stats().fetches(), cache.stats().fetch_tasks()), (1, 0));
}

#[test]
fn a_soft_timeout_never_answers_what_was_removed_or_has_expired() {
    let soon = FetchPolicy::default().soft_timeout(Duration::from_millis(20));
    for is_removed in [true, false] {
        let (cache, tasks, clock) = stale(soon);
        let (mut leader, tell) = leading(&cache, &tasks);
        tasks.run();
        if is_removed {
            assert_eq!(block_on(cache.invalidate_key("n", "key")), Ok(1));
        } else {
            clock.advance(Duration::from_secs(5));
        }
        std::thread::sleep(Duration::from_millis(60));
        assert!(leader.run().is_none(), "there is nothing to answer");
        tell.send(Ok(new())).unwrap();
        tasks.run();
        assert_eq!(value(&leader.run().unwrap()), b"new");
        assert_eq!(cache.stats().soft_timeouts(), 0);
    }
    // Without an entry, and in a fetch that no task runs, a call waits.
    let tasks = Tasks::default();
    let cache = opened(builder(&tasks, &clock()).fetch_policy(soon));
    let (mut leader, _tell) = leading(&cache, &tasks);
    std::thread::sleep(Duration::from_millis(60));
    tasks.run();
    assert!(leader.run().is_none());
}

#[test]
fn a_caller_that_is_polled_late_gets_the_error_once_the_window_of_the_entry_is_over() {
    for (in_task, is_late) in [(true, true), (true, false), (false, true), (false, false)] {
        let (cache, tasks, clock) = stale(FetchPolicy::default());
        let (mut leader, tell) =
            if in_task { leading(&cache, &tasks) } else { crate::leading(&cache) };
        // More than one poll can wake.
        let _joiners: Vec<_> = (0..2000).map(|_| crate::joined(&cache)).collect();
        tasks.run();
        tell.send(Err("down")).unwrap();
        if in_task {
            while tasks.len() > 0 {
                tasks.run();
            }
        } else {
            assert!(leader.poll().is_none(), "it wakes the others");
        }
        if is_late {
            clock.advance(Duration::from_secs(5));
        }
        match leader.run().unwrap() {
            Ok(hit) => assert!(hit.is_stale() && !is_late, "the window is over"),
            Err(error) => assert!(matches!(error, FetchError::Fetch(_)) && is_late),
        }
        assert_eq!(cache.stats().l1_stale_serves_total(), u64::from(!is_late));
    }
}

#[test]
fn fetches_that_no_task_ends_count_as_not_spawned() {
    let clock = clock();
    let policy = FetchPolicy::default().refresh_ahead(0.5);
    let dropping = BlobCacheConfig::builder().clock(clock.clone()).spawner(drop::<FetchTask>);
    let cache = opened(dropping.fetch_policy(policy));
    block_on(cache.put("n", "key", BlobCachePut::new("old").with_policy(briefly()))).unwrap();
    clock.advance(Duration::from_secs(6));
    for _ in 0..10 {
        assert_eq!(value(&spawned(&cache, never).run().unwrap()), b"old");
    }
    let fetch = cache.stats().fetch();
    assert_eq!((fetch.refreshes_ahead(), fetch.begun()), (0, 0));
    assert!(fetch.spawned() > 0 && fetch.not_spawned() == fetch.spawned());
    // Nor does it matter whether a caller waits.
    let (cache, tasks, _) = stale(FetchPolicy::default());
    let (leader, _tell) = leading(&cache, &tasks);
    drop(leader);
    tasks.shut_down();
    let fetch = cache.stats().fetch();
    assert_eq!((fetch.spawned(), fetch.not_spawned(), fetch.begun()), (1, 1, 0));
}

#[test]
fn fresh_hits_are_not_held_off() {
    let (tasks, clock) = (Tasks::default(), clock());
    let policy = FetchPolicy::default().refresh_ahead(0.5).retry_after(Duration::from_secs(60));
    let cache = opened(builder(&tasks, &clock).fetch_policy(policy));
    block_on(cache.put("n", "key", BlobCachePut::new("old").with_policy(briefly()))).unwrap();
    clock.advance(Duration::from_secs(6));
    assert!(spawned(&cache, || async { Err("down") }).run().unwrap().is_ok());
    tasks.run();
    clock.advance(Duration::from_secs(2));
    for _ in 0..10 {
        assert_eq!(value(&spawned(&cache, never).run().unwrap()), b"old");
    }
    let fetch = cache.stats().fetch();
    assert_eq!((fetch.errors(), fetch.held_off(), fetch.spawned()), (1, 0, 1));
    assert_eq!(fetch.refreshes_ahead(), 1);
}

#[test]
fn in_the_last_share_of_its_time_one_call_refreshes_an_entry() {
    let (tasks, clock) = (Tasks::default(), clock());
    let policy = FetchPolicy::default().refresh_ahead(0.2);
    let cache = opened(builder(&tasks, &clock).fetch_policy(policy));
    block_on(cache.put("n", "key", BlobCachePut::new("old").with_policy(briefly()))).unwrap();
    clock.advance(Duration::from_millis(7999));
    assert_eq!(value(&spawned(&cache, never).run().unwrap()), b"old");
    assert_eq!(tasks.len(), 0, "not yet");
    clock.advance(Duration::from_millis(1));
    let calls = Arc::new(AtomicUsize::new(0));
    for _ in 0..100 {
        let mut caller = spawned(&cache, counted(&calls, Ok(new())));
        let hit = caller.run().unwrap().unwrap();
        assert!(!hit.is_stale() && hit.value() == b"old");
    }
    assert_eq!((tasks.len(), calls.load(Ordering::Relaxed)), (1, 0));
    // The other method does so as well, and plain ones do not.
    assert!(block_on(cache.get_or_refresh_spawned("n", "key", never)).is_ok());
    assert_eq!(value(&call(&cache, never).run().unwrap()), b"old");
    tasks.run();
    assert_eq!((tasks.len(), calls.load(Ordering::Relaxed)), (0, 1));
    let hit = spawned(&cache, never).run().unwrap().unwrap();
    assert_eq!((hit.value(), tasks.len()), (b"new".as_slice(), 0));
    let stats = cache.stats();
    assert_eq!((stats.refreshes_ahead(), stats.fetches_spawned(), stats.misses()), (1, 1, 0));
}

#[test]
#[cfg_attr(not(all(feature = "disk", target_os = "linux")), ignore = "needs a disk tier")]
fn an_entry_on_disk_is_refreshed_ahead_too() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (tasks, clock) = (Tasks::default(), clock());
    let policy = FetchPolicy::default().refresh_ahead(0.5);
    let builder = builder(&tasks, &clock).fetch_policy(policy);
    let cache = opened(builder.l2_path(folder.path()).l2_bytes_max(8 << 20));
    let below =
        |value| BlobCachePut::new(value).with_policy(briefly().l1_admission(L1Admission::Never));
    block_on(cache.put("n", "key", below("old"))).unwrap();
    for value in ["newer", "newest"] {
        clock.advance(Duration::from_secs(6));
        let fetch = move || async move { Answer::Ok(below(value)) };
        let found = if value == "newer" {
            block_on(cache.get_or_fetch_spawned("n", "key", fetch))
        } else {
            block_on(cache.get_or_refresh_spawned("n", "key", fetch))
        };
        assert!(!found.unwrap().is_stale());
        assert_eq!(tasks.len(), 1);
        while tasks.len() > 0 {
            tasks.run();
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(block_on(cache.get("n", "key")).unwrap().value(), value.as_bytes());
    }
    assert_eq!(cache.stats().refreshes_ahead(), 2);
    block_on(cache.close()).unwrap();
}

#[test]
fn a_refresh_ahead_renews_an_entry_of_the_same_version() {
    let (tasks, clock) = (Tasks::default(), clock());
    let policy = FetchPolicy::default().refresh_ahead(0.5);
    let cache = opened(builder(&tasks, &clock).fetch_policy(policy));
    let version = |value| BlobCachePut::new(value).with_policy(briefly().version(7));
    block_on(cache.put("n", "key", version("old"))).unwrap();
    for _ in 0..5 {
        clock.advance(Duration::from_secs(6));
        let mut caller = spawned(&cache, move || async move { Answer::Ok(version("same")) });
        assert!(!caller.run().unwrap().unwrap().is_stale());
        tasks.run();
    }
    let stats = cache.stats();
    assert_eq!((stats.refreshes_ahead(), stats.fetches_not_stored()), (5, 0));
}

#[test]
fn a_refresh_ahead_that_fails_leaves_the_entry_and_rests() {
    let (tasks, clock) = (Tasks::default(), clock());
    let policy = FetchPolicy::default().refresh_ahead(0.5);
    let cache = opened(builder(&tasks, &clock).fetch_policy(policy));
    block_on(cache.put("n", "key", BlobCachePut::new("old").with_policy(briefly()))).unwrap();
    clock.advance(Duration::from_secs(6));
    let failing = || spawned(&cache, || async { Err("down") }).run().unwrap().unwrap();
    assert_eq!(failing().value(), b"old");
    tasks.run();
    assert_eq!((tasks.len(), cache.stats().fetch_errors()), (0, 1));
    assert_eq!((failing().value(), tasks.len()), (b"old".as_slice(), 0), "it rests");
    clock.advance(Duration::from_secs(1));
    assert_eq!((failing().value(), tasks.len()), (b"old".as_slice(), 1));
}

#[test]
fn a_stale_entry_is_answered_at_once_and_refreshed_in_a_task() {
    let (cache, tasks, _) = stale(FetchPolicy::default());
    let calls = Arc::new(AtomicUsize::new(0));
    for _ in 0..100 {
        let fetch = counted(&calls, Ok(new()));
        let hit = block_on(cache.get_or_refresh_spawned("n", "key", fetch)).unwrap();
        assert!(hit.is_stale() && hit.value() == b"old");
    }
    assert_eq!((tasks.len(), calls.load(Ordering::Relaxed)), (1, 0));
    tasks.run();
    assert_eq!((tasks.len(), calls.load(Ordering::Relaxed)), (0, 1));
    let hit = block_on(cache.namespace("n").get_or_refresh_spawned("key", never)).unwrap();
    assert!(!hit.is_stale() && hit.value() == b"new");
    // A missing one is fetched.
    let cache_of_call = cache.clone();
    let fetch = counted(&calls, Ok(new()));
    let mut missing = Call::new(async move {
        cache_of_call.namespace("n").get_or_refresh_spawned("other", fetch).await
    });
    assert!(missing.run().is_none());
    tasks.run();
    assert_eq!(value(&missing.run().unwrap()), b"new");
}

#[test]
fn what_was_fetched_before_an_invalidation_is_neither_stored_nor_given_to_later_calls() {
    for is_ahead in [true, false] {
        let (tasks, clock) = (Tasks::default(), clock());
        let policy = FetchPolicy::default().refresh_ahead(0.5);
        let cache = opened(builder(&tasks, &clock).fetch_policy(policy));
        block_on(cache.put("n", "key", BlobCachePut::new("old").with_policy(briefly()))).unwrap();
        clock.advance(Duration::from_secs(if is_ahead { 6 } else { 11 }));
        let (tell, fetch) = told();
        let hit = block_on(cache.get_or_refresh_spawned("n", "key", fetch)).unwrap();
        assert_eq!(hit.is_stale(), !is_ahead);
        // The origin is asked, and then changes.
        tasks.run();
        assert_eq!(block_on(cache.invalidate_key("n", "key")), Ok(1));
        let mut later = spawned(&cache, || async { Answer::Ok(BlobCachePut::new("newest")) });
        assert!(later.run().is_none());
        tell.send(Ok(new())).unwrap();
        tasks.run();
        assert!(block_on(cache.get("n", "key")).is_none(), "it is not stored");
        assert!(later.run().is_none(), "nor shared: a fetch of its own is in a task");
        tasks.run();
        assert_eq!(value(&later.run().unwrap()), b"newest");
        assert_eq!(cache.stats().stale_sets_refused(), 1);
    }
}

#[test]
fn what_needs_a_spawner_says_so() {
    let cache = opened(BlobCacheConfig::builder());
    block_on(cache.put("n", "key", "value")).unwrap();
    let mut refused = spawned(&cache, never);
    let error = refused.run().unwrap().unwrap_err();
    assert!(matches!(error, FetchError::NoSpawner) && error.inner().is_none());
    assert!(error.to_string().contains("BlobCacheConfigBuilder::spawner"), "{error}");
    let refused = block_on(cache.get_or_refresh_spawned("n", "key", never));
    assert!(matches!(refused, Err(FetchError::NoSpawner)));
    let soft = FetchPolicy::default().soft_timeout(Duration::from_millis(1));
    for policy in [soft, FetchPolicy::default().refresh_ahead(0.1)] {
        let with = |policy| cache.namespace("n").with_fetch_policy(policy).map(drop);
        let builder = BlobCacheConfig::builder;
        let refused = [
            builder().fetch_policy(policy).build().map(drop),
            builder().namespace("n", |it| it.fetch_policy(policy)).build().map(drop),
            with(policy),
        ];
        for refused in refused {
            let reason = refused.unwrap_err().to_string();
            assert!(reason.contains("needs a spawner"), "{reason}");
        }
    }
}

#[test]
fn policies_that_contradict_themselves_are_refused() {
    let tasks = Tasks::default();
    let second = Duration::from_secs(1);
    let usual = FetchPolicy::default();
    let bad = [
        (usual.soft_timeout(Duration::ZERO), "soft_timeout is zero"),
        (usual.soft_timeout(second).hard_timeout(second), "not below hard_timeout"),
        (usual.refresh_ahead(0.0), "above 0 and below 1"),
        (usual.refresh_ahead(1.0), "above 0 and below 1"),
        (usual.refresh_ahead(-0.5), "above 0 and below 1"),
        (usual.refresh_ahead(f64::NAN), "above 0 and below 1"),
        (usual.refresh_ahead(f64::INFINITY), "above 0 and below 1"),
    ];
    for (policy, reason) in bad {
        let error = builder(&tasks, &clock()).fetch_policy(policy).build().unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
    let good = usual.soft_timeout(second).hard_timeout(2 * second).refresh_ahead(0.999);
    assert!(builder(&tasks, &clock()).fetch_policy(good).build().is_ok());
    for most in [0, 65_537] {
        assert!(builder(&tasks, &clock()).spawned_fetches_max(most).build().is_err());
    }
}
