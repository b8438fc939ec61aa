//! `get_or_fetch_spawned`, with tasks that the test polls by hand, drops, or leaves alone.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use futures::executor::block_on;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCacheConfigBuilder, BlobCachePut, Clock, FetchError,
    FetchPolicy, FetchTask,
};

use crate::{Answer, Call, Outcome, Woken, briefly, call, clock, counted, never, told, value};

type Given = (FetchTask, Arc<Woken>);

/// An executor that runs when the test says so.
#[derive(Clone, Default)]
pub(crate) struct Tasks(Arc<Mutex<VecDeque<Given>>>);

impl Tasks {
    pub(crate) fn spawner(&self) -> impl Fn(FetchTask) + Send + Sync + 'static + use<> {
        let tasks = self.clone();
        move |task| tasks.0.lock().unwrap().push_back((task, Arc::default()))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Polls each task once, as new ones and woken ones are owed.
    pub(crate) fn run(&self) {
        for _ in 0..self.len() {
            let Some((mut task, woken)) = self.0.lock().unwrap().pop_front() else { return };
            let waker = Waker::from(Arc::clone(&woken));
            if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                self.0.lock().unwrap().push_back((task, woken));
            }
        }
    }

    /// As the end of a runtime does.
    pub(crate) fn shut_down(&self) {
        let tasks = std::mem::take(&mut *self.0.lock().unwrap());
        drop(tasks);
    }
}

pub(crate) fn builder(tasks: &Tasks, clock: &Clock) -> BlobCacheConfigBuilder {
    BlobCacheConfig::builder().clock(clock.clone()).spawner(tasks.spawner())
}

pub(crate) fn opened(builder: BlobCacheConfigBuilder) -> BlobCache {
    block_on(BlobCache::open(builder.build().unwrap())).unwrap()
}

fn open() -> (BlobCache, Tasks) {
    let tasks = Tasks::default();
    (opened(builder(&tasks, &clock())), tasks)
}

/// A cache with a stale entry.
pub(crate) fn stale(policy: FetchPolicy) -> (BlobCache, Tasks, Clock) {
    let (tasks, clock) = (Tasks::default(), clock());
    let cache = opened(builder(&tasks, &clock).fetch_policy(policy));
    block_on(cache.put("n", "key", BlobCachePut::new("old").with_policy(briefly()))).unwrap();
    clock.advance(Duration::from_secs(10));
    (cache, tasks, clock)
}

pub(crate) fn new() -> BlobCachePut {
    BlobCachePut::new("new").with_policy(briefly())
}

/// A call of `get_or_fetch_spawned` for one key.
pub(crate) fn spawned<F, Fut>(cache: &BlobCache, fetch: F) -> Call<Outcome>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let cache = cache.clone();
    Call::new(async move { cache.get_or_fetch_spawned("n", "key", fetch).await })
}

/// A call whose fetch is in a task, and the sender of its answer.
pub(crate) fn leading(
    cache: &BlobCache,
    tasks: &Tasks,
) -> (Call<Outcome>, oneshot::Sender<Answer>) {
    let (tell, fetch) = told();
    let mut leader = spawned(cache, fetch);
    assert!(leader.run().is_none());
    assert_eq!(tasks.len(), 1);
    (leader, tell)
}

