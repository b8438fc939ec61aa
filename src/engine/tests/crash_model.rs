//! Two tiers on a simulated disk against a naive model: random operations, closes, kills and power
//! losses. Each hit must be the model's latest value. A failure prints its seed.

use std::collections::HashMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::cache::BlobCache;
use crate::config::BlobCacheConfig;
use crate::engine::open::{DiskSetup, Identity, geometry, open_on};
use crate::engine::tests::bench::seeds_of;
use crate::error::CacheError;
use crate::hit::CacheTier;
use crate::io::{SimulatedDisk, Simulation};
use crate::modes::{CrashSafety, L1Admission};
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;

const SPACES: [&str; 2] = ["a", "b"];

#[derive(Clone, Debug)]
struct Value {
    bytes: Vec<u8>,
    tags: Vec<String>,
    version: Option<u64>,
}

/// Counts of events, so that a run that never hits does not pass.
#[derive(Debug, Default)]
struct Tally {
    memory_hits: u64,
    disk_hits: u64,
    warm_hits: u64,
    reclaimed: u64,
    mismatches: u64,
    touched: u64,
}

struct Laboratory {
    random: StdRng,
    simulation: Simulation,
    disk: SimulatedDisk,
    config: BlobCacheConfig,
    cache: BlobCache,
    model: HashMap<(usize, u8), Value>,
    /// Ended by a touch. What is on disk counts until it is read.
    ended: u64,
    boot: u8,
    is_reopened: bool,
    /// Opens have other sizes than before, and so have caches that are open.
    is_resized: bool,
    tally: Tally,
}

impl Laboratory {
    fn new(seed: u64, crash_safety: CrashSafety, key_hash_bits: u32) -> Self {
        let config = BlobCacheConfig::builder()
            .l1_bytes_max(64 << 10)
            .l2_path("simulated")
            .l2_bytes_max(8 * (64 << 10))
            .l2_segment_bytes(64 << 10)
            .crash_safety(crash_safety)
            .key_hash_bits(key_hash_bits)
            .build()
            .unwrap();
        let disk = SimulatedDisk::new(seed, geometry(&config).unwrap().file_bytes());
        let mut simulation = Simulation::new(seed);
        let cache = open(&mut simulation, &disk, &config, 0);
        Self {
            random: StdRng::seed_from_u64(seed),
            simulation,
            disk,
            config,
            cache,
            model: HashMap::new(),
            ended: 0,
            boot: 0,
            is_reopened: false,
            is_resized: false,
            tally: Tally::default(),
        }
    }

    fn run(&mut self, operations: usize) {
        for _ in 0..operations {
            match self.random.random_range(0..1000) {
                0..420 => self.put(),
                420..880 => self.get(),
                880..900 => self.touch(),
                900..940 => self.invalidate_key(),
                940..960 => self.invalidate_tag(),
                960..975 => self.invalidate_prefix(),
                975..980 => self.flush(),
                980..981 => self.flush_all(),
                981..988 => self.restart(),
                988..990 => self.resize(),
                _ => self.pass_time(),
            }
        }
    }

    fn put(&mut self) {
        let (space, key) = self.key();
        let length = match self.random.random_range(0..10) {
            0 => 0,
            1..8 => self.random.random_range(1..3000),
            8 => self.random.random_range(3000..20_000),
            _ => self.random.random_range(20_000..70_000),
        };
        let mut bytes = vec![0; length];
        self.random.fill(&mut bytes[..]);
        let tags: Vec<String> = (0..self.random.random_range(0..3)).map(|_| self.tag()).collect();
        let version = self.random.random_bool(0.3).then(|| self.random.random_range(0..20));
        let mut policy = BlobCachePolicy::default().l1_admission(
            [L1Admission::Always, L1Admission::Auto, L1Admission::Never]
                [self.random.random_range(0..3)],
        );
        if let Some(version) = version {
            policy = policy.version(version);
        }
        let put = BlobCachePut::new(bytes.clone()).with_tags(tags.clone()).with_policy(policy);
        let cache = self.cache.clone();
        let result = self.simulation.block_on(cache.put(SPACES[space], [key], put)).unwrap();
        match result {
            Ok(()) => {
                self.model.insert((space, key), Value { bytes, tags, version });
            }
            Err(CacheError::VersionMismatch { existing, attempted }) => {
                self.tally.mismatches += 1;
                assert_eq!(Some(attempted), version);
                let latest = self.model.get(&(space, key)).and_then(|value| value.version);
                assert_eq!(latest, Some(existing));
                assert!(existing >= attempted);
            }
            Err(CacheError::BlobTooLarge { .. }) => assert!(length > 50_000, "{length}"),
            Err(error) => panic!("{error}"),
        }
    }

