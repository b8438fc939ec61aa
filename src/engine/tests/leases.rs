//! The promise of a gate under a lease: an origin whose values change, a stream of invalidations
//! that says so, and a cache behind it that is cut off now and then. No call that begins later than
//! a lease after a change is given an older value, unless that is told to be stale.
//!
//! The stream is applied in order. A probe notes the time, then asks whether all is applied, and if
//! so opens the gate until that time plus the lease. Callers get, fetch and refresh meanwhile, and
//! some are dropped; reads from disk and fetches take their time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use futures::future::{BoxFuture, join};
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::bench::{opening, seeds_of, two_tiers};
use crate::batch::yield_now;
use crate::boot_clock::BootClock;
use crate::cache::BlobCache;
use crate::clock::Clock;
use crate::engine::open::geometry;
use crate::failpoint::{Failpoint, plant};
use crate::gate::{Gate, WhileClosed};
use crate::hit::BlobCacheHit;
use crate::io::{SimulatedDisk, Simulation};
use crate::modes::L1Admission;
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;

const LEASE: Duration = Duration::from_millis(20);
const KEYS: usize = 3;
const NAMESPACES: [(&str, WhileClosed); 2] =
    [("miss", WhileClosed::Miss), ("stale", WhileClosed::Stale)];

#[derive(Default)]
struct Origin {
    /// When each version of a key began; versions count from 1.
    changes: [Vec<Duration>; KEYS],
    /// Not applied yet, oldest first.
    stream: std::collections::VecDeque<usize>,
}

#[derive(Debug, Default)]
struct Tally {
    hits: u64,
    stale: u64,
    fetched: u64,
    misses: u64,
    closed: u64,
}

#[derive(Clone)]
struct World {
    cache: BlobCache,
    gate: Gate,
    origin: Arc<Mutex<Origin>>,
    tally: Arc<Mutex<Tally>>,
}

impl World {
    /// A call that began then was given this.
    fn check(&self, key: usize, began: Duration, hit: &BlobCacheHit) {
        let mut tally = self.tally.lock();
        let version: usize = std::str::from_utf8(hit.value()).unwrap().parse().unwrap();
        if hit.is_stale() {
            tally.stale += 1;
            return;
        }
        let counted = if hit.tier() == crate::CacheTier::Fetched {
            &mut tally.fetched
        } else {
            &mut tally.hits
        };
        *counted += 1;
        let origin = self.origin.lock();
        let newest = origin.changes[key].iter().rposition(|change| *change + LEASE < began);
        let least = newest.map_or(0, |at| at + 1);
        assert!(version >= least, "{hit:?} at {began:?}, after {:?}", origin.changes[key]);
    }

    /// Reads the version when it begins.
    fn fetch(&self, key: usize, random: &mut StdRng) -> impl FnOnce() -> Fetch + use<> {
        let (origin, work) = (Arc::clone(&self.origin), random.random_range(0..30));
        let admission = [L1Admission::Always, L1Admission::Never][random.random_range(0..2)];
        let fails = random.random_bool(0.2);
        move || {
            let version = origin.lock().changes[key].len().to_string();
            Box::pin(async move {
                for _ in 0..work {
                    yield_now().await;
                }
                let policy = BlobCachePolicy::default().l1_admission(admission);
                let put = BlobCachePut::new(version.into_bytes()).with_policy(policy);
                if fails { Err(()) } else { Ok(put) }
            })
        }
    }

    fn call(&self, random: &mut StdRng) -> BoxFuture<'static, ()> {
        let (world, key) = (self.clone(), random.random_range(0..KEYS));
        let (namespace, while_closed) = NAMESPACES[random.random_range(0..2)];
        let (fetch, name) = (self.fetch(key, random), [u8::try_from(key).unwrap()]);
        let kind = random.random_range(0..10);
        Box::pin(async move {
            let (began, cache) = (world.gate.now(), &world.cache);
            let is_closed = !world.gate.is_open();
            world.tally.lock().closed += u64::from(is_closed);
            let hit = match kind {
                0..3 => cache.get(namespace, name).await,
                3 => cache.get_many(namespace, &[name]).await.pop().flatten(),
                4..8 => cache.get_or_fetch(namespace, name, fetch).await.ok(),
                _ => match cache.get_or_refresh(namespace, name, fetch).await {
                    Ok((hit, refresh)) => {
                        world.check(key, began, &hit);
                        let began = world.gate.now();
                        if let Some(Ok(fresh)) = futures::future::OptionFuture::from(refresh).await
                        {
                            world.check(key, began, &fresh);
                        }
                        return;
                    }
                    Err(_) => None,
                },
            };
            let Some(hit) = hit else {
                world.tally.lock().misses += 1;
                return;
            };
            assert!(!hit.is_stale() || while_closed == WhileClosed::Stale);
            world.check(key, began, &hit);
        })
    }

    /// Applies some of the stream, then asks for its end.
    async fn follow(&self, most: usize) {
        for _ in 0..most {
            let Some(key) = self.origin.lock().stream.front().copied() else { break };
            let name = [u8::try_from(key).unwrap()];
            for (namespace, _) in NAMESPACES {
                self.cache.invalidate_key(namespace, name).await.unwrap();
            }
            self.origin.lock().stream.pop_front();
        }
        let asked = self.gate.now();
        if self.origin.lock().stream.is_empty() {
            self.gate.open_until(asked + LEASE);
        }
    }

    fn change(&self, key: usize) {
        let mut origin = self.origin.lock();
        origin.changes[key].push(self.gate.now());
        origin.stream.push_back(key);
    }
}

