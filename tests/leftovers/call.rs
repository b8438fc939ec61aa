//! Calls of every verb, with fetches and values that fail or panic, and wakers that panic or call
//! the cache again.

use std::cell::Cell;
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use rand::RngExt;
use rand::rngs::StdRng;
use tamis::{
    BlobCache, BlobCacheHit, BlobCachePolicy, BlobCachePut, BlobCacheRefresh, ExtendedTtlPolicy,
    L1Admission, NamespaceScope, SweepLimit,
};

const SPACES: [&str; 3] = ["a", "b", "c"];

type Fetching = Pin<Box<dyn Future<Output = Result<BlobCachePut, &'static str>> + Send>>;
type Fetch = Box<dyn FnOnce() -> Fetching + Send>;

/// What a caller keeps of an answer, and drops late.
pub(super) enum Kept {
    Nothing,
    #[expect(dead_code, reason = "it is only held, and dropped late")]
    Hit(BlobCacheHit),
    Refresh(BlobCacheRefresh<Fetch, Fetching, &'static str>),
}

pub(super) type Call = Pin<Box<dyn Future<Output = Kept> + Send>>;

/// The payload of all panics on purpose.
struct Planned;

fn throw() {
    if !thread::panicking() {
        resume_unwind(Box::new(Planned));
    }
}

/// None if it panics on purpose.
pub(super) fn survive<T>(run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(done) => Some(done),
        Err(thrown) if thrown.is::<Planned>() => None,
        Err(thrown) => resume_unwind(thrown),
    }
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        throw();
    }
}

struct Owner(Vec<u8>, Bomb);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        let Self(bytes, Bomb) = self;
        bytes
    }
}

/// A value that panics when its last copy is dropped.
pub(super) fn bomb(length: usize) -> Bytes {
    Bytes::from_owner(Owner(vec![5; length], Bomb))
}

#[derive(Clone, Copy)]
enum Mischief {
    None,
    Panics,
    Reenters,
    PanicsInDrop,
}

/// It keeps a handle, as a task that owns its waker may.
struct Hostile {
    mischief: Mischief,
    cache: BlobCache,
}

thread_local! {
    static IS_REENTERED: Cell<bool> = const { Cell::new(false) };
}

impl Wake for Hostile {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        match self.mischief {
            Mischief::Panics => throw(),
            Mischief::Reenters if !IS_REENTERED.replace(true) => {
                drop(self.cache.get("a", "3").now_or_never());
                drop(self.cache.put("a", "4", "again").now_or_never());
                drop(self.cache.sync().now_or_never());
                IS_REENTERED.set(false);
            }
            Mischief::Reenters | Mischief::None | Mischief::PanicsInDrop => {}
        }
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        if matches!(self.mischief, Mischief::PanicsInDrop) {
            throw();
        }
    }
}

pub(super) fn waker(cache: &BlobCache, random: &mut StdRng) -> Waker {
    let mischief = match random.random_range(0..8) {
        0 => Mischief::Panics,
        1 => Mischief::Reenters,
        2 => Mischief::PanicsInDrop,
        _ => Mischief::None,
    };
    Arc::new(Hostile { mischief, cache: cache.clone() }).into()
}

/// None if it is over, with its answer or by its own panic.
pub(super) fn polled(
    mut call: Call,
    polls: usize,
    waker: &Waker,
    kept: &mut Vec<Kept>,
) -> Option<Call> {
    for _ in 0..polls {
        match survive(|| call.as_mut().poll(&mut Context::from_waker(waker))) {
            Some(Poll::Pending) => {}
            Some(Poll::Ready(answer)) => {
                kept.push(answer);
                survive(|| drop(call));
                return None;
            }
            None => {
                survive(|| drop(call));
                return None;
            }
        }
    }
    Some(call)
}

