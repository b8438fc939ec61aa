//! Runs operations on a cache and on the model, and compares all observable state.

use std::collections::HashMap;
use std::sync::OnceLock;

use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tamis::{
    BackgroundSweep, BlobCache, BlobCacheConfig, BlobCacheNamespace, BlobCachePut, CacheError,
    CachePresence, CacheTier, Clock, ReadPoint, SweepLimit,
};

use crate::jitter::Jitter;
use crate::naive::{Model, charge};
use crate::operation::{
    FullKey, KEY_BYTES_MAX, LABEL_BYTES_MAX, LABELS_MAX, METADATA_BYTES_MAX, METADATA_KEYS_MAX,
    Mix, NAMESPACES, Operation, Policy, Put, ReadAt, START, Verb, time,
};
use crate::seen::{Counts, Seen};
use crate::slots::shared_slots;

/// A tiny cache always admits a value of this size, whatever its labels and metadata.
const UNCHARGED_BYTES_MAX: usize = 4000;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) l1_bytes_max: usize,
    pub(crate) key_hash_bits: u32,
    /// Whether evictions may occur.
    pub(crate) is_tiny: bool,
}

/// Totals of all cases of a test, so that a test in which nothing happens fails.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) operations: u64,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) evictions: u64,
    pub(crate) stale_serves: u64,
    pub(crate) idle_expirations: u64,
    pub(crate) invalidations: u64,
    /// Entries of listings.
    pub(crate) listed: u64,
    /// Entries that calls about dependencies of several namespaces have found.
    pub(crate) over_dependencies: u64,
    /// Puts with a read point that were stored, and those refused without a conflict.
    pub(crate) points_accepted: u64,
    pub(crate) points_refused_for_nothing: u64,
    pub(crate) slots_given_up: u64,
    pub(crate) errors: HashMap<&'static str, u64>,
}

pub(crate) struct Driver<'a> {
    pub(crate) setting: Setting,
    pub(crate) cache: BlobCache,
    pub(crate) model: Model,
    pub(crate) tally: &'a mut Tally,
    clock: Clock,
    pub(crate) jitter: Jitter,
    /// Handles of some namespaces, with their default policies.
    handles: HashMap<&'static str, (BlobCacheNamespace, Policy)>,
    /// The policies of some namespaces.
    pub(crate) defaults: HashMap<&'static str, Policy>,
    points: Vec<(ReadPoint, usize)>,
}

impl<'a> Driver<'a> {
    pub(crate) fn run(setting: Setting, seed: u64, operations: u64, tally: &'a mut Tally) {
        let mut random = StdRng::seed_from_u64(seed);
        let mix = Mix { is_calm: random.random() };
        let mut driver = Self::new(setting, &mut random, tally);
        for number in 0..operations {
            let operation = Operation::random(&mut random, mix, driver.model.now, number + 1);
            driver.step(operation);
        }
        driver.finish();
    }

    fn new(setting: Setting, random: &mut StdRng, tally: &'a mut Tally) -> Self {
        let clock = Clock::manual(time(START));
        let is_charged = random.random();
        let narrow = setting.key_hash_bits < 64;
        // Colliding keys can be found only if all namespaces fit at once.
        let max_namespaces = random.random_range(if narrow { 5..6 } else { 3..6 });
        let mut builder = BlobCacheConfig::builder()
            .background_sweep(BackgroundSweep::Off)
            .l1_bytes_max(setting.l1_bytes_max)
            .key_hash_bits(setting.key_hash_bits)
            .max_namespaces(max_namespaces)
            .shard_count(random.random_range(1..5))
            .key_bytes_max(KEY_BYTES_MAX)
            .labels_max(LABELS_MAX)
            .label_bytes_max(LABEL_BYTES_MAX)
            .content_metadata_keys_max(METADATA_KEYS_MAX)
            .content_metadata_bytes_max(METADATA_BYTES_MAX)
            .clock(clock.clone());
        if is_charged {
            builder = builder.l1_charge(charge);
        }
        let mut defaults = HashMap::new();
        for name in &NAMESPACES[1..3] {
            let of_policy = Policy::random(random, START);
            let admission =
                random.random_bool(0.3).then(|| Policy::random(random, START).admission);
            builder = builder.namespace(name, |it| {
                let it = it.policy(of_policy.build());
                admission.map_or(it.clone(), |admission| it.l1_admission(admission))
            });
            let admission = admission.unwrap_or(of_policy.admission);
            defaults.insert(*name, Policy { admission, ..of_policy });
        }
        let config = builder.build().expect("every field is in its range");
        let cache = block_on(BlobCache::open(config)).expect("a cache in memory opens");
        let slots = if narrow { shared_slots(&cache) } else { HashMap::new() };
        let handles = NAMESPACES[..4].iter().map(|name| {
            let handle = cache.namespace(name);
            if random.random_bool(0.3) {
                return (*name, (handle, defaults.get(name).cloned().unwrap_or_default()));
            }
            let policy = Policy::random(random, START);
            (*name, (handle.with_policy(policy.build()), policy))
        });
        let handles = handles.collect();
        let model = Model {
            now: START,
            max_namespaces,
            charged_bytes_max: is_charged.then_some(setting.l1_bytes_max),
            slots,
            counts: Counts::from(&cache.stats()),
            ..Default::default()
        };
        let (jitter, points) = (Jitter::new(), Vec::new());
        Self { setting, cache, model, tally, clock, jitter, handles, defaults, points }
    }

