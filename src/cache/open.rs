//! Opening and closing: the disk tier is taken over, or made, and given back.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::cache::overdue::bury_overdue;
use crate::cache::promote::promote;
use crate::cache::refusal::not_opened;
use crate::cache::shared::{Below, Shared};
use crate::cache::synopses::renew;
use crate::config::BlobCacheConfig;
use crate::error::CacheError;
use crate::flaw::{Flaw, planted};
use crate::footprint::SLOT_BYTES;
use crate::io::{Disk, DiskOptions, Lane, UringDisk};
use crate::key::KeyHasher;
use crate::l2::{self, Geometry, Limits, Opening, Position, Replay, WriterStart};
use crate::modes::{BackgroundSweep, CrashSafety};
use crate::step::Steps;
use crate::timer::Timer;

/// A disk to put the tier on, and what runs beside it.
pub(super) struct Medium {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) lane: Arc<dyn Lane>,
    /// How to give a real file back.
    pub(super) file: Option<UringDisk>,
    /// Which boot of the machine this is.
    pub(super) boot_id: [u8; 16],
    /// What a store that is made there is called.
    pub(super) identity: Identity,
}

impl Medium {
    /// Time as the disk has it: simulated with it, or that of the process.
    fn timer(&self) -> Timer {
        match self.file {
            Some(_) => Timer::Process,
            None => Timer::Lane(Arc::clone(&self.lane)),
        }
    }
}

/// What tells a store from all others.
pub(super) struct Identity {
    pub(super) store_id: [u8; 16],
    pub(super) hash_key: u64,
}

impl Identity {
    pub(super) fn random() -> Self {
        let random = || RandomState::new().build_hasher().finish();
        let mut store_id = [0; 16];
        store_id[..8].copy_from_slice(&random().to_le_bytes());
        store_id[8..].copy_from_slice(&random().to_le_bytes());
        Self { store_id, hash_key: random() }
    }

    /// The same for the same seed, so that a test is repeatable.
    #[cfg(test)]
    pub(super) fn of(seed: u64) -> Self {
        Self { store_id: [7; 16], hash_key: seed }
    }
}

impl Shared {
    /// Opens what the configuration asks for.
    pub(super) async fn open(config: BlobCacheConfig) -> Result<Arc<Self>, CacheError> {
        let is_swept = config.background_sweep == BackgroundSweep::On;
        let shared = Self::open_tiers(config).await?;
        if is_swept {
            shared.be_swept();
        }
        Ok(shared)
    }

    async fn open_tiers(config: BlobCacheConfig) -> Result<Arc<Self>, CacheError> {
        let Some(path) = config.l2_path.clone() else {
            return Ok(Arc::new(Self::in_memory(config)));
        };
        let geometry = geometry(&config)?;
        let disk = UringDisk::open(DiskOptions::new(path, geometry.file_bytes())).await?;
        let facts = disk.facts();
        let done = if facts.created { "made" } else { "found" };
        log::info!("{done} a disk tier of {} bytes at {}", facts.length, facts.path.display());
        let fitting = facts.length / (config.l2_index_bytes_max / SLOT_BYTES).max(1) as u64;
        log::info!(
            "its index may take {} bytes of memory: blobs of {fitting} bytes or more fill the \
             file; smaller ones ask for a larger l2_index_bytes_max",
            config.l2_index_bytes_max
        );
        if !facts.direct {
            log::warn!("{}: no direct I/O here, using the page cache", facts.path.display());
        }
        if !facts.preallocated {
            log::warn!("{}: its space is not reserved here", facts.path.display());
        }
        if let Some(kind) = facts.passing {
            log::warn!("{}: nothing there survives a reboot ({kind})", facts.path.display());
        }
        let (lane, as_disk) = (disk.lane(), Arc::new(disk.clone()));
        let medium = Medium {
            disk: as_disk,
            lane,
            file: Some(disk.clone()),
            boot_id: disk.boot_id(),
            identity: Identity::random(),
        };
        match Self::open_on(config, geometry, medium).await {
            Ok(shared) => Ok(shared),
            Err(error) => {
                disk.close().wait().await;
                Err(error)
            }
        }
    }

