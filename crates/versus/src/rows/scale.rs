//! With many records on disk: lookups in the index, the invalidation of a tag, and a flush.
//!
//! The index is reached through `exists`, which also hashes the key and asks memory and filter; the
//! locked `HashMap` is given the key's hash, which it computes as well.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::pin::pin;
use std::sync::Mutex;
use std::task::Poll;
use std::time::Instant;

use futures::executor::block_on;
use futures::future::poll_fn;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tamis::{BlobCache, BlobCachePut, CachePresence, L1Admission};

use crate::Error;
use crate::bar::Bar;
use crate::bench::Bench;
use crate::blobs::Blobs;
use crate::caches::{Cache, Kind};
use crate::contest::{Contest, Contestant, Outcome};
use crate::load::{for_each, two_workers};
use crate::metric::Metric::{InForce, IndexBytes, NanosPerCall, Returned};
use crate::metric::Sample;

use super::device::{ONE_WRITE, one_write};
use super::probes::{Caller, Probes};
use super::store::remove;

const NAMESPACE: &str = "thumbnails";

const VALUE_BYTES: u64 = 8;

/// Of all entries, those that lookups ask for.
const ASKED: usize = 200_000;

/// A store that is open, with entries 0 to `entries`, out of memory.
struct Open {
    cache: BlobCache,
    entries: u64,
    /// Entries with each of the tags `hot-0`, `hot-1` and so on, one for each round.
    tagged: u64,
}

pub(super) fn run(bench: &Bench) -> Result<Vec<Outcome>, Error> {
    let (entries, tagged) = bench.pick((10_000_000, 100_000), (50_000, 5_000));
    let path = bench.path("scale");
    let store = Open { cache: fill(bench, entries, tagged)?, entries, tagged };
    let outcomes = vec![lookups(bench, &store)?, tags(bench, &store)?, flush(bench, &store)?];
    block_on(store.cache.close())?;
    remove(&path)?;
    Ok(outcomes)
}

fn fill(bench: &Bench, entries: u64, tagged: u64) -> Result<BlobCache, Error> {
    bench.tell(&format!("put {entries} records"));
    let mut setup = Kind::Tamis.roomy(8 << 20, entries, VALUE_BYTES);
    setup.labels_each = 1;
    let blobs = Blobs::of(VALUE_BYTES);
    two_workers()?.block_on(async {
        let cache = Kind::Tamis.open(&bench.path("scale"), &setup).await?;
        let Cache::Tamis(cache) = cache else {
            return Err("another cache was opened".into());
        };
        let target = cache.clone();
        let policy = tamis::BlobCachePolicy::default().l1_admission(L1Admission::Never);
        for_each(entries, 8, move |number| {
            let (cache, policy) = (target.clone(), policy.clone());
            let mut put = BlobCachePut::new(blobs.value(number)).with_policy(policy);
            put = put.with_tags([tag(number / tagged)]);
            async move { Ok(cache.put(NAMESPACE, Blobs::key(number), put).await?) }
        })
        .await?;
        cache.sync().await?;
        let found = cache.stats().l2_entries() as u64;
        if found < entries {
            return Err(format!("only {found} of {entries} entries are on disk").into());
        }
        Ok(cache)
    })
}

fn tag(round: u64) -> String {
    format!("hot-{round}")
}

