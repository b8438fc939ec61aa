//! `FetchRequest`: the key that one caller fetches, and its policy.

use std::any::TypeId;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::counters::Event;
use crate::engine::Engine;
use crate::engine::fetch::fetcher::{Fetched, Fetcher, Offer, Target};
use crate::engine::fetch::outcome::{Answer, Failure, FlightOutcome, Outcome};
use crate::engine::fetch::typing::Typing;
use crate::engine::fetch::watch::WatchGuard;
use crate::error::FetchError;
use crate::fetch_policy::FetchPolicy;
use crate::flight::{Claim, Destination, Part};
use crate::gate::Governed;
use crate::hit::BlobCacheHit;
use crate::key::{HashedKey, KeyHash, NamespaceRef, NamespaceSeed};
use crate::moment::Moment;
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;
use crate::telemetry::Contained;
use crate::timeout::Timeout;
use crate::wake::discard;

/// Owns its memory, since a refresh outlives its call.
pub(crate) struct FetchRequest {
    fetcher: Arc<Fetcher>,
    /// Keeps the cache open, unless the fetch is to run in a task: that must not.
    _open: Option<Arc<Engine>>,
    namespace: Box<str>,
    seed: NamespaceSeed,
    key: Arc<[u8]>,
    hash: KeyHash,
    /// For fetched puts without a policy of their own.
    policy: Arc<BlobCachePolicy>,
    /// When the fetch was called. Here, because it would make every future of a fetch longer.
    called: OnceLock<Instant>,
    pub(crate) fetch_policy: FetchPolicy,
    /// False if no entry can have this key. Then `key` is empty, and no flight is joined.
    is_in_bounds: bool,
    typing: Option<Typing>,
    governed: Option<Governed>,
    /// The span of the caller of a fetch in a task, until the fetch has its own: not for longer,
    /// because it would not end.
    cause: Mutex<Option<Contained>>,
}

/// What a namespace handle says; None: what holds for the namespace or the cache.
#[derive(Clone, Copy, Default)]
pub(crate) struct HandleDefaults<'a> {
    pub(crate) policy: Option<&'a Arc<BlobCachePolicy>>,
    pub(crate) fetch_policy: Option<FetchPolicy>,
}

impl HandleDefaults<'_> {
    pub(crate) fn fetch_policy(&self, engine: &Engine, namespace: NamespaceRef<'_>) -> FetchPolicy {
        let config = engine.config();
        let own = || config.namespaces.of(namespace.name).fetch_policy;
        self.fetch_policy.or_else(own).unwrap_or(config.fetch_policy)
    }
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

impl FetchRequest {
    pub(crate) fn new(
        engine: &Arc<Engine>,
        namespace: NamespaceRef<'_>,
        key: &[u8],
        defaults: HandleDefaults<'_>,
    ) -> Self {
        let is_in_bounds = engine.fetcher().is_in_bounds(namespace, key);
        let key = if is_in_bounds { key } else { &[] };
        let own = engine.config().namespaces.of(namespace.name);
        let policy = defaults.policy.or(own.policy.as_ref());
        Self {
            hash: engine.fetcher().hash(namespace, key),
            fetcher: Arc::clone(engine.fetcher()),
            _open: Some(Arc::clone(engine)),
            namespace: namespace.name.into(),
            seed: namespace.seed,
            key: key.into(),
            called: OnceLock::new(),
            policy: policy.cloned().unwrap_or_default(),
            fetch_policy: defaults.fetch_policy(engine, namespace),
            is_in_bounds,
            typing: None,
            governed: own.governed.clone(),
            cause: Mutex::default(),
        }
    }

    /// The same for typed values.
    pub(crate) fn typed(mut self, typing: Typing) -> Self {
        self.typing = Some(typing);
        self
    }

    /// The same for a fetch that may run in a task, in the span of its caller.
    pub(crate) fn for_task(mut self) -> Self {
        self._open = None;
        self.cause = Mutex::new(Some(Contained::current()));
        self
    }

    /// Whether the call has a use for a value that it finds or shares.
    pub(crate) fn accepts(&self, hit: &BlobCacheHit) -> bool {
        self.typing.as_ref().is_none_or(|typing| typing.accepts(hit))
    }

    /// The time by the clock of its gate, if that keeps entries back.
    pub(crate) fn closed_at(&self) -> Option<Duration> {
        self.governed.as_ref().and_then(Governed::closed_at)
    }

    /// The time by the clock of its gate, if it has one.
    pub(crate) fn gate_time(&self) -> Option<Duration> {
        self.governed.as_ref().map(|governed| governed.gate.now())
    }

    pub(crate) fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    /// What a caller is given that takes an answer now.
    pub(crate) fn outcome<E>(&self, answer: Answer<E>) -> Outcome<E> {
        match answer {
            Answer::Hit(hit) => Ok(hit),
            Answer::Stale(hit, error) if self.fetcher().is_over(&hit) => {
                discard(hit);
                Err(error)
            }
            Answer::Stale(hit, error) => {
                discard(error);
                self.fetcher().count(Event::StaleServe);
                Ok(hit)
            }
            Answer::Failed(error) => Err(error),
        }
    }

