//! `Fetcher`: what a fetch does with the cache: look, take part in flights, store.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::{Clock, Timestamp};
use crate::commit_lock::CommitLock;
use crate::counters::{Counters, Event};
use crate::engine::admission::Admission;
use crate::engine::fetch::failures::Failures;
use crate::engine::fetch::outcome::FlightOutcome;
use crate::engine::fetch::tasks::FetchTasks;
use crate::engine::fetch::told::Told;
use crate::engine::fetch::watch::WatchGuard;
use crate::engine::parts::Parts;
use crate::engine::read::disk_lookup::{DiskLookup, OnDisk};
use crate::engine::read::get::Gets;
use crate::engine::visibility::Visibility;
use crate::engine::write::put::Puts;
use crate::entry::{Entry, Extras, Mark};
use crate::error::CacheError;
use crate::fetch_policy::FetchPolicy;
use crate::flight::{Claim, Destination, Flights, Part};
use crate::hit::BlobCacheHit;
use crate::key::{HashedKey, KeyHash, KeyHasher, LabelHash, NamespaceRef};
use crate::label_texts::LabelTexts;
use crate::latency::Latencies;
use crate::moment::{Moment, ReadPoint};
use crate::namespace::{Generation, Namespaces};
use crate::policy::{BlobCachePolicy, Lifetime};
use crate::put::BlobCachePut;
use crate::remote::{RemoteHandle, Work};
use crate::telemetry::tell;
use crate::timeout::Timeout;
use crate::timer::Timer;

/// A fetched value, and the moment up to which callers may share it.
pub(crate) type Fetched = (BlobCacheHit, Moment);

#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) namespace: NamespaceRef<'a>,
    pub(crate) key: HashedKey<'a>,
    /// False if no entry can have this key. Then `key` is empty, and nothing is stored.
    pub(crate) is_in_bounds: bool,
}

/// Whether an entry that is found on disk is offered for promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// A stale entry is about to be replaced, or looked up again.
    IfFresh,
    Always,
}

pub(crate) struct Fetcher {
    commit_lock: Arc<CommitLock>,
    hasher: KeyHasher,
    clock: Clock,
    counters: Counters,
    namespaces: Arc<Namespaces>,
    flights: Arc<Flights<FlightOutcome, Moment>>,
    admission: Admission,
    visibility: Visibility,
    gets: Gets,
    latencies: Arc<Latencies>,
    disk_lookup: DiskLookup,
    puts: Arc<Puts>,
    failures: Failures,
    fetch_tasks: Arc<FetchTasks>,
    timer: Timer,
    told: Arc<Told>,
}

impl Fetcher {
    pub(crate) fn new(parts: &Parts, puts: Arc<Puts>) -> Self {
        Self {
            commit_lock: Arc::clone(&parts.commit_lock),
            hasher: parts.hasher.clone(),
            clock: parts.clock.clone(),
            counters: parts.counters.clone(),
            namespaces: Arc::clone(&parts.namespaces),
            flights: Arc::clone(&parts.flights),
            admission: Admission::new(parts),
            visibility: Visibility::new(parts),
            gets: Gets::new(parts),
            latencies: Arc::clone(&parts.latencies),
            disk_lookup: DiskLookup::new(parts),
            puts,
            failures: Failures::new(parts),
            fetch_tasks: Arc::clone(&parts.fetch_tasks),
            timer: parts.timer.clone(),
            told: Arc::clone(&parts.told),
        }
    }

    pub(crate) fn hash(&self, namespace: NamespaceRef<'_>, key: &[u8]) -> KeyHash {
        self.hasher.key(namespace.seed, key)
    }

    pub(crate) fn is_in_bounds(&self, namespace: NamespaceRef<'_>, key: &[u8]) -> bool {
        self.admission.check_namespace(namespace.name).is_ok()
            && self.admission.check_key(key).is_ok()
    }

    pub(crate) fn now(&self) -> ReadPoint {
        self.commit_lock.read_point()
    }

    /// A read point. From here on the key is tracked exactly.
    pub(crate) fn watch(&self, hash: KeyHash) -> WatchGuard {
        WatchGuard::new(&self.commit_lock, hash)
    }