    /// Opens the disk tier on a disk.
    pub(super) async fn open_on(
        config: BlobCacheConfig,
        geometry: Geometry,
        medium: Medium,
    ) -> Result<Arc<Self>, CacheError> {
        let opening = Opening {
            geometry,
            crash_safety: match config.crash_safety {
                CrashSafety::Cold => l2::CrashSafety::Cold,
                CrashSafety::Process => l2::CrashSafety::Process,
                CrashSafety::Power => l2::CrashSafety::Power,
            },
            boot_id: medium.boot_id,
            now_ns: config.clock.timestamp().0,
            store_id: medium.identity.store_id,
            hash_key: medium.identity.hash_key,
            key_hash_bits: config.key_hash_bits,
            limits: Limits {
                index_bytes_max: config.l2_index_bytes_max,
                namespaces_max: config.max_namespaces,
                quotas: config.quotas.clone(),
            },
        };
        let started = Instant::now();
        let timer = medium.timer();
        let opened = l2::open(Arc::clone(&medium.disk), &opening, timer.clone()).await;
        let opened = opened.map_err(|error| not_opened(error, &config, medium.file.as_ref()))?;
        let below = Below { l2: opened.l2, lane: Arc::clone(&medium.lane), file: medium.file };
        let shared = Arc::new(Self::over(config, opened.hasher, Some(below), &timer));
        let surplus = shared.take_over(opened.replay).await;
        if let Some(below) = &shared.below {
            below.start(opened.start, &shared);
        }
        shared.give_up_namespaces(surplus).await;
        shared.recovered.set(opened.records, opened.dropped, started.elapsed());
        Ok(shared)
    }

    /// Makes what was found on file the cache's own. Gives the names that are more than there may
    /// be, those that were written to last left out.
    async fn take_over(&self, mut replay: Replay) -> Vec<Box<str>> {
        let mut steps = Steps::default();
        replay.close(&mut steps).await;
        let mut newest: BTreeSet<(Position, Box<str>)> = BTreeSet::new();
        while let Some((name, namespace)) = replay.namespaces.pop_first() {
            steps.entry().await;
            // One that holds nothing begins anew when it is needed.
            if !namespace.index.is_empty() {
                self.slots.fetch_add(namespace.index.len(), Ordering::Relaxed);
                newest.insert((namespace.newest, name.clone()));
                self.namespaces.restore(&name, namespace, &self.order);
            }
        }
        {
            let mut section = self.order.section();
            if let Some(l2) = self.l2() {
                // What comes is behind what has been found, even if the log ends before it takes
                // any.
                section.sequence(Some(l2.log.tail().value().saturating_sub(1)));
            }
            if !planted(Flaw::LabelsForgotten) {
                *section.labels() = replay.postings;
            }
        }
        let mut surplus = Vec::new();
        while newest.len() > self.config.max_namespaces {
            steps.entry().await;
            surplus.extend(newest.pop_first().map(|(_, name)| name));
        }
        surplus
    }

    /// Flushes namespaces that there is no place for. On file, since nobody will know of them: an
    /// invalidation of what they had would leave no record.
    async fn give_up_namespaces(self: &Arc<Self>, names: Vec<Box<str>>) {
        if names.is_empty() {
            return;
        }
        let (count, max) = (names.len(), self.config.max_namespaces);
        log::warn!("{count} namespaces on disk are more than max_namespaces, {max}: flushed");
        // Bounded: a flush in each turn, which waits for the log.
        for name in names {
            // Where the device fails, nothing on it is served any more.
            let _ = self.invalidate_namespace(self.hasher.namespace(&name)).await;
        }
    }

    pub(super) fn in_memory(config: BlobCacheConfig) -> Self {
        let hasher = KeyHasher::random(config.key_hash_bits);
        Self::over(config, hasher, None, &Timer::Process)
    }
}

/// The segments that the configuration comes to.
pub(super) fn geometry(config: &BlobCacheConfig) -> Result<Geometry, CacheError> {
    let invalid = |reason: String| CacheError::InvalidConfig { field: "l2_bytes_max", reason };
    let segment = config.l2_segment_bytes;
    let count = config.l2_bytes_max / u64::from(segment);
    u32::try_from(count)
        .ok()
        .and_then(|count| Geometry::new(segment, count))
        .ok_or_else(|| invalid(format!("{count} segments of {segment} bytes are out of range")))
}

impl Below {
    /// Starts the tasks that work beside its callers. They end when the cache is closed, or with
    /// it.
    fn start(&self, start: WriterStart, shared: &Arc<Shared>) {
        let (promotions, renewal) = (Arc::clone(&shared.promotions), Arc::clone(&shared.renewal));
        let (overdue, lane) = (Arc::clone(&shared.overdue), Arc::clone(&self.lane));
        let tenant: Weak<Shared> = Arc::downgrade(shared);
        let writer = self.l2.writer(start, Arc::clone(&self.lane), tenant.clone());
        // It tells how it ended through the log and the health of the tier.
        drop(self.lane.spawn("writer", Box::pin(writer.run())));
        drop(self.lane.spawn("promotion", Box::pin(promote(promotions, tenant.clone()))));
        drop(self.lane.spawn("synopses", Box::pin(renew(renewal, tenant.clone()))));
        let burying = bury_overdue(overdue, lane, tenant);
        drop(self.lane.spawn("overdue records", Box::pin(burying)));
    }
}
