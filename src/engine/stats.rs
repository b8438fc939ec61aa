//! `StatsReader`: reads the figures of a cache together.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::access_times::AccessTimes;
use crate::clock::nanos;
use crate::codec::Codecs;
use crate::config::BlobCacheConfig;
use crate::counters::{Counters, Event};
use crate::disk_admission::DiskAdmission;
use crate::disposal::Freeing;
use crate::engine::background::promotion_queue::Promotions;
use crate::engine::disk_tier::DiskTier;
use crate::engine::fetch::held::HeldErrors;
use crate::engine::fetch::outcome::FlightOutcome;
use crate::engine::fetch::tasks::FetchTasks;
use crate::engine::index_budget::IndexBudget;
use crate::engine::parts::Parts;
use crate::engine::read::read_limit::Reads;
use crate::events::{BlobCacheEvent, BlobCacheEvents, Events};
use crate::flight::Flights;
use crate::footprint::POSTING_BYTES;
use crate::l1::L1;
use crate::l2::{DiskMetrics, L2};
use crate::latency::{Histogram, Latencies, Latency};
use crate::limiter::Limiter;
use crate::moment::Moment;
use crate::namespace::Namespaces;
use crate::pending::PendingInvalidations;
use crate::renewals::Renewals;
use crate::stats::{BlobCacheStats, L2State, LatencyStats, NamespaceStats};

#[derive(Debug, Default)]
struct Recovery {
    records: AtomicU64,
    dropped: AtomicU64,
    is_from_image: AtomicBool,
    nanos: AtomicU64,
}

pub(crate) struct StatsReader {
    config: Arc<BlobCacheConfig>,
    counters: Counters,
    namespaces: Arc<Namespaces>,
    pending: Arc<PendingInvalidations>,
    l1: Arc<L1>,
    access_times: Arc<AccessTimes>,
    expiry_times: Arc<AccessTimes>,
    renewals: Arc<Renewals>,
    copies: Arc<Limiter>,
    reads: Arc<Reads>,
    codecs: Arc<Codecs>,
    flights: Arc<Flights<FlightOutcome, Moment>>,
    held_errors: Arc<HeldErrors>,
    fetch_tasks: Arc<FetchTasks>,
    promotions: Arc<Promotions>,
    budget: Arc<IndexBudget>,
    disk_admission: Arc<DiskAdmission>,
    disk: Arc<DiskTier>,
    freeing: Arc<Freeing>,
    latencies: Arc<Latencies>,
    events: Events,
    recovery: Recovery,
}