    pub(crate) fn enter(&self, to: Destination<'_>, began: Moment) -> Part<FlightOutcome, Moment> {
        self.flights.enter(to, began)
    }

    pub(crate) fn claim(&self, to: Destination<'_>) -> Option<Claim<FlightOutcome, Moment>> {
        self.flights.claim(to, Duration::from_nanos(self.clock.timestamp().0))
    }

    /// Looks into memory. Counts neither a hit nor a miss.
    pub(crate) fn find(&self, target: Target<'_>) -> Option<BlobCacheHit> {
        self.gets.find(target.namespace, target.key)
    }

    pub(crate) fn find_on_disk(&self, target: Target<'_>) -> Option<OnDisk> {
        self.disk_lookup.find_on_disk(target.namespace, target.key.hash).unwrap_or_else(|_| {
            self.counters.count(Event::NegativeSkip);
            None
        })
    }

    /// Reads it from there. Counts neither a hit nor a miss.
    pub(crate) async fn read_entry(
        &self,
        on_disk: OnDisk,
        key: Arc<[u8]>,
        offer: Offer,
    ) -> Option<BlobCacheHit> {
        let found = self.disk_lookup.read_entry(on_disk, key).await?;
        Some(if offer == Offer::IfFresh && found.hit.is_stale() {
            found.hit
        } else {
            self.disk_lookup.offer_found(found)
        })
    }

    pub(crate) fn count(&self, event: Event) {
        self.counters.count(event);
    }

    pub(crate) fn count_miss(&self, namespace: &str) {
        self.gets.count_miss(namespace);
    }

    /// A caller's fetch has answered.
    pub(crate) fn count_fetched(&self, begun: Instant) {
        self.latencies.fetch.count(begun);
    }

    pub(crate) fn count_hit(&self, hit: &BlobCacheHit) {
        self.gets.count(hit);
    }

    pub(crate) fn failures(&self) -> &Failures {
        &self.failures
    }

    /// Runs it in a task. Gives it back if it must not.
    pub(crate) fn spawn<W: Work>(&self, work: W) -> Result<RemoteHandle<W, W::Output>, W> {
        let spawned = self.fetch_tasks.spawn(work, &self.timer);
        let event = if spawned.is_ok() { Event::FetchSpawned } else { Event::FetchNotSpawned };
        self.counters.count(event);
        spawned
    }

    pub(crate) fn timeout(&self, delay: Duration) -> Timeout {
        Timeout::new(&self.timer, delay)
    }

    /// Tells now and then that refreshes fail. A subscriber may block: not before others know.
    pub(crate) fn tell_not_refreshed(&self, namespace: &str) {
        self.told.not_refreshed.tell(|| {
            tell!(
                warn,
                "fetch",
                namespace,
                "a refresh has failed; the entry stays until its stale window ends"
            );
        });
    }

    /// A call has found a value that does not decode. No error: its codec has panicked.
    pub(crate) fn note_undecoded(&self, namespace: &str, error: Option<&dyn fmt::Display>) {
        self.counters.count(Event::ValueUndecoded);
        let error = error.unwrap_or(&"the codec panicked");
        self.told.not_decoded.tell(
            || tell!(warn, "typed", namespace, %error, "a stored value does not decode: a miss"),
        );
    }

    /// A fetched value cannot be encoded. No error: its codec has panicked.
    pub(crate) fn tell_not_encoded(&self, namespace: &str, error: Option<&dyn fmt::Display>) {
        let error = error.unwrap_or(&"the codec panicked");
        self.told.not_encoded.tell(
            || tell!(warn, "typed", namespace, %error, "fetched values are not stored: no bytes"),
        );
    }

    /// Whether a fresh hit is in the last share of its time, in which its policy has it refreshed.
    pub(crate) fn is_ending(&self, hit: &BlobCacheHit, policy: &FetchPolicy) -> bool {
        self.ending_at(hit, policy).is_some()
    }

    /// Whether its caller is to start that refresh: no other one has tried a moment ago.
    pub(crate) fn is_due(&self, hit: &BlobCacheHit, policy: &FetchPolicy) -> bool {
        let now = self.ending_at(hit, policy);
        now.is_some_and(|now| !self.failures.is_attempted(hit.entry.hash, now))
    }

