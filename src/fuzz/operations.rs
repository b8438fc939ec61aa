//! The input is a script of public calls: polled to their end, for some time, or not at all;
//! dropped half-way; above a disk that fails as the script says; through closes, kills and power
//! losses.
//! Each hit is right by the model, and every call that is polled ends.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::invalidations::{expire, invalidate};
use super::listing::{Listed, Query, list};
use super::model::{Asked, Effect, Model, Put, Scope, Touch};
use super::source::Source;
use super::typed;
use super::value::{FullKey, KEYS, SPACES, TAGS, number_of, tag, value};
use super::world::{End, World, config};
use crate::batch::yield_now;
use crate::cache::BlobCache;
use crate::error::{CacheError, FetchError};
use crate::hit::{BlobCacheHit, CachePresence};
use crate::io::{Fault, OperationKind};
use crate::modes::{CrashSafety, L1Admission, L2Admission};
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;
use crate::sweep::SweepLimit;
use crate::write_rate::WriteRate;

/// Steps of a script, at most.
const STEPS: usize = 300;

/// Calls that are under way, at most.
const CALLS_MAX: usize = 8;

type SharedModel = Arc<Mutex<Model>>;

/// How a call has ended.
enum Outcome {
    Nothing,
    Found(FullKey, Asked, BlobCacheHit),
    /// Of a put: with the time at which it began.
    Mutated(usize, Asked, Result<usize, CacheError>),
    Touched(usize, Result<bool, CacheError>),
    Listed(Query, Asked, Vec<Listed>),
    /// Of a call for many keys.
    Each(Vec<Self>),
}

/// A call that has begun.
struct Call {
    future: BoxFuture<'static, Outcome>,
    /// Of its mutations.
    numbers: Vec<usize>,
}

struct Script {
    world: World,
    model: SharedModel,
    calls: Vec<Call>,
    /// The device may have failed in this process.
    has_failed: bool,
    tally: Tally,
}

/// What has happened in a script, besides what is wrong.
#[derive(Debug, Default, Clone, Copy)]
#[cfg_attr(not(test), expect(dead_code, reason = "tests read all of it"))]
pub(super) struct Tally {
    /// Entries listed while other calls were under way, and while nothing changed.
    pub(super) listed: u64,
    pub(super) listed_at_rest: u64,
    /// Values that the disk has not taken.
    pub(super) not_admitted: u64,
    pub(super) over_rate: u64,
}

fn locked(model: &SharedModel) -> MutexGuard<'_, Model> {
    model.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Any bytes, as a script.
pub(super) fn operations(bytes: &[u8]) {
    let _tally = played(bytes);
}

/// The same, and tells what has happened.
pub(super) fn played(bytes: &[u8]) -> Tally {
    let mut source = Source::new(bytes);
    let modes = [CrashSafety::Cold, CrashSafety::Process, CrashSafety::Power];
    let crash_safety = modes[usize::from(source.below(3))];
    // Two keys of one hash shadow each other.
    let key_hash_bits = [64, 64, 8, 3][usize::from(source.below(4))];
    let seed = u64::from(source.byte());
    let mut config = config(crash_safety, key_hash_bits);
    // Some disks take known keys alone, and some few bytes in a second.
    match source.below(4) {
        0 => config.l2_admission = L2Admission::OnSecondSight,
        1 => config.l2_write_rate_max = Some(WriteRate::new(500).burst_bytes(12 << 10)),
        _ => {}
    }
    let mut script = Script {
        world: World::new(seed, config),
        model: SharedModel::default(),
        calls: Vec::new(),
        has_failed: false,
        tally: Tally::default(),
    };
    for _ in 0..STEPS {
        if source.is_empty() {
            break;
        }
        script.step(&mut source);
        script.check_bounds();
    }
    script.restart(End::Kill);
    script.tally
}