    fn step(&mut self, operation: Operation) {
        let shown = operation.clone();
        let handle = self.handles.get(operation.verb.namespace()).filter(|_| operation.by_handle);
        let (handle, default) = handle.cloned().unzip();
        let mut written = None;
        let verb = match operation.verb {
            // One at a time, so that it is known which of them evicts what.
            Verb::PutMany(mut puts) if self.setting.is_tiny => {
                puts.pop().map_or(Verb::TakePoint, |put| Verb::Put(Box::new(put)))
            }
            verb => verb,
        };
        match verb {
            Verb::Put(put) => {
                if self.model.needs_a_slot(put.full_key.namespace) {
                    // An expired entry frees its namespace's slot: swept here, so that the model
                    // knows which.
                    block_on(self.cache.sweep_expired(SweepLimit::Entries(usize::MAX)));
                    self.model.sweep();
                }
                let was_taken = self.model.is_slot_taken(&put.full_key);
                written = Some((put.full_key.clone(), was_taken));
                self.put(*put, handle, default);
            }
            Verb::PutMany(puts) => {
                if puts.first().is_some_and(|put| self.model.needs_a_slot(put.full_key.namespace)) {
                    block_on(self.cache.sweep_expired(SweepLimit::Entries(usize::MAX)));
                    self.model.sweep();
                }
                self.put_many(puts, handle, default);
            }
            Verb::Get(full_key) => self.get(&full_key, handle),
            Verb::GetMany(name, keys) => self.get_many(name, &keys, handle),
            Verb::Exists(full_key) => self.exists(&full_key, handle),
            Verb::Keys(listing) => self.list(&listing, handle),
            Verb::Touch(full_key, policy) => self.touch(&full_key, &policy, handle),
            Verb::TakePoint => self.points.push((self.cache.read_point(), self.model.moment())),
            Verb::Advance(by) => {
                self.clock.advance(std::time::Duration::from_nanos(by));
                self.model.now += by;
            }
            Verb::StepBack(by) => {
                self.model.now -= by;
                self.clock.set(time(self.model.now));
            }
            verb => {
                match verb.expires() {
                    true => self.expire(verb, handle),
                    false => self.invalidate(verb, handle),
                }
                // Its steps have removed expired entries on their way.
                block_on(self.cache.sweep_expired(SweepLimit::Entries(usize::MAX)));
                self.model.sweep();
            }
        }
        self.settle_evictions(written, &shown);
        self.compare(&shown);
        self.tally.operations += 1;
    }

    fn get(&mut self, full_key: &FullKey, handle: Option<BlobCacheNamespace>) {
        let hit = block_on(async {
            match handle {
                Some(handle) => handle.get(&full_key.key).await,
                None => self.cache.get(full_key.namespace, &full_key.key).await,
            }
        });
        assert!(hit.iter().all(|hit| hit.tier() == CacheTier::L1));
        let expected = self.model.get(full_key);
        assert_eq!(hit.as_ref().map(Seen::from), expected, "get of {full_key:?}");
    }

