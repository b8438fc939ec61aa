//! `Bench`: a cache above a simulated disk, whose process can be killed.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::BlobCache;
use crate::clock::Clock;
use crate::config::{BlobCacheConfig, BlobCacheConfigBuilder};
use crate::engine::Engine;
use crate::engine::open::{DiskSetup, Identity, geometry, open_on};
use crate::io::{SimulatedDisk, Simulation, TaskRunner};
use crate::modes::{CrashSafety, L1Admission, L2Compression};
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;

pub(super) struct Bench {
    pub(super) simulation: Simulation,
    pub(super) disk: SimulatedDisk,
    pub(super) config: BlobCacheConfig,
    pub(super) cache: BlobCache,
}

pub(super) fn config(key_bytes: usize) -> BlobCacheConfig {
    BlobCacheConfig::builder()
        .l1_bytes_max(64 << 10)
        .l2_path("simulated")
        .l2_bytes_max(8 * (64 << 10))
        .l2_segment_bytes(64 << 10)
        .key_bytes_max(key_bytes)
        .crash_safety(CrashSafety::Process)
        .l2_compression(L2Compression::Off)
        .build()
        .unwrap()
}

/// For tests that drive the clock by hand.
pub(super) fn two_tiers(clock: &Clock) -> BlobCacheConfigBuilder {
    BlobCacheConfig::builder()
        .l1_bytes_max(16 << 20)
        .l2_path("simulated")
        .l2_bytes_max(8 << 20)
        .l2_segment_bytes(1 << 20)
        .l2_compression(L2Compression::Off)
        .clock(clock.clone())
}

pub(super) fn opening(
    simulation: &Simulation,
    disk: &SimulatedDisk,
    config: &BlobCacheConfig,
) -> impl Future<Output = Result<Arc<Engine>, crate::CacheError>> + use<> {
    opening_as(simulation, disk, config, (0, Identity::of(0)))
}

/// In another boot of the machine, or with another identity if the store is created.
pub(super) fn opening_as(
    simulation: &Simulation,
    disk: &SimulatedDisk,
    config: &BlobCacheConfig,
    (boot, identity): (u8, Identity),
) -> impl Future<Output = Result<Arc<Engine>, crate::CacheError>> + use<> {
    let setup = DiskSetup {
        disk: Arc::new(disk.clone()),
        runner: Arc::new(simulation.task_runner()),
        file: None,
        boot_id: [boot; 16],
        identity,
        void_mark: None,
    };
    open_on(config.clone(), geometry(config).unwrap(), setup)
}

/// The seeds of a laboratory: `TAMIS_SEED` alone, or as many as `TAMIS_RUNS` says.
pub(super) fn seeds_of(runs: u64) -> Range<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("TAMIS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TAMIS_RUNS").unwrap_or(runs),
    }
}

impl Bench {
    pub(super) fn new(seed: u64) -> Self {
        Self::with(seed, config(4096))
    }

    pub(super) fn with(seed: u64, config: BlobCacheConfig) -> Self {
        let disk = SimulatedDisk::new(seed, geometry(&config).unwrap().file_bytes());
        let mut simulation = Simulation::new(seed);
        let opening = opening(&simulation, &disk, &config);
        let cache = BlobCache { engine: simulation.block_on(opening).unwrap().unwrap() };
        Self { simulation, disk, config, cache }
    }

    /// Without a disk tier.
    pub(super) fn in_memory(seed: u64, config: BlobCacheConfig) -> Self {
        let (disk, mut simulation) = (SimulatedDisk::new(seed, 4096), Simulation::new(seed));
        let opening = crate::engine::open(config.clone());
        let cache = BlobCache { engine: simulation.block_on(opening).unwrap().unwrap() };
        Self { simulation, disk, config, cache }
    }

    pub(super) fn cache(&self) -> BlobCache {
        self.cache.clone()
    }

    pub(super) fn run<T>(&mut self, future: impl Future<Output = T>) -> T {
        self.simulation.block_on(future).unwrap()
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let runner = self.simulation.task_runner();
        self.run(runner.sleep(time));
    }

    pub(super) fn kill(&mut self) {
        self.simulation.kill();
        self.disk = self.disk.kill();
        self.reopen();
    }

    pub(super) fn reopen(&mut self) {
        let opening = opening(&self.simulation, &self.disk, &self.config);
        self.cache = BlobCache { engine: self.simulation.block_on(opening).unwrap().unwrap() };
    }

    pub(super) fn put(&mut self, key: &str, value: &str, tags: &[&str]) {
        let cache = self.cache.clone();
        self.simulation.block_on(cache.put("a", key, made(value, tags))).unwrap().unwrap();
        self.simulation.block_on(cache.sync()).unwrap().unwrap();
    }

    pub(super) fn get(&mut self, key: &str) -> Option<String> {
        let cache = self.cache.clone();
        let hit = self.simulation.block_on(cache.get("a", key)).unwrap();
        hit.map(|hit| String::from_utf8(hit.value().to_vec()).unwrap())
    }
}

pub(super) fn made(value: &str, tags: &[&str]) -> BlobCachePut {
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    BlobCachePut::copy_from_slice(value.as_bytes())
        .with_tags(tags.iter().copied())
        .with_policy(policy)
}