pub(super) fn put(random: &mut StdRng) -> BlobCachePut {
    // The last is copied in batches, over several polls.
    let length = [100, 100, 2_000, 2_000, 9_000, 70_000, 300_000][random.random_range(0..7)];
    let put = match random.random_range(0..12) {
        0 => BlobCachePut::absent(),
        1 => BlobCachePut::new(bomb(length)),
        2 => BlobCachePut::new(Bytes::from(vec![6; 2 * length]).slice(length..)),
        _ => BlobCachePut::from(vec![7; length]),
    };
    let admissions = [L1Admission::Always, L1Admission::Auto, L1Admission::Never];
    let mut policy = BlobCachePolicy::default().l1_admission(admissions[random.random_range(0..3)]);
    if random.random_bool(0.2) {
        policy = policy.version(random.random_range(0..9));
    }
    if random.random_bool(0.4) {
        // Over at once, and stale from then on.
        let stale_serve = Some(Duration::from_secs(60));
        policy = policy
            .ttl(Duration::ZERO)
            .extended(ExtendedTtlPolicy { stale_serve, ..Default::default() });
    }
    let label = format!("l{}", random.random_range(0..4));
    put.with_tags([label.clone()]).with_dependencies([label]).with_policy(policy)
}

fn fetch(cache: &BlobCache, random: &mut StdRng) -> Fetch {
    let (put, turns, kind) = (put(random), random.random_range(0..4), random.random_range(0..12));
    let cache = cache.clone();
    let bomb = (kind == 0).then(|| Bomb);
    Box::new(move || {
        if kind == 1 {
            throw();
        }
        drop(bomb);
        Box::pin(async move {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            match kind {
                2 => throw(),
                3 => return Err("on purpose"),
                4 => pending::<()>().await,
                // Another key, since its own would wait for itself.
                5 => drop(cache.put("fetches", "other", "value").await),
                _ => {}
            }
            Ok(put)
        })
    })
}

fn mutation<T: 'static>(call: impl Future<Output = T> + Send + 'static) -> Call {
    Box::pin(call.map(|_| Kept::Nothing))
}

fn fetching(cache: BlobCache, random: &mut StdRng, space: &'static str, key: String) -> Call {
    let fetch = fetch(&cache, random);
    if random.random_bool(0.5) {
        return Box::pin(async move {
            cache.get_or_fetch(space, key, fetch).await.map_or(Kept::Nothing, Kept::Hit)
        });
    }
    Box::pin(async move {
        match cache.get_or_refresh(space, key, fetch).await {
            Ok((_, Some(refresh))) => Kept::Refresh(refresh),
            Ok((hit, None)) => Kept::Hit(hit),
            Err(_) => Kept::Nothing,
        }
    })
}

/// Any call; all choices are made now.
pub(super) fn draw(cache: &BlobCache, random: &mut StdRng) -> Call {
    let cache = cache.clone();
    let space = SPACES[random.random_range(0..3)];
    let key = random.random_range(0..16).to_string();
    let labels = [format!("l{}", random.random_range(0..4)), "l0".to_owned()];
    match random.random_range(0..100) {
        0..25 => {
            Box::pin(async move { cache.get(space, key).await.map_or(Kept::Nothing, Kept::Hit) })
        }
        25..55 => {
            let mut put = put(random);
            if random.random_bool(0.2) {
                put = put.read_at(cache.read_point());
            }
            mutation(async move { cache.put(space, key, put).await })
        }
        55..78 => fetching(cache, random, space, key),
        78..84 => mutation(async move { cache.invalidate_key(space, key).await }),
        84..88 => mutation(async move { cache.invalidate_prefix(space, &key[..1]).await }),
        88 => mutation(async move { cache.invalidate_tags(NamespaceScope::All, &labels).await }),
        89 => mutation(async move { cache.expire_tags(NamespaceScope::All, &labels).await }),
        90 => mutation(async move { cache.expire_prefix(space, &key[..1]).await }),
        91..93 => mutation(async move { cache.invalidate_dependencies(space, &labels).await }),
        93..95 => mutation(async move { cache.namespace(space).invalidate().await }),
        95..96 => mutation(async move { cache.invalidate_all().await }),
        96..98 => mutation(async move { cache.sync().await }),
        _ => mutation(async move { cache.sweep_expired(SweepLimit::Entries(100)).await }),
    }
}

pub(super) fn close(cache: &BlobCache) -> Call {
    let cache = cache.clone();
    mutation(async move { cache.close().await })
}