type Fetch = BoxFuture<'static, Result<BlobCachePut, ()>>;

fn case(seed: u64, sum: &mut Tally) {
    let mut random = StdRng::seed_from_u64(seed);
    let boot = BootClock::manual(Duration::from_secs(100));
    let (gate, clock) = (Gate::with_clock(boot.clone()), Clock::manual(SystemTime::UNIX_EPOCH));
    let config = NAMESPACES.iter().fold(two_tiers(&clock), |config, (name, while_closed)| {
        config.namespace(name, |own| own.gate(&gate, *while_closed))
    });
    let config = config.build().unwrap();
    let mut simulation = Simulation::new(seed);
    let disk = SimulatedDisk::new(seed, geometry(&config).unwrap().file_bytes());
    let opening = opening(&simulation, &disk, &config);
    let cache = BlobCache { engine: simulation.block_on(opening).unwrap().unwrap() };
    let world = World { cache, gate, origin: Arc::default(), tally: Arc::default() };
    (0..KEYS).for_each(|key| world.change(key));
    let mut calls = FuturesUnordered::new();
    let mut cut_off = 0_u32;
    for _ in 0..random.random_range(50..150) {
        while calls.len() < 8 {
            calls.push(world.call(&mut random));
        }
        if random.random_bool(0.2) {
            world.change(random.random_range(0..KEYS));
        }
        boot.advance(Duration::from_millis(random.random_range(0..6)));
        if random.random_bool(0.05) {
            cut_off = random.random_range(1..30);
        }
        cut_off = cut_off.saturating_sub(1);
        let follows = if cut_off == 0 { random.random_range(0..4) } else { 0 };
        if random.random_bool(0.1) {
            // Callers go away.
            calls = calls.into_iter().filter(|_| random.random_bool(0.5)).collect();
        }
        let step = async {
            if follows > 0 {
                join(world.follow(follows), calls.next()).await;
            } else {
                calls.next().await;
            }
        };
        simulation.block_on(step).expect("no call hangs");
    }
    simulation.block_on(async { while calls.next().await.is_some() {} }).expect("no call hangs");
    let tally = world.tally.lock();
    sum.hits += tally.hits;
    sum.stale += tally.stale;
    sum.fetched += tally.fetched;
    sum.misses += tally.misses;
    sum.closed += tally.closed;
}

#[test]
fn no_call_is_given_what_is_older_than_its_lease() {
    let mut sum = Tally::default();
    let seeds = seeds_of(1000);
    for seed in seeds.clone() {
        let run = std::panic::AssertUnwindSafe(|| case(seed, &mut sum));
        assert!(std::panic::catch_unwind(run).is_ok(), "TAMIS_SEED={seed}");
    }
    println!("{seeds:?}: {sum:?}");
    let counts = [sum.hits, sum.stale, sum.fetched, sum.misses, sum.closed];
    let cases = seeds.end - seeds.start;
    assert!(cases < 100 || counts.iter().all(|count| *count >= cases), "{sum:?}");
}

fn found(bug: Failpoint, cases_max: u64) {
    let _planted = plant(bug);
    let is_found = |seed: &u64| {
        let run = std::panic::AssertUnwindSafe(|| case(*seed, &mut Tally::default()));
        std::panic::catch_unwind(run).is_err()
    };
    let seed = (0..cases_max).find(is_found);
    println!("{bug:?}: found in case {seed:?}");
    assert!(seed.is_some(), "{bug:?} is not found in {cases_max} cases");
}

#[test]
fn the_model_detects_a_fetch_that_is_shared_through_a_closed_gate() {
    found(Failpoint::SharedThroughClosedGate, 1000);
}

#[test]
fn the_model_detects_a_read_from_disk_that_asks_no_gate() {
    found(Failpoint::GateUnaskedOnDisk, 1000);
}