fn lookups(bench: &Bench, store: &Open) -> Result<Outcome, Error> {
    const HASH_MAP: &str = "locked HashMap";
    let mut random = StdRng::seed_from_u64(3);
    let asked = (0..ASKED).map(|_| Blobs::key(random.random_range(0..store.entries)));
    let probes = Probes::of(&asked.collect::<Vec<_>>(), 1);
    let hashes = RandomState::new();
    let positions = (0..store.entries).map(|number| (hashes.hash_one(Blobs::key(number)), number));
    let map: Mutex<HashMap<u64, u64>> = Mutex::new(positions.collect());
    let map = Caller::new(HASH_MAP, move |key| {
        let hash = hashes.hash_one(key);
        let map = map.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        black_box(map.get(&hash).expect("all keys are in the map"));
    });
    let cache = store.cache.clone();
    let exists = Caller::new("tamis", move |key| {
        assert_ne!(cache.exists(NAMESPACE, key), CachePresence::Absent, "{key}");
    });
    let (limit, stats) = (bench.span() / 4, store.cache.stats());
    let index_bytes = stats.memory_index_bytes() as f64 / stats.l2_entries() as f64;
    let contestants = vec![
        Contestant::new(HASH_MAP, || map.sample(&probes, limit)),
        Contestant::new("tamis", || {
            let mut sample = exists.sample(&probes, limit)?;
            sample.insert(IndexBytes, index_bytes);
            Ok(sample)
        }),
    ];
    Contest::new(format!("exists, {} entries on disk", store.entries), NanosPerCall, HASH_MAP)
        .bar(Bar::at_most(2.0, NanosPerCall).times(HASH_MAP))
        .bar(Bar::at_most(24.0, IndexBytes))
        .run(bench, contestants)
}

fn tags(bench: &Bench, store: &Open) -> Result<Outcome, Error> {
    let runtime = two_workers()?;
    let Open { cache, entries, tagged } = store;
    let mut round = 0;
    let invalidate = || {
        let (tag, key) = (tag(round), Blobs::key(round * tagged));
        round += 1;
        let tags = [&tag];
        let call = cache.invalidate_tags(NAMESPACE, &tags);
        let (found, sample) = runtime.block_on(in_force_and_returned(call, cache, &key))?;
        if found as u64 == *tagged {
            Ok(sample)
        } else {
            Err(format!("{found} entries of {tag} were invalidated, not {tagged}").into())
        }
    };
    Contest::new(format!("invalidate_tags, {tagged} of {entries} entries"), Returned, "tamis")
        .bar(Bar::at_most(50_000.0, Returned))
        .bar(Bar::at_most(100.0, InForce))
        .run(bench, vec![Contestant::new("tamis", invalidate)])
}

fn flush(bench: &Bench, store: &Open) -> Result<Outcome, Error> {
    let runtime = two_workers()?;
    let cache = &store.cache;
    let key = Blobs::key(store.entries - 1);
    let mut contestants = vec![Contestant::new("tamis", || {
        let call = cache.invalidate_namespace(NAMESPACE);
        Ok(runtime.block_on(in_force_and_returned(call, cache, &key))?.1)
    })];
    contestants.extend(one_write(bench));
    Contest::new(format!("flush, {} entries", store.entries), Returned, ONE_WRITE)
        .rounds(1)
        .bar(Bar::at_most(50.0, Returned).above(ONE_WRITE))
        .bar(Bar::at_most(100.0, InForce))
        .run(bench, contestants)
}

/// Polls an invalidation once, checks that it hides `key` from then on, and waits for it.
async fn in_force_and_returned<T>(
    call: impl Future<Output = Result<T, tamis::CacheError>>,
    cache: &BlobCache,
    key: &str,
) -> Result<(T, Sample), Error> {
    if cache.get(NAMESPACE, key).await.is_none() {
        return Err(format!("{key} is missing before its invalidation").into());
    }
    let mut call = pin!(call);
    let started = Instant::now();
    let first = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
    let in_force = started.elapsed();
    let is_hidden = cache.get(NAMESPACE, key).await.is_none();
    let result = match first {
        Poll::Ready(result) => result?,
        Poll::Pending => call.await?,
    };
    let returned = started.elapsed();
    if !is_hidden {
        return Err(format!("{key} is still there after the first poll").into());
    }
    let micros = |time: std::time::Duration| time.as_secs_f64() * 1e6;
    Ok((result, Sample::from([(InForce, micros(in_force)), (Returned, micros(returned))])))
}
