//! Calls of every verb, with closures, futures and values of the caller's that panic.

use std::future::{Future, pending};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use rand::RngExt;
use rand::rngs::StdRng;

use super::waker::throw;
use crate::batch::yield_now;
use crate::cache::BlobCache;
use crate::engine::fetch::BlobCacheRefresh;
use crate::error::FetchError;
use crate::hit::BlobCacheHit;
use crate::modes::L1Admission;
use crate::policy::{BlobCachePolicy, ExtendedTtlPolicy};
use crate::put::BlobCachePut;
use crate::scope::NamespaceScope;
use crate::sweep::SweepLimit;

pub(super) const SPACE: &str = "a";
const SPACES: [&str; 3] = [SPACE, "b", "c"];
const KEYS: u32 = 16;

type Fetching = BoxFuture<'static, Result<BlobCachePut, &'static str>>;
type Fetch = Box<dyn FnOnce() -> Fetching + Send>;
pub(super) type Refresh = BlobCacheRefresh<Fetch, Fetching, &'static str>;

/// What a caller keeps of an answer.
pub(super) enum Kept {
    Nothing,
    #[expect(dead_code, reason = "it is only held, and dropped late")]
    Hit(BlobCacheHit),
    Refresh(Refresh),
}

pub(super) type Call = BoxFuture<'static, Kept>;

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        throw();
    }
}

/// The owner of a value, whose drop panics.
struct Owner(Vec<u8>, Bomb);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        let Self(bytes, Bomb) = self;
        bytes
    }
}

fn bytes(random: &mut StdRng) -> usize {
    match random.random_range(0..40) {
        // Copied in batches, over several polls.
        0 => 300_000,
        1..6 => random.random_range(4_000..9_000),
        _ => random.random_range(0..2_500),
    }
}

fn policy(random: &mut StdRng) -> BlobCachePolicy {
    let admissions = [L1Admission::Always, L1Admission::Auto, L1Admission::Never];
    let mut policy = BlobCachePolicy::default().l1_admission(admissions[random.random_range(0..3)]);
    if random.random_bool(0.2) {
        policy = policy.version(random.random_range(0..9));
    }
    let seconds = |random: &mut StdRng, most| Duration::from_secs(random.random_range(0..most));
    if random.random_bool(0.4) {
        policy = policy.ttl(seconds(random, 4));
    }
    policy.priority(random.random_range(126..130)).extended(ExtendedTtlPolicy {
        idle_ttl: random.random_bool(0.2).then(|| seconds(random, 5)),
        stale_serve: random.random_bool(0.7).then(|| seconds(random, 90)),
        jitter_pct: random.random_range(0..20),
    })
}

fn put(random: &mut StdRng) -> BlobCachePut {
    let length = bytes(random);
    let put = match random.random_range(0..12) {
        0 => BlobCachePut::absent(),
        1 => BlobCachePut::new(Bytes::from_owner(Owner(vec![5; length], Bomb))),
        2 => BlobCachePut::new(Bytes::from(vec![6; 2 * length]).slice(length..)),
        _ => BlobCachePut::from(vec![7; length]),
    };
    let labels = |random: &mut StdRng| -> Vec<String> {
        (0..random.random_range(0..4)).map(|_| format!("l{}", random.random_range(0..4))).collect()
    };
    put.with_tags(labels(random)).with_dependencies(labels(random)).with_policy(policy(random))
}

pub(super) fn plain_fetch() -> Fetch {
    Box::new(|| Box::pin(async { Ok(BlobCachePut::from("fetched")) }))
}

fn fetch(cache: &BlobCache, random: &mut StdRng) -> Fetch {
    let (put, turns, kind) = (put(random), random.random_range(0..8), random.random_range(0..14));
    let cache = cache.clone();
    let bomb = (kind == 0).then(|| Bomb);
    Box::new(move || {
        if kind == 1 {
            throw();
        }
        let in_future = (kind == 2).then(|| Bomb);
        drop(bomb);
        Box::pin(async move {
            for _ in 0..turns {
                yield_now().await;
            }
            match kind {
                3 => throw(),
                4 => return Err("on purpose"),
                5 => pending::<()>().await,
                // Another key, since its own would wait for itself.
                6 => drop(cache.get("fetches", "other").await),
                7 => drop(cache.put("fetches", "other", "value").await),
                _ => {}
            }
            drop(in_future);
            Ok(put)
        })
    })
}

