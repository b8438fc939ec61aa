//! The figures of a cache in groups: [`L1Stats`], [`L2Stats`], [`FetchStats`], [`MemoryStats`].

use std::time::Duration;

use super::BlobCacheStats;
use crate::figures::snapshot;
use crate::l2_state::L2State;
use crate::modes::L2Engine;

snapshot! {
    /// The memory tier's part of [`BlobCacheStats`].
    L1Stats {
        /// Hits in memory.
        hits: u64,
        /// Entries evicted to make room.
        evictions: u64,
        /// Entries removed because they exceeded their idle ttl.
        idle_expirations: u64,
        /// Entries held now, including expired ones not found yet.
        entries: usize,
        /// Bytes that count against the budget now.
        bytes_in_use: usize,
        /// The budget, `l1_bytes_max`.
        bytes_max: usize,
    }
}

snapshot! {
    /// The disk tier's part of [`BlobCacheStats`]. All zero without one.
    L2Stats {
        /// Whether the tier works.
        state: L2State,
        /// What transfers the file; None without a disk tier.
        engine: Option<L2Engine>,
        /// Hits on disk.
        hits: u64,
        /// Misses in memory that the synopsis answered without a disk lookup.
        negative_skips: u64,
        /// Lookups of the index, by gets and `exists`.
        index_lookups: u64,
        /// Puts refused because of the index budget or a quota.
        full_rejections: u64,
        /// Puts whose value the tier did not take by its admission.
        not_admitted: u64,
        /// Puts whose value the tier did not take because of the write rate.
        write_rate_rejections: u64,
        /// Records in the index, including tombstones.
        entries: usize,
        /// Bytes of the log in use.
        bytes_in_use: u64,
        /// The size of the store's file.
        bytes_max: u64,
        /// Reads of the store's file.
        reads: u64,
        /// Bytes read from it.
        read_bytes: u64,
        /// Writes to the store's file.
        writes: u64,
        /// Bytes written to it.
        write_bytes: u64,
        /// Syncs of the store's file.
        syncs: u64,
        /// Records and directories found damaged.
        corruptions: u64,
        /// Reads, writes and syncs that failed.
        io_errors: u64,
        /// How often the disk tier began anew, empty, after a failure of the device.
        restarts: u64,
        /// Segments reused.
        reclaimed_segments: u64,
        /// Records reinserted when their segment was reused.
        reinserted: u64,
        /// Bytes of those records.
        reinserted_bytes: u64,
        /// Bytes of compressed values before compression.
        compressed_from: u64,
        /// Bytes of compressed values after compression.
        compressed_to: u64,
        /// Values stored uncompressed although compression is on.
        compression_skipped: u64,
        /// Values read from disk and offered for promotion to memory.
        promotions_queued: u64,
        /// Values not promoted.
        promotions_dropped: u64,
        /// Values promoted.
        promotions_completed: u64,
        /// Values waiting for promotion now.
        promotion_queue_depth: usize,
        /// Live records found at open.
        recovered_records: u64,
        /// Segments dropped at open because of damage, or because fewer fit into the file.
        recovery_dropped: u64,
        /// Whether the open read the index from the image that a close had left.
        recovery_from_image: bool,
        /// How long the open took.
        recovery_duration: Duration,
    }
}

snapshot! {
    /// The figures of [`BlobCacheStats`] about `get_or_fetch` and `get_or_refresh`.
    FetchStats {
        /// Fetches begun, refreshes included.
        begun: u64,
        /// Fetches that failed, panicked or took too long.
        errors: u64,
        /// Fetches that took longer than their hard timeout.
        timeouts: u64,
        /// Calls answered without a fetch, since one had failed a moment before.
        held_off: u64,
        /// Fetches given to the spawner, refreshes included.
        spawned: u64,
        /// Fetches that were to run in a task and did not.
        not_spawned: u64,
        /// Fetches that are with the spawner now.
        tasks: usize,
        /// Refreshes begun while their entry was still fresh.
        refreshes_ahead: u64,
        /// Calls given the stale entry because the fetch took longer than their soft timeout.
        soft_timeouts: u64,
        /// Fetches whose value was returned but could not be stored.
        not_stored: u64,
        /// Callers given the value or the error of another caller's fetch.
        joined: u64,
        /// Callers that have waited for another caller's fetch for as long as their hard timeout.
        waits_timed_out: u64,
        /// Keys being fetched now, or whose refresh was handed out and not begun.
        under_way: usize,
    }
}

