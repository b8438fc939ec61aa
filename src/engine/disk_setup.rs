//! `DiskSetup`: the open disk of a tier and what belongs to it, and how its file is opened.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::Arc;

use crate::config::{BlobCacheConfig, cores};
use crate::engine::missing::Identity;
use crate::error::CacheError;
use crate::failpoint::{Failpoint, failpoint};
use crate::footprint::SLOT_BYTES;
use crate::io::{Disk, DiskEngine, DiskOptions, FileDisk, FileMark, TaskRunner, VoidMark};
use crate::l2::{self, Geometry, Limits, Opening};
use crate::modes::{CrashSafety, L2Engine};
use crate::telemetry::tell;
use crate::timer::Timer;

/// The disk for the tier, and the tasks beside it.
pub(crate) struct DiskSetup {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) runner: Arc<dyn TaskRunner>,
    /// Releases a real file; None for a simulated disk.
    pub(crate) file: Option<FileDisk>,
    pub(crate) boot_id: [u8; 16],
    /// The identity of a store that is created.
    pub(crate) identity: Identity,
    /// The mark which says that the store must begin empty, if it is there.
    pub(crate) void_mark: Option<Arc<dyn VoidMark>>,
}

impl DiskSetup {
    /// Time as the disk has it: simulated, or the process's.
    pub(crate) fn timer(&self) -> Timer {
        match self.file {
            Some(_) => Timer::Process,
            None => Timer::TaskRunner(Arc::clone(&self.runner)),
        }
    }

    /// Removes the mark, on the tier's thread, now that the store on file says it itself.
    pub(crate) async fn remove_mark(&self) {
        let Some(mark) = self.void_mark.clone() else { return };
        let removing = async move {
            if let Err(error) = mark.remove() {
                let consequence = "the next open begins empty once more";
                tell!(warn, "open", %error, consequence, "the void mark cannot be removed");
            }
        };
        self.runner.spawn("void mark", Box::pin(removing)).await;
    }
}

impl Identity {
    pub(crate) fn random() -> Self {
        let random = || RandomState::new().build_hasher().finish();
        let mut store_id = [0; 16];
        store_id[..8].copy_from_slice(&random().to_le_bytes());
        store_id[8..].copy_from_slice(&random().to_le_bytes());
        Self { store_id, hash_key: random() }
    }

    /// The same for the same seed, so that tests repeat.
    #[cfg(test)]
    pub(crate) fn of(seed: u64) -> Self {
        Self { store_id: [7; 16], hash_key: seed }
    }
}

/// What is to transfer the file; None: whatever the kernel grants.
pub(crate) fn engine_of(config: &BlobCacheConfig) -> Option<DiskEngine> {
    match config.l2_engine {
        L2Engine::Auto => None,
        L2Engine::IoUring => Some(DiskEngine::IoUring),
        L2Engine::Threads => Some(DiskEngine::Threads),
    }
}

/// Opens the data file, or makes it.
pub(crate) async fn open_file(
    config: &BlobCacheConfig,
    path: &Path,
) -> Result<DiskSetup, CacheError> {
    let mut options = DiskOptions::new(path, geometry(config)?.file_bytes());
    options.engine = engine_of(config);
    let disk = FileDisk::open(options).await?;
    log_facts(&disk, config);
    let mark = || -> Arc<dyn VoidMark> { Arc::new(FileMark::new(path)) };
    Ok(DiskSetup {
        disk: Arc::new(disk.clone()),
        runner: disk.task_runner(),
        boot_id: disk.boot_id(),
        identity: Identity::random(),
        void_mark: disk.facts().marked_void.then(mark),
        file: Some(disk),
    })
}

fn log_facts(disk: &FileDisk, config: &BlobCacheConfig) {
    let facts = disk.facts();
    let path = facts.path.display();
    let done = if facts.created { "made" } else { "found" };
    tell!(info, "open", %path, bytes = facts.length, "{done} a disk tier");
    let fitting = facts.length / (config.l2_index_bytes_max / SLOT_BYTES).max(1) as u64;
    tell!(
        info,
        "open",
        %path,
        bytes = config.l2_index_bytes_max,
        blob_bytes = fitting,
        "the memory that the index may take: blobs of blob_bytes or more fill the file; smaller \
         ones ask for a larger l2_index_bytes_max"
    );
    if let Some(refusal) = disk.refusal() {
        tell!(warn, "open", %path, refusal, "io_uring is refused, so threads transfer the file");
    }
    if !facts.direct {
        tell!(warn, "open", %path, "no direct I/O here, using the page cache");
    }
    if !facts.preallocated {
        tell!(warn, "open", %path, "the space of the file is not reserved here");
    }
    if let Some(kind) = facts.passing {
        tell!(warn, "open", %path, kind, "nothing there survives a reboot");
    }
    if facts.marked_void && !facts.created {
        let reason = "a cache that could not open it has left a mark";
        tell!(warn, "open", %path, reason, "the disk tier begins empty");
    }
}

/// How a store is opened or taken over. `setup`: None as long as there is no disk.
pub(crate) fn opening(
    config: &BlobCacheConfig,
    geometry: Geometry,
    identity: Identity,
    setup: Option<&DiskSetup>,
) -> Opening {
    let is_marked = setup.is_some_and(|setup| setup.void_mark.is_some());
    Opening {
        geometry,
        bytes_max: config.l2_bytes_max,
        segment_bytes_min: config.l2_segment_bytes_min() as u64,
        crash_safety: match config.crash_safety {
            CrashSafety::Cold => l2::CrashSafety::Cold,
            CrashSafety::Process => l2::CrashSafety::Process,
            CrashSafety::Power => l2::CrashSafety::Power,
        },
        boot_id: setup.map_or([0; 16], |setup| setup.boot_id),
        now_ns: config.clock.timestamp().0,
        store_id: identity.store_id,
        hash_key: identity.hash_key,
        is_void: is_marked && !failpoint(Failpoint::VoidMarkIgnored),
        key_hash_bits: config.key_hash_bits,
        limits: Limits {
            index_bytes_max: config.l2_index_bytes_max,
            namespaces_max: config.max_namespaces,
            quotas: config.quotas.clone(),
        },
        write_amplification_pct_max: config.l2_write_amplification_pct_max,
        // A simulated disk is read in one order, so that tests repeat.
        helpers: if setup.is_some_and(|setup| setup.file.is_some()) { cores() } else { 0 },
    }
}

pub(crate) fn geometry(config: &BlobCacheConfig) -> Result<Geometry, CacheError> {
    let invalid = |reason: String| CacheError::InvalidConfig { field: "l2_bytes_max", reason };
    let segment = config.l2_segment_bytes;
    let count = config.l2_bytes_max / u64::from(segment);
    u32::try_from(count)
        .ok()
        .and_then(|count| Geometry::new(segment, count))
        .ok_or_else(|| invalid(format!("{count} segments of {segment} bytes are out of range")))
}
