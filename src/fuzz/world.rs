//! `World`: a cache above a simulated disk, and how its processes end and begin.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, UNIX_EPOCH};

use crate::cache::BlobCache;
use crate::clock::Clock;
use crate::config::BlobCacheConfig;
use crate::engine::{DiskSetup, Identity, geometry, open_on};
use crate::error::CacheError;
use crate::fetch_policy::FetchPolicy;
use crate::io::{SimulatedDisk, Simulation, TaskRunner};
use crate::modes::{CrashSafety, L2Compression};
use crate::spawn::FetchTask;

/// A call ends within so many steps of the simulation, whatever sleeps or fails.
const STEPS_MAX: u64 = 10_000;

/// Shorter than the time that most scripts let pass at once.
const SOFT_TIMEOUT: Duration = Duration::from_millis(40);

pub(super) const SEGMENT_BYTES: u32 = 32 << 10;
pub(super) const SEGMENTS: u32 = 6;

pub(super) struct World {
    pub(super) simulation: Simulation,
    pub(super) disk: SimulatedDisk,
    pub(super) config: BlobCacheConfig,
    pub(super) cache: BlobCache,
    boot: u8,
    /// Opens so far, and before.
    opens: u8,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Close,
    Kill,
    PowerLoss,
}

/// A small memory above a disk that holds more.
pub(super) fn config(crash_safety: CrashSafety, key_hash_bits: u32) -> BlobCacheConfig {
    let mut config = BlobCacheConfig::builder()
        .l1_bytes_max(64 << 10)
        .shard_count(1)
        .l2_path("simulated")
        .l2_bytes_max(u64::from(SEGMENTS * SEGMENT_BYTES))
        .l2_segment_bytes(SEGMENT_BYTES)
        .l2_compression(L2Compression::Off)
        .crash_safety(crash_safety)
        .key_hash_bits(key_hash_bits)
        .clock(Clock::manual(UNIX_EPOCH + Duration::from_secs(1_000_000)))
        .build()
        .expect("it is within bounds");
    // A new cache gets a spawner.
    config.fetch_policy = FetchPolicy::default().soft_timeout(SOFT_TIMEOUT).refresh_ahead(0.4);
    // Memory holds only a few of the keys.
    config.charge = Some(|_, value| 3000 + 3 * value.len());
    config
}

impl World {
    /// With a new store.
    pub(super) fn new(seed: u64, config: BlobCacheConfig) -> Self {
        let bytes = geometry(&config).expect("it was built").file_bytes();
        let disk = SimulatedDisk::new(seed, bytes);
        Self::on(disk, seed, config, 0).expect("a new store")
    }

    /// With what is on a disk, after so many opens.
    ///
    /// # Errors
    /// Of the open.
    pub(super) fn on(
        disk: SimulatedDisk,
        seed: u64,
        mut config: BlobCacheConfig,
        opens: u8,
    ) -> Result<Self, CacheError> {
        let mut simulation = Simulation::new(seed);
        let runner = simulation.task_runner();
        let spawner = move |task: FetchTask| drop(runner.spawn("fetch", task));
        config.spawner = Some(Arc::new(spawner));
        simulation.limit_steps(STEPS_MAX);
        let cache = open(&mut simulation, &disk, &config, (0, opens))?;
        Ok(Self { simulation, disk, config, cache, boot: 0, opens })
    }

    /// Runs a future to its end, and all tasks beside it.
    pub(super) fn run<T>(&mut self, future: impl Future<Output = T>) -> T {
        let output = self.simulation.block_on(future);
        assert!(self.simulation.panics().is_empty(), "{:?}", self.simulation.panics());
        output.expect("a call that is polled ends")
    }

    /// Polls a future so many times. None: it has not ended.
    pub(super) fn poll<T>(
        &mut self,
        future: &mut (impl Future<Output = T> + Unpin),
        polls: u32,
    ) -> Option<T> {
        let mut left = polls;
        self.run(poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(None);
            }
            left -= 1;
            if let Poll::Ready(output) = std::pin::Pin::new(&mut *future).poll(context) {
                return Poll::Ready(Some(output));
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }))
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let runner = self.simulation.task_runner();
        self.run(runner.sleep(time));
    }

    /// Ends the process.
    pub(super) fn end(&mut self, end: End) {
        match end {
            End::Close => {
                let cache = self.cache.clone();
                // On a failing device it fails, and ends.
                let _ = self.run(cache.close());
                self.pass(Duration::from_secs(5));
                self.simulation.kill();
                self.disk.complete_all();
            }
            End::Kill => {
                self.simulation.kill();
                self.disk = self.disk.kill();
            }
            End::PowerLoss => {
                self.simulation.kill();
                self.disk = self.disk.crash();
                self.boot = self.boot.wrapping_add(1);
            }
        }
    }

    /// Begins the next process.
    ///
    /// # Errors
    /// Of the open.
    pub(super) fn begin(&mut self) -> Result<(), CacheError> {
        self.opens = self.opens.wrapping_add(1);
        let number = (self.boot, self.opens);
        self.cache = open(&mut self.simulation, &self.disk, &self.config, number)?;
        Ok(())
    }
}

fn open(
    simulation: &mut Simulation,
    disk: &SimulatedDisk,
    config: &BlobCacheConfig,
    (boot, opens): (u8, u8),
) -> Result<BlobCache, CacheError> {
    let setup = DiskSetup {
        disk: Arc::new(disk.clone()),
        runner: Arc::new(simulation.task_runner()),
        file: None,
        boot_id: [boot; 16],
        // If this open makes the store, it must not take frames of another one for its own.
        identity: Identity { store_id: [opens; 16], hash_key: opens.into() },
        void_mark: None,
    };
    let opening = open_on(config.clone(), geometry(config)?, setup);
    let engine = simulation.block_on(opening).expect("an open ends")?;
    Ok(BlobCache { engine })
}