    fn get(&mut self) {
        let (space, key) = self.key();
        let cache = self.cache.clone();
        let hit = self.simulation.block_on(cache.get(SPACES[space], [key])).unwrap();
        let Some(hit) = hit else { return };
        let latest = self.model.get(&(space, key));
        let latest = latest.unwrap_or_else(|| panic!("a hit of {space}/{key}, which was removed"));
        assert!(hit.value() == latest.bytes, "{space}/{key} is stale");
        assert_eq!(hit.version(), latest.version);
        match hit.tier() {
            CacheTier::L1 => self.tally.memory_hits += 1,
            CacheTier::L2 => self.tally.disk_hits += 1,
            CacheTier::Fetched => panic!("a get fetches nothing"),
        }
        self.tally.warm_hits += u64::from(self.is_reopened);
    }

    /// Ends an entry at once, or makes it last.
    fn touch(&mut self) {
        let (space, key) = self.key();
        let ends = self.random.random_bool(0.5);
        let seconds = if ends { 0 } else { 1 << 30 };
        let policy = BlobCachePolicy::default().ttl(std::time::Duration::from_secs(seconds));
        let cache = self.cache.clone();
        let touch = cache.touch(SPACES[space], [key], &policy);
        let is_touched = self.simulation.block_on(touch).unwrap().unwrap();
        self.tally.touched += u64::from(is_touched);
        assert!(!is_touched || self.model.contains_key(&(space, key)), "{space}/{key} is gone");
        if is_touched && ends {
            self.model.remove(&(space, key));
            self.ended += 1;
        }
    }

    /// That so many of the model were removed.
    fn check_count(&self, counted: usize, removed: usize) {
        assert!(counted as u64 <= removed as u64 + self.ended, "{counted}, not {removed}");
    }

    fn invalidate_key(&mut self) {
        let (space, key) = self.key();
        let cache = self.cache.clone();
        let done = self.simulation.block_on(cache.invalidate_key(SPACES[space], [key])).unwrap();
        let known = self.model.remove(&(space, key)).is_some();
        if self.config.key_hash_bits == 64 {
            self.check_count(done.unwrap(), usize::from(known));
        }
    }

    fn invalidate_tag(&mut self) {
        let (space, tag) = (self.random.random_range(0..SPACES.len()), self.tag());
        let cache = self.cache.clone();
        let tags = [tag.as_str()];
        let done = self.simulation.block_on(cache.invalidate_tags(SPACES[space], &tags)).unwrap();
        let before = self.model.len();
        self.model.retain(|(of, _), value| *of != space || !value.tags.contains(&tag));
        self.check_count(done.unwrap(), before - self.model.len());
    }

    fn invalidate_prefix(&mut self) {
        let (space, key) = self.key();
        let cache = self.cache.clone();
        let prefix: &[u8] = if self.random.random_bool(0.1) { &[] } else { &[key] };
        let done = self.simulation.block_on(cache.invalidate_prefix(SPACES[space], prefix));
        let before = self.model.len();
        self.model.retain(|(of, held), _| *of != space || ![*held].starts_with(prefix));
        self.check_count(done.unwrap().unwrap(), before - self.model.len());
    }

    fn flush(&mut self) {
        let space = self.random.random_range(0..SPACES.len());
        let cache = self.cache.clone();
        self.simulation.block_on(cache.invalidate_namespace(SPACES[space])).unwrap().unwrap();
        self.model.retain(|(of, _), _| *of != space);
    }

    fn flush_all(&mut self) {
        let cache = self.cache.clone();
        self.simulation.block_on(cache.invalidate_all()).unwrap().unwrap();
        self.model.clear();
    }

    /// Ends the process in a random way, and starts the next one.
    fn restart(&mut self) {
        self.tally.reclaimed += self.cache.stats().l2_reclaimed_segments();
        match self.random.random_range(0..4) {
            0 => {
                let cache = self.cache.clone();
                self.simulation.block_on(cache.close()).unwrap().unwrap();
            }
            1 | 2 => {
                self.simulation.kill();
                self.disk = self.disk.kill();
            }
            _ => {
                self.simulation.kill();
                self.disk = self.disk.crash();
                self.boot += 1;
            }
        }
        if self.is_resized {
            self.config.l2_bytes_max = self.size();
        }
        self.cache = open(&mut self.simulation, &self.disk, &self.config, self.boot);
        self.is_reopened = true;
    }

