//! A cache above a simulated disk, and random calls.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use futures::FutureExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::bench::Bench;
use crate::cache::BlobCache;
use crate::clock::Clock;
use crate::config::BlobCacheConfig;
use crate::hit::{BlobCacheHit, CachePresence};
use crate::modes::{BackgroundSweep, CrashSafety, L1Admission, L2Compression, L2PromotionPolicy};
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;
use crate::quota::NamespaceQuota;

/// Each begins like the next one, or the one before.
pub(super) const SPACES: [&str; 3] = ["a", "ab", ""];

pub(super) const PREFIXES: [&[u8]; 6] = [b"", b"", b"1", b"12", b"long", b"none such"];

#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    pub(super) key_hash_bits: u32,
    /// Nothing is lost but by calls.
    pub(super) is_roomy: bool,
    /// Memory has room for all. The log has not, and appends nothing again.
    pub(super) is_held: bool,
    pub(super) has_disk: bool,
}

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    pub(super) checks: usize,
    pub(super) listed: usize,
    pub(super) kills: usize,
    pub(super) reclaimed: usize,
    pub(super) reinserted: usize,
}

/// A put that was made. Its number is at the beginning of its value.
#[derive(Debug, Clone)]
pub(super) struct Put {
    pub(super) number: u32,
    length: usize,
    pub(super) tags: Vec<u8>,
    depends: bool,
    policy: BlobCachePolicy,
}