impl Script {
    fn step(&mut self, source: &mut Source<'_>) {
        match source.byte() {
            0..200 => {
                let call = self.call(source);
                self.go(call, source);
            }
            200..218 if !self.calls.is_empty() => {
                let at = usize::from(source.byte()) % self.calls.len();
                let call = self.calls.swap_remove(at);
                self.go(call, source);
            }
            218..226 if !self.calls.is_empty() => {
                let at = usize::from(source.byte()) % self.calls.len();
                let call = self.calls.swap_remove(at);
                self.drop_call(call);
            }
            226..236 => self.world.pass(Duration::from_millis(5 * u64::from(source.byte()))),
            236..240 => self.advance_clock(source.byte()),
            240..244 => self.fail(source),
            244..247 => self.world.disk.heal(),
            247..250 => self.restart(End::Close),
            250..253 => self.restart(End::Kill),
            253..=255 => self.restart(End::PowerLoss),
            _ => {}
        }
    }

    /// Polls a call as often as the script says.
    fn go(&mut self, mut call: Call, source: &mut Source<'_>) {
        let outcome = match source.below(16) {
            // With others that sleep beside it.
            0..9 => Some(self.world.run(&mut call.future)),
            polls => self.world.poll(&mut call.future, u32::from(polls - 9)),
        };
        match outcome {
            Some(outcome) => self.end(outcome),
            None if self.calls.len() < CALLS_MAX => self.calls.push(call),
            None => self.drop_call(call),
        }
    }

    fn drop_call(&mut self, call: Call) {
        drop(call.future);
        for number in call.numbers {
            locked(&self.model).end(number, Effect::Possible);
        }
    }

    fn call(&mut self, source: &mut Source<'_>) -> Call {
        let (cache, full_key) = (self.world.cache.clone(), FullKey::of(source.byte()));
        let (namespace, key) = (full_key.namespace(), full_key.name());
        let scope = match source.below(40) {
            0..10 => return self.get(cache, full_key),
            10..20 => return self.put(cache, full_key, drawn_put(source)),
            20..24 => return self.fetch(cache, full_key, drawn_put(source), source.below(8)),
            24 => {
                let presence = cache.exists(namespace, key);
                assert!(matches!(presence, CachePresence::Absent) || presence.may_exist());
                return Call { future: async { Outcome::Nothing }.boxed(), numbers: Vec::new() };
            }
            25 => {
                let future = async move {
                    // On a failing device it fails.
                    let _ = cache.sync().await;
                    Outcome::Nothing
                };
                return Call { future: future.boxed(), numbers: Vec::new() };
            }
            26 => {
                let future = async move {
                    cache.sweep_expired(SweepLimit::Entries(100)).await;
                    Outcome::Nothing
                };
                return Call { future: future.boxed(), numbers: Vec::new() };
            }
            27 | 28 => Scope::Key(full_key),
            29 if full_key.key >= KEYS / 2 => Scope::TagEverywhere(full_key.key % TAGS),
            29 => Scope::Tag(full_key.space, full_key.key % TAGS),
            30 => Scope::Prefix(full_key.space, key[0]),
            32..36 => return self.many(cache, full_key, source),
            36..38 => return self.touch(cache, full_key, source),
            38..40 => return self.list(cache, full_key, source),
            _ if full_key.key == 0 => Scope::All,
            _ => Scope::Space(full_key.space),
        };
        let expires = scope != Scope::All && source.below(2) == 1;
        let number = match expires {
            true => locked(&self.model).begin_expiry(scope),
            false => locked(&self.model).begin(scope, None),
        };
        let asked = locked(&self.model).asked();
        let future = async move {
            let done = match expires {
                true => expire(&cache, scope).await,
                false => invalidate(&cache, scope).await,
            };
            Outcome::Mutated(number, asked, done)
        };
        Call { future: future.boxed(), numbers: vec![number] }
    }

