//! Concurrent histories over two tiers on a simulated disk: several operations at a time, some
//! dropped half-way, several lives in a row that end in a close, a kill or a power loss with
//! operations in flight. Only real time is checked: a get that starts after a mutation returned Ok
//! never finds a value whose put had ended before that mutation began.

#![allow(
    clippy::cast_possible_truncation,
    clippy::needless_range_loop,
    clippy::too_many_lines,
    reason = "numbers of a test are small, and its one long function is one list of verbs"
)]

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::BlobCache;
use super::open::{Medium, geometry};
use super::shared::Shared;
use crate::config::BlobCacheConfig;
use crate::error::CacheError;
use crate::io::{Lane, SimulatedDisk, Simulation};
use crate::modes::{CrashSafety, L1Admission};
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;

const SPACES: [&str; 2] = ["a", "b"];
const KEYS: u8 = 12;
const TAGS: u8 = 4;

/// What a mutation covers.
#[derive(Clone, Debug)]
enum Cover {
    Key(usize, u8),
    Prefix(usize, u8),
    Tag(usize, u8),
    Space(usize),
    All,
}

#[derive(Clone, Debug)]
struct Done {
    cover: Cover,
    /// The tags of a put.
    tags: Vec<u8>,
    is_put: bool,
    /// It may have been refused quietly, and then shadows nothing.
    is_refusable: bool,
    begun: u64,
    /// When it returned, was dropped, or died with its process.
    ended: Option<u64>,
    is_ok: bool,
}

impl Done {
    fn covers(&self, other: &Done) -> bool {
        let Cover::Key(space, key) = other.cover else { return false };
        match self.cover {
            Cover::Key(of, this) => (of, this) == (space, key),
            Cover::Prefix(of, high) => of == space && key / 4 == high,
            Cover::Tag(of, tag) => of == space && other.tags.contains(&tag),
            Cover::Space(of) => of == space,
            Cover::All => true,
        }
    }
}

enum Outcome {
    Mutated { number: usize, result: Option<Result<(), CacheError>> },
    Got { space: usize, key: u8, begun: u64, value: Option<Vec<u8>> },
}

struct History {
    random: StdRng,
    seed: u64,
    simulation: Simulation,
    disk: SimulatedDisk,
    config: BlobCacheConfig,
    cache: BlobCache,
    boot: u8,
    now: u64,
    done: Vec<Done>,
    hits: u64,
    dropped: u64,
    faults: bool,
}

/// `None` once it has been polled so often without an end; it is dropped then.
async fn patient<T>(future: impl Future<Output = T> + Send, mut polls: u32) -> Option<T> {
    let mut future = Some(Box::pin(future));
    poll_fn(|context| {
        let Some(running) = &mut future else { return Poll::Ready(None) };
        match Pin::as_mut(running).poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polls == 0 => {
                future = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                polls -= 1;
                Poll::Pending
            }
        }
    })
    .await
}

fn key_name(key: u8) -> [u8; 2] {
    [key / 4, key]
}

