//! Calls of a history, each drawn from the seed and its own number alone, so that one can be left
//! out without changing the others.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::defaults::Defaults;
use super::manner::Manner;
use super::typed::values;
use crate::cache::BlobCache;
use crate::error::CacheError;
use crate::modes::L1Admission;
use crate::policy::{BlobCachePolicy, ExtendedTtlPolicy};
use crate::put::BlobCachePut;
use crate::scope::NamespaceScope;

pub(super) const SPACES: [&str; 2] = ["a", "b"];
const KEYS: u8 = 12;
const LABELS: u8 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FullKey {
    pub(super) space: usize,
    pub(super) key: u8,
}

impl FullKey {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..SPACES.len()).flat_map(|space| (0..KEYS).map(move |key| Self { space, key }))
    }

    pub(super) fn namespace(self) -> &'static str {
        SPACES[self.space]
    }

    /// Prefixes select by the first byte.
    pub(super) fn name(self) -> [u8; 2] {
        [self.key / 4, self.key]
    }

    /// Calls for it go through a typed handle.
    pub(super) fn is_typed(self) -> bool {
        self.key % 3 == 2
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Scope {
    Key(FullKey),
    Prefix(usize, u8),
    Tag(usize, u8),
    /// In all namespaces.
    TagEverywhere(u8),
    Dependency(usize, u8),
    /// In all namespaces.
    DependencyEverywhere(u8),
    Space(usize),
    All,
}

/// All namespaces: one of the labels names them, the others do not.
fn everywhere(label: u8) -> NamespaceScope<'static> {
    if label == 0 { NamespaceScope::Several(&SPACES) } else { NamespaceScope::All }
}

impl Scope {
    /// The count of the call, where it has one.
    pub(super) async fn invalidate(self, cache: &BlobCache) -> Result<usize, CacheError> {
        match self {
            Scope::Key(full_key) if full_key.is_typed() => {
                values(cache, full_key.space).invalidate_key(full_key.name()).await
            }
            Scope::Key(full_key) => {
                cache.invalidate_key(full_key.namespace(), full_key.name()).await
            }
            Scope::Prefix(space, first) => cache.invalidate_prefix(SPACES[space], [first]).await,
            Scope::Tag(space, tag) => cache.invalidate_tags(SPACES[space], &[&label(tag)]).await,
            Scope::TagEverywhere(tag) => {
                cache.invalidate_tags(everywhere(tag), &[&label(tag)]).await
            }
            Scope::Dependency(space, on) => {
                cache.invalidate_dependencies(SPACES[space], &[&label(on)]).await
            }
            Scope::DependencyEverywhere(on) => {
                cache.invalidate_dependencies(everywhere(on), &[&label(on)]).await
            }
            Scope::Space(space) => cache.invalidate_namespace(SPACES[space]).await.map(usize::from),
            Scope::All => cache.invalidate_all().await.map(|()| 0),
        }
    }

