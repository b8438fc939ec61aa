//! Threads that are the only writers of their keys in a shared cache, and so know exactly what
//! these keys hold, under concurrent eviction, reclaim, sweeps, expiry and flushes. A get finds the
//! latest value or nothing; a put is refused only for the version that is there.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tamis::{
    BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, CacheError, CacheTier, Clock,
    L1Admission, L2Compression, NamespaceQuota, SweepLimit,
};

const OWNERS: u64 = 4;
const KEYS: u32 = 60;

/// The first two have quotas, one of them on disk only.
const NAMESPACES: [&str; 3] = ["both", "disk", "none"];

/// How often each kind of possible error was tested.
#[derive(Debug, Default)]
struct Tally {
    hits: AtomicU64,
    disk_hits: AtomicU64,
    mismatches: AtomicU64,
}

/// The content of a key.
#[derive(Debug)]
struct Held {
    number: u64,
    version: Option<u64>,
    is_tagged: bool,
}

/// One thread and the contents of its keys.
struct Writer<'a> {
    cache: &'a BlobCache,
    clock: &'a Clock,
    tally: &'a Tally,
    random: StdRng,
    id: u64,
    numbers: u64,
    held: HashMap<(&'static str, u32), Held>,
}

impl Writer<'_> {
    fn key(&self, number: u32) -> String {
        format!("t{}/{number}", self.id)
    }

    fn step(&mut self) {
        let namespace = NAMESPACES[self.random.random_range(0..NAMESPACES.len())];
        let number = self.random.random_range(0..KEYS);
        let tag = format!("t{}", self.id);
        match self.random.random_range(0..1000) {
            0..350 => self.put(namespace, number),
            350..420 => {
                block_on(self.cache.invalidate_key(namespace, self.key(number))).unwrap();
                self.held.remove(&(namespace, number));
            }
            420..423 => {
                let digit = number.to_string()[..1].to_owned();
                let prefix = format!("{tag}/{digit}");
                block_on(self.cache.invalidate_prefix(namespace, prefix)).unwrap();
                let is_of = |number: u32| number.to_string().starts_with(&digit);
                self.held.retain(|(of, number), _| *of != namespace || !is_of(*number));
            }
            423..426 => {
                block_on(self.cache.invalidate_tags(namespace, &[&tag])).unwrap();
                self.held.retain(|(of, _), held| *of != namespace || !held.is_tagged);
            }
            426 if self.id == 0 && self.random.random_ratio(1, 20) => {
                block_on(self.cache.invalidate_namespace(namespace)).unwrap();
                self.held.retain(|(of, _), _| *of != namespace);
            }
            427..431 => self.clock.advance(Duration::from_secs(1)),
            _ => self.get(namespace, number),
        }
    }

    fn put(&mut self, namespace: &'static str, number: u32) {
        let random = &mut self.random;
        let version = random.random_ratio(1, 3).then(|| random.random_range(1..20));
        let is_tagged = random.random_ratio(1, 3);
        let priority = [100, 128, 200][random.random_range(0..3)];
        let mut policy = BlobCachePolicy::default().priority(priority);
        if random.random_ratio(1, 3) {
            policy = policy.l1_admission(L1Admission::Never);
        }
        if random.random_ratio(1, 4) {
            policy = policy.ttl(Duration::from_secs(random.random_range(1..50)));
        }
        policy = version.into_iter().fold(policy, BlobCachePolicy::version);
        let most = if random.random_ratio(1, 10) { 20_000 } else { 3000 };
        let mut value = vec![7; random.random_range(8..most)];
        self.numbers += 1;
        value[..8].copy_from_slice(&self.numbers.to_le_bytes());
        let tags = is_tagged.then(|| format!("t{}", self.id));
        let put = BlobCachePut::new(value).with_policy(policy).with_tags(tags);
        match block_on(self.cache.put(namespace, self.key(number), put)) {
            Ok(()) => {
                let held = Held { number: self.numbers, version, is_tagged };
                self.held.insert((namespace, number), held);
            }
            Err(CacheError::VersionMismatch { existing, attempted }) => {
                let held = self.held.get(&(namespace, number));
                let is_there = held.is_some_and(|held| held.version == Some(existing));
                assert!(is_there && existing >= attempted, "{held:?} against {attempted}");
                self.tally.mismatches.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn get(&mut self, namespace: &'static str, number: u32) {
        let Some(hit) = block_on(self.cache.get(namespace, self.key(number))) else { return };
        let found = u64::from_le_bytes(hit.value()[..8].try_into().unwrap());
        let held = self.held.get(&(namespace, number));
        let key = self.key(number);
        assert!(held.is_some_and(|held| held.number == found), "{key}: {found}, not {held:?}");
        self.tally.hits.fetch_add(1, Ordering::Relaxed);
        let is_on_disk = hit.tier() == CacheTier::L2;
        self.tally.disk_hits.fetch_add(u64::from(is_on_disk), Ordering::Relaxed);
    }
}

/// Runs that many steps on each thread, or `TAMIS_STEPS`. `TAMIS_SEED` sets the first seed.
fn run(name: &str, is_on_disk: bool, key_hash_bits: u32) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let (steps, seed) = (number("TAMIS_STEPS").unwrap_or(6000), number("TAMIS_SEED").unwrap_or(0));
    println!("{name}: TAMIS_SEED={seed} TAMIS_STEPS={steps}");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let clock = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1000));
    let disk = NamespaceQuota { l1_bytes_max: None, l2_bytes_max: Some(64 << 10) };
    let both = NamespaceQuota { l1_bytes_max: Some(96 << 10), l2_bytes_max: Some(300 << 10) };
    let mut builder = BlobCacheConfig::builder().l1_bytes_max(192 << 10).clock(clock.clone());
    builder = builder.quota("both", both).quota("disk", disk).key_hash_bits(key_hash_bits);
    if is_on_disk {
        builder = builder.l2_path(folder.path()).l2_bytes_max(2 << 20).l2_segment_bytes(256 << 10);
    }
    let config = builder.l2_compression(L2Compression::Off).build().unwrap();
    let cache = block_on(BlobCache::open(config)).unwrap();
    let (tally, is_over) = (Tally::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        let owners: Vec<_> = (0..OWNERS)
            .map(|id| Writer {
                cache: &cache,
                clock: &clock,
                tally: &tally,
                random: StdRng::seed_from_u64(seed * OWNERS + id),
                id,
                numbers: 0,
                held: HashMap::new(),
            })
            .map(|mut owner| scope.spawn(move || (0..steps).for_each(|_| owner.step())))
            .collect();
        let (cache, is_over) = (&cache, &is_over);
        scope.spawn(move || {
            let mut random = StdRng::seed_from_u64(seed);
            while !is_over.load(Ordering::Relaxed) {
                let limit = SweepLimit::Entries(random.random_range(1..300));
                block_on(cache.sweep_expired(limit));
            }
        });
        let ended: Vec<_> = owners.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok), "{name}: TAMIS_SEED={seed}");
    });
    let stats = cache.stats();
    println!("{tally:?}, {} reclaimed", stats.l2_reclaimed_segments());
    assert!(tally.hits.into_inner() > steps / 4 && tally.mismatches.into_inner() > steps / 400);
    // If keys shadow each other, there may be room for all remaining ones.
    let (expired, evicted) = (stats.expirations(), stats.evictions());
    assert!(expired > 0 && (evicted > 0 || key_hash_bits < 64), "{expired} {evicted}");
    let is_used = tally.disk_hits.into_inner() > steps / 10 && stats.l2_reclaimed_segments() > 8;
    assert_eq!(is_used, is_on_disk);
    block_on(cache.invalidate_all()).unwrap();
    block_on(cache.sweep_expired(SweepLimit::Entries(usize::MAX)));
    let stats = cache.stats();
    assert_eq!((stats.bytes_in_use(), stats.entries(), stats.memory_labels_bytes()), (0, 0, 0));
    block_on(cache.close()).unwrap();
}

#[test]
fn in_memory() {
    run("memory", false, 64);
}

#[test]
fn in_memory_with_colliding_keys() {
    run("memory, 8 bits", false, 8);
}

#[test]
fn over_both_tiers() {
    run("both tiers", true, 64);
}

#[test]
fn over_both_tiers_with_colliding_keys() {
    run("both tiers, 8 bits", true, 8);
}
