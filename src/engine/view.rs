//! `open_view`: a cache that shows what is on a disk, and never writes there. It has no tasks, and
//! no caller puts anything into it.

use std::sync::Arc;

use crate::config::{BlobCacheConfig, cores};
use crate::engine::Engine;
use crate::engine::disk_setup::{DiskSetup, opening};
use crate::engine::disk_tier::{Running, Tier, TierFile};
use crate::engine::missing::Identity;
use crate::engine::open::restore;
use crate::engine::parts::Parts;
use crate::io::{Disk, NoTasks};
use crate::l2::{self, FoundStore, OpenSegment, Opening, RecoveryError};
use crate::modes::{BackgroundSweep, CrashSafety, L2Admission};
use crate::timer::Timer;

/// The most namespaces that a configuration allows.
const NAMESPACES_MAX: usize = 65_536;

/// No value gets into memory.
const L1_BYTES: usize = 1 << 20;

/// A cache that shows a store.
pub(crate) struct View {
    pub(crate) engine: Arc<Engine>,
    /// Segments that were dropped because of damage.
    pub(crate) dropped: u64,
    pub(crate) open_segment: OpenSegment,
}

/// Opens what a store has.
///
/// # Errors
/// The store cannot be read.
pub(crate) async fn open_view(store: &FoundStore) -> Result<View, RecoveryError> {
    let config = config(store);
    let disk: Arc<dyn Disk> = store.shown().await?;
    let setup = DiskSetup {
        disk: Arc::clone(&disk),
        runner: Arc::new(NoTasks),
        file: None,
        boot_id: [0; 16],
        identity: Identity::random(),
        void_mark: None,
    };
    let opening = opening(&config, store.facts().geometry, setup.identity, Some(&setup));
    let opening = Opening { helpers: cores(), ..opening };
    let opened = l2::open(disk, &opening, Timer::Process).await?;
    let running = Running { runner: setup.runner, file: None };
    let tier = Tier { l2: opened.l2, file: TierFile::Open(running) };
    let parts = Parts::new(config, opened.hasher, Some(tier), &Timer::Process);
    // Those beyond the limit are shown, too.
    drop(restore(&parts, opened.namespaces).await);
    let engine = Arc::new(Engine::new(parts));
    Ok(View { engine, dropped: opened.dropped, open_segment: opened.open_segment })
}

/// With the size of the store, and room for its index: as much as an owner has by default, or what
/// all records need.
fn config(store: &FoundStore) -> BlobCacheConfig {
    let geometry = store.facts().geometry;
    let default = BlobCacheConfig::default_index_bytes(geometry.file_bytes());
    let needed = usize::try_from(store.index_bytes()).unwrap_or(usize::MAX / 2);
    BlobCacheConfig {
        l1_bytes_max: L1_BYTES,
        shard_count: 1,
        max_namespaces: NAMESPACES_MAX,
        l2_bytes_max: geometry.file_bytes(),
        l2_segment_bytes: geometry.segment_bytes(),
        l2_index_bytes_max: needed.max(default),
        l2_admission: L2Admission::Always,
        background_sweep: BackgroundSweep::Off,
        crash_safety: CrashSafety::Process,
        ..BlobCacheConfig::default()
    }
}