    fn exists(&mut self, full_key: &FullKey, handle: Option<BlobCacheNamespace>) {
        let presence = match handle {
            Some(handle) => handle.exists(&full_key.key),
            None => self.cache.exists(full_key.namespace, &full_key.key),
        };
        let expected = if self.model.exists(full_key) {
            CachePresence::Present
        } else {
            CachePresence::Absent
        };
        assert_eq!(presence, expected, "exists of {full_key:?}");
    }

    fn put(&mut self, mut put: Put, handle: Option<BlobCacheNamespace>, default: Option<Policy>) {
        if self.setting.is_tiny && self.model.charged_bytes_max.is_none() {
            put.value.truncate(UNCHARGED_BYTES_MAX);
        }
        let default = default.or_else(|| self.defaults.get(put.full_key.namespace).cloned());
        let policy = put.policy.clone().or(default).unwrap_or_default();
        let (point, moment) = match put.read_at {
            ReadAt::None => (None, None),
            ReadAt::Now => (Some(self.cache.read_point()), Some(self.model.moment())),
            ReadAt::Foreign => (Some(foreign_point()), None),
            ReadAt::Taken(back) => {
                let taken = self.points.iter().rev().nth(back).copied();
                (taken.map(|(point, _)| point), taken.map(|(_, moment)| moment))
            }
        };
        let refusals = self.model.refusals(&put, &policy);
        let offer = offer(&put, point);
        let result = block_on(async {
            match handle {
                Some(handle) => handle.put(&put.full_key.key, offer).await,
                None => self.cache.put(put.full_key.namespace, &put.full_key.key, offer).await,
            }
        });
        let is_outdated = match moment {
            Some(moment) => self.model.is_outdated(&put, moment),
            None => point.is_some(),
        };
        let refused =
            self.cache.stats().stale_sets_refused() - self.model.counts.stale_sets_refused;
        self.model.counts.stale_sets_refused += refused;
        if refused == 1 {
            // Such a put needs no namespace slot; all other limits apply to it.
            let is_of_names = |error: &_| matches!(error, CacheError::TooManyNamespaces { .. });
            assert!(result == Ok(()) && refusals.iter().all(is_of_names), "{refusals:?}");
            self.tally.points_refused_for_nothing += u64::from(!is_outdated);
            return;
        }
        let is_put = refusals.is_empty();
        self.apply((put, policy), &refusals, result);
        if is_put {
            assert!(!is_outdated && refused == 0, "{refused} refused");
            self.tally.points_accepted += u64::from(point.is_some());
        }
    }

    /// Compares the result of a put without a read point, and applies it to the model.
    pub(crate) fn apply(
        &mut self,
        (put, policy): (Put, Policy),
        refusals: &[CacheError],
        result: Result<(), CacheError>,
    ) {
        if !refusals.is_empty() {
            let error = result.expect_err("the model refuses it");
            assert!(refusals.contains(&error), "{error:?} is none of {refusals:?}");
            let is_mismatch = matches!(error, CacheError::VersionMismatch { .. });
            self.model.counts.version_mismatches += u64::from(is_mismatch);
            *self.tally.errors.entry(name_of(&error)).or_default() += 1;
            return;
        }
        assert_eq!(result, Ok(()));
        self.take_namespace_slot(put.full_key.namespace);
        let expires = self.jitter.expiry(&put.full_key, self.model.now, &policy);
        self.model.put(put, policy, expires);
    }

    /// A put needed a slot for its namespace. Which empty namespace gives up its slot is not
    /// specified: the cache is asked.
    fn take_namespace_slot(&mut self, name: &'static str) {
        if self.model.namespaces.contains(&name) {
            return;
        }
        if self.model.namespaces.len() == self.model.max_namespaces {
            let mut empty = self.model.empty_namespaces();
            empty.retain(|name| self.cache.namespace_stats(name).is_none());
            assert_eq!(empty.len(), 1, "one empty namespace gave up its slot");
            self.model.namespaces.retain(|name| *name != empty[0]);
            self.tally.slots_given_up += 1;
        }
        self.model.namespaces.push(name);
    }

