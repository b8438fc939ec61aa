//! Typed fetches in tasks: each caller is given its own value, decoded or as it was fetched.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::executor::block_on;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCachePolicy, Clock, FetchError, FetchPolicy, FetchTask,
    TypedHit, TypedNamespace,
};

use crate::codecs::{Manner, Numbers};
use crate::{clock, open, seconds};

type Found = Result<TypedHit<u64>, FetchError<&'static str>>;

/// An executor that runs when the test says so.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<Vec<FetchTask>>>);

impl Tasks {
    /// Polls each of the tasks to its end.
    fn run(&self) {
        let tasks = std::mem::take(&mut *self.0.lock().unwrap());
        tasks.into_iter().for_each(block_on);
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

fn numbers(policy: FetchPolicy, codec: Numbers) -> (TypedNamespace<u64, Numbers>, Tasks, Clock) {
    let (tasks, clock) = (Tasks::default(), clock());
    let tasks_of_cache = tasks.clone();
    let config = BlobCacheConfig::builder()
        .clock(clock.clone())
        .spawner(move |task: FetchTask| tasks_of_cache.0.lock().unwrap().push(task))
        .fetch_policy(policy);
    let cache = block_on(BlobCache::open(config.build().unwrap())).unwrap();
    let life = BlobCachePolicy::default().ttl(seconds(10)).stale_serve(seconds(100));
    (cache.namespace("n").with_policy(life).typed(codec), tasks, clock)
}

/// Polls a call to its end, and tasks when it waits.
fn run(call: impl Future<Output = Found>, tasks: &Tasks) -> Found {
    let mut call = std::pin::pin!(call);
    loop {
        if let Poll::Ready(found) = call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return found;
        }
        assert!(tasks.len() > 0, "it waits for a task");
        tasks.run();
    }
}

fn fetch(number: u64) -> impl FnOnce() -> std::future::Ready<Result<u64, &'static str>> + Send {
    move || std::future::ready(Ok(number))
}

#[test]
fn a_value_that_a_task_has_fetched_is_the_callers() {
    let (numbers, tasks, _) = numbers(FetchPolicy::default(), Numbers::default());
    let found = run(numbers.get_or_fetch_spawned("k", fetch(7)), &tasks).unwrap();
    assert_eq!(found.value(), Some(&7));
    let again = block_on(numbers.get_or_fetch_spawned("k", fetch(8))).unwrap();
    assert_eq!(again.value(), Some(&7));
    // A fetch that finds no row.
    let none = || std::future::ready(Ok::<Option<u64>, &'static str>(None));
    assert!(run(numbers.get_or_fetch_spawned("none", none), &tasks).unwrap().is_absent());
    // A fetch whose caller goes away encodes and stores all the same.
    let mut gone = Box::pin(numbers.get_or_fetch_spawned("gone", fetch(9)));
    assert!(gone.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(gone);
    tasks.run();
    assert_eq!(block_on(numbers.get("gone")).unwrap().value(), Some(&9));
}

#[test]
fn a_stale_value_is_answered_and_refreshed_in_a_task() {
    let (numbers, tasks, clock) = numbers(FetchPolicy::default(), Numbers::default());
    block_on(numbers.put("k", 1)).unwrap();
    clock.advance(seconds(20));
    for _ in 0..3 {
        let stale = block_on(numbers.get_or_refresh_spawned("k", fetch(2))).unwrap();
        assert!(stale.is_stale() && stale.value() == Some(&1));
    }
    assert_eq!(tasks.len(), 1);
    tasks.run();
    let fresh = block_on(numbers.get_or_refresh_spawned("k", fetch(3))).unwrap();
    assert!(!fresh.is_stale() && fresh.value() == Some(&2));
    let missing = run(numbers.get_or_refresh_spawned("missing", fetch(4)), &tasks).unwrap();
    assert_eq!(missing.value(), Some(&4));
}

#[test]
fn refreshes_ahead_and_soft_timeouts_know_types() {
    let policy = FetchPolicy::default().refresh_ahead(0.5);
    let (numbers_of_policy, tasks, clock) = numbers(policy, Numbers::default());
    block_on(numbers_of_policy.put("k", 1)).unwrap();
    clock.advance(seconds(6));
    let found = block_on(numbers_of_policy.get_or_fetch_spawned("k", fetch(2))).unwrap();
    assert!(!found.is_stale() && found.value() == Some(&1) && tasks.len() == 1);
    tasks.run();
    let found = block_on(numbers_of_policy.get_or_fetch_spawned("k", fetch(3))).unwrap();
    assert_eq!((found.value(), tasks.len()), (Some(&2), 0));

    let policy = FetchPolicy::default().soft_timeout(Duration::from_millis(20));
    let (numbers_of_policy, tasks, clock) = numbers(policy, Numbers::default());
    block_on(numbers_of_policy.put("k", 1)).unwrap();
    clock.advance(seconds(20));
    // The task is not polled meanwhile.
    let stale = block_on(numbers_of_policy.get_or_fetch_spawned("k", fetch(2))).unwrap();
    assert!(stale.is_stale() && stale.value() == Some(&1));
    tasks.run();
    assert_eq!(block_on(numbers_of_policy.get("k")).unwrap().value(), Some(&2));
}

#[test]
fn a_value_that_cannot_be_encoded_is_given_and_not_stored() {
    let (numbers, tasks, _) = numbers(FetchPolicy::default(), Numbers::encoding(Manner::Fails));
    let found = run(numbers.get_or_fetch_spawned("k", fetch(7)), &tasks).unwrap();
    assert_eq!(found.value(), Some(&7));
    assert!(block_on(numbers.get("k")).is_none());
}

#[test]
fn without_a_spawner_both_say_so() {
    let cache = open(&clock());
    let numbers = cache.namespace("n").typed::<u64, _>(Numbers::default());
    block_on(numbers.put("k", 1)).unwrap();
    let found = block_on(numbers.get_or_fetch_spawned("k", fetch(2)));
    assert!(matches!(found, Err(FetchError::NoSpawner)));
    let found = block_on(numbers.get_or_refresh_spawned("k", fetch(2)));
    assert!(matches!(found, Err(FetchError::NoSpawner)));
}

/// Of bytes as well: these tests are those that are built with this feature.
#[cfg(feature = "tokio")]
#[test]
fn a_handle_of_tokio_is_a_spawner() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let config = BlobCacheConfig::builder().spawner(runtime.handle().clone()).build().unwrap();
    let cache = block_on(BlobCache::open(config)).unwrap();
    let fetch = || async {
        // It needs the runtime.
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok::<_, std::io::Error>("new".into())
    };
    assert_eq!(block_on(cache.get_or_fetch_spawned("n", "key", fetch)).unwrap().value(), b"new");
    // After the end of the runtime, callers run their fetches.
    drop(runtime);
    let fetch = || async { Ok::<_, std::io::Error>("new".into()) };
    assert_eq!(block_on(cache.get_or_fetch_spawned("n", "other", fetch)).unwrap().value(), b"new");
    assert_eq!(cache.stats().fetches_not_spawned(), 1);
}
