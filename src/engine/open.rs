//! Opens a cache: finds its store and restores it, or makes one.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use futures::future::BoxFuture;

use crate::batch::{BATCH_ENTRIES, Pacer};
use crate::config::BlobCacheConfig;
use crate::engine::Engine;
use crate::engine::cover::Cover;
pub(crate) use crate::engine::disk_setup::{DiskSetup, geometry};
use crate::engine::disk_setup::{open_file, opening};
use crate::engine::disk_tier::{Running, Tier, TierFile};
use crate::engine::errors::not_opened;
use crate::engine::expired_slots::ExpiredSlots;
pub(crate) use crate::engine::missing::Identity;
use crate::engine::missing::Missing;
use crate::engine::parts::Parts;
use crate::engine::renewed_slots::RenewedSlots;
use crate::error::CacheError;
use crate::failpoint::{Failpoint, failpoint};
use crate::io::{Disk, FileMark, LateDisk, TaskRunner};
use crate::key::KeyHasher;
use crate::l2::{self, ExpiredRecord, Geometry, Position, RecoveredNamespace, RenewedRecord};
use crate::labels::LabelIndex;
use crate::modes::BackgroundSweep;
use crate::telemetry::{spanned, tell};
use crate::timer::Timer;

/// What a cache has as long as it cannot open its disk tier.
pub(crate) struct WithoutDisk {
    /// Why.
    pub(crate) error: CacheError,
    pub(crate) cover: Cover,
    pub(crate) identity: Identity,
    /// Where tasks run and time passes; None outside of simulations.
    pub(crate) simulated: Option<Arc<dyn TaskRunner>>,
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
            spanned(span, open_tiers_boxed(config, path)).await?
        }
    };
    if is_swept {
        engine.sweep_in_background();
    }
    Ok(engine)
}

/// In a box: each crate that opens a cache would otherwise compile the whole of recovery again.
fn open_tiers_boxed(
    config: BlobCacheConfig,
    path: PathBuf,
) -> BoxFuture<'static, Result<Arc<Engine>, CacheError>> {
    Box::pin(open_tiers(config, path))
}

async fn open_tiers(config: BlobCacheConfig, path: PathBuf) -> Result<Arc<Engine>, CacheError> {
    let geometry = geometry(&config)?;
    let without = (!config.l2_required).then(|| config.clone());
    let error = match open_both(config, geometry, &path).await {
        Ok(engine) => return Ok(engine),
        Err(error) => error,
    };
    let Some(config) = without else { return Err(error) };
    let mark = Arc::new(FileMark::new(path));
    let (cover, identity) = (Cover::new(mark), Identity::random());
    open_without(config, WithoutDisk { error, cover, identity, simulated: None })
}

async fn open_both(
    config: BlobCacheConfig,
    geometry: Geometry,
    path: &Path,
) -> Result<Arc<Engine>, CacheError> {
    let setup = open_file(&config, path).await?;
    let file = setup.file.clone();
    let error = match open_on(config, geometry, setup).await {
        Ok(engine) => return Ok(engine),
        Err(error) => error,
    };
    if let Some(file) = file {
        file.close().wait().await;
    }
    Err(error)
}

/// Opens a cache whose disk tier cannot be opened. It runs in memory.
pub(crate) fn open_without(
    config: BlobCacheConfig,
    without: WithoutDisk,
) -> Result<Arc<Engine>, CacheError> {
    let WithoutDisk { error, cover, identity, simulated } = without;
    let timer = simulated.clone().map_or(Timer::Process, Timer::TaskRunner);
    let opening = opening(&config, geometry(&config)?, identity, None);
    let hasher = KeyHasher::new(identity.hash_key, config.key_hash_bits);
    tell!(error, "degradation", %error, "the disk tier cannot be opened; the cache runs in memory");
    let reason = error.to_string();
    let missing = Missing::new(cover, identity, simulated, error);
    let disk: Arc<dyn Disk> = Arc::<LateDisk>::clone(&missing.disk);
    let Some(l2) = l2::without_disk(disk, &opening, timer.clone(), reason) else {
        // No geometry has so few positions.
        return Err(missing.error());
    };
    let tier = Tier { l2, file: TierFile::Missing(Box::new(missing)) };
    Ok(Arc::new(Engine::new(Parts::new(config, hasher, Some(tier), &timer))))
}

/// Says so if the store keeps segments of another size than configured.
fn log_segments(config: &BlobCacheConfig, store: Geometry) {
    let (segment_bytes, configured) = (store.segment_bytes(), config.l2_segment_bytes);
    if segment_bytes == configured || !config.l2_segment_is_set {
        return;
    }
    let blob_bytes = store.blob_bytes_max();
    if segment_bytes < configured {
        tell!(
            warn,
            "open",
            segment_bytes,
            configured,
            blob_bytes,
            "the store has entries, so it keeps the size of its segments: larger blobs than \
             blob_bytes are not taken by the disk tier until it is empty"
        );
    } else {
        tell!(
            info,
            "open",
            segment_bytes,
            configured,
            "the store has entries, so it keeps the size of its segments"
        );
    }
}

pub(crate) async fn open_on(
    config: BlobCacheConfig,
    geometry: Geometry,
    setup: DiskSetup,
) -> Result<Arc<Engine>, CacheError> {
    let opening = opening(&config, geometry, setup.identity, Some(&setup));
    if failpoint(Failpoint::VoidMarkRemovedEarly) {
        setup.remove_mark().await;
    }
    let started = Instant::now();
    let timer = setup.timer();
    let recovering = l2::open(Arc::clone(&setup.disk), &opening, timer.clone());
    let span = || tracing::info_span!(target: "tamis::recovery", "recovery");
    let opened = spanned(span, recovering).await;
    let opened = opened.map_err(|error| not_opened(error, &config, setup.file.as_ref()))?;
    setup.remove_mark().await;
    log_segments(&config, opened.l2.geometry());
    let DiskSetup { runner, file, .. } = setup;
    let tier = Tier { l2: opened.l2, file: TierFile::Open(Running { runner, file }) };
    let parts = Parts::new(config, opened.hasher, Some(tier), &timer);
    *parts.positions.lock() = opened.positions;
    let surplus = restore(&parts, opened.namespaces).await;
    let engine = Arc::new(Engine::new(parts));
    let served = engine.start_tasks(opened.start);
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
    served.await;
    Ok(engine)
}

/// Restores namespaces and labels. Returns the names beyond `max_namespaces`, oldest first.
pub(super) async fn restore(
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
            let renewed = mem::take(&mut namespace.renewed);
            parts.namespaces.restore(&name, namespace, &parts.commit_lock);
            restore_expired(parts, &name, expired, &mut steps).await;
            restore_renewed(parts, &name, renewed, &mut steps).await;
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

/// Notes the deadlines of records that were touched and have their slots.
async fn restore_renewed(
    parts: &Parts,
    name: &str,
    renewed: Vec<RenewedRecord>,
    steps: &mut Pacer,
) {
    let (Some(generation), slots) = (parts.namespaces.find(name), RenewedSlots::new(parts)) else {
        return;
    };
    for batch in renewed.chunks(BATCH_ENTRIES) {
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
