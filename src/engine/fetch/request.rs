//! `FetchRequest`: the key that one caller fetches, and its policy.

use std::any::TypeId;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::BoxFuture;

use crate::engine::Engine;
use crate::engine::fetch::fetcher::{Fetched, Fetcher, Offer, Target};
use crate::engine::fetch::outcome::FlightOutcome;
use crate::failpoint::{Failpoint, failpoint};
use crate::flight::{Claim, Destination, Part};
use crate::hit::BlobCacheHit;
use crate::key::{HashedKey, KeyHash, NamespaceRef, NamespaceSeed};
use crate::moment::{Moment, ReadPoint};
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;
use crate::telemetry::{Spanned, spanned};

/// Owns its memory, since a refresh outlives its call. Keeps the cache open.
pub(crate) struct FetchRequest {
    engine: Arc<Engine>,
    namespace: Box<str>,
    seed: NamespaceSeed,
    key: Arc<[u8]>,
    hash: KeyHash,
    /// For fetched puts without a policy of their own.
    policy: Arc<BlobCachePolicy>,
    /// When the fetch was called. Here, because it would make every future of a fetch longer.
    called: OnceLock<Instant>,
    /// False if no entry can have this key. Then `key` is empty, and no flight is joined.
    is_in_bounds: bool,
}

pub(crate) enum Look {
    Done(Option<BlobCacheHit>),
    OnDisk(BoxFuture<'static, Option<BlobCacheHit>>),
}

impl Look {
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<BlobCacheHit>> {
        match self {
            Self::Done(found) => Poll::Ready(found.take()),
            Self::OnDisk(looking) => looking.as_mut().poll(context),
        }
    }
}

/// The read point of a fetch. While it lives, its key is tracked exactly: see `Watermarks`.
pub(crate) struct WatchGuard {
    pub(crate) point: ReadPoint,
    request: Arc<FetchRequest>,
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        if failpoint(Failpoint::WatchLost) {
            return;
        }
        self.request.fetcher().unwatch(self.request.hash);
    }
}

impl FetchRequest {
    pub(crate) fn new(
        engine: &Arc<Engine>,
        namespace: NamespaceRef<'_>,
        key: &[u8],
        policy: Option<&Arc<BlobCachePolicy>>,
    ) -> Arc<Self> {
        let is_in_bounds = engine.fetcher().is_in_bounds(namespace, key);
        let key = if is_in_bounds { key } else { &[] };
        let of_namespace = || engine.config().namespaces.of(namespace.name).policy.as_ref();
        Arc::new(Self {
            hash: engine.fetcher().hash(namespace, key),
            engine: Arc::clone(engine),
            namespace: namespace.name.into(),
            seed: namespace.seed,
            key: key.into(),
            policy: policy.or_else(of_namespace).cloned().unwrap_or_default(),
            called: OnceLock::new(),
            is_in_bounds,
        })
    }

    pub(crate) fn fetcher(&self) -> &Fetcher {
        self.engine.fetcher()
    }

    /// A span around the polls of a caller's fetch.
    pub(crate) fn spanned<F: Future>(&self, fetching: F) -> Spanned<Pin<Box<F>>> {
        let namespace = &*self.namespace;
        let span = || tracing::debug_span!(target: "tamis::fetch", "fetch", namespace);
        spanned(span, fetching)
    }

    pub(crate) fn note_called(&self) {
        let _ = self.called.set(Instant::now());
    }

    /// The fetch has answered.
    pub(crate) fn count_fetched(&self) {
        if let Some(&begun) = self.called.get() {
            self.fetcher().count_fetched(begun);
        }
    }

    pub(crate) fn count_miss(&self) {
        self.fetcher().count_miss(&self.namespace);
    }

    fn target(&self) -> Target<'_> {
        let namespace = NamespaceRef { name: &self.namespace, seed: self.seed };
        let key = HashedKey { bytes: &self.key, hash: self.hash };
        Target { namespace, key, is_in_bounds: self.is_in_bounds }
    }

    fn destination<E: 'static>(&self) -> Destination<'_> {
        let id = (self.hash.0, TypeId::of::<E>());
        Destination { id, namespace: &self.namespace, key: &self.key }
    }

    pub(crate) fn enter<E: 'static>(&self, began: Moment) -> Part<FlightOutcome, Moment> {
        if !self.is_in_bounds {
            return Part::None;
        }
        self.fetcher().enter(self.destination::<E>(), began)
    }

    pub(crate) fn claim<E: 'static>(&self) -> Option<Claim<FlightOutcome, Moment>> {
        self.fetcher().claim(self.destination::<E>())
    }

    pub(crate) fn is_resting(&self) -> bool {
        self.fetcher().is_resting(self.hash)
    }

    pub(crate) fn rest(&self) {
        self.fetcher().rest(self.hash);
    }

    /// Looks into memory. Counts neither a hit nor a miss.
    pub(crate) fn find(&self) -> Option<BlobCacheHit> {
        if self.is_in_bounds { self.fetcher().find(self.target()) } else { None }
    }

    /// Looks into both tiers. Counts neither a hit nor a miss.
    pub(crate) fn look(self: &Arc<Self>, offer: Offer) -> Look {
        if !self.is_in_bounds {
            return Look::Done(None);
        }
        if let Some(hit) = self.fetcher().find(self.target()) {
            return Look::Done(Some(hit));
        }
        let Some(on_disk) = self.fetcher().find_on_disk(self.target()) else {
            return Look::Done(None);
        };
        let request = Arc::clone(self);
        Look::OnDisk(Box::pin(async move {
            request.fetcher().read_entry(on_disk, Arc::clone(&request.key), offer).await
        }))
    }

    pub(crate) fn watch(self: &Arc<Self>) -> WatchGuard {
        let point = self.fetcher().watch(self.hash);
        WatchGuard { point, request: Arc::clone(self) }
    }

    pub(crate) async fn store(self: Arc<Self>, put: BlobCachePut, watch: WatchGuard) -> Fetched {
        self.fetcher().store(self.target(), &self.policy, put, watch.point).await
    }
}