    fn invalidate(&mut self, verb: Verb, handle: Option<BlobCacheNamespace>) {
        let (cache, model) = (&self.cache, &mut self.model);
        block_on(async {
            match (verb, handle) {
                (Verb::InvalidateKey(at), Some(handle)) => {
                    assert_eq!(handle.invalidate_key(&at.key).await, model.invalidate_key(&at));
                }
                (Verb::InvalidateKey(at), None) => {
                    let removed = cache.invalidate_key(at.namespace, &at.key).await;
                    assert_eq!(removed, model.invalidate_key(&at));
                }
                (Verb::InvalidateKeys(name, keys), handle) => {
                    let removed = match handle {
                        Some(handle) => handle.invalidate_keys(&keys).await,
                        None => cache.invalidate_keys(name, &keys).await,
                    };
                    assert_eq!(removed, model.invalidate_keys(name, &keys));
                }
                (Verb::InvalidatePrefix(at), Some(handle)) => {
                    let removed = handle.invalidate_prefix(&at.key).await;
                    assert_eq!(removed, model.invalidate_prefix(&at));
                }
                (Verb::InvalidatePrefix(at), None) => {
                    let removed = cache.invalidate_prefix(at.namespace, &at.key).await;
                    assert_eq!(removed, model.invalidate_prefix(&at));
                }
                (Verb::InvalidateTags(name, tags), handle) => {
                    let removed = match handle {
                        Some(handle) => handle.invalidate_tags(&tags).await,
                        None => cache.invalidate_tags(name, &tags).await,
                    };
                    assert_eq!(removed, model.invalidate_tags(name, &tags));
                }
                (Verb::InvalidateTagsOver(over, tags), _) => {
                    let removed = cache.invalidate_tags(over.scope(), &tags).await;
                    assert_eq!(removed, model.invalidate_tags_over(over, &tags));
                }
                (Verb::InvalidateDependencies(name, of), handle) => {
                    let removed = match handle {
                        Some(handle) => handle.invalidate_dependencies(&of).await,
                        None => cache.invalidate_dependencies(name, &of).await,
                    };
                    assert_eq!(removed, model.invalidate_dependencies(name, &of));
                }
                (Verb::InvalidateDependenciesOver(over, of), _) => {
                    let removed = cache.invalidate_dependencies(over.scope(), &of).await;
                    self.tally.over_dependencies += *removed.as_ref().unwrap_or(&0) as u64;
                    assert_eq!(removed, model.invalidate_dependencies_over(over, &of));
                }
                (Verb::InvalidateNamespace(name), handle) => {
                    let known = match handle {
                        Some(handle) => handle.invalidate().await,
                        None => cache.invalidate_namespace(name).await,
                    };
                    assert_eq!(known, Ok(model.invalidate_namespace(name)));
                }
                (Verb::InvalidateAll, _) => {
                    assert_eq!(cache.invalidate_all().await, Ok(()));
                    model.invalidate_all();
                }
                (verb, _) => unreachable!("{verb:?} invalidates nothing"),
            }
        });
    }

    fn expire(&mut self, verb: Verb, handle: Option<BlobCacheNamespace>) {
        let (cache, model) = (&self.cache, &mut self.model);
        block_on(async {
            match (verb, handle) {
                (Verb::ExpireKey(at), handle) => {
                    let expired = match handle {
                        Some(handle) => handle.expire_key(&at.key).await,
                        None => cache.expire_key(at.namespace, &at.key).await,
                    };
                    assert_eq!(expired, model.expire_key(&at));
                }
                (Verb::ExpirePrefix(at), handle) => {
                    let expired = match handle {
                        Some(handle) => handle.expire_prefix(&at.key).await,
                        None => cache.expire_prefix(at.namespace, &at.key).await,
                    };
                    assert_eq!(expired, model.expire_prefix(&at));
                }
                (Verb::ExpireTags(over, tags), _) => {
                    let expired = cache.expire_tags(over.scope(), &tags).await;
                    assert_eq!(expired, model.expire_tags(over, &tags));
                }
                (Verb::ExpireDependencies(over, of), _) => {
                    let expired = cache.expire_dependencies(over.scope(), &of).await;
                    self.tally.over_dependencies += *expired.as_ref().unwrap_or(&0) as u64;
                    assert_eq!(expired, model.expire_dependencies(over, &of));
                }
                (Verb::ExpireNamespace(name), handle) => {
                    let known = match handle {
                        Some(handle) => handle.expire().await,
                        None => cache.expire_namespace(name).await,
                    };
                    assert_eq!(known, Ok(model.expire_namespace(name)));
                }
                (verb, _) => unreachable!("{verb:?} makes nothing stale"),
            }
        });
    }