fn mutation<T, E>(call: impl Future<Output = Result<T, E>> + Send + 'static) -> Call {
    Box::pin(async move {
        // Whether it is refused does not matter here.
        drop(call.await);
        Kept::Nothing
    })
}

fn fetching(cache: BlobCache, random: &mut StdRng, (space, key): (&'static str, String)) -> Call {
    let fetch = fetch(&cache, random);
    let kept = |hit: Result<_, FetchError<&'static str>>| hit.map_or(Kept::Nothing, Kept::Hit);
    match random.random_range(0..4) {
        0 => return Box::pin(async move { kept(cache.get_or_fetch(space, key, fetch).await) }),
        1 => {
            return Box::pin(
                async move { kept(cache.get_or_fetch_spawned(space, key, fetch).await) },
            );
        }
        2 => {
            return Box::pin(
                async move { kept(cache.get_or_refresh_spawned(space, key, fetch).await) },
            );
        }
        _ => {}
    }
    Box::pin(async move {
        match cache.get_or_refresh(space, key, fetch).await {
            Ok((_, Some(refresh))) => Kept::Refresh(refresh),
            Ok((hit, None)) => Kept::Hit(hit),
            Err(_) => Kept::Nothing,
        }
    })
}

fn invalidation(cache: BlobCache, random: &mut StdRng, space: &'static str, key: String) -> Call {
    let labels = [format!("l{}", random.random_range(0..4)), "l0".to_owned()];
    let everywhere = NamespaceScope::All;
    match random.random_range(0..25) {
        19 => mutation(async move { cache.expire_key(space, key).await }),
        20 => mutation(async move { cache.expire_prefix(space, &key[..1]).await }),
        21 => mutation(async move { cache.expire_tags(space, &labels).await }),
        22 => mutation(async move { cache.expire_dependencies(everywhere, &labels).await }),
        23 => mutation(async move { cache.namespace(space).expire().await }),
        0..6 => mutation(async move { cache.invalidate_key(space, key).await }),
        6..8 => mutation(async move { cache.invalidate_keys(space, &[&key, "0", &key]).await }),
        8..12 => mutation(async move { cache.invalidate_prefix(space, &key[..1]).await }),
        12..15 => mutation(async move { cache.invalidate_tags(space, &labels).await }),
        15..17 => mutation(async move { cache.invalidate_dependencies(space, &labels).await }),
        17..19 => mutation(async move { cache.namespace(space).invalidate().await }),
        _ => mutation(async move { cache.invalidate_all().await }),
    }
}

/// Any call; all choices are made now.
pub(super) fn draw(cache: &BlobCache, random: &mut StdRng) -> Call {
    let cache = cache.clone();
    let space = SPACES[random.random_range(0..SPACES.len())];
    let key = random.random_range(0..KEYS).to_string();
    match random.random_range(0..100) {
        0..21 => Box::pin(async move {
            let hit = cache.get(space, key).await;
            hit.map_or(Kept::Nothing, Kept::Hit)
        }),
        21..25 => Box::pin(async move {
            let keys: Vec<String> = (0..KEYS).map(|key| key.to_string()).collect();
            let mut hits = cache.get_many(space, &keys).await.into_iter().flatten();
            hits.next_back().map_or(Kept::Nothing, Kept::Hit)
        }),
        25..27 => Box::pin(async move {
            let _ = cache.exists(space, key);
            Kept::Nothing
        }),
        27..31 => {
            let key_of = |place: u32| (place % KEYS).to_string();
            let puts = (0..4).map(|place| (key_of(place * 7), put(random)));
            let puts: Vec<_> = puts.collect();
            Box::pin(async move {
                drop(cache.put_many(space, puts).await);
                Kept::Nothing
            })
        }
        31..55 => {
            let mut put = put(random);
            if random.random_bool(0.2) {
                put = put.read_at(cache.read_point());
            }
            mutation(async move { cache.put(space, key, put).await })
        }
        55..80 => fetching(cache, random, (space, key)),
        80..94 => invalidation(cache, random, space, key),
        94..96 => {
            let ttl = std::time::Duration::from_secs(random.random_range(0..100));
            let policy = BlobCachePolicy::default().ttl(ttl);
            mutation(async move { cache.touch(space, key, &policy).await })
        }
        96..97 => mutation(async move { cache.sync().await }),
        _ => Box::pin(async move {
            cache.sweep_expired(SweepLimit::Entries(100)).await;
            Kept::Nothing
        }),
    }
}

pub(super) fn close(cache: &BlobCache) -> Call {
    let cache = cache.clone();
    mutation(async move { cache.close().await })
}