impl History {
    fn new(seed: u64, crash_safety: CrashSafety, bits: u32, faults: bool) -> Self {
        let config = BlobCacheConfig::builder()
            .l1_bytes_max(64 << 10)
            .l2_path("simulated")
            .l2_bytes_max(6 * (32 << 10))
            .l2_segment_bytes(32 << 10)
            .crash_safety(crash_safety)
            .key_hash_bits(bits)
            .build()
            .unwrap();
        let disk = SimulatedDisk::new(seed, geometry(&config).unwrap().file_bytes());
        let mut simulation = Simulation::new(seed);
        let cache = open(&mut simulation, &disk, &config, 0).unwrap();
        let random = StdRng::seed_from_u64(seed);
        Self {
            random,
            seed,
            simulation,
            disk,
            config,
            cache,
            boot: 0,
            now: 0,
            done: Vec::new(),
            hits: 0,
            dropped: 0,
            faults,
        }
    }

    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn begin(&mut self) -> BoxFuture<'static, Outcome> {
        let begun = self.tick();
        let random = &mut self.random;
        let polls = if random.random_bool(0.25) { random.random_range(0..12) } else { u32::MAX };
        let (space, key) = (random.random_range(0..SPACES.len()), random.random_range(0..KEYS));
        let tag = random.random_range(0..TAGS);
        let what = random.random_range(0..100);
        let cache = self.cache.clone();
        if what < 35 {
            return Box::pin(async move {
                let hit = cache.get(SPACES[space], key_name(key)).await;
                Outcome::Got { space, key, begun, value: hit.map(|hit| hit.value().to_vec()) }
            });
        }
        let number = self.done.len();
        let cover = match what {
            35..75 => Cover::Key(space, key),
            75..85 => Cover::Key(space, key),
            85..91 => Cover::Tag(space, tag),
            91..95 => Cover::Prefix(space, key / 4),
            95..98 => Cover::Space(space),
            _ => Cover::All,
        };
        let is_put = what < 75;
        let tags: Vec<u8> = match is_put {
            true => (0..random.random_range(0..3)).map(|_| random.random_range(0..TAGS)).collect(),
            false => Vec::new(),
        };
        let mut value = (number as u64).to_le_bytes().to_vec();
        value.resize(8 + random.random_range(0..3000), number as u8);
        let admission = [L1Admission::Always, L1Admission::Never][random.random_range(0..2)];
        let policy = BlobCachePolicy::default().l1_admission(admission);
        let mut put = BlobCachePut::new(value)
            .with_tags(tags.iter().map(|tag| format!("tag{tag}")))
            .with_policy(policy);
        let is_refusable = is_put && random.random_bool(0.1);
        if is_refusable {
            put = put.read_at(cache.read_point());
        }
        self.done.push(Done {
            cover: cover.clone(),
            tags,
            is_put,
            is_refusable,
            begun,
            ended: None,
            is_ok: false,
        });
        let mutate = async move {
            match cover {
                Cover::Key(space, key) if is_put => {
                    // A read point may be old by the time the put is made.
                    crate::step::pause().await;
                    cache.put(SPACES[space], key_name(key), put).await
                }
                Cover::Key(space, key) => {
                    cache.invalidate_key(SPACES[space], key_name(key)).await.map(drop)
                }
                Cover::Tag(space, tag) => {
                    let tag = format!("tag{tag}");
                    cache.invalidate_tags(SPACES[space], &[&tag]).await.map(drop)
                }
                Cover::Prefix(space, high) => {
                    cache.invalidate_prefix(SPACES[space], [high]).await.map(drop)
                }
                Cover::Space(space) => cache.invalidate_namespace(SPACES[space]).await.map(drop),
                Cover::All => cache.invalidate_all().await,
            }
        };
        Box::pin(async move { Outcome::Mutated { number, result: patient(mutate, polls).await } })
    }

    fn end(&mut self, outcome: Outcome) {
        let now = self.tick();
        match outcome {
            Outcome::Mutated { number, result } => {
                self.dropped += u64::from(result.is_none());
                self.done[number].ended = Some(now);
                self.done[number].is_ok = matches!(result, Some(Ok(())));
                match result {
                    None | Some(Ok(()) | Err(CacheError::Closed)) => {}
                    Some(Err(CacheError::L2Io { .. })) if self.faults => {}
                    Some(Err(error)) => panic!("{error}"),
                }
            }
            Outcome::Got { space, key, begun, value } => self.check(space, key, begun, value),
        }
    }

    fn check(&mut self, space: usize, key: u8, begun: u64, value: Option<Vec<u8>>) {
        let Some(value) = value else { return };
        self.hits += 1;
        let number = u64::from_le_bytes(value[..8].try_into().unwrap()) as usize;
        let put = &self.done[number];
        assert!(
            matches!(put.cover, Cover::Key(of, this) if (of, this) == (space, key)) && put.is_put
        );
        assert!(value[8..].iter().all(|&byte| byte == number as u8), "wrong bytes");
        let Some(ended) = put.ended else { return };
        let newer = self.done.iter().enumerate().find(|(_, other)| {
            other.is_ok
                && !other.is_refusable
                && other.begun > ended
                && other.ended < Some(begun)
                && other.covers(put)
        });
        if let Some((by, newer)) = newer {
            panic!(
                "seed {}: get at {begun} finds put {number} {put:?}, behind {by} {newer:?}",
                self.seed
            );
        }
    }

    fn live(&mut self, operations: usize) {
        let mut set = FuturesUnordered::new();
        let lane = self.simulation.lane();
        let width = self.random.random_range(1..6);
        for _ in 0..operations {
            while set.len() < width {
                let begun = self.begin();
                set.push(begun);
            }
            let waits = self.random.random_bool(0.05);
            let patience = self.random.random_range(0..6);
            let lane = lane.clone();
            let step = async {
                if waits {
                    lane.sleep(Duration::from_millis(700)).await;
                }
                patient(set.next(), patience).await.flatten()
            };
            if let Some(outcome) = self.simulation.block_on(step).expect("nothing hangs") {
                self.end(outcome);
            }
        }
        if self.faults && self.random.random_bool(0.5) {
            self.disk.plan(|plan| {
                plan.write_failure = 0.0;
                plan.read_bit_flip = 0.0;
                plan.read_failure = 0.0;
            });
        }
        match self.random.random_range(0..4) {
            0 => {
                let cache = self.cache.clone();
                let closed = self.simulation.block_on(cache.close()).expect("close hangs");
                assert!(closed.is_ok() || self.faults);
                while let Some(outcome) =
                    self.simulation.block_on(set.next()).expect("a call hangs")
                {
                    self.end(outcome);
                }
            }
            1 | 2 => {
                self.simulation.kill();
                self.disk = self.disk.kill();
            }
            _ => {
                self.simulation.kill();
                self.disk = self.disk.crash();
                self.boot += 1;
            }
        }
        drop(set);
        let now = self.tick();
        for done in self.done.iter_mut().filter(|done| done.ended.is_none()) {
            done.ended = Some(now);
        }
        self.disk.plan(|plan| {
            plan.write_failure = 0.0;
            plan.read_bit_flip = 0.0;
            plan.read_failure = 0.0;
        });
        if self.random.random_bool(0.3) {
            // A second crash soon after, in the middle of recovery.
            let polls = self.random.random_range(0..60);
            let opening = opening(&self.simulation, &self.disk, &self.config, self.boot);
            let opened = self.simulation.block_on(patient(opening, polls)).unwrap();
            drop(opened);
            self.simulation.kill();
            self.disk = self.disk.kill();
        }
        self.cache = open(&mut self.simulation, &self.disk, &self.config, self.boot).unwrap();
        if self.faults {
            let random = &mut self.random;
            let (write, flip, read) =
                (random.random_bool(0.3), random.random_bool(0.5), random.random_bool(0.3));
            self.disk.plan(|plan| {
                plan.write_failure = if write { 0.05 } else { 0.0 };
                plan.read_bit_flip = if flip { 0.2 } else { 0.0 };
                plan.read_failure = if read { 0.1 } else { 0.0 };
            });
        }
        for space in 0..SPACES.len() {
            for key in 0..KEYS {
                let begun = self.tick();
                let cache = self.cache.clone();
                let get = cache.get(SPACES[space], key_name(key));
                let value = self.simulation.block_on(get).unwrap().map(|hit| hit.value().to_vec());
                self.check(space, key, begun, value);
            }
        }
    }
}