    /// Changes the size of the open cache, and does not always wait for that.
    fn resize(&mut self) {
        if !self.is_resized {
            return self.restart();
        }
        let (cache, bytes) = (self.cache.clone(), self.size());
        if self.random.random_bool(0.3) {
            self.simulation.limit_steps(self.random.random_range(1..60));
            drop(self.simulation.block_on(cache.set_l2_bytes_max(bytes)));
            self.simulation.limit_steps(u64::MAX);
        } else {
            self.simulation.block_on(cache.set_l2_bytes_max(bytes)).unwrap().unwrap();
        }
    }

    fn size(&mut self) -> u64 {
        self.random.random_range(4..14) * (64 << 10)
    }

    fn pass_time(&mut self) {
        let runner = self.simulation.task_runner();
        let wait = std::time::Duration::from_millis(self.random.random_range(0..1500));
        self.simulation.block_on(crate::io::TaskRunner::sleep(&runner, wait)).unwrap();
    }

    fn key(&mut self) -> (usize, u8) {
        (self.random.random_range(0..SPACES.len()), self.random.random_range(0..60))
    }

    fn tag(&mut self) -> String {
        format!("tag{}", self.random.random_range(0..8))
    }
}

fn open(
    simulation: &mut Simulation,
    disk: &SimulatedDisk,
    config: &BlobCacheConfig,
    boot: u8,
) -> BlobCache {
    let setup = DiskSetup {
        disk: Arc::new(disk.clone()),
        runner: Arc::new(simulation.task_runner()),
        file: None,
        boot_id: [boot; 16],
        identity: Identity::of(0),
        void_mark: None,
    };
    let opening = open_on(config.clone(), geometry(config).unwrap(), setup);
    BlobCache { engine: simulation.block_on(opening).unwrap().unwrap() }
}

fn runs(crash_safety: CrashSafety, key_hash_bits: u32) {
    runs_resized(crash_safety, key_hash_bits, false);
}

fn runs_resized(crash_safety: CrashSafety, key_hash_bits: u32, is_resized: bool) {
    let seeds = seeds_of(40);
    let runs = seeds.end - seeds.start;
    let mut sum = Tally::default();
    for seed in seeds {
        let run = std::panic::catch_unwind(|| {
            let mut laboratory = Laboratory::new(seed, crash_safety, key_hash_bits);
            laboratory.is_resized = is_resized;
            laboratory.run(2000);
            laboratory.tally
        });
        let Ok(tally) = run else { panic!("TAMIS_SEED={seed} {crash_safety:?} {key_hash_bits}") };
        sum.memory_hits += tally.memory_hits;
        sum.disk_hits += tally.disk_hits;
        sum.warm_hits += tally.warm_hits;
        sum.reclaimed += tally.reclaimed;
        sum.mismatches += tally.mismatches;
        sum.touched += tally.touched;
    }
    println!("{crash_safety:?}, {key_hash_bits} bits: {sum:?}");
    assert!(sum.memory_hits >= runs * 20, "{sum:?}");
    assert!(sum.disk_hits >= runs * 20, "{sum:?}");
    assert!(sum.reclaimed >= runs, "{sum:?}");
    assert!(sum.touched >= runs, "{sum:?}");
}

#[test]
fn process_mode_is_never_stale() {
    runs(CrashSafety::Process, 64);
}

#[test]
fn process_mode_is_never_stale_with_colliding_hashes() {
    runs(CrashSafety::Process, 4);
}

#[test]
fn power_mode_is_never_stale() {
    runs(CrashSafety::Power, 64);
}

#[test]
fn no_mode_is_stale_whatever_the_sizes() {
    runs_resized(CrashSafety::Process, 64, true);
    runs_resized(CrashSafety::Process, 4, true);
    runs_resized(CrashSafety::Power, 64, true);
}

#[test]
fn cold_mode_is_never_stale() {
    runs(CrashSafety::Cold, 64);
}

