//! `Errand`: what one caller of a fetch wants, and what is done for it with the cache.

use std::any::TypeId;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;

use crate::cache::shared::Shared;
use crate::counters::Event;
use crate::entry::{Entry, Extras, Mark};
use crate::flight::{Claim, Destination, Part};
use crate::hit::BlobCacheHit;
use crate::key::{KeyHash, LabelHash, NamespaceRef, NamespaceSeed};
use crate::moment::{Moment, ReadPoint};
use crate::namespace::Namespace;
use crate::policy::{BlobCachePolicy, Lifetime};
use crate::put::BlobCachePut;

/// What one caller wants, in memory of its own: a refresh outlives the call that it comes from.
pub(super) struct Errand {
    pub(super) shared: Arc<Shared>,
    namespace: Box<str>,
    seed: NamespaceSeed,
    key: Box<[u8]>,
    hash: KeyHash,
    /// For a fetched put that has none.
    policy: Arc<BlobCachePolicy>,
    /// False where nothing can be held under such a key, so that there is nothing to wait for.
    is_in_bounds: bool,
}

/// What a look is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A stale entry is not going to be answered, or is looked for again if it is.
    Fresh,
    Any,
}

/// An entry that is being looked for.
pub(super) enum Look {
    Done(Option<BlobCacheHit>),
    OnDisk(BoxFuture<'static, Option<BlobCacheHit>>),
}

impl Look {
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<BlobCacheHit>> {
        match self {
            Self::Done(found) => Poll::Ready(found.take()),
            Self::OnDisk(looking) => looking.as_mut().poll(context),
        }
    }
}

/// The point at which a fetch reads. While it lasts, an eye is kept on the key, so that what
/// happens to others is not taken for this one.
pub(super) struct Reading {
    pub(super) point: ReadPoint,
    errand: Arc<Errand>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let Errand { shared, hash, .. } = &*self.errand;
        shared.order.section().watermarks().unwatch(*hash);
    }
}

/// A value that has been fetched, and up to which moment a caller may have come to be given it.
pub(super) type Fetched = (BlobCacheHit, Moment);

impl Errand {
    pub(super) fn new(
        shared: &Arc<Shared>,
        namespace: NamespaceRef<'_>,
        key: &[u8],
        policy: &Arc<BlobCachePolicy>,
    ) -> Arc<Self> {
        let is_in_bounds =
            shared.check_namespace(namespace.name).is_ok() && shared.check_key(key).is_ok();
        let key = if is_in_bounds { key } else { &[] };
        Arc::new(Self {
            hash: shared.hasher.key(namespace.seed, key),
            shared: Arc::clone(shared),
            namespace: namespace.name.into(),
            seed: namespace.seed,
            key: key.into(),
            policy: Arc::clone(policy),
            is_in_bounds,
        })
    }

