//! Hits in memory beside the fastest lookups there are, and puts in memory that evict.
//!
//! Futures of tamis are polled once with a no-op waker, so that no executor is measured. The base
//! of hits is a plain `DashMap<String, Bytes>`: get and clone.
//!
//! The generic peers are compiled into this program, tamis is not: link-time optimization changes
//! the ratios. `cargo run --profile bench -p tamis-versus` has it, as `benches/hit.rs` does.

use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use foyer::{Cache as FoyerMemory, CacheBuilder};
use futures::executor::block_on;
use moka::sync::Cache as Moka;
use quick_cache::sync::Cache as QuickCache;
use tamis::{BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut};

use crate::Error;
use crate::bar::Bar;
use crate::bench::Bench;
use crate::contest::{Contest, Contestant, Outcome};
use crate::metric::Metric::NanosPerCall;

use super::probes::{Caller, Probes};

const NAMESPACE: &str = "pages";

const WITH_TTL: &str = "tamis, ttl";

pub(super) fn run(bench: &Bench) -> Result<Vec<Outcome>, Error> {
    let mut outcomes = Vec::new();
    for count in [1_000, 100_000] {
        let keys = keys(count);
        let callers = hits(&keys)?;
        for threads in [1, 2] {
            let title = format!("hit, {count} keys, {threads} thread(s)");
            let contest = Contest::new(title, NanosPerCall, "dashmap");
            let limit = match (count, threads) {
                (1_000, 1) => 1.0,
                (1_000, _) => 0.9,
                _ => 0.85,
            };
            let mut contest = contest
                .bar(Bar::at_most(limit, NanosPerCall).times("dashmap"))
                .bar(Bar::at_most(1.05, NanosPerCall).times("tamis").by(WITH_TTL));
            if threads == 2 {
                contest = contest.bar(Bar::at_most(1.0, NanosPerCall).times("quick_cache"));
            }
            outcomes.push(race(bench, contest, &callers, &Probes::of(&keys, threads))?);
        }
    }
    outcomes.push(evictions(bench)?);
    Ok(outcomes)
}

fn race(
    bench: &Bench,
    contest: Contest,
    callers: &[Caller],
    probes: &[Probes],
) -> Result<Outcome, Error> {
    // Many short rounds: the speed of memory changes within seconds on a shared machine.
    let limit = bench.span() / 16;
    let contest = contest.rounds(4 * bench.rounds);
    let contestants = callers
        .iter()
        .map(|caller| Contestant::new(caller.name, move || caller.sample(probes, limit)));
    contest.run(bench, contestants.collect())
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("products/{number:08}/{}", number % 997)).collect()
}

fn value(bytes: usize) -> Bytes {
    let value = Bytes::from(vec![7; bytes]);
    // The first clone converts the value into its shared form, and allocates.
    let _shared = value.clone();
    value
}

/// The result of a future that is ready at its first poll, as that of a hit is.
#[inline(always)]
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("a hit does not wait"),
    }
}

fn memory_tier(bytes: usize) -> Result<BlobCache, Error> {
    let config = BlobCacheConfig::builder().l1_bytes_max(bytes).build()?;
    Ok(block_on(BlobCache::open(config))?)
}

/// Hits of each cache, filled with the keys, `DashMap` first.
fn hits(keys: &[String]) -> Result<Vec<Caller>, Error> {
    const VALUE_BYTES: usize = 100;
    // Large enough that all keys stay, whatever their shard.
    let capacity = 2 * keys.len();
    let map = DashMap::new();
    let quick = QuickCache::new(capacity);
    let moka = Moka::new(capacity as u64);
    let foyer: FoyerMemory<String, Bytes> = CacheBuilder::new(capacity).build();
    for key in keys {
        map.insert(key.clone(), value(VALUE_BYTES));
        quick.insert(key.clone(), value(VALUE_BYTES));
        moka.insert(key.clone(), value(VALUE_BYTES));
        foyer.insert(key.clone(), value(VALUE_BYTES));
    }
    moka.run_pending_tasks();
    let of_tamis = |name, policy: BlobCachePolicy| {
        let cache = memory_tier(256 << 20)?;
        for key in keys {
            let put = BlobCachePut::new(value(VALUE_BYTES)).with_policy(policy.clone());
            block_on(cache.put(NAMESPACE, key, put))?;
        }
        Ok::<_, Error>(Caller::new(name, move |key| {
            black_box(now(cache.get(NAMESPACE, key)).expect("a hit").value());
        }))
    };
    let plain = BlobCachePolicy::default();
    let timed = BlobCachePolicy::default().ttl(Duration::from_secs(3600));
    Ok(vec![
        Caller::new("dashmap", move |key| {
            let hit = map.get(key).map(|value| Bytes::clone(&value));
            black_box(hit.expect("a hit").as_ref());
        }),
        of_tamis("tamis", plain)?,
        of_tamis(WITH_TTL, timed)?,
        Caller::new("quick_cache", move |key| {
            let hit: Option<Bytes> = quick.get(key);
            black_box(hit.expect("a hit").as_ref());
        }),
        Caller::new("moka", move |key| {
            black_box(moka.get(key).expect("a hit").as_ref());
        }),
        Caller::new("foyer", move |key| {
            black_box(foyer.get(key).expect("a hit").value().as_ref());
        }),
    ])
}

/// Puts of uniform keys over ten times the capacity, by one thread. All caches hold as many
/// entries as tamis does within its budget.
fn evictions(bench: &Bench) -> Result<Outcome, Error> {
    const VALUE_BYTES: usize = 200;
    let blob = [7; VALUE_BYTES];
    let tamis = Arc::new(memory_tier(bench.pick(64 << 20, 4 << 20))?);
    let put = move |cache: &BlobCache, key: &str| {
        let put = BlobCachePut::copy_from_slice(&blob);
        block_on(cache.put(NAMESPACE, key, put)).expect("a put in memory");
    };
    for number in 0.. {
        put(&tamis, &format!("products/{number:08}/0"));
        if tamis.stats().evictions() > 0 {
            break;
        }
    }
    let capacity = tamis.stats().entries();
    let quick = QuickCache::new(capacity);
    let moka = Moka::new(capacity as u64);
    let foyer: FoyerMemory<String, Bytes> = CacheBuilder::new(capacity).build();
    let value = move || Bytes::copy_from_slice(&blob);
    let callers = [
        Caller::new("quick_cache", move |key| quick.insert(key.to_owned(), value())),
        Caller::new("tamis", move |key| put(&tamis, key)),
        Caller::new("moka", move |key| moka.insert(key.to_owned(), value())),
        Caller::new("foyer", move |key| drop(foyer.insert(key.to_owned(), value()))),
    ];
    let keys = keys(10 * capacity);
    let contest = Contest::new(
        format!("put that evicts, {VALUE_BYTES} bytes, {capacity} entries held"),
        NanosPerCall,
        "quick_cache",
    );
    let contest = contest
        .bar(Bar::at_most(1.0, NanosPerCall).times("foyer"))
        .bar(Bar::at_most(2.0, NanosPerCall).times("quick_cache"));
    race(bench, contest, &callers, &Probes::of(&keys, 1))
}