/// After any damage the open succeeds or is refused, and no wrong value is served.
#[test]
fn a_flipped_bit_is_never_served() {
    let mut laboratory = Laboratory::new(7, CrashSafety::Process, 64);
    laboratory.run(1500);
    let cache = laboratory.cache.clone();
    laboratory.simulation.block_on(cache.close()).unwrap().unwrap();
    let config = &laboratory.config;
    let bytes = usize::try_from(geometry(config).unwrap().file_bytes()).unwrap();
    let image = laboratory.disk.snapshot(0, bytes);
    let (mut opened, mut hits, mut damaged) = (0, 0, 0);
    for round in 0..1500u64 {
        let random = &mut laboratory.random;
        let within = if round % 3 == 0 { 3 * 4096 } else { bytes };
        let (offset, bit) = (random.random_range(0..within), random.random_range(0..8));
        let disk = SimulatedDisk::new(round, bytes as u64);
        disk.overwrite(0, &image);
        disk.flip_bit(offset as u64, bit);
        let mut simulation = Simulation::new(round);
        let setup = DiskSetup {
            disk: Arc::new(disk.clone()),
            runner: Arc::new(simulation.task_runner()),
            file: None,
            boot_id: [0; 16],
            identity: Identity::of(0),
            void_mark: None,
        };
        let opening = open_on(config.clone(), geometry(config).unwrap(), setup);
        let engine = match simulation.block_on(opening).unwrap() {
            Ok(engine) => engine,
            Err(CacheError::L2Format { .. }) => continue,
            Err(error) => panic!("byte {offset}, bit {bit}: {error}"),
        };
        opened += 1;
        let cache = BlobCache { engine };
        for (&(space, key), value) in &laboratory.model {
            let hit = simulation.block_on(cache.get(SPACES[space], [key])).unwrap();
            if let Some(hit) = hit {
                assert!(hit.value() == value.bytes, "byte {offset}, bit {bit}");
                hits += 1;
            }
        }
        let stats = cache.stats();
        damaged += u64::from(stats.l2_corruptions() > 0 || stats.recovery_dropped() > 0);
    }
    println!("{opened} opened, {hits} hits, {damaged} found damaged");
    assert!(opened > 1000 && hits > 10_000 && damaged > 100, "{opened} {hits} {damaged}");
}

/// Memory goes on, no call hangs, and no later process serves an overwritten entry.
#[test]
fn a_failing_device_turns_the_tier_off() {
    use crate::io::{Fault, OperationKind};
    let mut served = 0;
    for seed in 0..60 {
        let mut laboratory = Laboratory::new(seed, CrashSafety::Process, 64);
        laboratory.run(300);
        let kind = [OperationKind::Write, OperationKind::Sync][usize::from(seed % 2 == 0)];
        let fault = [Fault::Io, Fault::NoSpace][usize::from(seed % 3 == 0)];
        laboratory.disk.fail(kind, seed % 7, fault, true);
        let mut refused = 0;
        for number in 0..200u8 {
            let key = number % 40;
            let bytes = vec![number; 2000];
            let cache = laboratory.cache.clone();
            let put = cache.put(SPACES[0], [key], BlobCachePut::new(bytes.clone()));
            match laboratory.simulation.block_on(put).expect("no call hangs") {
                // In force in this process either way.
                Ok(()) => {}
                Err(CacheError::L2Io { .. }) => refused += 1,
                Err(error) => panic!("{error}"),
            }
            laboratory.model.insert((0, key), Value { bytes, tags: Vec::new(), version: None });
            laboratory.get();
            laboratory.pass_time();
        }
        let stats = laboratory.cache.stats();
        served += stats.hits();
        let is_off = matches!(stats.l2_state(), crate::stats::L2State::Degraded { .. });
        assert!(is_off || refused == 0, "seed {seed}: {refused} refused by a healthy tier");
        laboratory.disk.heal();
        for _ in 0..5 {
            laboratory.pass_time();
        }
        let cache = laboratory.cache.clone();
        let is_off = matches!(cache.stats().l2_state(), crate::stats::L2State::Degraded { .. });
        let closed = laboratory.simulation.block_on(cache.close()).expect("no call hangs");
        assert_eq!(closed.is_err(), is_off, "seed {seed}");
        laboratory.simulation.kill();
        laboratory.disk = laboratory.disk.kill();
        laboratory.cache =
            open(&mut laboratory.simulation, &laboratory.disk, &laboratory.config, 0);
        for _ in 0..300 {
            laboratory.get();
        }
    }
    assert!(served > 60 * 20, "{served}");
}