impl StatsReader {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            config: Arc::clone(&parts.config),
            counters: parts.counters.clone(),
            namespaces: Arc::clone(&parts.namespaces),
            pending: Arc::clone(&parts.pending),
            l1: Arc::clone(&parts.l1),
            access_times: Arc::clone(&parts.access_times),
            expiry_times: Arc::clone(&parts.expiry_times),
            renewals: Arc::clone(&parts.renewals),
            copies: Arc::clone(&parts.copies),
            reads: Arc::clone(&parts.reads),
            codecs: Arc::clone(&parts.codecs),
            flights: Arc::clone(&parts.flights),
            held_errors: Arc::clone(&parts.held_errors),
            fetch_tasks: Arc::clone(&parts.fetch_tasks),
            promotions: Arc::clone(&parts.promotions),
            budget: Arc::clone(&parts.budget),
            disk_admission: Arc::clone(&parts.disk_admission),
            disk: Arc::clone(&parts.disk),
            freeing: parts.freeing.clone(),
            latencies: Arc::clone(&parts.latencies),
            events: parts.events.clone(),
            recovery: Recovery::default(),
        }
    }

    pub(crate) fn set_recovery(
        &self,
        (records, dropped): (u64, u64),
        is_from_image: bool,
        duration: Duration,
    ) {
        self.recovery.records.store(records, Ordering::Relaxed);
        self.recovery.dropped.store(dropped, Ordering::Relaxed);
        self.recovery.is_from_image.store(is_from_image, Ordering::Relaxed);
        self.recovery.nanos.store(nanos(duration), Ordering::Relaxed);
    }

    /// What the open found, for the first event of a listener. None without a disk tier.
    fn recovered(&self) -> Option<BlobCacheEvent> {
        let found = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.l2().map(|_| BlobCacheEvent::Recovered {
            records: found(&self.recovery.records),
            segments_dropped: found(&self.recovery.dropped),
        })
    }

    pub(crate) fn listen(&self) -> io::Result<BlobCacheEvents> {
        self.events.listen(self.recovered())
    }

    pub(crate) fn all(&self) -> BlobCacheStats {
        let sum = |event| self.counters.sum(event);
        let totals = self.namespaces.totals();
        let memory_labels_bytes = self.budget.postings() * POSTING_BYTES;
        BlobCacheStats {
            hits: self.namespaces.hits(),
            misses: sum(Event::Miss),
            gate_misses: sum(Event::GateMiss),
            insertions: sum(Event::Insertion),
            evictions: sum(Event::Eviction),
            expirations: sum(Event::Expiration),
            entries_made_stale: self.pending.made_stale(),
            invalidations: sum(Event::Invalidation),
            replacements: sum(Event::Replacement),
            touches: sum(Event::Touch),
            entries_flushed: sum(Event::Flushed),
            forgotten: sum(Event::Forgotten),
            namespace_flushes: sum(Event::NamespaceFlush),
            version_mismatches: sum(Event::VersionMismatch),
            stale_sets_refused: sum(Event::StaleSetRefused),
            entries: totals.entries,
            bytes_in_use: self.l1.bytes(),
            l1_bytes_max: self.l1.bytes_max(),
            namespaces: self.namespaces.len(),
            max_namespaces: self.config.max_namespaces,
            l1_stale_serves_total: sum(Event::StaleServe),
            l1_idle_evicts_total: sum(Event::IdleExpiration),
            memory_l1_bytes: self.l1.bytes().saturating_sub(memory_labels_bytes),
            memory_labels_bytes,
            l2_compressed_from: sum(Event::CompressedFrom),
            l2_compressed_to: sum(Event::CompressedTo),
            l2_compression_skipped_total: sum(Event::CompressionSkipped),
            promotion_queued: self.promotions.queued.load(Ordering::Relaxed),
            promotion_dropped: self.promotions.dropped.load(Ordering::Relaxed),
            promotion_completed: self.promotions.completed.load(Ordering::Relaxed),
            promotion_queue_depth: self.promotions.depth(),
            memory_reads_bytes: self.reads.bytes(),
            memory_buffers_bytes: self.buffers_bytes(),
            memory_index_bytes: totals.index_bytes + self.other_index_bytes(),
            l2_entries: self.budget.slots(),
            l2_bytes_max: self.l2().map_or(0, L2::file_bytes),
            l2_hits: sum(Event::L2Hit),
            l2_negative_skips: sum(Event::NegativeSkip),
            l2_metadata_reads: sum(Event::IndexAnswer),
            synopsis_metadata_reads: sum(Event::SynopsisAnswer),
            synopsis_bytes: totals.synopsis_bytes,
            memory_synopsis_bytes: totals.synopsis_bytes,
            l2_full_rejections: sum(Event::L2Full),
            l2_not_admitted: sum(Event::L2NotAdmitted),
            l2_write_rate_rejections: sum(Event::L2OverRate),
            l2_bytes_in_use: self.l2().map_or(0, L2::bytes_in_use),
            ..self.of_disk()
        }
    }

    /// What the disk tier counts itself.
    fn of_disk(&self) -> BlobCacheStats {
        let metric = |of| self.metric(of);
        BlobCacheStats {
            l2_reads: metric(|it| &it.reads),
            l2_read_bytes: metric(|it| &it.read_bytes),
            l2_writes: metric(|it| &it.writes),
            l2_write_bytes: metric(|it| &it.write_bytes),
            l2_syncs: metric(|it| &it.syncs),
            l2_corruptions: metric(|it| &it.corruptions),
            l2_io_errors: metric(|it| &it.io_errors),
            l2_restarts: metric(|it| &it.restarts),
            l2_reclaimed_segments: metric(|it| &it.reclaimed_segments),
            l2_reinserted: metric(|it| &it.reinserted),
            l2_reinserted_bytes: metric(|it| &it.reinserted_bytes),
            recovery_records: self.recovery.records.load(Ordering::Relaxed),
            recovery_dropped: self.recovery.dropped.load(Ordering::Relaxed),
            recovery_from_image: self.recovery.is_from_image.load(Ordering::Relaxed),
            recovery_duration: Duration::from_nanos(self.recovery.nanos.load(Ordering::Relaxed)),
            events_lost: self.events.lost(),
            l2_state: self.l2_state(),
            l2_engine: self.disk.engine(),
            latencies: self.latencies(),
            ..self.of_fetches()
        }
    }

    /// Fetches alone.
    fn of_fetches(&self) -> BlobCacheStats {
        let sum = |event| self.counters.sum(event);
        BlobCacheStats {
            fetches: sum(Event::Fetch),
            fetch_errors: sum(Event::FetchError),
            fetch_timeouts: sum(Event::FetchTimeout),
            fetches_held_off: sum(Event::FetchHeldOff),
            fetches_spawned: sum(Event::FetchSpawned),
            fetches_not_spawned: sum(Event::FetchNotSpawned),
            fetch_tasks: self.fetch_tasks.len(),
            refreshes_ahead: sum(Event::RefreshAhead),
            soft_timeouts: sum(Event::SoftTimeout),
            fetches_not_stored: sum(Event::FetchNotStored),
            flights_joined: sum(Event::FlightJoined),
            flight_timeouts: sum(Event::FlightTimeout),
            values_undecoded: sum(Event::ValueUndecoded),
            flights_under_way: self.flights.len(),
            ..BlobCacheStats::default()
        }
    }

    fn latencies(&self) -> LatencyStats {
        let health = self.disk.l2().map(L2::health);
        let of_disk = |of: fn(&DiskMetrics) -> &Histogram| {
            health.map_or_else(Latency::default, |health| of(&health.metrics).snapshot())
        };
        LatencyStats {
            l2_get: self.latencies.l2_get.snapshot(),
            put: self.latencies.put.snapshot(),
            fetch: self.latencies.fetch.snapshot(),
            l2_write: of_disk(|metrics| &metrics.write_latency),
            l2_sync: of_disk(|metrics| &metrics.sync_latency),
        }
    }

    fn metric(&self, of: fn(&DiskMetrics) -> &AtomicU64) -> u64 {
        self.disk.l2().map_or(0, |l2| of(&l2.health().metrics).load(Ordering::Relaxed))
    }

    /// What counts as index besides the indexes of namespaces in use.
    fn other_index_bytes(&self) -> usize {
        self.freeing.bytes()
            + self.access_times.bytes()
            + self.expiry_times.bytes()
            + self.renewals.bytes()
            + self.budget.outline_bytes()
            + self.disk_admission.bytes()
    }

    fn buffers_bytes(&self) -> usize {
        self.copies.bytes()
            + self.reads.bytes()
            + self.promotions.bytes()
            + self.events.memory_bytes()
            + self.held_errors.bytes()
            + self.codecs.memory_bytes()
            + self.disk.status_bytes()
            + self.disk.l2().map_or(0, |l2| l2.log.memory_bytes() + l2.health().buffer_bytes())
    }

    /// The disk tier, if its file is open.
    fn l2(&self) -> Option<&L2> {
        self.disk.l2().filter(|_| self.disk.has_file())
    }

    fn l2_state(&self) -> L2State {
        match self.disk.l2() {
            None => L2State::Off,
            Some(l2) => match l2.health().reason() {
                None => L2State::Healthy,
                Some(reason) => L2State::Degraded { reason },
            },
        }
    }

    pub(crate) fn of_namespace(&self, name: &str) -> Option<NamespaceStats> {
        let generation = self.namespaces.find(name)?;
        Some(NamespaceStats {
            hits: generation.tally().hits(),
            misses: generation.tally().misses(),
            entries: generation.entries(),
            bytes_in_use: generation.bytes(),
            l2_bytes_in_use: generation.l2_bytes(),
            quota: self.config.quota(name),
        })
    }
}