    fn get(&mut self, cache: BlobCache, full_key: FullKey) -> Call {
        let asked = locked(&self.model).asked();
        let future = async move {
            let hit = cache.get(full_key.namespace(), full_key.name()).await;
            hit.map_or(Outcome::Nothing, |hit| Outcome::Found(full_key, asked, hit))
        };
        Call { future: future.boxed(), numbers: Vec::new() }
    }

    fn put(&mut self, cache: BlobCache, full_key: FullKey, (put, admission): Drawn) -> Call {
        let number = locked(&self.model).begin(Scope::Key(full_key), Some(put));
        let asked = locked(&self.model).asked();
        let mut blob = blob(number, put, admission);
        if put.is_fill {
            blob = blob.read_at(cache.read_point());
        }
        let future = async move {
            let done = cache.put(full_key.namespace(), full_key.name(), blob).await;
            Outcome::Mutated(number, asked, done.map(|()| 0))
        };
        Call { future: future.boxed(), numbers: vec![number] }
    }

    fn touch(&mut self, cache: BlobCache, full_key: FullKey, source: &mut Source<'_>) -> Call {
        let (ttl, window) = (u64::from(source.byte()), u64::from(source.below(2)) * 30);
        let number = locked(&self.model).begin_touch(full_key, Touch { ttl, window });
        let policy = BlobCachePolicy::default().ttl(Duration::from_secs(ttl));
        let policy = policy.stale_serve(Duration::from_secs(window));
        let future = async move {
            let touched = cache.touch(full_key.namespace(), full_key.name(), &policy).await;
            Outcome::Touched(number, touched)
        };
        Call { future: future.boxed(), numbers: vec![number] }
    }

    fn list(&mut self, cache: BlobCache, full_key: FullKey, source: &mut Source<'_>) -> Call {
        let query = Query::of(full_key, source.below(5));
        let asked = locked(&self.model).asked();
        let future = async move { Outcome::Listed(query, asked, list(&cache, query).await) };
        Call { future: future.boxed(), numbers: Vec::new() }
    }

    /// A call for many keys of a namespace, some of them more than once.
    fn many(&mut self, cache: BlobCache, first: FullKey, source: &mut Source<'_>) -> Call {
        let (kind, count) = (source.below(3), source.below(7));
        let draw = |source: &mut Source<'_>| FullKey { key: source.below(KEYS), ..first };
        let full_keys: Vec<FullKey> = (0..count).map(|_| draw(source)).collect();
        let keys: Vec<_> = full_keys.iter().map(|full_key| full_key.name()).collect();
        if kind == 0 {
            let asked = locked(&self.model).asked();
            let future = async move {
                let hits = cache.get_many(first.namespace(), &keys).await;
                let found = |(full_key, hit): (FullKey, Option<BlobCacheHit>)| {
                    hit.map_or(Outcome::Nothing, |hit| Outcome::Found(full_key, asked, hit))
                };
                Outcome::Each(full_keys.into_iter().zip(hits).map(found).collect())
            };
            return Call { future: future.boxed(), numbers: Vec::new() };
        }
        let drawn = |source: &mut Source<'_>| (kind == 1).then(|| drawn_put(source));
        let puts: Vec<Option<Drawn>> = keys.iter().map(|_| drawn(source)).collect();
        let begin = |(full_key, put): (&FullKey, &Option<Drawn>)| {
            locked(&self.model).begin(Scope::Key(*full_key), put.map(|(put, _)| put))
        };
        let numbers: Vec<usize> = full_keys.iter().zip(&puts).map(begin).collect();
        let asked = locked(&self.model).asked();
        let blobs = numbers.iter().zip(puts).filter_map(|(&number, put)| {
            let (put, admission) = put?;
            let blob = blob(number, put, admission);
            Some(if put.is_fill { blob.read_at(cache.read_point()) } else { blob })
        });
        let blobs: Vec<BlobCachePut> = blobs.collect();
        let of = numbers.clone();
        let future = async move {
            let results = if kind == 1 {
                let items = keys.iter().zip(blobs);
                let done = cache.put_many(first.namespace(), items).await;
                done.into_iter().map(|done| done.map(|()| 0)).collect()
            } else {
                let removed = cache.invalidate_keys(first.namespace(), &keys).await;
                vec![removed; keys.len()]
            };
            let mutated = |(number, result)| Outcome::Mutated(number, asked, result);
            Outcome::Each(of.into_iter().zip(results).map(mutated).collect())
        };
        Call { future: future.boxed(), numbers }
    }

