//! The configuration of a case, with an executor whose tasks the laboratory treats as it does
//! calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;

use super::waker::throw;
use crate::clock::Clock;
use crate::config::BlobCacheConfig;
use crate::fetch_policy::FetchPolicy;
use crate::modes::{BackgroundSweep, CrashSafety, L2Compression, L2PromotionPolicy};
use crate::spawn::FetchTask;

/// What was given to the executor.
pub(super) type Tasks = Arc<Mutex<Vec<FetchTask>>>;

/// It panics now and then, with the task or without.
fn spawner(tasks: &Tasks) -> impl Fn(FetchTask) + Send + Sync + 'static + use<> {
    let (tasks, spawned) = (Arc::clone(tasks), AtomicU32::new(0));
    move |task| match spawned.fetch_add(1, Ordering::Relaxed) % 10 {
        3 => throw(),
        number => {
            tasks.lock().push(task);
            if number == 7 {
                throw();
            }
        }
    }
}

pub(super) fn config(random: &mut StdRng, tasks: &Tasks) -> BlobCacheConfig {
    let mut builder = BlobCacheConfig::builder()
        .l1_bytes_max(64 << 10)
        .shard_count(random.random_range(1..4))
        .key_hash_bits([64, 64, 8, 3][random.random_range(0..4)])
        .max_namespaces(random.random_range(3..8))
        .background_sweep(BackgroundSweep::Off)
        .clock(Clock::manual(UNIX_EPOCH + Duration::from_secs(1_000_000)));
    let has_disk = random.random_bool(0.85);
    let policy = FetchPolicy::default().refresh_ahead(0.3);
    let policy = if has_disk { policy.soft_timeout(Duration::from_millis(50)) } else { policy };
    builder = builder.spawner(spawner(tasks)).spawned_fetches_max(6).fetch_policy(policy);
    if has_disk {
        let promotions = [L2PromotionPolicy::Immediate, L2PromotionPolicy::OnSecondHit];
        let safeties = [CrashSafety::Process, CrashSafety::Power, CrashSafety::Cold];
        let compressions = [L2Compression::On, L2Compression::Off];
        let segment = [32 << 10, 64 << 10, 512 << 10][random.random_range(0..3)];
        builder = builder
            .l2_path("simulated")
            .l2_bytes_max(6 * u64::from(segment))
            .l2_segment_bytes(segment)
            .l2_promotion_policy(promotions[random.random_range(0..2)])
            .l2_compression(compressions[random.random_range(0..2)])
            .crash_safety(safeties[random.random_range(0..3)]);
    }
    let mut config = builder.build().unwrap();
    if has_disk && random.random_bool(0.5) {
        config.l2_read_bytes_max = 96 << 10;
    }
    if random.random_bool(0.7) {
        // Memory holds only a few of the keys.
        config.charge = Some(|_, value| 3000 + 3 * value.len());
    }
    config
}
