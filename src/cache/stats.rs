//! Reading the figures of a cache together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::cache::shared::Shared;
use crate::counters::Event;
use crate::l2::{L2, Tally};
use crate::stats::{BlobCacheStats, L2State, NamespaceStats};

impl Shared {
    pub(super) fn stats(&self) -> BlobCacheStats {
        let sum = |event| self.counters.sum(event);
        let totals = self.namespaces.totals();
        let tally = |of: fn(&Tally) -> &AtomicU64| {
            self.l2().map_or(0, |l2| of(&l2.health().tally).load(Ordering::Relaxed))
        };
        let memory_labels_bytes = self.order.section().labels().bytes();
        BlobCacheStats {
            hits: sum(Event::Hit),
            misses: sum(Event::Miss),
            insertions: sum(Event::Insertion),
            evictions: sum(Event::Eviction),
            expirations: sum(Event::Expiration),
            invalidations: sum(Event::Invalidation),
            replacements: sum(Event::Replacement),
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
            fetches: sum(Event::Fetch),
            fetch_errors: sum(Event::FetchError),
            fetches_not_stored: sum(Event::FetchNotStored),
            flights_joined: sum(Event::FlightJoined),
            flights_under_way: self.flights.len(),
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
            memory_index_bytes: totals.index_bytes + self.freeing.bytes() + self.accesses.bytes(),
            l2_entries: self.slots.load(Ordering::Relaxed),
            l2_bytes_max: self.l2().map_or(0, |l2| l2.geometry().file_bytes()),
            l2_hits: sum(Event::L2Hit),
            l2_negative_skips: sum(Event::NegativeSkip),
            l2_metadata_reads: sum(Event::IndexAnswer),
            synopsis_metadata_reads: sum(Event::SynopsisAnswer),
            synopsis_bytes: totals.synopsis_bytes,
            memory_synopsis_bytes: totals.synopsis_bytes,
            l2_full_rejections: sum(Event::L2Full),
            l2_bytes_in_use: self.l2().map_or(0, L2::bytes_in_use),
            l2_reads: tally(|tally| &tally.reads),
            l2_read_bytes: tally(|tally| &tally.read_bytes),
            l2_writes: tally(|tally| &tally.writes),
            l2_write_bytes: tally(|tally| &tally.write_bytes),
            l2_syncs: tally(|tally| &tally.syncs),
            l2_corruptions: tally(|tally| &tally.corruptions),
            l2_io_errors: tally(|tally| &tally.io_errors),
            l2_reclaimed_segments: tally(|tally| &tally.reclaimed_segments),
            l2_reinserted: tally(|tally| &tally.reinserted),
            l2_reinserted_bytes: tally(|tally| &tally.reinserted_bytes),
            recovery_records: self.recovered.records.load(Ordering::Relaxed),
            recovery_dropped: self.recovered.dropped.load(Ordering::Relaxed),
            recovery_duration: Duration::from_nanos(self.recovered.nanos.load(Ordering::Relaxed)),
            l2_state: self.l2_state(),
        }
    }

    fn buffers_bytes(&self) -> usize {
        self.intake.bytes()
            + self.reads.bytes()
            + self.promotions.bytes()
            + self.codecs.memory_bytes()
            + self.l2().map_or(0, |l2| l2.log.memory_bytes() + l2.health().buffer_bytes())
    }

    fn l2_state(&self) -> L2State {
        match self.l2() {
            None => L2State::Off,
            Some(l2) => match l2.health().reason() {
                None => L2State::Healthy,
                Some(reason) => L2State::Degraded { reason },
            },
        }
    }

    pub(super) fn namespace_stats(&self, name: &str) -> Option<NamespaceStats> {
        let namespace = self.namespaces.find(name)?;
        Some(NamespaceStats {
            entries: namespace.entries(),
            bytes_in_use: namespace.bytes(),
            l2_bytes_in_use: namespace.l2_bytes(),
            quota: self.config.quota(name),
        })
    }
}
