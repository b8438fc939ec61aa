//! Fetches under random mutations: callers that wait for each other, fail, panic and are dropped,
//! on a few keys, over one tier or two, on an executor that polls in random order. All values
//! differ; no caller is given a value that was read before a covering mutation which returned
//! before the call began. No call hangs, and no flight is left. One fetch runs per key at a time,
//! unless time has passed: a leader that was woken and is not polled meanwhile loses the lead, and
//! goes on beside the next one. Some fetches run in tasks, which are run, dropped at any point, or
//! left alone, and whose callers have soft timeouts and refreshes ahead.

mod log;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use self::log::{Log, Mutation, Running, Scope, Tally};
use crate::batch::yield_now;
use crate::cache::BlobCache;
use crate::clock::Clock;
use crate::config::BlobCacheConfig;
use crate::engine::open::{DiskSetup, Identity, geometry, open_on};
use crate::failpoint::{Failpoint, plant};
use crate::fetch_policy::FetchPolicy;
use crate::io::{SimulatedDisk, Simulation, TaskRunner};
use crate::modes::L1Admission;
use crate::policy::{BlobCachePolicy, ExtendedTtlPolicy};
use crate::put::BlobCachePut;
use crate::spawn::FetchTask;

const TAGS: u8 = 2;
const STALE: Duration = Duration::from_secs(3);

fn key_name(key: u8) -> [u8; 2] {
    [key / 2, key]
}

fn tag_name(tag: u8) -> String {
    format!("tag{tag}")
}

#[derive(Clone)]
struct Choices {
    key: u8,
    tags: Vec<u8>,
    work: u32,
    end: u32,
    policy: BlobCachePolicy,
    bytes: usize,
}

impl Choices {
    fn new(random: &mut StdRng) -> Self {
        let extended = ExtendedTtlPolicy { stale_serve: Some(STALE), ..Default::default() };
        let ttl = Duration::from_secs(random.random_range(1..6));
        let admission = [L1Admission::Always, L1Admission::Never][random.random_range(0..2)];
        let tags = (0..TAGS).filter(|_| random.random_bool(0.4)).collect();
        Self {
            key: random.random_range(0..log::KEYS),
            tags,
            work: random.random_range(0..8),
            end: random.random_range(0..100),
            policy: BlobCachePolicy::default().ttl(ttl).extended(extended).l1_admission(admission),
            bytes: random.random_range(0..2000),
        }
    }

    fn put(&self, number: usize) -> BlobCachePut {
        let put = match self.end % 10 {
            0 => BlobCachePut::absent(),
            _ => BlobCachePut::copy_from_slice(&vec![7; self.bytes]),
        };
        put.with_content_metadata([("number", number.to_string())])
            .with_tags(self.tags.iter().map(|tag| tag_name(*tag)))
            .with_policy(self.policy.clone())
    }
}

/// Fails, panics, or returns a value that was read when it was called.
fn fetch(
    log: &Arc<Mutex<Log>>,
    choices: &Choices,
) -> impl FnOnce() -> BoxFuture<'static, Result<BlobCachePut, usize>> + Send + 'static {
    let (log, choices) = (Arc::clone(log), choices.clone());
    move || {
        let mut now = log.lock();
        let read = now.tick();
        let number = now.value(choices.key, choices.tags.clone(), Some(read));
        let running = &mut now.running[usize::from(choices.key)];
        *running += 1;
        let is_beside = *running > 1;
        now.beside += u64::from(is_beside);
        drop(now);
        let running = Running(log, choices.key);
        Box::pin(async move {
            for _ in 0..choices.work {
                yield_now().await;
            }
            drop(running);
            match choices.end {
                80..90 => Err(number),
                // A panic without its message.
                90.. => std::panic::resume_unwind(Box::new(())),
                _ => Ok(choices.put(number)),
            }
        })
    }
}