    fn ending_at(&self, hit: &BlobCacheHit, policy: &FetchPolicy) -> Option<Timestamp> {
        let ends = hit.entry.expires();
        let share = policy.refresh_ahead.filter(|_| ends != Timestamp::NEVER)?;
        let now = self.clock.timestamp();
        share.has_begun(hit.entry.begun(), ends, now).then_some(now)
    }

    pub(crate) fn is_over(&self, hit: &BlobCacheHit) -> bool {
        hit.is_stale() && self.visibility.freshness(&hit.entry).is_expired()
    }

    pub(crate) async fn store(
        &self,
        target: Target<'_>,
        policy: &BlobCachePolicy,
        mut put: BlobCachePut,
        point: ReadPoint,
    ) -> Fetched {
        let policy = &*put.policy_or(policy);
        let life = self.puts.lifetime(policy, target.namespace, target.key.bytes);
        let read_at = older(put.read_at, point);
        put.read_at = Some(read_at);
        put.renews = true;
        let mut entry = self.twin(target, &put, policy, &life);
        // A value read at a point of another cache may be of any age.
        let until = if read_at.instance == point.instance {
            self.good_until(target, entry.labels(), read_at.moment)
        } else {
            Moment::default()
        };
        if target.is_in_bounds && !put.is_unencoded {
            let Target { namespace, key, .. } = target;
            let written = self.puts.store(namespace, key.bytes, &mut put, (policy, &life)).await;
            let stored = match written {
                Ok(written) => self.puts.finish_put(written).await,
                Err(error) => Err(error),
            };
            if let Err(error) = &stored {
                self.counters.count(Event::FetchNotStored);
                self.failures.rest(key.hash);
                self.tell_not_stored(error);
            }
        } else {
            self.counters.count(Event::FetchNotStored);
            if target.is_in_bounds {
                self.failures.rest(target.key.hash);
            }
        }
        entry.value = put.value.into_bytes();
        let stale = self.visibility.freshness(&entry).stale_window_left();
        (BlobCacheHit { entry: Arc::new(entry), stale }, until)
    }

    /// The last moment at which the key is known not to have been mutated since `from`.
    fn good_until(&self, target: Target<'_>, labels: &[LabelHash], from: Moment) -> Moment {
        let mut section = self.commit_lock.section();
        let full_key = (target.namespace.seed, target.key.bytes);
        if section.watermarks().mutated_since(from, full_key, target.key.hash, labels) {
            from
        } else {
            section.now()
        }
    }

    /// The entry for joiners, a twin of the stored one. Its value follows.
    fn twin(
        &self,
        Target { namespace, key, .. }: Target<'_>,
        put: &BlobCachePut,
        policy: &BlobCachePolicy,
        life: &Lifetime,
    ) -> Entry {
        let tags = put.tags.iter().map(String::as_str);
        let dependencies = put.dependencies.iter().map(String::as_str);
        let texts = LabelTexts::new(tags.clone(), dependencies.clone());
        let labels = (self.hasher.label_hashes(namespace, tags, dependencies), texts);
        let extras = Extras::new(put.content_metadata.clone(), labels, policy.version, life);
        let current = self.namespaces.find(namespace.name);
        let generation = current.unwrap_or_else(|| Generation::nowhere(namespace.name));
        let kind = (policy.priority, policy.l1_admission);
        let entry = Entry::new(generation, key, life, kind, extras);
        entry.mark(Mark::Fetched);
        if put.is_absent {
            entry.mark(Mark::Absent);
        }
        if put.is_unencoded {
            entry.mark(Mark::Unencoded);
        }
        entry
    }

    /// Logs that fetched values find no namespace slot: their callers are not told.
    fn tell_not_stored(&self, error: &CacheError) {
        if matches!(error, CacheError::TooManyNamespaces { .. }) {
            self.told
                .not_stored
                .tell(|| tell!(warn, "fetch", %error, "fetched values are not stored"));
        }
    }
}

/// The read point of a fetched value: its own, unless the fetch began before that.
fn older(own: Option<ReadPoint>, begun: ReadPoint) -> ReadPoint {
    match own {
        Some(own) if own.instance != begun.instance || own.moment < begun.moment => own,
        _ => begun,
    }
}