fn opening(
    simulation: &Simulation,
    disk: &SimulatedDisk,
    config: &BlobCacheConfig,
    boot: u8,
) -> impl Future<Output = Result<Arc<Shared>, CacheError>> + use<> {
    let medium = Medium {
        disk: Arc::new(disk.clone()),
        lane: Arc::new(simulation.lane()),
        file: None,
        boot_id: [boot; 16],
    };
    Shared::open_on(config.clone(), geometry(config).unwrap(), medium)
}

fn open(
    simulation: &mut Simulation,
    disk: &SimulatedDisk,
    config: &BlobCacheConfig,
    boot: u8,
) -> Result<BlobCache, CacheError> {
    let opening = opening(simulation, disk, config, boot);
    Ok(BlobCache { shared: simulation.block_on(opening).unwrap()? })
}

fn runs(crash_safety: CrashSafety, bits: u32, faults: bool) {
    let number =
        |name, default| std::env::var(name).map_or(default, |text: String| text.parse().unwrap());
    let (first, runs) = match std::env::var("TAMIS_SEED") {
        Ok(seed) => (seed.parse().unwrap(), 1),
        Err(_) => (0, number("TAMIS_RUNS", 100)),
    };
    let (mut hits, mut dropped, mut failed) = (0, 0, Vec::new());
    for seed in first..first + runs {
        let run = std::panic::catch_unwind(|| {
            let mut history = History::new(seed, crash_safety, bits, faults);
            for _ in 0..8 {
                let operations = history.random.random_range(1..150);
                history.live(operations);
            }
            (history.hits, history.dropped)
        });
        match run {
            Ok(run) => (hits, dropped) = (hits + run.0, dropped + run.1),
            Err(_) => failed.push(seed),
        }
    }
    println!("{crash_safety:?} {bits} bits, faults {faults}: {hits} hits, {dropped} dropped");
    assert!(failed.is_empty(), "{crash_safety:?} {bits} bits, faults {faults}: seeds {failed:?}");
}

#[test]
fn process() {
    runs(CrashSafety::Process, 64, false);
}

#[test]
fn process_where_hashes_collide() {
    runs(CrashSafety::Process, 3, false);
}

#[test]
fn power() {
    runs(CrashSafety::Power, 64, false);
}

#[test]
fn process_on_a_bad_disk() {
    runs(CrashSafety::Process, 64, true);
}

#[test]
fn power_on_a_bad_disk() {
    runs(CrashSafety::Power, 64, true);
}

#[test]
fn cold() {
    runs(CrashSafety::Cold, 64, false);
}
