//! The cost of a hit in memory, compared with the fastest possible lookups.
//!
//! [`BlobCache::get`] and [`BlobCacheNamespace::get`] are measured through their futures, polled
//! once with a no-op waker, so that no executor is measured. The peers are `DashMap<String, Bytes>`
//! and `quick_cache`: get and clone, over the same keys, with values of the same size in their
//! shared form. All use the same probes: borrowed keys in random order, consecutive in memory.
//!
//! The peers alternate in short rounds, each round starting with another one, so that a slow phase
//! of the machine affects all. Threads are measured in CPU time. A ratio compares a round with the
//! same round of `DashMap`; shown are medians, and for ratios also minimum and maximum. The goal is
//! a ratio tamis / dashmap of 0.9 or less.
//!
//! `cargo bench -p tamis-benches --bench hit` takes about a minute; without `--bench`, as in a run
//! of all tests, each measurement runs once.

use std::fmt::Write as _;
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Barrier;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use futures::executor::block_on;
use quick_cache::sync::Cache as QuickCache;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::time::{ClockId, clock_gettime};
use tamis::{
    BlobCache, BlobCacheConfig, BlobCacheNamespace, BlobCachePolicy, BlobCachePut, Gate,
    WhileClosed,
};

const NAMESPACE: &str = "pages";
const VALUE_BYTES: usize = 100;
const KEYS: [usize; 2] = [1_000, 100_000];
const THREADS: [usize; 2] = [1, 2];

/// Probes between two reads of the clock.
const BATCH: u32 = 500;

/// The number and the length of the rounds of each peer.
#[derive(Clone, Copy)]
struct Plan {
    rounds: usize,
    round: Duration,
}

impl Plan {
    fn from_args() -> Self {
        if std::env::args().any(|argument| argument == "--bench") {
            Self { rounds: 9, round: Duration::from_millis(150) }
        } else {
            Self { rounds: 1, round: Duration::from_millis(1) }
        }
    }
}

/// Keys in the order of lookups, consecutive in memory.
struct Probes {
    text: String,
    ends: Vec<usize>,
}

impl Probes {
    fn draw(keys: &[String], number: usize, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut probes = Self { text: String::new(), ends: Vec::with_capacity(number) };
        for _ in 0..number {
            probes.text.push_str(&keys[random.random_range(0..keys.len())]);
            probes.ends.push(probes.text.len());
        }
        probes
    }

    fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        let mut start = 0;
        self.ends.iter().map(move |&end| &self.text[std::mem::replace(&mut start, end)..end])
    }
}

/// Looks up all probes for the given time, and returns nanoseconds per hit.
type Measure = Box<dyn Fn(&Probes, Duration) -> f64 + Sync>;

/// A lookup method and its results, in nanoseconds per hit.
struct Peer {
    name: &'static str,
    measure: Measure,
    rounds: Vec<f64>,
}

impl Peer {
    fn new(name: &'static str, hit: impl Fn(&str) + Sync + 'static) -> Self {
        let measure = move |probes: &Probes, limit| measure(probes, limit, &hit);
        Self { name, measure: Box::new(measure), rounds: Vec::new() }
    }
}

/// Looks up the probes repeatedly for at least `limit`. Returns nanoseconds per lookup. Starts with
/// one unmeasured pass, since the peers evict each other from the CPU caches.
fn measure(probes: &Probes, limit: Duration, hit: impl Fn(&str)) -> f64 {
    probes.iter().for_each(&hit);
    let mut stream = probes.iter().cycle();
    let (start, mut asked) = (thread_time(), 0);
    loop {
        stream.by_ref().take(BATCH as usize).for_each(&hit);
        asked += BATCH;
        let taken = thread_time().saturating_sub(start);
        if taken >= limit {
            return taken.as_secs_f64() * 1e9 / f64::from(asked);
        }
    }
}

/// CPU time of the calling thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
}

/// The result of a future that is ready at its first poll, as that of a hit is.
#[inline(always)]
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("a hit does not wait"),
    }
}

fn value() -> Bytes {
    Bytes::from(vec![7; VALUE_BYTES])
}

fn dashmap(keys: &[String]) -> Peer {
    let map = DashMap::new();
    for key in keys {
        let value = value();
        // The first clone converts the value into its shared form, and allocates.
        drop(value.clone());
        map.insert(key.clone(), value);
    }
    Peer::new("dashmap get + clone", move |key| {
        let hit = map.get(key).map(|value| Bytes::clone(&value));
        black_box(hit.expect("a hit").as_ref());
    })
}

fn quick_cache(keys: &[String]) -> Peer {
    // Large enough that all keys stay, whatever their shard.
    let cache = QuickCache::new(2 * keys.len());
    for key in keys {
        let value = value();
        drop(value.clone());
        cache.insert(key.clone(), value);
    }
    assert_eq!(cache.len(), keys.len(), "quick_cache has evicted");
    Peer::new("quick_cache get", move |key| {
        let hit: Option<Bytes> = cache.get(key);
        black_box(hit.expect("a hit").as_ref());
    })
}

/// A cache that holds the keys, with the given policy.
fn filled(keys: &[String], policy: &BlobCachePolicy) -> BlobCache {
    filled_behind(None, keys, policy)
}