    /// Compares all statistics.
    fn compare(&self, shown: &Operation) {
        let (stats, model) = (self.cache.stats(), &self.model);
        assert_eq!(Counts::from(&stats), model.counts, "after {shown:?}");
        assert_eq!(stats.entries(), model.entries.len(), "after {shown:?}");
        assert_eq!(stats.namespaces(), model.namespaces.len(), "after {shown:?}");
        assert_eq!(stats.max_namespaces(), model.max_namespaces);
        assert_eq!(stats.l1_bytes_max(), self.setting.l1_bytes_max);
        assert_eq!(stats.memory_buffers_bytes(), 0, "after {shown:?}");
        assert!(stats.bytes_in_use() <= self.setting.l1_bytes_max, "after {shown:?}");
        let mut sum = 0;
        for name in NAMESPACES {
            let held = self.cache.namespace_stats(name);
            assert_eq!(
                held.is_some(),
                model.namespaces.contains(&name),
                "{name:?} after {shown:?}"
            );
            let Some(held) = held else { continue };
            assert_eq!(held.entries(), model.entries_of(name).count(), "{name:?} after {shown:?}");
            if model.charged_bytes_max.is_some() {
                let charges = model.entries_of(name).map(|entry| &entry.put);
                let bytes: usize = charges.map(|put| charge(&put.full_key.key, &put.value)).sum();
                assert_eq!(held.bytes_in_use(), bytes, "{name:?} after {shown:?}");
            }
            sum += held.bytes_in_use();
        }
        assert!(stats.bytes_in_use() >= sum, "after {shown:?}");
    }

    /// Nothing is left once the cache is closed.
    fn finish(self) {
        let counts = self.model.counts;
        self.tally.hits += counts.hits;
        self.tally.misses += counts.misses;
        self.tally.evictions += counts.evictions;
        self.tally.stale_serves += counts.stale_serves;
        self.tally.idle_expirations += counts.idle_expirations;
        self.tally.invalidations += counts.invalidations;
        assert_eq!(block_on(self.cache.close()), Ok(()));
        let stats = self.cache.stats();
        assert_eq!((stats.bytes_in_use(), stats.memory_labels_bytes(), stats.entries()), (0, 0, 0));
    }
}

pub(crate) fn offer(put: &Put, point: Option<ReadPoint>) -> BlobCachePut {
    let mut offer = BlobCachePut::copy_from_slice(&put.value)
        .with_content_metadata(put.metadata.clone())
        .with_tags(put.tags.iter().copied())
        .with_dependencies(put.dependencies.iter().copied());
    if let Some(policy) = &put.policy {
        offer = offer.with_policy(policy.build());
    }
    match point {
        Some(point) => offer.read_at(point),
        None => offer,
    }
}

/// A point of another cache, after more mutations than any case has.
fn foreign_point() -> ReadPoint {
    static POINT: OnceLock<ReadPoint> = OnceLock::new();
    *POINT.get_or_init(|| {
        block_on(async {
            let other = BlobCache::open(BlobCacheConfig::default()).await?;
            for _ in 0..5000 {
                other.invalidate_key("", "").await?;
            }
            Ok::<_, CacheError>(other.read_point())
        })
        .expect("invalidating a key of a cache that is open")
    })
}

fn name_of(error: &CacheError) -> &'static str {
    match error {
        CacheError::KeyTooLarge { .. } => "key",
        CacheError::LabelsTooLarge { .. } => "labels",
        CacheError::MetadataTooLarge { .. } => "metadata",
        CacheError::BlobTooLarge { .. } => "blob",
        CacheError::VersionMismatch { .. } => "version",
        CacheError::TooManyNamespaces { .. } => "namespaces",
        _ => "other",
    }
}
