//! Random operations: every method and policy, over so few names and keys that they interact.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::RngExt;
use rand::rngs::StdRng;
use tamis::{BlobCachePolicy, ExtendedTtlPolicy, L1Admission, NamespaceScope};

use crate::listing::Listing;

pub(crate) const SECOND: u64 = 1_000_000_000;

/// The start time of every case.
pub(crate) const START: u64 = 1_600_000_000 * SECOND;

/// More than most cases have slots for.
pub(crate) const NAMESPACES: [&str; 5] = ["", "pages", "page", "rows", "thumbs/1"];

/// Prefixes of one another, and bytes that are not UTF-8.
pub(crate) const KEYS: [&[u8]; 12] =
    [b"", b"a", b"a/", b"a/1", b"a/1/x", b"a/2", b"b", b"b/1", b"b/2", b"\xff", b"\xff\xff", b"z"];

/// Used as tags and as dependencies, which must not be confused.
const LABELS: [&str; 5] = ["red", "blue", "", "red/1", "long label with spaces"];

/// The longest key that the caches under test take.
pub(crate) const KEY_BYTES_MAX: usize = 40;
pub(crate) const LABELS_MAX: usize = 6;
pub(crate) const LABEL_BYTES_MAX: usize = 70;
pub(crate) const METADATA_KEYS_MAX: usize = 3;
pub(crate) const METADATA_BYTES_MAX: usize = 60;

/// The name of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FullKey {
    pub(crate) namespace: &'static str,
    pub(crate) key: Vec<u8>,
}

/// A policy with readable fields. Times are nanoseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    pub(crate) ttl: Option<u64>,
    pub(crate) expires_at: Option<u64>,
    pub(crate) idle_ttl: Option<u64>,
    pub(crate) stale_serve: Option<u64>,
    pub(crate) jitter_pct: u8,
    pub(crate) version: Option<u64>,
    pub(crate) priority: Option<u8>,
    pub(crate) admission: L1Admission,
    pub(crate) blob_bytes_max: Option<usize>,
}

/// The read point of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadAt {
    None,
    Now,
    /// One taken before.
    Taken(usize),
    /// One of another cache.
    Foreign,
}

#[derive(Debug, Clone)]
pub(crate) struct Put {
    pub(crate) full_key: FullKey,
    pub(crate) value: Vec<u8>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) tags: Vec<&'static str>,
    pub(crate) dependencies: Vec<&'static str>,
    /// None for the default of the handle.
    pub(crate) policy: Option<Policy>,
    pub(crate) read_at: ReadAt,
}