    /// A fetch that takes some polls, in a task or not, and sometimes fails.
    fn fetch(
        &mut self,
        cache: BlobCache,
        full_key: FullKey,
        (put, admission): Drawn,
        polls: u8,
    ) -> Call {
        let (model, asked) = (Arc::clone(&self.model), locked(&self.model).asked());
        let put = Put { is_fill: true, version: None, ..put };
        let fetch = move || {
            let number = locked(&model).begin(Scope::Key(full_key), Some(put));
            async move {
                for _ in 0..polls {
                    yield_now().await;
                }
                match polls {
                    7 => Err(io::Error::other("on purpose")),
                    _ => Ok(blob(number, put, admission)),
                }
            }
        };
        let future = async move {
            let (space, key) = (full_key.namespace(), full_key.name());
            let got = match full_key.key % 4 {
                0 => cache.get_or_fetch(space, key, fetch).await,
                1 => typed::get_or_fetch(&cache, full_key, fetch).await,
                2 => cache.get_or_fetch_spawned(space, key, fetch).await,
                _ => cache.get_or_refresh_spawned(space, key, fetch).await,
            };
            match got {
                Ok(hit) => Outcome::Found(full_key, asked, hit),
                Err(FetchError::Fetch(_)) => Outcome::Nothing,
                Err(error) => panic!("{error}, though no fetch panics or has a limit"),
            }
        };
        Call { future: future.boxed(), numbers: Vec::new() }
    }

    fn end(&mut self, outcome: Outcome) {
        if let Outcome::Each(outcomes) = outcome {
            return outcomes.into_iter().for_each(|outcome| self.end(outcome));
        }
        let mut model = locked(&self.model);
        let (number, asked, result) = match outcome {
            Outcome::Nothing | Outcome::Each(_) => return,
            Outcome::Found(full_key, asked, hit) => {
                let number = number_of(hit.value()).expect("a value of one put");
                let found = (number, hit.value().len(), hit.version());
                return model.found(full_key, asked, found, hit.is_stale());
            }
            Outcome::Touched(number, touched) => {
                let effect = match touched {
                    Ok(true) => Effect::Certain,
                    Ok(false) => Effect::None,
                    Err(CacheError::L2Io { .. }) if self.has_failed => Effect::Possible,
                    Err(CacheError::Closed) => Effect::Possible,
                    Err(error) => panic!("a touch fails: {error}"),
                };
                return model.end(number, effect);
            }
            Outcome::Listed(query, asked, entries) => {
                self.tally.listed += entries.len() as u64;
                let tag = query.tag();
                return entries.iter().for_each(|entry| model.listed(asked, tag, *entry));
            }
            Outcome::Mutated(number, asked, result) => (number, asked, result),
        };
        let effect = match result {
            Ok(count) => {
                // Some may be counted in both tiers, or again while others work.
                assert!(count <= 2 * SPACES.len() * usize::from(KEYS), "{count} entries");
                Effect::Certain
            }
            Err(CacheError::VersionMismatch { existing, .. }) => {
                return model.mismatched(number, asked, existing);
            }
            Err(CacheError::L2Io { .. }) if self.has_failed => Effect::CertainInLife(model.life),
            Err(CacheError::VersionUnknown { .. }) if self.has_failed => Effect::None,
            // Of a call that was put aside until then.
            Err(CacheError::Closed) => Effect::Possible,
            Err(error) => panic!("a call fails: {error}"),
        };
        model.end(number, effect);
    }