#[derive(Debug, Clone)]
pub(super) enum Scope {
    Key(Vec<u8>),
    Prefix(&'static [u8]),
    Tag(u8),
    Space,
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Put(&'static str, Vec<u8>, Put),
    Get(&'static str, Vec<u8>),
    /// Or makes stale; dropped after so many polls.
    Invalidate {
        space: &'static str,
        scope: Scope,
        expires: bool,
        polls: Option<u32>,
    },
    Pass(u64),
    Kill,
    Close,
}

pub(super) struct Laboratory {
    pub(super) random: StdRng,
    pub(super) bench: Bench,
    pub(super) tally: Tally,
    setting: Setting,
    puts: Vec<Put>,
}

pub(super) fn tag(number: u8) -> String {
    format!("tag{number}")
}

/// Some begin like others, one is empty, and some are longer than what outlines have of keys.
pub(super) fn keys_of() -> impl Iterator<Item = Vec<u8>> {
    let short = (0..30u8).map(|number| number.to_string().into_bytes());
    let long = (0..6u8).map(|number| [b"long".repeat(70), vec![number]].concat());
    [Vec::new()].into_iter().chain(short).chain(long)
}

impl Put {
    pub(super) fn dependency(&self) -> Vec<String> {
        if self.depends { vec!["on".to_owned()] } else { Vec::new() }
    }

    fn blob(&self) -> BlobCachePut {
        let mut value = self.number.to_le_bytes().to_vec();
        value.resize(self.length, 7);
        BlobCachePut::new(value)
            .with_tags(self.tags.iter().map(|it| tag(*it)))
            .with_dependencies(self.dependency())
            .with_policy(self.policy.clone())
    }
}

impl Step {
    pub(super) fn draw(laboratory: &mut Laboratory) -> Self {
        let (space, key) = (laboratory.space(), laboratory.key());
        match laboratory.random.random_range(0..100) {
            0..12 => Self::Get(space, key),
            12..15 if laboratory.setting.has_disk => Self::Kill,
            15..17 if laboratory.setting.has_disk => Self::Close,
            _ => Self::draw_mutation(laboratory),
        }
    }

    pub(super) fn draw_mutation(laboratory: &mut Laboratory) -> Self {
        let (space, key) = (laboratory.space(), laboratory.key());
        let random = &mut laboratory.random;
        let scope = match random.random_range(0..100) {
            0..84 => {
                let put = laboratory.put();
                return Self::Put(space, key, put);
            }
            84..87 => return Self::Pass(random.random_range(0..30)),
            87..92 => Scope::Key(key),
            92..95 => Scope::Prefix(PREFIXES[random.random_range(2..PREFIXES.len())]),
            95..99 => Scope::Tag(random.random_range(0..4)),
            _ => Scope::Space,
        };
        let polls = random.random_bool(0.5).then(|| random.random_range(1..4));
        Self::Invalidate { space, scope, expires: random.random_bool(0.5), polls }
    }

    /// The key that it puts into that namespace, and its tags.
    pub(super) fn put_into(&self, space: &str) -> Option<(&[u8], &[u8])> {
        match self {
            Self::Put(of, key, put) if *of == space => Some((key, &put.tags)),
            _ => None,
        }
    }

    /// Whether a key of that namespace may have had no entry for a moment.
    pub(super) fn ends(&self, space: &str, key: &[u8]) -> bool {
        match self {
            Self::Pass(_) => true,
            Self::Invalidate { space: of, scope, .. } if *of == space => match scope {
                Scope::Key(of) => of == key,
                Scope::Prefix(prefix) => key.starts_with(prefix),
                Scope::Tag(_) | Scope::Space => true,
            },
            _ => false,
        }
    }
}

impl Laboratory {
    pub(super) fn new(seed: u64, setting: Setting) -> Self {
        let mut builder = BlobCacheConfig::builder()
            .l1_bytes_max(if setting.is_roomy || setting.is_held { 16 << 20 } else { 64 << 10 })
            .shard_count(1 + usize::try_from(seed % 3).unwrap())
            .key_hash_bits(setting.key_hash_bits)
            .background_sweep(BackgroundSweep::Off)
            .clock(Clock::manual(UNIX_EPOCH + Duration::from_secs(1_000_000)));
        if setting.has_disk {
            let compression = [L2Compression::Off, L2Compression::On];
            let promotion = [L2PromotionPolicy::Immediate, L2PromotionPolicy::OnSecondHit];
            builder = builder
                .l2_path("simulated")
                .l2_bytes_max(if setting.is_roomy { 32 << 20 } else { 6 * (32 << 10) })
                .l2_segment_bytes(if setting.is_roomy { 64 << 10 } else { 32 << 10 })
                .l2_second_chances(!setting.is_held)
                .l2_compression(compression[usize::from(seed % 4 == 1)])
                .l2_promotion_policy(promotion[usize::from(seed % 2 == 1)])
                .crash_safety(CrashSafety::Process);
        }
        let mut config = builder.build().unwrap();
        if seed % 3 == 1 {
            // What it takes is not much, so that some entries are in memory alone.
            let quota = NamespaceQuota { l1_bytes_max: None, l2_bytes_max: Some(24 << 10) };
            config.quotas.set("ab", quota);
        }
        if seed % 5 == 3 && !setting.is_roomy {
            // Segments are sealed early.
            config.l2_index_bytes_max = 3000;
        }
        let bench = match setting.has_disk {
            true => Bench::with(seed, config),
            false => Bench::in_memory(seed, config),
        };
        let (random, tally) = (StdRng::seed_from_u64(seed), Tally::default());
        Self { random, bench, tally, setting, puts: Vec::new() }
    }

    pub(super) fn cache(&self) -> BlobCache {
        self.bench.cache()
    }

    pub(super) fn space(&mut self) -> &'static str {
        SPACES[self.random.random_range(0..SPACES.len())]
    }

    fn key(&mut self) -> Vec<u8> {
        let count = keys_of().count();
        keys_of().nth(self.random.random_range(0..count)).unwrap()
    }

    fn put(&mut self) -> Put {
        let random = &mut self.random;
        let seconds = |random: &mut StdRng| Duration::from_secs(random.random_range(1..60));
        let mut policy = BlobCachePolicy::default();
        if random.random_bool(0.3) {
            policy = policy.ttl(seconds(random));
        }
        if random.random_bool(0.4) {
            policy = policy.stale_serve(seconds(random));
        }
        if random.random_bool(0.1) {
            policy = policy.idle_ttl(seconds(random));
        }
        if random.random_bool(0.1) {
            policy = policy.version(random.random_range(0..9));
        }
        if random.random_bool(0.1) {
            policy = policy.priority(random.random_range(127..130));
        }
        let admissions = [L1Admission::Auto, L1Admission::Never, L1Admission::Always];
        policy = policy.l1_admission(admissions[random.random_range(0..3)]);
        let number = u32::try_from(self.puts.len()).unwrap();
        let tags = (0..random.random_range(0..3)).map(|_| random.random_range(0..4)).collect();
        let length = if random.random_bool(0.2) { 3000 } else { random.random_range(4..1500) };
        let put = Put { number, length, tags, depends: random.random_bool(0.2), policy };
        self.puts.push(put.clone());
        put
    }

    pub(super) fn put_of(&self, value: &[u8]) -> &Put {
        &self.puts[u32::from_le_bytes(*value.first_chunk().unwrap()) as usize]
    }

    /// Nothing goes on from here on.
    pub(super) fn settle(&mut self) {
        let cache = self.cache();
        self.bench.run(cache.sync()).unwrap();
        self.bench.pass(Duration::from_secs(5));
    }

    /// What gets find. Those in memory are asked first: to promote others may evict them.
    pub(super) fn hits(&mut self, space: &str) -> BTreeMap<Vec<u8>, BlobCacheHit> {
        let cache = self.cache();
        let presence = |key: Vec<u8>| (cache.exists(space, &key), key);
        let mut keys: Vec<_> = keys_of().map(presence).collect();
        keys.sort_by_key(|(presence, _)| *presence != CachePresence::Present);
        let mut hits = BTreeMap::new();
        for (_, key) in keys {
            let hit = self.bench.run(cache.get(space, &key));
            hits.extend(hit.map(|hit| (key, hit)));
        }
        hits
    }

    /// The same, by the numbers of their puts.
    pub(super) fn numbers(&mut self, space: &str) -> BTreeMap<Vec<u8>, u32> {
        let hits = self.hits(space).into_iter();
        hits.map(|(key, hit)| (key, self.put_of(hit.value()).number)).collect()
    }

    pub(super) fn run(&mut self, step: Step) {
        let cache = self.cache();
        match step {
            // One with a version may be refused.
            Step::Put(space, key, put) => drop(self.bench.run(cache.put(space, key, put.blob()))),
            Step::Get(space, key) => drop(self.bench.run(cache.get(space, key))),
            Step::Pass(seconds) => self.bench.config.clock.advance(Duration::from_secs(seconds)),
            Step::Kill => {
                self.count();
                drop(cache);
                self.bench.kill();
            }
            Step::Close => {
                self.count();
                self.bench.run(cache.close()).unwrap();
                drop(cache);
                self.bench.reopen();
            }
            Step::Invalidate { space, scope, expires, polls } => {
                let mut call = invalidation(cache, space, scope, expires).boxed();
                match polls {
                    None => self.bench.run(call),
                    Some(polls) => {
                        for _ in 0..polls {
                            if (&mut call).now_or_never().is_some() {
                                break;
                            }
                            self.bench.pass(Duration::from_millis(1));
                        }
                    }
                }
            }
        }
    }

    fn count(&mut self) {
        let stats = self.bench.cache.stats();
        self.tally.kills += 1;
        self.tally.reclaimed += usize::try_from(stats.l2_reclaimed_segments()).unwrap();
        self.tally.reinserted += usize::try_from(stats.l2_reinserted()).unwrap();
    }
}

async fn invalidation(cache: BlobCache, space: &'static str, scope: Scope, expires: bool) {
    let tags = |number| [tag(number)];
    let counted = match (scope, expires) {
        (Scope::Key(key), true) => cache.expire_key(space, key).await,
        (Scope::Key(key), false) => cache.invalidate_key(space, key).await,
        (Scope::Prefix(prefix), true) => cache.expire_prefix(space, prefix).await,
        (Scope::Prefix(prefix), false) => cache.invalidate_prefix(space, prefix).await,
        (Scope::Tag(number), true) => cache.expire_tags(space, &tags(number)).await,
        (Scope::Tag(number), false) => cache.invalidate_tags(space, &tags(number)).await,
        (Scope::Space, true) => cache.expire_namespace(space).await.map(usize::from),
        (Scope::Space, false) => cache.invalidate_namespace(space).await.map(usize::from),
    };
    assert!(counted.is_ok(), "{counted:?}");
}
