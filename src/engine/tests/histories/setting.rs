//! `Setting`: the configuration of a history, and the executor of its fetches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;

use super::call::SPACES;
use super::defaults;
use crate::clock::Clock;
use crate::config::BlobCacheConfig;
use crate::engine::Engine;
use crate::engine::open::{DiskSetup, Identity, geometry, open_on};
use crate::error::CacheError;
use crate::io::{SimulatedDisk, Simulation, TaskRunner};
use crate::modes::{CrashSafety, L2Admission, L2Compression, L2PromotionPolicy};
use crate::quota::NamespaceQuota;
use crate::spawn::FetchTask;
use crate::write_rate::WriteRate;

/// Seconds of the clock at the beginning of a history.
pub(super) const BEGINNING: u64 = 1_000_000;

#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) crash_safety: CrashSafety,
    pub(super) key_hash_bits: u32,
    pub(super) has_faults: bool,
    /// No entry is lost: the disk has room, and every process ends in a close.
    pub(super) is_roomy: bool,
    /// One namespace may have half of either tier, the other little on disk.
    pub(super) has_quotas: bool,
    /// No call is put aside, no waker misbehaves, and every open has the same budgets.
    pub(super) is_plain: bool,
    /// The index has room for some of the keys only.
    pub(super) has_little_index: bool,
}

impl Setting {
    pub(super) fn config(self, seed: u64, runner: Arc<dyn TaskRunner>) -> BlobCacheConfig {
        let segment = if self.is_roomy { 256 << 10 } else { 32 << 10 };
        let policy = [L2PromotionPolicy::Immediate, L2PromotionPolicy::OnSecondHit];
        // Compressed, the values would be tiny, and no segment would be reclaimed.
        let compression = if seed % 4 == 3 { L2Compression::On } else { L2Compression::Off };
        let config = BlobCacheConfig::builder()
            .l1_bytes_max(64 << 10)
            .shard_count(1 + (seed % 3) as usize)
            .l2_path("simulated")
            .l2_bytes_max(if self.is_roomy { 32 } else { 6 } * segment)
            .l2_segment_bytes(segment as u32)
            .l2_promotion_policy(policy[(seed % 2) as usize])
            .l2_compression(compression)
            .l2_admission(self.admission(seed))
            .crash_safety(self.crash_safety)
            .key_hash_bits(self.key_hash_bits)
            .clock(Clock::manual(UNIX_EPOCH + Duration::from_secs(BEGINNING)))
            .spawner(spawner(runner))
            .spawned_fetches_max(8);
        let mut config = defaults::configured(config, seed).build().unwrap();
        // All reads are short, and have a quarter of it reserved.
        config.l2_read_bytes_max = 96 << 10;
        if self.has_quotas {
            let quota = |l1, l2| NamespaceQuota { l1_bytes_max: l1, l2_bytes_max: Some(l2) };
            config.quotas.set(SPACES[0], quota(Some(32 << 10), 96 << 10));
            config.quotas.set(SPACES[1], quota(None, 24 << 10));
        }
        if self.has_little_index {
            config.l2_index_bytes_max = 1800;
        }
        // It fills once in a while, as the clock moves; a file that must lose nothing takes all.
        if seed % 5 == 2 && !self.is_roomy {
            config.l2_write_rate_max = Some(WriteRate::new(2000).burst_bytes(64 << 10));
        }
        // Memory holds only a few of the keys.
        config.charge = Some(|_, value| 3000 + 3 * value.len());
        config
    }

    fn admission(self, seed: u64) -> L2Admission {
        if seed % 7 == 4 && !self.is_roomy {
            L2Admission::OnSecondSight
        } else {
            L2Admission::Adaptive
        }
    }
}

/// Runs most tasks, drops some, and keeps some without ever polling them.
fn spawner(runner: Arc<dyn TaskRunner>) -> impl Fn(FetchTask) + Send + Sync + 'static {
    let (given, asleep) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    move |task| match given.fetch_add(1, Ordering::Relaxed) % 12 {
        4 => drop(task),
        8 => asleep.lock().push(task),
        _ => drop(runner.spawn("fetch", task)),
    }
}

/// An open by the next process.
pub(super) fn opening(
    seed: u64,
    simulation: &Simulation,
    disk: &SimulatedDisk,
    config: &BlobCacheConfig,
    boot: u8,
) -> impl Future<Output = Result<Arc<Engine>, CacheError>> + Send + use<> {
    let setup = DiskSetup {
        disk: Arc::new(disk.clone()),
        runner: Arc::new(simulation.task_runner()),
        file: None,
        boot_id: [boot; 16],
        identity: Identity::of(seed),
        void_mark: None,
    };
    open_on(config.clone(), geometry(config).unwrap(), setup)
}