/// One operation. The choices are made before its first poll.
fn operation(
    cache: &BlobCache,
    log: &Arc<Mutex<Log>>,
    random: &mut StdRng,
) -> BoxFuture<'static, ()> {
    let (cache, log) = (cache.clone(), Arc::clone(log));
    let choices = Choices::new(random);
    let what = random.random_range(0..100);
    let key = choices.key;
    match what {
        0..60 => Box::pin(async move {
            let begun = log.lock().tick();
            let fetch = fetch(&log, &choices);
            let answer = match what {
                0..40 => cache.get_or_fetch("n", key_name(key), fetch).await,
                40..52 => cache.get_or_fetch_spawned("n", key_name(key), fetch).await,
                _ => cache.get_or_refresh_spawned("n", key_name(key), fetch).await,
            };
            log.lock().check_answer(key, begun, answer);
        }),
        60..75 => Box::pin(async move {
            let begun = log.lock().tick();
            let fetch = fetch(&log, &choices);
            let answer = cache.get_or_refresh("n", key_name(key), fetch).await;
            let (hit, refresh) = match answer {
                Ok(answer) => answer,
                Err(error) => return log.lock().check_error(key, begun, &error),
            };
            log.lock().check(key, begun, &hit);
            let Some(refresh) = refresh else { return };
            for _ in 0..choices.work {
                yield_now().await;
            }
            if choices.bytes % 4 > 0 {
                let begun = log.lock().tick();
                let refreshed = refresh.await;
                log.lock().tally.refreshes += 1;
                log.lock().check_answer(key, begun, refreshed);
            }
        }),
        75..82 => Box::pin(async move {
            let begun = log.lock().tick();
            let number = log.lock().value(key, choices.tags.clone(), None);
            cache.put("n", key_name(key), choices.put(number)).await.unwrap();
            let mut log = log.lock();
            let ended = log.tick();
            log.values[number].read = Some(ended);
            log.mutations.push(Mutation { scope: Scope::Key(key), begun, ended });
        }),
        82..90 => Box::pin(async move {
            let begun = log.lock().tick();
            let hit = cache.get("n", key_name(key)).await;
            if let Some(hit) = hit {
                log.lock().check(key, begun, &hit);
            }
        }),
        90..93 => Box::pin(invalidate(cache, log, Scope::Key(key))),
        93..95 => Box::pin(invalidate(cache, log, Scope::Prefix(key / 2))),
        95..98 => Box::pin(invalidate(cache, log, Scope::Tag(key % TAGS))),
        98 => Box::pin(invalidate(cache, log, Scope::Space)),
        _ => Box::pin(invalidate(cache, log, Scope::All)),
    }
}

async fn invalidate(cache: BlobCache, log: Arc<Mutex<Log>>, scope: Scope) {
    let begun = log.lock().tick();
    match scope {
        Scope::Key(key) => _ = cache.invalidate_key("n", key_name(key)).await.unwrap(),
        Scope::Prefix(high) => _ = cache.invalidate_prefix("n", [high]).await.unwrap(),
        Scope::Tag(tag) => _ = cache.invalidate_tags("n", &[&tag_name(tag)]).await.unwrap(),
        Scope::Space => _ = cache.invalidate_namespace("n").await.unwrap(),
        Scope::All => cache.invalidate_all().await.unwrap(),
    }
    let mut log = log.lock();
    let ended = log.tick();
    log.mutations.push(Mutation { scope, begun, ended });
}

/// Polls that many times, then drops the future.
async fn patient(future: BoxFuture<'static, ()>, mut polls: u32) {
    let mut future = Some(future);
    poll_fn(|context| match &mut future {
        Some(running) if polls > 0 => {
            polls = polls.saturating_sub(1);
            Pin::as_mut(running).poll(context)
        }
        _ => {
            future = None;
            Poll::Ready(())
        }
    })
    .await;
}

/// What the cache has given to its executor.
#[derive(Default)]
struct Tasks {
    given: Arc<Mutex<Vec<FetchTask>>>,
    asleep: Vec<FetchTask>,
}

