//! Fetching what the cache does not have: `get_or_fetch` and `get_or_refresh`.

use std::future::Future;
use std::sync::Arc;

use crate::cache::errand::{Errand, Look, Wanted};
use crate::cache::fetching::{BlobCacheRefresh, Fetching};
use crate::cache::shared::Shared;
use crate::error::FetchError;
use crate::hit::BlobCacheHit;
use crate::key::NamespaceRef;
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;

impl Shared {
    pub(super) async fn get_or_fetch<F, Fut, E>(
        self: &Arc<Self>,
        namespace: NamespaceRef<'_>,
        key: &[u8],
        policy: &Arc<BlobCachePolicy>,
        fetch: F,
    ) -> Result<BlobCacheHit, FetchError<E>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<BlobCachePut, E>>,
        E: Send + Sync + 'static,
    {
        let errand = Errand::new(self, namespace, key, policy);
        Fetching::new(errand, fetch).await
    }

    pub(super) async fn get_or_refresh<F, Fut, E>(
        self: &Arc<Self>,
        namespace: NamespaceRef<'_>,
        key: &[u8],
        policy: &Arc<BlobCachePolicy>,
        fetch: F,
    ) -> Result<(BlobCacheHit, Option<BlobCacheRefresh<F, Fut, E>>), FetchError<E>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<BlobCachePut, E>>,
        E: Send + Sync + 'static,
    {
        let errand = Errand::new(self, namespace, key, policy);
        let found = match Errand::look(&errand, Wanted::Any) {
            Look::Done(found) => found,
            Look::OnDisk(looking) => looking.await,
        };
        let Some(hit) = found else {
            return Fetching::new(errand, fetch).await.map(|hit| (hit, None));
        };
        self.count(&hit);
        let claim = if hit.is_stale() { errand.claim::<E>() } else { None };
        let refresh = claim.map(|claim| BlobCacheRefresh::new(errand, fetch, claim));
        Ok((hit, refresh))
    }
}