snapshot! {
    /// The memory that [`BlobCacheStats`] accounts for, in bytes, by purpose.
    MemoryStats {
        /// Entries and tables of the memory tier.
        l1_bytes: usize,
        /// Postings from tags and dependencies to entries.
        labels_bytes: usize,
        /// The disk index, including flushed parts not freed yet.
        index_bytes: usize,
        /// Filters of the synopses.
        synopsis_bytes: usize,
        /// Buffers: values being copied or compressed, reads in progress, records waiting to be
        /// written, and values waiting for promotion.
        buffers_bytes: usize,
        /// The part of the buffers that reads in progress take.
        reads_bytes: usize,
    }
}

impl MemoryStats {
    /// The sum, in bytes. Reads in progress count once, among the buffers.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        let index = self.index_bytes.saturating_add(self.synopsis_bytes);
        let entries = self.l1_bytes.saturating_add(self.labels_bytes);
        index.saturating_add(entries).saturating_add(self.buffers_bytes)
    }
}

/// The same figures in groups.
///
/// ```
/// # futures::executor::block_on(async {
/// # use tamis::{BlobCache, BlobCacheConfig};
/// # let cache = BlobCache::open(BlobCacheConfig::default()).await?;
/// cache.put("pages", "/index", "<h1>Tamis</h1>").await?;
/// let stats = cache.stats();
/// assert_eq!(stats.l1().entries(), 1);
/// assert_eq!(stats.l2().hits() + stats.fetch().begun(), 0);
/// assert!(stats.memory().total_bytes() >= stats.l1().bytes_in_use());
/// # Ok::<(), tamis::CacheError>(())
/// # }).unwrap();
/// ```
impl BlobCacheStats {
    /// The memory tier.
    #[must_use]
    pub fn l1(&self) -> L1Stats {
        L1Stats {
            hits: self.hits.saturating_sub(self.l2_hits),
            evictions: self.evictions,
            idle_expirations: self.l1_idle_evicts_total,
            entries: self.entries,
            bytes_in_use: self.bytes_in_use,
            bytes_max: self.l1_bytes_max,
        }
    }

    /// The disk tier.
    #[must_use]
    pub fn l2(&self) -> L2Stats {
        L2Stats {
            state: self.l2_state.clone(),
            engine: self.l2_engine,
            hits: self.l2_hits,
            negative_skips: self.l2_negative_skips,
            index_lookups: self.l2_metadata_reads,
            full_rejections: self.l2_full_rejections,
            not_admitted: self.l2_not_admitted,
            write_rate_rejections: self.l2_write_rate_rejections,
            entries: self.l2_entries,
            bytes_in_use: self.l2_bytes_in_use,
            bytes_max: self.l2_bytes_max,
            reads: self.l2_reads,
            read_bytes: self.l2_read_bytes,
            writes: self.l2_writes,
            write_bytes: self.l2_write_bytes,
            syncs: self.l2_syncs,
            corruptions: self.l2_corruptions,
            io_errors: self.l2_io_errors,
            restarts: self.l2_restarts,
            reclaimed_segments: self.l2_reclaimed_segments,
            reinserted: self.l2_reinserted,
            reinserted_bytes: self.l2_reinserted_bytes,
            compressed_from: self.l2_compressed_from,
            compressed_to: self.l2_compressed_to,
            compression_skipped: self.l2_compression_skipped_total,
            promotions_queued: self.promotion_queued,
            promotions_dropped: self.promotion_dropped,
            promotions_completed: self.promotion_completed,
            promotion_queue_depth: self.promotion_queue_depth,
            recovered_records: self.recovery_records,
            recovery_dropped: self.recovery_dropped,
            recovery_from_image: self.recovery_from_image,
            recovery_duration: self.recovery_duration,
        }
    }

    /// Fetches.
    #[must_use]
    pub fn fetch(&self) -> FetchStats {
        FetchStats {
            begun: self.fetches,
            errors: self.fetch_errors,
            timeouts: self.fetch_timeouts,
            held_off: self.fetches_held_off,
            spawned: self.fetches_spawned,
            not_spawned: self.fetches_not_spawned,
            tasks: self.fetch_tasks,
            refreshes_ahead: self.refreshes_ahead,
            soft_timeouts: self.soft_timeouts,
            not_stored: self.fetches_not_stored,
            joined: self.flights_joined,
            waits_timed_out: self.flight_timeouts,
            under_way: self.flights_under_way,
        }
    }

    /// Memory, by purpose.
    #[must_use]
    pub fn memory(&self) -> MemoryStats {
        MemoryStats {
            l1_bytes: self.memory_l1_bytes,
            labels_bytes: self.memory_labels_bytes,
            index_bytes: self.memory_index_bytes,
            synopsis_bytes: self.memory_synopsis_bytes,
            buffers_bytes: self.memory_buffers_bytes,
            reads_bytes: self.memory_reads_bytes,
        }
    }
}