impl Tasks {
    /// Those that are polled from now on, each until it ends or is dropped.
    fn awake(&mut self, random: &mut StdRng, may_sleep: bool) -> Vec<(FetchTask, u32)> {
        let given = std::mem::take(&mut *self.given.lock());
        let mut run = Vec::new();
        for task in given {
            match random.random_range(0..10) {
                0..2 if may_sleep => self.asleep.push(task),
                0..4 => run.push((task, random.random_range(0..6))),
                _ => run.push((task, u32::MAX)),
            }
        }
        run
    }
}

/// Drops half of them.
fn some_of<F: Future + Unpin>(
    set: FuturesUnordered<F>,
    random: &mut StdRng,
) -> FuturesUnordered<F> {
    let rest: Vec<_> = set.into_iter().filter(|_| random.random_bool(0.5)).collect();
    rest.into_iter().collect()
}

/// Until one ends, or there are new tasks, for which all may wait.
async fn next<F: Future>(set: &mut FuturesUnordered<F>, tasks: &Tasks) {
    poll_fn(|context| match set.poll_next_unpin(context) {
        Poll::Pending if tasks.given.lock().is_empty() => Poll::Pending,
        _ => Poll::Ready(()),
    })
    .await;
}

async fn opened(
    runner: Arc<dyn TaskRunner>,
    clock: &Clock,
    seed: u64,
    (has_disk, bits): (bool, u32),
    tasks: &Tasks,
) -> BlobCache {
    let given = Arc::clone(&tasks.given);
    let mut policy = FetchPolicy::default().refresh_ahead(0.4);
    if has_disk {
        // Without a disk, time is the system's.
        policy = policy.soft_timeout(Duration::from_millis(40));
    }
    let builder = BlobCacheConfig::builder().l1_bytes_max(64 << 10).clock(clock.clone());
    let builder = builder.spawner(move |task| given.lock().push(task)).fetch_policy(policy);
    let builder = builder.key_hash_bits(bits).spawned_fetches_max(4);
    if !has_disk {
        return BlobCache::open(builder.build().unwrap()).await.unwrap();
    }
    let builder = builder.l2_path("simulated").l2_bytes_max(6 * (64 << 10));
    let config = builder.l2_segment_bytes(64 << 10).build().unwrap();
    let setup = DiskSetup {
        disk: Arc::new(SimulatedDisk::new(seed, geometry(&config).unwrap().file_bytes())),
        runner,
        file: None,
        boot_id: [0; 16],
        identity: Identity::of(seed),
        void_mark: None,
    };
    let engine = open_on(config.clone(), geometry(&config).unwrap(), setup).await;
    BlobCache { engine: engine.unwrap() }
}