    fn advance_clock(&mut self, seconds: u8) {
        self.world.config.clock.advance(Duration::from_secs(seconds.into()));
        locked(&self.model).clock += u64::from(seconds);
    }

    fn fail(&mut self, source: &mut Source<'_>) {
        let kinds =
            [OperationKind::Read, OperationKind::Write, OperationKind::Sync, OperationKind::Resize];
        let kind = kinds[usize::from(source.below(4))];
        let fault = [Fault::Io, Fault::NoSpace][usize::from(source.below(2))];
        let (after, lasting) = (u64::from(source.byte()), source.below(2) == 1);
        self.world.disk.fail(kind, after % 64, fault, lasting);
        self.has_failed = true;
    }

    /// Ends the process, and begins the next one. Its calls are dropped before or after.
    fn restart(&mut self, end: End) {
        let stats = self.world.cache.stats();
        self.tally.not_admitted += stats.l2_not_admitted();
        self.tally.over_rate += stats.l2_write_rate_rejections();
        self.world.end(end);
        let calls = std::mem::take(&mut self.calls);
        locked(&self.model).end_life();
        self.world.disk.heal();
        self.world.begin().expect("the disk has no faults now");
        drop(calls);
        self.has_failed = false;
        let mut found = BTreeSet::new();
        for full_key in FullKey::all() {
            let mut call = self.get(self.world.cache.clone(), full_key);
            let outcome = self.world.run(&mut call.future);
            if let Outcome::Found(full_key, ..) = &outcome {
                found.insert(*full_key);
            }
            self.end(outcome);
        }
        // Nothing is put or invalidated meanwhile: each entry is listed once, and nothing else.
        for space in 0..SPACES.len() {
            let cache = self.world.cache.clone();
            let listed = self.world.run(list(&cache, Query::All(space)));
            let keys = listed.iter().map(|entry| entry.full_key);
            let kept: Vec<FullKey> = found.iter().copied().filter(|it| it.space == space).collect();
            let mut keys: Vec<FullKey> = keys.collect();
            keys.sort_unstable();
            assert_eq!(keys, kept, "listed after an open, and found");
            self.tally.listed_at_rest += listed.len() as u64;
        }
    }

    fn check_bounds(&self) {
        let stats = self.world.cache.stats();
        assert!(stats.namespaces() <= SPACES.len());
        assert!(stats.bytes_in_use() <= self.world.config.l1_bytes_max);
        let entries = SPACES.len() * usize::from(KEYS);
        assert!(stats.l2_entries() <= entries, "{} on disk", stats.l2_entries());
    }
}

type Drawn = (Put, L1Admission);

fn drawn_put(source: &mut Source<'_>) -> Drawn {
    let flags = source.byte();
    let length = 8 + source.number() % if flags & 1 == 0 { 600 } else { 6000 };
    let put = Put {
        length,
        tag: (flags & 2 != 0).then(|| source.below(TAGS)),
        version: (flags & 12 == 4).then(|| u64::from(source.below(4))),
        ttl: (flags & 48 == 16).then(|| u64::from(source.byte())),
        is_fill: flags & 192 == 64,
    };
    let admission = [L1Admission::Auto, L1Admission::Always, L1Admission::Never];
    (put, admission[usize::from(source.below(3))])
}

fn blob(number: usize, put: Put, admission: L1Admission) -> BlobCachePut {
    let mut policy = BlobCachePolicy::default().l1_admission(admission);
    if let Some(version) = put.version {
        policy = policy.version(version);
    }
    if let Some(ttl) = put.ttl {
        policy = policy.ttl(Duration::from_secs(ttl));
    }
    if put.window() > 0 {
        policy = policy.stale_serve(Duration::from_secs(put.window()));
    }
    let number = u32::try_from(number).expect("a script is short");
    let blob = BlobCachePut::new(value(number, put.length)).with_policy(policy);
    blob.with_tags(put.tag.map(tag))
}