    pub(super) async fn expire(self, cache: &BlobCache) -> Result<usize, CacheError> {
        match self {
            Scope::Key(full_key) if full_key.is_typed() => {
                values(cache, full_key.space).expire_key(full_key.name()).await
            }
            Scope::Key(full_key) => cache.expire_key(full_key.namespace(), full_key.name()).await,
            Scope::Prefix(space, first) => cache.expire_prefix(SPACES[space], [first]).await,
            Scope::Tag(space, tag) => cache.expire_tags(SPACES[space], &[&label(tag)]).await,
            Scope::TagEverywhere(tag) => cache.expire_tags(everywhere(tag), &[&label(tag)]).await,
            Scope::Dependency(space, on) => {
                cache.expire_dependencies(SPACES[space], &[&label(on)]).await
            }
            Scope::DependencyEverywhere(on) => {
                cache.expire_dependencies(everywhere(on), &[&label(on)]).await
            }
            Scope::Space(space) => cache.expire_namespace(SPACES[space]).await.map(usize::from),
            // There is no such call.
            Scope::All => Ok(0),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Put {
    pub(super) number: u32,
    pub(super) length: usize,
    pub(super) tags: Vec<u8>,
    pub(super) dependencies: Vec<u8>,
    pub(super) version: Option<u64>,
    pub(super) ttl: Option<u64>,
    pub(super) stale: u64,
    pub(super) admission: L1Admission,
    /// Read at a point, so it may be refused silently.
    pub(super) is_fill: bool,
    /// It has no policy of its own: that of its namespace is what is said here.
    pub(super) is_default: bool,
}

/// Deadlines in seconds, from the call on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touch {
    pub(super) ttl: Option<u64>,
    pub(super) stale: u64,
}

/// The verb of a fetch, in a task or in the polls of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FetchVerb {
    Fetch,
    Refresh,
    OwnFetch,
    /// A refresh runs as soon as the stale entry is there.
    OwnRefresh,
    /// A fetch, by a codec that decodes some values only.
    Typed,
    OwnTyped,
}

impl FetchVerb {
    const SPAWNED: &[Self] = &[Self::Fetch, Self::Refresh, Self::Typed];
    const OWN: &[Self] = &[Self::OwnFetch, Self::OwnRefresh, Self::OwnTyped];
}

#[derive(Clone, Debug)]
pub(super) struct Fetch {
    pub(super) put: Put,
    pub(super) verb: FetchVerb,
    /// Polls that the origin takes.
    pub(super) polls: u32,
    /// It takes time as well, longer than a caller waits that has a stale entry.
    pub(super) is_slow: bool,
    pub(super) fails: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Verb {
    Get(FullKey),
    Fetch(FullKey, Fetch),
    GetMany(Vec<FullKey>),
    /// The keys of a namespace, or those of one prefix.
    Keys(usize, Option<u8>),
    Exists(FullKey),
    Put(FullKey, Put),
    /// Each has a number of its own.
    PutMany(Vec<(FullKey, Put)>),
    Invalidate(Scope),
    /// Makes stale.
    Expire(Scope),
    InvalidateKeys(Vec<FullKey>),
    Touch(FullKey, Touch),
    Sync,
    Sweep,
    /// Gives the file so many segments.
    Resize(u64),
    /// Gives memory so many bytes.
    ResizeMemory(usize),
    /// Advances the clock by that many seconds.
    Pass(u64),
}

#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) verb: Verb,
    /// Dropped after that many polls.
    pub(super) polls: u32,
    /// The most calls in progress when it begins, itself included.
    pub(super) width: usize,
    /// The most polls of all calls before the next one begins.
    pub(super) patience: u32,
    /// Waits long enough that a write batch is written because of its age.
    pub(super) waits: bool,
    /// All awake calls complete before the next one begins.
    pub(super) settles: bool,
    pub(super) manner: Manner,
}

impl Call {
    pub(super) fn draw(seed: u64, number: u32) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ (u64::from(number) << 32));
        let random = &mut random;
        let full_key = FullKey {
            space: random.random_range(0..SPACES.len()),
            key: random.random_range(0..KEYS),
        };
        let label = random.random_range(0..LABELS);
        let verb = match random.random_range(0..1000) {
            0..228 => Verb::Get(full_key),
            it @ 228..315 => {
                // One key, so that fetched values are found again.
                let full_key = FullKey { key: 0, ..full_key };
                let verbs = if it < 250 { FetchVerb::OWN } else { FetchVerb::SPAWNED };
                let fetch = Fetch::draw(random, number, verbs);
                let put = fetch.put.or_defaults(Defaults::of(seed, full_key.space));
                Verb::Fetch(full_key, Fetch { put, ..fetch })
            }
            315..345 => Verb::Touch(full_key, Touch::draw(random)),
            345..355 if full_key.key % 2 == 0 => Verb::Keys(full_key.space, None),
            345..355 => Verb::Keys(full_key.space, Some(full_key.key / 4)),
            355..380 => Verb::GetMany(some_keys(random, full_key)),
            380..400 => Verb::Exists(full_key),
            400..815 => {
                let put = Put::draw(random, number);
                Verb::Put(full_key, put.or_defaults(Defaults::of(seed, full_key.space)))
            }
            815..820 => Verb::ResizeMemory(random.random_range(64..129) << 10),
            820..850 => {
                let keys = some_keys(random, full_key);
                let defaults = Defaults::of(seed, full_key.space);
                let mut draw = |number| Put::draw(random, number).or_defaults(defaults);
                let put = |(full_key, number)| (full_key, draw(number));
                Verb::PutMany(keys.into_iter().zip(numbers_of_many(number)).map(put).collect())
            }
            850..880 => Verb::Invalidate(Scope::Key(full_key)),
            880..895 => Verb::InvalidateKeys(some_keys(random, full_key)),
            895..910 => Verb::Expire(Scope::Key(full_key)),
            910..920 => Verb::Invalidate(Scope::Tag(full_key.space, label)),
            920..924 => Verb::Expire(Scope::Tag(full_key.space, label)),
            924..928 => Verb::Invalidate(Scope::TagEverywhere(label)),
            928..930 => Verb::Expire(Scope::TagEverywhere(label)),
            930..935 => Verb::Invalidate(Scope::Dependency(full_key.space, label)),
            935..937 => Verb::Expire(Scope::Dependency(full_key.space, label)),
            937..939 => Verb::Invalidate(Scope::DependencyEverywhere(label)),
            939 => Verb::Expire(Scope::DependencyEverywhere(label)),
            940..954 => Verb::Invalidate(Scope::Prefix(full_key.space, full_key.key / 4)),
            954..960 => Verb::Expire(Scope::Prefix(full_key.space, full_key.key / 4)),
            960..965 => Verb::Invalidate(Scope::Space(full_key.space)),
            965..968 => Verb::Expire(Scope::Space(full_key.space)),
            968..970 => Verb::Invalidate(Scope::All),
            970..982 => Verb::Sync,
            982..988 => Verb::Sweep,
            988..991 => Verb::Resize(random.random_range(4..9)),
            _ => Verb::Pass(random.random_range(0..40)),
        };
        Self {
            verb,
            polls: if random.random_bool(0.2) { random.random_range(0..12) } else { u32::MAX },
            width: random.random_range(1..7),
            patience: random.random_range(0..6),
            waits: random.random_bool(0.04),
            settles: random.random_bool(0.03),
            manner: Manner::draw(random, full_key),
        }
    }
}