fn case(seed: u64, sum: &mut Tally) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut simulation = Simulation::new(seed);
    let runner: Arc<dyn TaskRunner> = Arc::new(simulation.task_runner());
    let clock = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
    let shape = (random.random_bool(0.3), if random.random_bool(0.2) { 1 } else { 64 });
    let mut tasks = Tasks::default();
    let opening = opened(Arc::clone(&runner), &clock, seed, shape, &tasks);
    let cache = simulation.block_on(opening).expect("the open completes");
    let log = Arc::new(Mutex::new(Log::default()));
    let mut set = FuturesUnordered::new();
    let mut has_waited = false;
    let width = random.random_range(1..12);
    for _ in 0..random.random_range(20..120) {
        while set.len() < width {
            let operation = operation(&cache, &log, &mut random);
            let polls = if random.random_bool(0.3) { random.random_range(0..12) } else { u32::MAX };
            set.push(Box::pin(patient(operation, polls)));
        }
        for (task, polls) in tasks.awake(&mut random, shape.0) {
            set.push(Box::pin(patient(task, polls)));
        }
        has_waited |= !tasks.asleep.is_empty();
        // Clients go away, woken or not.
        if random.random_bool(0.04) {
            set = some_of(set, &mut random);
        }
        if random.random_bool(0.05) {
            clock.advance(Duration::from_secs(random.random_range(0..4)));
        }
        let waits = shape.0 && random.random_bool(0.02);
        has_waited |= waits;
        let step = async {
            if waits {
                runner.sleep(Duration::from_millis(700)).await;
            }
            next(&mut set, &tasks).await;
        };
        simulation.block_on(step).expect("no call hangs");
    }
    // Some are dropped together, the others complete.
    if random.random_bool(0.5) {
        set = some_of(set, &mut random);
    }
    loop {
        for (task, polls) in tasks.awake(&mut random, false) {
            set.push(Box::pin(patient(task, polls)));
        }
        if set.is_empty() {
            break;
        }
        simulation.block_on(next(&mut set, &tasks)).expect("no call hangs");
    }
    // What is left of a task has nothing to do, or goes on.
    drop(tasks.asleep.split_off(tasks.asleep.len() / 2));
    let rest = futures::future::join_all(tasks.asleep);
    simulation.block_on(rest).expect("no task hangs");
    assert_eq!(cache.stats().fetch_tasks(), 0, "tasks are left behind");
    assert_eq!(cache.stats().flights_under_way(), 0, "flights are left behind");
    let log = log.lock();
    // Without a disk, time is the system's. Keys whose hashes collide share no flight.
    if shape.0 && shape.1 == 64 && !has_waited {
        assert_eq!(log.beside, 0, "two fetches of one key");
    }
    let stats = cache.stats();
    sum.beside += log.beside;
    sum.add(&log.tally, &stats);
    assert_eq!(stats.fetches_not_stored(), 0, "every fetched value was stored");
}

#[test]
fn no_caller_is_given_a_value_removed_before_its_call() {
    let number =
        |name, default| std::env::var(name).map_or(default, |text: String| text.parse().unwrap());
    let (first, cases) = match std::env::var("TAMIS_SEED") {
        Ok(seed) => (seed.parse().unwrap(), 1),
        Err(_) => (0, number("TAMIS_CASES", 4000)),
    };
    let mut sum = Tally::default();
    for seed in first..first + cases {
        let run = std::panic::AssertUnwindSafe(|| case(seed, &mut sum));
        assert!(std::panic::catch_unwind(run).is_ok(), "TAMIS_SEED={seed}");
    }
    println!("{cases} cases: {sum:?}");
    let of_callers =
        [sum.given / 10, sum.joined, sum.stale, sum.absent, sum.failed, sum.refused, sum.refreshes];
    let of_tasks = [sum.spawned, sum.not_spawned, sum.ahead, 20 * sum.soft];
    let mut least = of_callers.iter().chain(&of_tasks);
    assert!(cases < 1000 || least.all(|least| *least >= cases / 10), "{sum:?}");
}

/// Plants the bug and runs cases until a check fails.
fn found(failpoint: Failpoint, cases_max: u64) {
    let _planted = plant(failpoint);
    let is_found = |seed: &u64| {
        let run = std::panic::AssertUnwindSafe(|| case(*seed, &mut Tally::default()));
        std::panic::catch_unwind(run).is_err()
    };
    let seed = (0..cases_max).find(is_found);
    println!("{failpoint:?}: found in case {seed:?}");
    assert!(seed.is_some(), "{failpoint:?} is not found in {cases_max} cases");
}

#[test]
fn the_model_detects_a_read_point_that_is_taken_late() {
    found(Failpoint::PointTakenLate, 1000);
}

#[test]
fn the_model_detects_a_caller_that_waits_for_a_sleeping_task() {
    found(Failpoint::WorkKeptBySleeper, 1000);
}

#[test]
fn the_model_detects_callers_that_wait_for_the_lead_of_a_sleeping_task() {
    found(Failpoint::LeadNotMoved, 4000);
}