    fn namespace(&self) -> NamespaceRef<'_> {
        NamespaceRef { name: &self.namespace, seed: self.seed }
    }

    fn destination<E: 'static>(&self) -> Destination<'_> {
        let id = (self.hash.0, TypeId::of::<E>());
        Destination { id, namespace: &self.namespace, key: &self.key }
    }

    /// Takes part in the flight of this key, for a call that began at that moment.
    pub(super) fn enter<E: 'static>(&self, began: Moment) -> Part<BlobCacheHit, Moment> {
        if !self.is_in_bounds {
            return Part::None;
        }
        self.shared.flights.enter(self.destination::<E>(), began)
    }

    pub(super) fn claim<E: 'static>(&self) -> Option<Claim<BlobCacheHit, Moment>> {
        let now = Duration::from_nanos(self.shared.clock.timestamp().0);
        self.shared.flights.claim(self.destination::<E>(), now)
    }

    /// Looks for the entry in both tiers, and counts neither a hit nor a miss.
    pub(super) fn look(this: &Arc<Self>, wanted: Wanted) -> Look {
        if !this.is_in_bounds {
            return Look::Done(None);
        }
        let shared = &this.shared;
        if let Some(hit) = shared.find(this.namespace(), &this.key, this.hash) {
            return Look::Done(Some(hit));
        }
        match shared.find_on_disk(this.namespace(), this.hash) {
            Ok(Some(on_disk)) => {
                let errand = Arc::clone(this);
                Look::OnDisk(Box::pin(async move {
                    let found = errand.shared.find_below(on_disk, &errand.key).await?;
                    Some(match wanted == Wanted::Fresh && found.hit.is_stale() {
                        true => found.hit,
                        false => errand.shared.offer_found(found),
                    })
                }))
            }
            nothing => {
                shared.counters.add(Event::NegativeSkip, u64::from(nothing.is_err()));
                Look::Done(None)
            }
        }
    }

    /// Begins to read what is to be put under the key.
    pub(super) fn read(this: &Arc<Self>) -> Reading {
        let point = this.shared.order.section().watch(this.hash);
        Reading { point, errand: Arc::clone(this) }
    }

    /// Stores what a fetch has brought, if that can be stored.
    pub(super) async fn store(self: Arc<Self>, mut put: BlobCachePut, reading: Reading) -> Fetched {
        let point = reading.point;
        let policy = &*put.policy_or(&self.policy);
        let life = self.shared.lifetime(policy, self.namespace(), &self.key);
        let read_at = older(put.read_at, point);
        put.read_at = Some(read_at);
        put.renews = true;
        // What was read at a point of another cache may be of any age.
        let is_known = read_at.instance == point.instance;
        let mut entry = self.entry(&put, policy, &life);
        let until = match is_known {
            true => self.good_until(entry.labels(), read_at.moment),
            false => Moment::default(),
        };
        let (shared, place) = (&self.shared, self.namespace());
        let mut stored = None;
        if self.is_in_bounds {
            let written = shared.store(place, &self.key, &mut put, (policy, &life)).await;
            stored = Some(match written {
                Ok(written) => shared.finish_put(written).await,
                Err(error) => Err(error),
            });
        }
        if let Some(Err(error)) = &stored {
            shared.tell_not_stored(error);
        }
        if !matches!(stored, Some(Ok(()))) {
            shared.counters.count(Event::FetchNotStored);
        }
        entry.value = put.value.into_bytes();
        let stale = shared.freshness(&entry).window_left();
        (BlobCacheHit { entry: Arc::new(entry), stale }, until)
    }

    /// The last moment of which it is known that nothing has happened since `from` to what was
    /// fetched then.
    fn good_until(&self, labels: &[LabelHash], from: Moment) -> Moment {
        let mut section = self.shared.order.section();
        let (place, hash) = ((self.seed, &*self.key), self.hash);
        match section.watermarks().mutated_since(from, place, hash, labels) {
            true => from,
            false => section.now(),
        }
    }

    /// The entry that those who waited are given: a twin of the one that is stored, if it is. It
    /// waits for its value.
    fn entry(&self, put: &BlobCachePut, policy: &BlobCachePolicy, life: &Lifetime) -> Entry {
        let tags = put.tags.iter().map(String::as_str);
        let dependencies = put.dependencies.iter().map(String::as_str);
        let labels = self.shared.label_hashes(self.namespace(), tags, dependencies);
        let extras = Extras::new(put.content_metadata.clone(), labels, policy.version, life);
        let held = self.shared.namespaces.find(&self.namespace);
        let namespace = held.unwrap_or_else(|| Namespace::nowhere(&self.namespace));
        let kind = (policy.priority, policy.l1_admission);
        let mut entry = Entry::new(namespace, (&self.key, self.hash), life, kind, extras);
        entry.mark(Mark::Fetched);
        if put.is_absent {
            entry.mark(Mark::Absent);
        }
        entry
    }
}

/// The point that a fetched value was read at: its own, if it has one, and the fetch did not begin
/// before that.
fn older(own: Option<ReadPoint>, begun: ReadPoint) -> ReadPoint {
    match own {
        Some(own) if own.instance != begun.instance || own.moment < begun.moment => own,
        _ => begun,
    }
}