/// The same behind a gate.
fn filled_behind(gate: Option<&Gate>, keys: &[String], policy: &BlobCachePolicy) -> BlobCache {
    let config = BlobCacheConfig::builder().l1_bytes_max(256 << 20);
    let config = match gate {
        Some(gate) => config.namespace(NAMESPACE, |own| own.gate(gate, WhileClosed::Miss)),
        None => config,
    };
    let config = config.build();
    let cache = block_on(BlobCache::open(config.expect("a valid configuration")));
    let cache = cache.expect("a cache in memory");
    for key in keys {
        let put = BlobCachePut::new(value()).with_policy(policy.clone());
        block_on(cache.put(NAMESPACE, key, put)).expect("room for all keys");
    }
    cache
}

fn through_cache(name: &'static str, cache: BlobCache) -> Peer {
    Peer::new(name, move |key| {
        black_box(now(cache.get(NAMESPACE, key)).expect("a hit").value());
    })
}

fn through_namespace(name: &'static str, namespace: BlobCacheNamespace) -> Peer {
    Peer::new(name, move |key| {
        black_box(now(namespace.get(key)).expect("a hit").value());
    })
}

/// All peers over the same keys, `DashMap` first. Peers that share a cache are kept apart, so that
/// none finds it warmer than the others.
fn peers(keys: &[String]) -> Vec<Peer> {
    let plain = filled(keys, &BlobCachePolicy::default());
    let timed = filled(keys, &BlobCachePolicy::default().ttl(Duration::from_secs(3600)));
    let listened = filled(keys, &BlobCachePolicy::default());
    let events = listened.events().expect("a thread for the listener");
    let (lease, open) = (Gate::new(), Gate::new());
    lease.open_until(lease.now() + Duration::from_secs(3600));
    open.open();
    let leased = filled_behind(Some(&lease), keys, &BlobCachePolicy::default());
    let governed = filled_behind(Some(&open), keys, &BlobCachePolicy::default());
    vec![
        dashmap(keys),
        through_cache("tamis get", plain.clone()),
        through_cache("tamis get, ttl", timed.clone()),
        Peer::new("tamis get, listened", move |key| {
            let _listener = &events;
            black_box(now(listened.get(NAMESPACE, key)).expect("a hit").value());
        }),
        through_cache("tamis get, lease", leased),
        through_cache("tamis get, open gate", governed),
        quick_cache(keys),
        through_namespace("tamis namespace get", plain.namespace(NAMESPACE)),
        through_namespace("tamis namespace get, ttl", timed.namespace(NAMESPACE)),
    ]
}

/// One round of one peer: all threads start together; the mean of their results.
fn round(peer: &Peer, probes: &[Probes], limit: Duration) -> f64 {
    let begin = Barrier::new(probes.len());
    let total: f64 = thread::scope(|scope| {
        let run = |probes| {
            begin.wait();
            (peer.measure)(probes, limit)
        };
        let threads: Vec<_> =
            probes.iter().map(|probes| scope.spawn(move || run(probes))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread that ends")).sum()
    });
    let threads = u32::try_from(probes.len()).unwrap_or(u32::MAX);
    total / f64::from(threads)
}

fn run(peers: &mut [Peer], probes: &[Probes], plan: Plan) {
    for peer in peers.iter_mut() {
        peer.rounds.clear();
        round(peer, probes, plan.round / 4);
    }
    for first in 0..plan.rounds {
        for turn in 0..peers.len() {
            let number = peers.len();
            let peer = &mut peers[(first + turn) % number];
            let taken = round(peer, probes, plan.round);
            peer.rounds.push(taken);
        }
    }
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn report(peers: &[Peer]) -> String {
    let mut table = String::new();
    for peer in peers {
        let ratios = peer.rounds.iter().zip(&peers[0].rounds).map(|(own, base)| own / base);
        let ratios: Vec<f64> = ratios.collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = ratios.iter().copied().fold(0.0, f64::max);
        let (taken, ratio) = (median(peer.rounds.clone()), median(ratios));
        let name = peer.name;
        let _ = writeln!(
            table,
            "  {name:<26}{taken:>8.1} ns   x {ratio:.2}   ({least:.2} to {greatest:.2})"
        );
    }
    table
}

fn main() {
    let plan = Plan::from_args();
    let empty = filled(&[], &BlobCachePolicy::default());
    let bytes = size_of_val(&empty.get(NAMESPACE, "key"));
    let bytes_of_namespace = size_of_val(&empty.namespace(NAMESPACE).get("key"));
    println!("bytes of the futures: get {bytes}, namespace get {bytes_of_namespace}");
    for count in KEYS {
        let keys: Vec<_> = (0..count).map(|n| format!("products/{n:08}/{}", n % 997)).collect();
        let mut peers = peers(&keys);
        for threads in THREADS {
            let probes: Vec<_> = (0..threads as u64)
                .map(|thread| Probes::draw(&keys, (4 * count).min(200_000), thread))
                .collect();
            run(&mut peers, &probes, plan);
            println!("{count} keys, {threads} thread(s): median of a hit, ratio to dashmap");
            print!("{}", report(&peers));
        }
    }
}