/// Runs a call as an executor would, for as long as it takes.
pub(crate) fn patient<T>(call: &mut Call<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(output) = call.run() {
            return output;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "the call hangs");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_fetch_runs_in_the_task_from_its_beginning() {
    let (cache, tasks) = open();
    let calls = Arc::new(AtomicUsize::new(0));
    let mut caller = spawned(&cache, counted(&calls, Ok(new())));
    assert!(caller.run().is_none());
    assert_eq!((tasks.len(), calls.load(Ordering::Relaxed)), (1, 0), "not called by the caller");
    assert_eq!(cache.stats().fetch_tasks(), 1);
    tasks.run();
    assert_eq!((tasks.len(), calls.load(Ordering::Relaxed)), (0, 1));
    assert!(caller.is_woken());
    assert_eq!(value(&caller.run().unwrap()), b"new");
    // A fresh entry needs no task.
    assert_eq!(value(&spawned(&cache, never).run().unwrap()), b"new");
    let stats = cache.stats();
    let fetch = stats.fetch();
    assert_eq!((fetch.begun(), fetch.spawned(), fetch.not_spawned(), fetch.tasks()), (1, 1, 0, 0));
    assert_eq!((stats.hits(), stats.misses(), fetch.under_way()), (1, 1, 0));
}

#[test]
fn a_crowd_spawns_one_task_and_shares_its_value() {
    let (cache, tasks) = open();
    let (mut leader, tell) = leading(&cache, &tasks);
    let mut crowd: Vec<_> = (0..100).map(|_| spawned(&cache, never)).collect();
    assert!(crowd.iter_mut().all(|caller| caller.run().is_none()));
    let mut other_verb = call(&cache, never);
    assert!(other_verb.run().is_none());
    assert_eq!(tasks.len(), 1, "those who join run nothing");
    tasks.run();
    tell.send(Ok(new())).unwrap();
    tasks.run();
    assert_eq!(tasks.len(), 0);
    assert!(crowd.iter_mut().all(|caller| value(&caller.run().unwrap()) == b"new"));
    assert_eq!(value(&other_verb.run().unwrap()), b"new");
    assert_eq!(value(&leader.run().unwrap()), b"new");
}

#[test]
fn a_caller_that_goes_away_or_sleeps_stops_nothing() {
    for goes_away in [true, false] {
        let (cache, tasks) = open();
        let (leader, tell) = leading(&cache, &tasks);
        let mut joiner = spawned(&cache, never);
        assert!(joiner.run().is_none());
        let kept = (!goes_away).then_some(leader);
        tasks.run();
        tell.send(Ok(new())).unwrap();
        tasks.run();
        assert_eq!(value(&joiner.run().unwrap()), b"new");
        assert_eq!(block_on(cache.get("n", "key")).unwrap().value(), b"new", "stored");
        assert_eq!(cache.stats().fetches(), 1);
        // Polled at last, the sleeper has its value.
        assert!(kept.is_none_or(|mut leader| value(&leader.run().unwrap()) == b"new"));
    }
}

#[test]
fn a_fetch_goes_on_when_all_callers_have_gone() {
    for executor_is_slow in [false, true] {
        let (cache, tasks) = open();
        let (leader, tell) = leading(&cache, &tasks);
        drop(leader);
        if executor_is_slow {
            std::thread::sleep(Duration::from_millis(300));
        }
        tasks.run();
        tell.send(Ok(new())).unwrap();
        tasks.run();
        assert_eq!(block_on(cache.get("n", "key")).unwrap().value(), b"new");
        let stats = cache.stats();
        assert_eq!((stats.fetches(), stats.fetch_tasks(), stats.flights_under_way()), (1, 0, 0));
    }
}

#[test]
fn a_spawner_that_drops_the_task_or_panics_leaves_the_fetch_to_its_caller() {
    let drops = |task: FetchTask| drop(task);
    let panics = |_: FetchTask| panic!("no tasks today");
    for builder in
        [BlobCacheConfig::builder().spawner(drops), BlobCacheConfig::builder().spawner(panics)]
    {
        let cache = opened(builder);
        let calls = Arc::new(AtomicUsize::new(0));
        let mut caller = spawned(&cache, counted(&calls, Ok(new())));
        assert_eq!(value(&caller.run().unwrap()), b"new", "at once");
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        let fetch = cache.stats().fetch();
        assert_eq!((fetch.spawned(), fetch.not_spawned(), fetch.tasks()), (1, 1, 0));
    }
}

#[test]
fn a_spawner_that_runs_the_task_at_once_is_one_too() {
    let cache = opened(BlobCacheConfig::builder().spawner(|task: FetchTask| block_on(task)));
    let mut caller = spawned(&cache, || async { Answer::Ok(new()) });
    assert_eq!(value(&caller.run().unwrap()), b"new");
    assert_eq!(cache.stats().fetches_not_spawned(), 0);
}

#[test]
fn a_task_that_is_never_polled_holds_up_nobody() {
    let (cache, tasks) = open();
    let calls = Arc::new(AtomicUsize::new(0));
    let mut caller = spawned(&cache, counted(&calls, Ok(new())));
    assert!(caller.run().is_none());
    // Not its own caller, nor one of the other method, nor one that finds the leader gone to sleep.
    let mut other = call(&cache, || async { Answer::Ok(BlobCachePut::new("other")) });
    assert!(other.run().is_none(), "it has joined");
    for caller in [&mut other, &mut caller] {
        assert!([b"new".as_slice(), b"other"].contains(&value(&patient(caller))));
    }
    assert_eq!(cache.stats().fetches_not_spawned(), 1);
    // It counts as long as the executor keeps it, and then does nothing.
    assert_eq!(cache.stats().fetch_tasks(), 1);
    let before = calls.load(Ordering::Relaxed);
    tasks.run();
    assert_eq!((tasks.len(), cache.stats().fetch_tasks()), (0, 0));
    assert_eq!(calls.load(Ordering::Relaxed), before);
    assert_eq!(cache.stats().flights_under_way(), 0);
}

#[test]
fn a_task_that_was_never_polled_and_has_no_caller_leads_nothing_for_long() {
    let (cache, tasks) = open();
    let mut caller = spawned(&cache, never);
    assert!(caller.run().is_none());
    drop(caller);
    let mut other = call(&cache, || async { Answer::Ok(new()) });
    assert!(other.run().is_none());
    assert_eq!(value(&patient(&mut other)), b"new");
    // Polled at last, it finds the value.
    tasks.run();
    assert_eq!((tasks.len(), cache.stats().flights_under_way()), (0, 0));
}

#[test]
fn a_task_that_was_woken_and_is_not_polled_gives_its_fetch_back() {
    let (cache, tasks) = open();
    let (mut leader, tell) = leading(&cache, &tasks);
    tasks.run();
    tell.send(Ok(new())).unwrap();
    assert!(leader.run().is_none(), "the task is owed a poll");
    assert_eq!(value(&patient(&mut leader)), b"new");
    assert_eq!((cache.stats().fetches(), cache.stats().fetches_not_spawned()), (1, 1));
    tasks.run();
    assert_eq!(tasks.len(), 0);
}

#[test]
fn a_slow_executor_keeps_the_fetch_of_a_caller_that_goes_away_or_sleeps() {
    for (polls, goes_away) in [(0, true), (0, false), (1, true), (1, false)] {
        let (cache, tasks) = open();
        let (leader, tell) = leading(&cache, &tasks);
        (0..polls).for_each(|_| tasks.run());
        tell.send(Ok(new())).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(leader.is_woken(), "it may run the fetch now");
        let kept = Some(leader).filter(|_| !goes_away);
        tasks.run();
        assert_eq!(block_on(cache.get("n", "key")).unwrap().value(), b"new", "stored");
        assert_eq!((cache.stats().fetches(), cache.stats().fetch_tasks()), (1, 0));
        assert!(kept.is_none_or(|mut leader| value(&leader.run().unwrap()) == b"new"));
    }
}

#[test]
fn the_end_of_a_runtime_gives_fetches_to_their_callers_or_to_those_that_wait() {
    let (cache, tasks) = open();
    let (mut leader, tell) = leading(&cache, &tasks);
    tasks.run();
    tasks.shut_down();
    assert!(leader.is_woken());
    assert!(leader.run().is_none(), "it goes on with the same fetch");
    tell.send(Ok(new())).unwrap();
    assert_eq!(value(&leader.run().unwrap()), b"new");
    assert_eq!((cache.stats().fetches(), cache.stats().fetches_not_spawned()), (1, 1));

    let (cache, tasks) = open();
    let (leader, _tell) = leading(&cache, &tasks);
    tasks.run();
    drop(leader);
    let mut joiner = spawned(&cache, || async { Answer::Ok(new()) });
    assert!(joiner.run().is_none());
    tasks.shut_down();
    assert!(joiner.is_woken());
    assert!(joiner.run().is_none());
    tasks.run();
    assert_eq!(value(&joiner.run().unwrap()), b"new");
}

#[test]
fn beyond_the_bound_a_fetch_runs_in_its_caller() {
    let tasks = Tasks::default();
    let cache = opened(builder(&tasks, &clock()).spawned_fetches_max(2));
    let one = |key: &'static str, answer: &'static str| {
        let cache = cache.clone();
        let fetch = move || async move { Answer::Ok(BlobCachePut::new(answer)) };
        Call::new(async move { cache.get_or_fetch_spawned("n", key, fetch).await })
    };
    let (mut first, mut second, mut third) = (one("1", "a"), one("2", "b"), one("3", "c"));
    assert!(first.run().is_none() && second.run().is_none());
    assert_eq!(value(&third.run().unwrap()), b"c", "in its own polls");
    let stats = cache.stats();
    assert_eq!((stats.fetches_spawned(), stats.fetches_not_spawned(), tasks.len()), (2, 1, 2));
    // Callers that go away leave their tasks counted until the executor is done with them.
    drop((first, second));
    assert_eq!(cache.stats().fetch_tasks(), 2);
    tasks.run();
    assert_eq!(cache.stats().fetch_tasks(), 0);
    let mut fourth = one("4", "d");
    assert!(fourth.run().is_none());
    assert_eq!(tasks.len(), 1);
}

#[test]
fn failures_are_those_of_any_fetch() {
    let (cache, tasks) = open();
    let (mut leader, tell) = leading(&cache, &tasks);
    let mut joiner = spawned(&cache, never);
    assert!(joiner.run().is_none());
    tasks.run();
    tell.send(Err("down")).unwrap();
    tasks.run();
    for caller in [&mut leader, &mut joiner] {
        assert!(matches!(caller.run().unwrap(), Err(FetchError::Fetch(error)) if *error == "down"));
    }
    let mut caller = spawned(&cache, || async { panic!("as planned") });
    assert!(caller.run().is_none());
    tasks.run();
    assert!(matches!(caller.run().unwrap(), Err(FetchError::Panicked)));
    assert_eq!((cache.stats().fetch_errors(), cache.stats().fetch_tasks()), (2, 0));
}

#[test]
fn a_hard_timeout_ends_a_fetch_in_a_task_polled_or_not() {
    for is_polled in [true, false] {
        let tasks = Tasks::default();
        let policy = FetchPolicy::default().hard_timeout(Duration::from_millis(20));
        let cache = opened(builder(&tasks, &clock()).fetch_policy(policy));
        let (mut leader, _tell) = leading(&cache, &tasks);
        tasks.run();
        let begun = Instant::now();
        let outcome = loop {
            if is_polled {
                tasks.run();
            }
            if let Some(outcome) = leader.run() {
                break outcome;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "the call hangs");
            std::thread::sleep(Duration::from_millis(1));
        };
        assert!(matches!(outcome, Err(FetchError::TimedOut)));
        assert_eq!(cache.stats().fetches_not_spawned(), u64::from(!is_polled));
    }
}

/// A fetch that tells when it is dropped.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
#[cfg_attr(not(all(feature = "disk", target_os = "linux")), ignore = "needs a disk tier")]
fn a_close_and_the_drop_of_the_last_handle_end_fetches_that_nobody_waits_for() {
    for (is_closed, is_begun) in [(true, true), (true, false), (false, true), (false, false)] {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let tasks = Tasks::default();
        let on_disk = || builder(&tasks, &clock()).l2_path(folder.path()).l2_bytes_max(8 << 20);
        let cache = opened(on_disk());
        let drops = Arc::new(AtomicUsize::new(0));
        let dropped = Dropped(Arc::clone(&drops));
        let mut caller = spawned(&cache, move || async move {
            let _dropped = dropped;
            std::future::pending().await
        });
        assert!(caller.run().is_none());
        drop(caller);
        if is_begun {
            tasks.run();
        }
        if is_closed {
            block_on(cache.close()).unwrap();
            assert_eq!(drops.load(Ordering::Relaxed), 1);
        }
        drop(cache);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        // The store is free, although the executor still has the task.
        assert_eq!(tasks.len(), 1);
        block_on(opened(on_disk()).close()).unwrap();
        tasks.run();
        assert_eq!(tasks.len(), 0);
    }
}

#[test]
fn a_close_gives_a_fetch_back_to_the_caller_that_waits_for_it() {
    let (cache, tasks) = open();
    let (mut leader, tell) = leading(&cache, &tasks);
    tasks.run();
    block_on(cache.close()).unwrap();
    assert!(leader.is_woken());
    assert!(leader.run().is_none());
    tell.send(Ok(new())).unwrap();
    assert_eq!(value(&leader.run().unwrap()), b"new", "returned, and not stored");
    assert_eq!(cache.stats().fetches_not_stored(), 1);
    // Later ones are not spawned.
    let mut later = spawned(&cache, || async { Answer::Ok(new()) });
    assert_eq!(value(&later.run().unwrap()), b"new");
    tasks.run();
    assert_eq!((tasks.len(), cache.stats().fetch_tasks()), (0, 0));
}

#[test]
fn on_a_runtime_of_many_threads_clients_come_and_go() {
    let runtime = crate::threads();
    let handle = runtime.handle().clone();
    let spawner = move |task: FetchTask| drop(handle.spawn(task));
    let cache = opened(BlobCacheConfig::builder().spawner(spawner).spawned_fetches_max(8));
    let calls = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..2000_u64)
        .map(|client| {
            let (cache, calls) = (cache.clone(), Arc::clone(&calls));
            runtime.spawn(async move {
                let fetch = move || async move {
                    calls.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(client % 3)).await;
                    Answer::Ok(BlobCachePut::new("value"))
                };
                let key = (client % 20).to_string();
                let asking = cache.get_or_fetch_spawned("n", key, fetch);
                // One in three gives up.
                let patience =
                    Duration::from_micros(if client % 3 == 0 { 300 } else { 20_000_000 });
                match tokio::time::timeout(patience, asking).await {
                    Ok(answer) => assert_eq!(answer.unwrap().value(), b"value"),
                    Err(_) => assert_eq!(client % 3, 0, "the call hangs"),
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for client in clients {
            client.await.unwrap();
        }
        while cache.stats().fetch_tasks() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert_eq!(cache.stats().flights_under_way(), 0);
    assert!(calls.load(Ordering::Relaxed) >= 20);
}

#[test]
fn a_task_polled_after_its_end_does_nothing() {
    let (cache, tasks) = open();
    let mut caller = spawned(&cache, || async { Answer::Ok(new()) });
    assert!(caller.run().is_none());
    let (mut task, _) = tasks.0.lock().unwrap().pop_front().unwrap();
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(task.as_mut().poll(&mut context), Poll::Ready(()));
    drop(task);
    assert_eq!(value(&caller.run().unwrap()), b"new");
}
