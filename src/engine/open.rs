//! Opens a cache: finds its store and restores it, or makes one.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::batch::{BATCH_ENTRIES, Pacer};
use crate::config::{BlobCacheConfig, cores};
use crate::engine::Engine;
use crate::engine::disk_tier::Running;
use crate::engine::errors::not_opened;
use crate::engine::expired_slots::ExpiredSlots;
use crate::engine::parts::Parts;
use crate::error::CacheError;
use crate::failpoint::{Failpoint, failpoint};
use crate::footprint::SLOT_BYTES;
use crate::io::{Disk, DiskEngine, DiskOptions, FileDisk, TaskRunner};
use crate::key::KeyHasher;
use crate::l2::{self, ExpiredRecord, Geometry, Limits, Opening, Position, RecoveredNamespace};
use crate::labels::LabelIndex;
use crate::modes::{BackgroundSweep, CrashSafety, L2Engine};
use crate::telemetry::{spanned, tell};
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
}

impl DiskSetup {
    /// Time as the disk has it: simulated, or the process's.
    fn timer(&self) -> Timer {
        match self.file {
            Some(_) => Timer::Process,
            None => Timer::TaskRunner(Arc::clone(&self.runner)),
        }
    }
}

pub(crate) struct Identity {
    pub(crate) store_id: [u8; 16],
    pub(crate) hash_key: u64,
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

pub(crate) async fn open(config: BlobCacheConfig) -> Result<Arc<Engine>, CacheError> {
    let is_swept = config.background_sweep == BackgroundSweep::On;
    let engine = match config.l2_path.clone() {
        None => in_memory(config),
        Some(path) => {
            let bytes = config.l2_bytes_max;
            let shown = path.clone();
            let span = || {
                let path = shown.display();
                tracing::info_span!(target: "tamis::open", "open", %path, bytes)
            };
            spanned(span, open_tiers(config, path)).await?
        }
    };
    if is_swept {
        engine.sweep_in_background();
    }
    Ok(engine)
}

async fn open_tiers(config: BlobCacheConfig, path: PathBuf) -> Result<Arc<Engine>, CacheError> {
    let geometry = geometry(&config)?;
    let mut options = DiskOptions::new(path, geometry.file_bytes());
    options.engine = match config.l2_engine {
        L2Engine::Auto => None,
        L2Engine::IoUring => Some(DiskEngine::IoUring),
        L2Engine::Threads => Some(DiskEngine::Threads),
    };
    let disk = FileDisk::open(options).await?;
    log_facts(&disk, &config);
    let setup = DiskSetup {
        disk: Arc::new(disk.clone()),
        runner: disk.task_runner(),
        file: Some(disk.clone()),
        boot_id: disk.boot_id(),
        identity: Identity::random(),
    };
    match open_on(config, geometry, setup).await {
        Ok(engine) => Ok(engine),
        Err(error) => {
            disk.close().wait().await;
            Err(error)
        }
    }
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
}

pub(crate) async fn open_on(
    config: BlobCacheConfig,
    geometry: Geometry,
    setup: DiskSetup,
) -> Result<Arc<Engine>, CacheError> {
    let opening = Opening {
        geometry,
        crash_safety: match config.crash_safety {
            CrashSafety::Cold => l2::CrashSafety::Cold,
            CrashSafety::Process => l2::CrashSafety::Process,
            CrashSafety::Power => l2::CrashSafety::Power,
        },
        boot_id: setup.boot_id,
        now_ns: config.clock.timestamp().0,
        store_id: setup.identity.store_id,
        hash_key: setup.identity.hash_key,
        key_hash_bits: config.key_hash_bits,
        limits: Limits {
            index_bytes_max: config.l2_index_bytes_max,
            namespaces_max: config.max_namespaces,
            quotas: config.quotas.clone(),
        },
        write_amplification_pct_max: config.l2_write_amplification_pct_max,
        // A simulated disk is read in one order, so that tests repeat.
        helpers: if setup.file.is_some() { cores() } else { 0 },
    };
    let started = Instant::now();
    let timer = setup.timer();
    let recovering = l2::open(Arc::clone(&setup.disk), &opening, timer.clone());
    let span = || tracing::info_span!(target: "tamis::recovery", "recovery");
    let opened = spanned(span, recovering).await;
    let opened = opened.map_err(|error| not_opened(error, &config, setup.file.as_ref()))?;
    let running = Running { l2: opened.l2, runner: Arc::clone(&setup.runner), file: setup.file };
    let parts = Parts::new(config, opened.hasher, Some(running), &timer);
    let surplus = restore(&parts, opened.namespaces).await;
    let engine = Arc::new(Engine::new(parts));
    engine.start_tasks(opened.start);
    give_up_namespaces(&engine, surplus).await;
    let found = (opened.records, opened.dropped);
    let took = started.elapsed();
    engine.stats.set_recovery(found, opened.is_from_image, took);
    tell!(
        info,
        "recovery",
        records = opened.records,
        dropped_segments = opened.dropped,
        from_image = opened.is_from_image,
        seconds = took.as_secs_f64(),
        "the disk tier is open"
    );
    Ok(engine)
}

/// Restores namespaces and labels. Returns the names beyond `max_namespaces`, oldest first.
async fn restore(
    parts: &Parts,
    mut namespaces: BTreeMap<Box<str>, RecoveredNamespace>,
) -> Vec<Box<str>> {
    let mut steps = Pacer::default();
    let mut newest: BTreeSet<(Position, Box<str>)> = BTreeSet::new();
    parts.namespaces.expect(namespaces.len());
    while let Some((name, mut namespace)) = namespaces.pop_first() {
        steps.entry().await;
        // An empty namespace begins anew when it is needed.
        if !namespace.index.is_empty() {
            parts.budget.add_slots(namespace.index.len());
            if failpoint(Failpoint::LabelsForgotten) {
                namespace.labels = LabelIndex::default();
            }
            parts.budget.add_postings(namespace.labels.len());
            newest.insert((namespace.newest, name.clone()));
            let expired = mem::take(&mut namespace.expired);
            parts.namespaces.restore(&name, namespace, &parts.commit_lock);
            restore_expired(parts, &name, expired, &mut steps).await;
        }
    }
    {
        let mut section = parts.commit_lock.section();
        if let Some(l2) = parts.disk.l2() {
            // New mutations come after all that was found, even if the log takes none.
            section.sequence(Some(l2.log.tail().value().saturating_sub(1)));
        }
    }
    let mut surplus = Vec::new();
    while newest.len() > parts.config.max_namespaces {
        steps.entry().await;
        surplus.extend(newest.pop_first().map(|(_, name)| name));
    }
    // Dropping the whole set would be work for each name in one poll.
    while newest.pop_first().is_some() {
        steps.entry().await;
    }
    surplus
}

/// Notes since when records are stale that have their slots.
async fn restore_expired(
    parts: &Parts,
    name: &str,
    expired: Vec<ExpiredRecord>,
    steps: &mut Pacer,
) {
    let (Some(generation), slots) = (parts.namespaces.find(name), ExpiredSlots::new(parts)) else {
        return;
    };
    for batch in expired.chunks(BATCH_ENTRIES) {
        steps.entries(batch.len()).await;
        let mut section = parts.commit_lock.section();
        for record in batch {
            slots.restore_slot(&generation, *record, &mut section);
        }
    }
}

/// Flushes namespaces without a slot, with a record, which unknown namespaces do not get.
async fn give_up_namespaces(engine: &Engine, names: Vec<Box<str>>) {
    if names.is_empty() {
        return;
    }
    let (count, max) = (names.len(), engine.config().max_namespaces);
    let reason = "there are more on disk than max_namespaces";
    tell!(warn, "recovery", namespaces = count, max, reason, "namespaces are flushed");
    // Bounded: a flush in each turn, which waits for the log.
    for name in names {
        // If the device fails, nothing on it is served any more.
        let _ = engine.invalidations.invalidate_namespace(engine.namespace(&name)).await;
    }
}

pub(crate) fn in_memory(config: BlobCacheConfig) -> Arc<Engine> {
    let hasher = KeyHasher::random(config.key_hash_bits);
    Arc::new(Engine::new(Parts::new(config, hasher, None, &Timer::Process)))
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
