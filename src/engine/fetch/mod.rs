//! `get_or_fetch` and `get_or_refresh`: one fetch for each key at a time.

pub(crate) mod caller;
mod driver;
mod ending;
mod failures;
pub(crate) mod fetcher;
mod future;
pub(crate) mod held;
pub(crate) mod outcome;
mod refresh;
mod request;
pub(crate) mod rests;
mod spawned;
mod stage;
pub(crate) mod tasks;
pub(crate) mod told;
pub(crate) mod typing;
mod watch;

use std::sync::Arc;

use self::caller::{CallerFetch, FetchOnce};
pub(crate) use self::future::FetchFuture;
pub use self::refresh::BlobCacheRefresh;
use self::request::Look;
pub(crate) use self::request::{FetchRequest, HandleDefaults};
pub(crate) use self::spawned::{
    SpawnedFetch, find_or_fetch_spawned, get_or_fetch_spawned, get_or_refresh_spawned,
    refresh_ahead,
};
use self::stage::Claim;
use crate::engine::Engine;
use crate::engine::fetch::fetcher::Offer;
use crate::error::FetchError;
use crate::hit::BlobCacheHit;
use crate::key::NamespaceRef;
use crate::put::BlobCachePut;
use crate::wake::discard;

/// A fresh hit allocates nothing.
pub(crate) async fn get_or_fetch<F, Fut, E>(
    engine: &Arc<Engine>,
    namespace: NamespaceRef<'_>,
    key: &[u8],
    defaults: HandleDefaults<'_>,
    fetch: F,
) -> Result<BlobCacheHit, FetchError<E>>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<BlobCachePut, E>>,
    E: Send + Sync + 'static,
{
    match engine.gets().look_fresh(namespace, key) {
        Some(hit) => {
            unneeded(fetch);
            Ok(hit)
        }
        None => {
            let request = FetchRequest::new(engine, namespace, key, defaults);
            Box::pin(FetchFuture::new(Arc::new(request), FetchOnce::new(fetch))).await
        }
    }
}

/// A fresh or stale hit, and a refresh for a stale one.
pub(crate) async fn get_or_refresh<F, Fut, E>(
    engine: &Arc<Engine>,
    namespace: NamespaceRef<'_>,
    key: &[u8],
    defaults: HandleDefaults<'_>,
    fetch: F,
) -> Result<(BlobCacheHit, Option<BlobCacheRefresh<F, Fut, E>>), FetchError<E>>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<BlobCachePut, E>>,
    E: Send + Sync + 'static,
{
    match engine.gets().look_fresh(namespace, key) {
        Some(hit) => {
            unneeded(fetch);
            Ok((hit, None))
        }
        None => {
            let request = FetchRequest::new(engine, namespace, key, defaults);
            let (hit, refresh) =
                Box::pin(find_or_fetch(Arc::new(request), FetchOnce::new(fetch))).await?;
            Ok((hit, refresh.map(BlobCacheRefresh::new)))
        }
    }
}

/// Looks into both tiers. With a stale hit, the future of a refresh.
pub(crate) async fn find_or_fetch<C, E>(
    request: Arc<FetchRequest>,
    fetch: C,
) -> Result<(BlobCacheHit, Option<FetchFuture<C, E>>), FetchError<E>>
where
    C: CallerFetch<E>,
    E: Send + Sync + 'static,
{
    let Some(hit) = find(&request).await else {
        return FetchFuture::new(request, fetch).await.map(|hit| (hit, None));
    };
    let claim = if hit.is_stale() { claim::<E>(&request, false) } else { None };
    let Some(claim) = claim else {
        unneeded(fetch);
        return Ok((hit, None));
    };
    Ok((hit, Some(FetchFuture::refresh(request, fetch, claim))))
}

/// Looks into both tiers, and counts a hit.
async fn find(request: &Arc<FetchRequest>) -> Option<BlobCacheHit> {
    let hit = match request.look(Offer::Always) {
        Look::Done(found) => found,
        Look::OnDisk(looking) => looking.await,
    };
    hit.inspect(|hit| request.fetcher().count_hit(hit))
}

/// The right to refresh, unless a fetch is under way, or has failed a moment ago.
fn claim<E: Send + Sync + 'static>(request: &FetchRequest, is_ahead: bool) -> Option<Claim> {
    let claim = if request.may_refresh::<E>(is_ahead) { request.claim::<E>() } else { None };
    // A refresh may have failed before the claim.
    claim.filter(|_| request.may_refresh::<E>(is_ahead))
}

/// Drops a fetch that is not called. Its panic at the end of a function would leak the answer.
fn unneeded<F>(fetch: F) {
    discard(fetch);
}
