//! Fetches under random mutations: callers that wait for each other, fail, panic and are dropped,
//! on a few keys, over one tier or two, on an executor that polls in random order. All values
//! differ; no caller is given a value that was read before a covering mutation which returned
//! before the call began. No call hangs, and no flight is left. One fetch runs per key at a time,
//! unless time has passed: a leader that was woken and is not polled meanwhile loses the lead, and
//! goes on beside the next one.

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

use crate::batch::yield_now;
use crate::cache::BlobCache;
use crate::clock::Clock;
use crate::config::BlobCacheConfig;
use crate::engine::open::{DiskSetup, Identity, geometry, open_on};
use crate::error::FetchError;
use crate::hit::BlobCacheHit;
use crate::io::{SimulatedDisk, Simulation, TaskRunner};
use crate::modes::L1Admission;
use crate::policy::{BlobCachePolicy, ExtendedTtlPolicy};
use crate::put::BlobCachePut;

const KEYS: u8 = 4;
const TAGS: u8 = 2;
const STALE: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
enum Scope {
    Key(u8),
    Prefix(u8),
    Tag(u8),
    Space,
    All,
}

#[derive(Clone, Debug)]
struct Value {
    key: u8,
    tags: Vec<u8>,
    /// When it was read at its origin; for a plain put, when that returned.
    read: Option<u64>,
}

#[derive(Debug)]
struct Mutation {
    scope: Scope,
    begun: u64,
    ended: u64,
}

#[derive(Default)]
struct Log {
    now: u64,
    values: Vec<Value>,
    mutations: Vec<Mutation>,
    /// Fetches in progress.
    running: [u32; KEYS as usize],
    /// Fetches that began beside another one of their key. A panic in a fetch would be contained.
    beside: u64,
    tally: Tally,
}

#[derive(Debug, Default)]
struct Tally {
    given: u64,
    joined: u64,
    stale: u64,
    absent: u64,
    failed: u64,
    refused: u64,
    refreshes: u64,
    beside: u64,
}

impl Log {
    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn value(&mut self, key: u8, tags: Vec<u8>, read: Option<u64>) -> usize {
        self.values.push(Value { key, tags, read });
        self.values.len() - 1
    }

    fn check(&mut self, key: u8, begun: u64, hit: &BlobCacheHit) {
        let number: usize = hit.content_metadata()["number"].parse().unwrap();
        self.check_read(key, begun, number, |tags, tag| tags.contains(&tag));
        self.tally.given += 1;
        self.tally.stale += u64::from(hit.is_stale());
        self.tally.absent += u64::from(hit.is_absent());
    }

    /// What it says may be wrong after any mutation: it has no labels.
    fn check_error(&mut self, key: u8, begun: u64, error: &FetchError<usize>) {
        if let FetchError::Fetch(number) = error {
            self.check_read(key, begun, **number, |_, _| true);
        }
        self.tally.failed += 1;
    }

    /// Nothing that ended before the call began may replace what was read.
    fn check_read(&self, key: u8, begun: u64, number: usize, has: impl Fn(&[u8], u8) -> bool) {
        let value = &self.values[number];
        assert_eq!(value.key, key, "a value of another key");
        let newer = self.mutations.iter().find(|mutation| {
            mutation.ended < begun
                && value.read.is_some_and(|read| mutation.begun > read)
                && match mutation.scope {
                    Scope::Key(key) => value.key == key,
                    Scope::Prefix(high) => value.key / 2 == high,
                    Scope::Tag(tag) => has(&value.tags, tag),
                    Scope::Space | Scope::All => true,
                }
        });
        assert!(newer.is_none(), "call at {begun} is given {number} {value:?}, behind {newer:?}");
    }
}

struct Running(Arc<Mutex<Log>>, u8);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().running[usize::from(self.1)] -= 1;
    }
}

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
            key: random.random_range(0..KEYS),
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
            match cache.get_or_fetch("n", key_name(key), fetch).await {
                Ok(hit) => log.lock().check(key, begun, &hit),
                Err(error) => log.lock().check_error(key, begun, &error),
            }
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
                let mut log = log.lock();
                log.tally.refreshes += 1;
                match refreshed {
                    Ok(hit) => log.check(key, begun, &hit),
                    Err(error) => log.check_error(key, begun, &error),
                }
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

async fn opened(
    runner: Arc<dyn TaskRunner>,
    clock: &Clock,
    seed: u64,
    (has_disk, bits): (bool, u32),
) -> BlobCache {
    let builder = BlobCacheConfig::builder().l1_bytes_max(64 << 10).clock(clock.clone());
    let builder = builder.key_hash_bits(bits);
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
    let opening = opened(Arc::clone(&runner), &clock, seed, shape);
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
        if random.random_bool(0.05) {
            clock.advance(Duration::from_secs(random.random_range(0..4)));
        }
        let waits = shape.0 && random.random_bool(0.02);
        has_waited |= waits;
        let step = async {
            if waits {
                runner.sleep(Duration::from_millis(700)).await;
            }
            set.next().await
        };
        simulation.block_on(step).expect("no call hangs");
    }
    // Some are dropped together, the others complete.
    if random.random_bool(0.5) {
        let rest: Vec<_> = set.into_iter().filter(|_| random.random_bool(0.5)).collect();
        set = rest.into_iter().collect();
    }
    simulation.block_on(async { while set.next().await.is_some() {} }).expect("no call hangs");
    assert_eq!(cache.stats().flights_under_way(), 0, "flights are left behind");
    let log = log.lock();
    // Without a disk, time is the system's. Keys whose hashes collide share no flight.
    if shape.0 && shape.1 == 64 && !has_waited {
        assert_eq!(log.beside, 0, "two fetches of one key");
    }
    let tally = &log.tally;
    sum.beside += log.beside;
    let stats = cache.stats();
    sum.given += tally.given;
    sum.joined += stats.flights_joined();
    sum.stale += tally.stale;
    sum.absent += tally.absent;
    sum.failed += tally.failed;
    sum.refused += stats.stale_sets_refused();
    sum.refreshes += tally.refreshes;
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
    let least =
        [sum.given / 10, sum.joined, sum.stale, sum.absent, sum.failed, sum.refused, sum.refreshes];
    assert!(cases < 1000 || least.iter().all(|least| *least >= cases / 10), "{sum:?}");
}