/// The numbers of the mutations of a call for many keys.
pub(super) fn numbers_of_many(number: u32) -> impl Iterator<Item = u32> {
    (1..MANY).map(move |place| number + place * 100_000)
}

/// The most keys of a call for many, and one.
const MANY: u32 = 7;

/// Keys of one namespace, sometimes one more than once.
fn some_keys(random: &mut StdRng, first: FullKey) -> Vec<FullKey> {
    let draw = |_| FullKey { key: random.random_range(0..KEYS), ..first };
    (1..MANY).map(draw).collect()
}

impl Fetch {
    fn draw(random: &mut StdRng, number: u32, verbs: &[FetchVerb]) -> Self {
        let put = Put {
            version: None,
            ttl: random.random_bool(0.8).then(|| random.random_range(0..40)),
            stale: random.random_range(0..60),
            is_fill: true,
            ..Put::draw(random, number)
        };
        Self {
            put,
            verb: verbs[random.random_range(0..verbs.len())],
            polls: random.random_range(0..12),
            is_slow: random.random_bool(0.4),
            fails: random.random_bool(0.1),
        }
    }
}

impl Touch {
    fn draw(random: &mut StdRng) -> Self {
        Self {
            ttl: random.random_bool(0.8).then(|| random.random_range(0..60)),
            stale: if random.random_bool(0.5) { random.random_range(0..60) } else { 0 },
        }
    }

    pub(super) fn policy(self) -> BlobCachePolicy {
        policy_of(self.ttl, self.stale)
    }
}

pub(super) fn policy_of(ttl: Option<u64>, stale: u64) -> BlobCachePolicy {
    let stale_serve = (stale > 0).then(|| Duration::from_secs(stale));
    let extended = ExtendedTtlPolicy { stale_serve, ..Default::default() };
    let policy = BlobCachePolicy::default().extended(extended);
    match ttl {
        Some(ttl) => policy.ttl(Duration::from_secs(ttl)),
        None => policy,
    }
}

impl Put {
    fn draw(random: &mut StdRng, number: u32) -> Self {
        let labels = |random: &mut StdRng, most| -> Vec<u8> {
            (0..random.random_range(0..most)).map(|_| random.random_range(0..LABELS)).collect()
        };
        let length_max = if random.random_bool(0.2) { 9000 } else { 3000 };
        Self {
            number,
            length: 8 + random.random_range(0..length_max),
            tags: labels(random, 3),
            dependencies: labels(random, 2),
            version: random.random_bool(0.2).then(|| random.random_range(0..6)),
            ttl: random.random_bool(0.1).then(|| random.random_range(0..60)),
            stale: if random.random_bool(0.5) { random.random_range(0..60) } else { 0 },
            admission: [L1Admission::Always, L1Admission::Never][random.random_range(0..2)],
            is_fill: random.random_bool(0.15),
            is_default: random.random_bool(0.15),
        }
    }

    fn or_defaults(self, defaults: Defaults) -> Self {
        if !self.is_default {
            return self;
        }
        let Defaults { ttl, stale, admission } = defaults;
        Self { version: None, ttl, stale, admission, ..self }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![fill(self.number); self.length];
        bytes[..8].copy_from_slice(&u64::from(self.number).to_le_bytes());
        bytes
    }

    /// The number of the put with these bytes. None if they are a mixture.
    pub(super) fn number_of(bytes: &[u8]) -> Option<u32> {
        let number = u64::from_le_bytes(*bytes.first_chunk()?);
        let number = u32::try_from(number).ok()?;
        bytes[8..].iter().all(|&byte| byte == fill(number)).then_some(number)
    }

    pub(super) fn blob(&self) -> BlobCachePut {
        let blob = BlobCachePut::new(self.bytes())
            .with_tags(self.tags.iter().map(|tag| label(*tag)))
            .with_dependencies(self.dependencies.iter().map(|dependency| label(*dependency)));
        if self.is_default {
            return blob;
        }
        let mut policy = policy_of(self.ttl, self.stale).l1_admission(self.admission);
        if let Some(version) = self.version {
            policy = policy.version(version);
        }
        blob.with_policy(policy)
    }
}

fn fill(number: u32) -> u8 {
    number.to_le_bytes()[0]
}

pub(super) fn label(number: u8) -> String {
    format!("label{number}")
}