/// Namespaces of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Over {
    All,
    Two([&'static str; 2]),
}

impl Over {
    fn random(random: &mut StdRng) -> Self {
        let two = [namespace(random), namespace(random)];
        if random.random() { Self::All } else { Self::Two(two) }
    }

    pub(crate) fn covers(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Two(names) => names.contains(&name),
        }
    }

    pub(crate) fn scope(&self) -> NamespaceScope<'_> {
        match self {
            Self::All => NamespaceScope::All,
            Self::Two(names) => names.into(),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Verb {
    Put(Box<Put>),
    /// All of one namespace.
    PutMany(Vec<Put>),
    Get(FullKey),
    GetMany(&'static str, Vec<Vec<u8>>),
    Exists(FullKey),
    Keys(Listing),
    Touch(FullKey, Policy),
    InvalidateKey(FullKey),
    InvalidateKeys(&'static str, Vec<Vec<u8>>),
    InvalidatePrefix(FullKey),
    InvalidateTags(&'static str, Vec<&'static str>),
    InvalidateTagsOver(Over, Vec<&'static str>),
    InvalidateDependencies(&'static str, Vec<&'static str>),
    InvalidateDependenciesOver(Over, Vec<&'static str>),
    InvalidateNamespace(&'static str),
    InvalidateAll,
    ExpireKey(FullKey),
    ExpirePrefix(FullKey),
    ExpireTags(Over, Vec<&'static str>),
    ExpireDependencies(Over, Vec<&'static str>),
    ExpireNamespace(&'static str),
    TakePoint,
    Advance(u64),
    StepBack(u64),
}

impl Verb {
    pub(crate) fn expires(&self) -> bool {
        matches!(
            self,
            Self::ExpireKey(_)
                | Self::ExpirePrefix(_)
                | Self::ExpireTags(..)
                | Self::ExpireDependencies(..)
                | Self::ExpireNamespace(_)
        )
    }

    /// The namespace of a call that is about one.
    pub(crate) fn namespace(&self) -> &'static str {
        match self {
            Self::Put(put) => put.full_key.namespace,
            Self::PutMany(puts) => puts.first().map_or("none", |put| put.full_key.namespace),
            Self::Keys(listing) => listing.namespace,
            Self::GetMany(name, _) | Self::InvalidateKeys(name, _) => name,
            Self::Get(at) | Self::Exists(at) | Self::Touch(at, _) => at.namespace,
            Self::InvalidateKey(at) | Self::InvalidatePrefix(at) => at.namespace,
            Self::InvalidateTags(name, _) | Self::InvalidateDependencies(name, _) => name,
            Self::InvalidateTagsOver(..) | Self::InvalidateDependenciesOver(..) => "none",
            Self::ExpireTags(..) | Self::ExpireDependencies(..) => "none",
            Self::ExpireKey(at) | Self::ExpirePrefix(at) => at.namespace,
            Self::InvalidateNamespace(name) | Self::ExpireNamespace(name) => name,
            Self::InvalidateAll | Self::TakePoint | Self::Advance(_) | Self::StepBack(_) => "none",
        }
    }
}

/// A method, and whether it is called on a namespace handle if there is one.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) verb: Verb,
    pub(crate) by_handle: bool,
}

impl Policy {
    pub(crate) fn build(&self) -> BlobCachePolicy {
        let mut policy =
            BlobCachePolicy::default().l1_admission(self.admission).extended(ExtendedTtlPolicy {
                idle_ttl: self.idle_ttl.map(Duration::from_nanos),
                stale_serve: self.stale_serve.map(Duration::from_nanos),
                jitter_pct: self.jitter_pct,
            });
        if let Some(ttl) = self.ttl {
            policy = policy.ttl(Duration::from_nanos(ttl));
        }
        if let Some(expires_at) = self.expires_at {
            policy = policy.expires_at(time(expires_at));
        }
        if let Some(version) = self.version {
            policy = policy.version(version);
        }
        if let Some(priority) = self.priority {
            policy = policy.priority(priority);
        }
        if let Some(max) = self.blob_bytes_max {
            policy = policy.max_blob_bytes(max);
        }
        policy
    }

    pub(crate) fn random(random: &mut StdRng, now: u64) -> Self {
        let spans = [0, 1, 5 * SECOND, 10 * SECOND, 20 * SECOND, 60 * SECOND, u64::MAX];
        let mut span = |share: f64| {
            let span = spans[random.random_range(0..spans.len())];
            random.random_bool(share).then_some(span)
        };
        let (ttl, idle_ttl, stale_serve, deadline) = (span(0.4), span(0.2), span(0.3), span(0.2));
        let admissions = [L1Admission::Auto, L1Admission::Always, L1Admission::Never];
        let admission = match random.random_range(0..10) {
            0 => 2,
            1 | 2 => 1,
            _ => 0,
        };
        Self {
            ttl,
            expires_at: deadline.map(|span| (now - 5 * SECOND).saturating_add(span)),
            idle_ttl,
            stale_serve,
            jitter_pct: if random.random_bool(0.3) { random.random() } else { 0 },
            version: random.random_bool(0.3).then(|| random.random_range(0..6)),
            priority: random.random_bool(0.3).then(|| [0, 127, 128, 129, 255][random_of(random)]),
            admission: admissions[admission],
            blob_bytes_max: random.random_bool(0.1).then(|| random.random_range(0..1000)),
        }
    }
}

impl FullKey {
    pub(crate) fn random(random: &mut StdRng) -> Self {
        let namespace = namespace(random);
        let key = match random.random_range(0..200) {
            0 => vec![b'k'; KEY_BYTES_MAX],
            1 => vec![b'k'; KEY_BYTES_MAX + 1],
            _ => KEYS[random.random_range(0..KEYS.len())].to_vec(),
        };
        Self { namespace, key }
    }
}

/// The mix of operations of a case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mix {
    /// Few invalidations and slow time, so that entries accumulate.
    pub(crate) is_calm: bool,
}

impl Operation {
    /// The next operation at the time `now`; `number` makes its value unique.
    pub(crate) fn random(random: &mut StdRng, mix: Mix, now: u64, number: u64) -> Self {
        // Draws from 720 on remove entries, at once or eventually.
        let mut draw = random.random_range(0..1000);
        if mix.is_calm && draw >= 720 && random.random_bool(0.9) {
            draw = random.random_range(0..720);
        }
        let verb = match draw {
            0..250 => Verb::Put(Box::new(Put::random(random, mix, now, number))),
            250..270 => Verb::PutMany(Put::some(random, mix, now, number)),
            270..600 => Verb::Get(FullKey::random(random)),
            600..610 => Verb::Keys(Listing::random(random)),
            610..640 => Verb::GetMany(namespace(random), keys(random)),
            640..660 => Verb::Exists(FullKey::random(random)),
            660..680 => Verb::Touch(FullKey::random(random), Policy::random(random, now)),
            680..720 => Verb::TakePoint,
            720..750 => Verb::InvalidateKey(FullKey::random(random)),
            750..760 => Verb::InvalidateKeys(namespace(random), keys(random)),
            760..780 => Verb::ExpireKey(FullKey::random(random)),
            780..797 => Verb::InvalidatePrefix(FullKey::random(random)),
            797..805 => Verb::ExpirePrefix(FullKey::random(random)),
            805..817 => Verb::InvalidateTags(namespace(random), labels(random)),
            817..823 => Verb::ExpireTags(Over::random(random), labels(random)),
            823..830 => Verb::InvalidateTagsOver(Over::random(random), labels(random)),
            830..839 => Verb::InvalidateDependencies(namespace(random), labels(random)),
            839..845 => Verb::InvalidateDependenciesOver(Over::random(random), labels(random)),
            845..850 => Verb::ExpireDependencies(Over::random(random), labels(random)),
            850..857 => Verb::InvalidateNamespace(namespace(random)),
            857..860 => Verb::ExpireNamespace(namespace(random)),
            860..862 => Verb::InvalidateAll,
            862..970 => Verb::Advance(step(random)),
            _ => Verb::StepBack(step(random)),
        };
        Self { verb, by_handle: random.random() }
    }
}

impl Put {
    /// Several of one namespace, sometimes with one key. Their numbers are far from all others.
    fn some(random: &mut StdRng, mix: Mix, now: u64, number: u64) -> Vec<Self> {
        let (namespace, count) = (namespace(random), random.random_range(0..5));
        let numbers = (1..=count).map(|place| number + place * 1_000_000);
        let mut puts: Vec<_> = numbers.map(|it| Self::random(random, mix, now, it)).collect();
        for put in &mut puts {
            (put.full_key.namespace, put.read_at) = (namespace, ReadAt::None);
        }
        puts
    }

    fn random(random: &mut StdRng, mix: Mix, now: u64, number: u64) -> Self {
        let large = if mix.is_calm { 20 } else { 3 };
        let length = match random.random_range(0..25) {
            0 => random.random_range(0..8),
            1 => random.random_range(8000..9000),
            draw if draw < 2 + large => random.random_range(2500..4000),
            _ => random.random_range(8..900),
        };
        let metadata_keys = match random.random_range(0..40) {
            0 => METADATA_KEYS_MAX + 1,
            1..=12 => random.random_range(0..=METADATA_KEYS_MAX),
            _ => 0,
        };
        let length_of_one = if random.random_bool(0.02) { METADATA_BYTES_MAX } else { 8 };
        let metadata = (0..metadata_keys)
            .map(|key| (key.to_string(), format!("{number:0>length_of_one$}")))
            .collect();
        let read_at = match random.random_range(0..20) {
            0..2 => ReadAt::Now,
            2..6 => ReadAt::Taken(random.random_range(0..8)),
            6 => ReadAt::Foreign,
            _ => ReadAt::None,
        };
        Self {
            full_key: FullKey::random(random),
            value: value(number, length),
            metadata,
            tags: if random.random_bool(0.4) { labels(random) } else { Vec::new() },
            dependencies: if random.random_bool(0.3) { labels(random) } else { Vec::new() },
            policy: random.random_bool(0.7).then(|| Policy::random(random, now)),
            read_at,
        }
    }
}

/// Bytes that contain their number throughout, so that a mixture of two values equals neither.
pub(crate) fn value(number: u64, length: usize) -> Vec<u8> {
    let mut value = number.to_le_bytes().repeat(length.div_ceil(8));
    value.truncate(length);
    value
}

pub(crate) fn time(nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanos)
}

fn random_of(random: &mut StdRng) -> usize {
    random.random_range(0..5)
}

/// The first ones more often, so that slots run out sometimes, not always.
pub(crate) fn namespace(random: &mut StdRng) -> &'static str {
    let mut draw = || random.random_range(0..NAMESPACES.len());
    NAMESPACES[draw().min(draw())]
}

/// Some keys, with repetitions.
fn keys(random: &mut StdRng) -> Vec<Vec<u8>> {
    (0..random.random_range(0..6)).map(|_| FullKey::random(random).key).collect()
}

/// Some labels, with repetitions, and sometimes more than allowed.
pub(crate) fn labels(random: &mut StdRng) -> Vec<&'static str> {
    let number = match random.random_range(0..50) {
        0 => LABELS_MAX + 1,
        1 => 5,
        _ => random.random_range(0..3),
    };
    (0..number).map(|_| LABELS[random.random_range(0..LABELS.len())]).collect()
}

fn step(random: &mut StdRng) -> u64 {
    [1, SECOND, 5 * SECOND, 10 * SECOND, 30 * SECOND][random_of(random)]
}