    /// Whether a fresh hit is to be refreshed ahead of its end.
    pub(crate) fn is_ending(&self, hit: &BlobCacheHit) -> bool {
        self.fetcher().is_ending(hit, &self.fetch_policy)
    }

    /// Whether this call is to refresh a fresh hit: see [`Fetcher::is_due`].
    pub(crate) fn is_due(&self, hit: &BlobCacheHit) -> bool {
        self.fetcher().is_due(hit, &self.fetch_policy)
    }

    pub(crate) fn begin_attempt(&self) {
        self.fetcher().failures().begin_attempt(self.hash);
    }

    pub(crate) fn end_attempt(&self) {
        self.fetcher().failures().end_attempt(self.hash);
    }

    /// `is_ahead`: its caller has a fresh entry, and is not held off.
    pub(crate) fn may_refresh<E: Send + Sync + 'static>(&self, is_ahead: bool) -> bool {
        !self.is_resting() && !self.is_held_off::<E>(is_ahead)
    }

    /// A span for the polls of a caller's fetch.
    pub(crate) fn span(&self) -> Contained {
        let namespace = &*self.namespace;
        let span = || tracing::debug_span!(target: "tamis::fetch", "fetch", namespace);
        let span = Contained::new(span);
        let cause = self.cause.lock().take();
        // Bounded: one.
        cause.into_iter().for_each(|cause| span.follow(&cause));
        span
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
        let identity = self.typing.as_ref().map_or(TypeId::of::<E>(), |typing| typing.identity);
        let id = (self.hash.0, identity);
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

    fn is_resting(&self) -> bool {
        self.fetcher().failures().is_resting(self.hash)
    }

    /// The error that keeps this call from fetching, and the read point of the fetch that failed.
    pub(crate) fn held<E: Send + Sync + 'static>(&self) -> Option<(FetchError<E>, Moment)> {
        let retry_after = self.fetch_policy.retry_after?;
        let (of, target) = (self.destination::<E>(), self.target());
        let full_key = (target.namespace.seed, target.key);
        let found = self.fetcher().failures().held(of, full_key, retry_after)?;
        Some((found.failure.error()?, found.at))
    }

    /// Whether an error keeps this call from handing out a refresh. Then it counts as held off,
    /// unless its entry is fresh.
    fn is_held_off<E: Send + Sync + 'static>(&self, is_ahead: bool) -> bool {
        let held = self.held::<E>();
        let is_held_off = held.is_some();
        discard(held);
        if is_held_off && !is_ahead {
            self.fetcher().count(Event::FetchHeldOff);
        }
        is_held_off
    }

    /// Keeps others from fetching, if the policy says so.
    pub(crate) fn hold<E: Send + Sync + 'static>(&self, error: &FetchError<E>, watch: WatchGuard) {
        if let Some(retry_after) = self.fetch_policy.retry_after.filter(|_| self.is_in_bounds) {
            let failure = (Failure::new(error.clone()), size_of::<E>());
            self.fetcher().failures().hold(self.destination::<E>(), failure, watch, retry_after);
        }
    }

    /// Its fetch has succeeded.
    pub(crate) fn forget_held<E: 'static>(&self) {
        self.fetcher().failures().forget(self.destination::<E>());
    }

    pub(crate) fn soft_timeout(&self) -> Option<Timeout> {
        self.fetch_policy.soft_timeout.map(|timeout| self.fetcher().timeout(timeout))
    }

    pub(crate) fn hard_timeout(&self) -> Option<Timeout> {
        self.fetch_policy.hard_timeout.map(|timeout| self.fetcher().timeout(timeout))
    }

    pub(crate) fn rest(&self) {
        self.fetcher().failures().rest(self.hash);
    }

    /// Looks into memory. Counts neither a hit nor a miss.
    pub(crate) fn find(&self) -> Option<BlobCacheHit> {
        let hit = if self.is_in_bounds { self.fetcher().find(self.target()) } else { None };
        hit.filter(|hit| self.accepts(hit))
    }

    /// Looks into both tiers. Counts neither a hit nor a miss.
    pub(crate) fn look(self: &Arc<Self>, offer: Offer) -> Look {
        if !self.is_in_bounds {
            return Look::Done(None);
        }
        if let Some(hit) = self.fetcher().find(self.target()) {
            return Look::Done(Some(hit).filter(|hit| self.accepts(hit)));
        }
        let Some(on_disk) = self.fetcher().find_on_disk(self.target()) else {
            return Look::Done(None);
        };
        let request = Arc::clone(self);
        Look::OnDisk(Box::pin(async move {
            let key = Arc::clone(&request.key);
            let found = request.fetcher().read_entry(on_disk, key, offer).await;
            found.filter(|hit| request.accepts(hit))
        }))
    }

    pub(crate) fn watch(&self) -> WatchGuard {
        self.fetcher().watch(self.hash)
    }

    /// `renews`: it may replace a fresh entry of the same version.
    pub(crate) async fn store(
        self: Arc<Self>,
        mut put: BlobCachePut,
        watch: WatchGuard,
        renews: bool,
    ) -> Fetched {
        put.replaces = renews || self.typing.as_ref().is_some_and(Typing::has_refused);
        self.fetcher().store(self.target(), &self.policy, put, watch.point).await
    }
}
