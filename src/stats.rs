//! Public snapshots of what a cache has done and holds.

use std::fmt;
use std::time::Duration;

use crate::quota::NamespaceQuota;

macro_rules! snapshot {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        pub struct $name { $(pub(crate) $field: $type,)* }

        impl $name { $(
            $(#[$doc])*
            #[must_use]
            pub fn $field(&self) -> $type { self.$field.clone() }
        )* }
    };
}

snapshot! {
    /// What a cache has done since it was opened, and what it holds now.
    ///
    /// Cheap to take: no entry is visited. The figures are read one after the other, so under load
    /// they may be a few calls apart. Sizes are in bytes, and counted as the budget counts them:
    /// with keys, metadata, labels and what the allocator and the tables add.
    BlobCacheStats {
        /// Gets that were answered with an entry, stale ones included, in either tier.
        hits: u64,
        /// Gets that were not, and calls of fetching verbs that found nothing fresh.
        misses: u64,
        /// Puts that stored an entry.
        insertions: u64,
        /// Entries pushed out to make room.
        evictions: u64,
        /// Expired entries that were removed, idle ones included, by whichever call or task.
        expirations: u64,
        /// Entries removed by an invalidation of their key, prefix, tag or dependency.
        invalidations: u64,
        /// Entries that a put of their key replaced, whether or not the new value is held.
        replacements: u64,
        /// Entries of namespaces that were flushed. Of each namespace the larger of its counts in
        /// memory and on disk: an entry that is in both counts once, and where each tier holds
        /// some that the other does not, the sum is too low.
        entries_flushed: u64,
        /// Entries that made room in the last tier that held them: evicted and not on disk, or
        /// reclaimed on disk and not in memory. So each entry that came in, among `insertions` and
        /// `recovery_records`, is held, or has expired, or was invalidated, replaced, flushed or
        /// forgotten, and is counted there once.
        forgotten: u64,
        /// Namespaces flushed, each of a flush of everything included.
        namespace_flushes: u64,
        /// Puts refused because the live entry's version was not below theirs.
        version_mismatches: u64,
        /// Puts refused because their key was mutated after their read point.
        stale_sets_refused: u64,
        /// Entries held in memory now, expired ones that no call has met yet included.
        entries: usize,
        /// Bytes that count against `l1_bytes_max` now.
        bytes_in_use: usize,
        /// The budget of the memory tier.
        l1_bytes_max: usize,
        /// Namespaces in use now.
        namespaces: usize,
        /// The most namespaces that can be in use.
        max_namespaces: usize,
        /// Answers that were stale, within their stale window: hits, and entries that stood in for
        /// a failed fetch, which was a miss.
        l1_stale_serves_total: u64,
        /// Fetches that were begun by `get_or_fetch` and `get_or_refresh`, refreshes included.
        fetches: u64,
        /// Of those, fetches that failed or panicked.
        fetch_errors: u64,
        /// Of those, fetches whose value was refused as a put: it is too large, its version is not
        /// above the live one, the cache is closed, the device failed and so on.
        fetches_not_stored: u64,
        /// Callers that were given another caller's fetch.
        flights_joined: u64,
        /// Keys that are being fetched now, or whose refresh has been handed out and not begun.
        flights_under_way: usize,
        /// Entries removed because they were idle for longer than their idle ttl.
        l1_idle_evicts_total: u64,
        /// Memory of the memory tier's entries and tables.
        memory_l1_bytes: usize,
        /// Memory of the postings that lead from tags and dependencies to entries.
        memory_labels_bytes: usize,
        /// Records in the disk index, those included that only shadow others.
        l2_entries: usize,
        /// The size of the store's file.
        l2_bytes_max: u64,
        /// Of the hits, those that came from disk.
        l2_hits: u64,
        /// Misses in memory that did not look further, since the synopsis ruled out the disk.
        l2_negative_skips: u64,
        /// Lookups on disk, by gets and `exists`, that went on to the index.
        l2_metadata_reads: u64,
        /// Lookups that the synopsis answered: surely absent.
        synopsis_metadata_reads: u64,
        /// Bytes of the synopses' filters.
        synopsis_bytes: usize,
        /// The same as `synopsis_bytes`, among the figures of memory.
        memory_synopsis_bytes: usize,
        /// Puts whose blob was not taken to disk because the index is at its budget, or their
        /// namespace at its [quota](NamespaceQuota).
        l2_full_rejections: u64,
        /// Bytes of compressed values before compression.
        l2_compressed_from: u64,
        /// Bytes of compressed values after compression.
        l2_compressed_to: u64,
        /// Values that were stored as they are although compression is on: short ones, those whose
        /// content type says that they are compressed already, and those that it hardly shrinks.
        l2_compression_skipped_total: u64,
        /// Values read from disk that were offered to memory.
        promotion_queued: u64,
        /// Of those, values that memory did not take: the queue was full, their key had been
        /// mutated meanwhile, or there was no room.
        promotion_dropped: u64,
        /// Of those, values that memory took.
        promotion_completed: u64,
        /// Values that wait for promotion now.
        promotion_queue_depth: usize,
        /// Bytes of the log that are in use, from the oldest segment's start to the log's end.
        l2_bytes_in_use: u64,
        /// Reads of the store's file.
        l2_reads: u64,
        /// Bytes read from it.
        l2_read_bytes: u64,
        /// Writes to the store's file.
        l2_writes: u64,
        /// Bytes written to it.
        l2_write_bytes: u64,
        /// Syncs of the store's file.
        l2_syncs: u64,
        /// Records and directories that were found damaged.
        l2_corruptions: u64,
        /// Reads, writes and syncs that failed.
        l2_io_errors: u64,
        /// Segments that were reused.
        l2_reclaimed_segments: u64,
        /// Records that were written again when their segment was reused, since they had been read.
        l2_reinserted: u64,
        /// Bytes of those records.
        l2_reinserted_bytes: u64,
        /// Whether the disk tier works.
        l2_state: L2State,
        /// Live records that were found at open.
        recovery_records: u64,
        /// Segments that were dropped at open because of damage.
        recovery_dropped: u64,
        /// How long the open took.
        recovery_duration: Duration,
        /// Memory of the disk index, with flushed parts until they are free.
        memory_index_bytes: usize,
        /// Memory of values that puts are copying or compressing, of reads under way, of records
        /// that wait to be written, of values that wait to be promoted, and of zstd contexts: up to
        /// two of 1 MiB for each core and direction are kept for the next value.
        memory_buffers_bytes: usize,
        /// The part of `memory_buffers_bytes` that reads under way take, of `l2_read_bytes_max`.
        memory_reads_bytes: usize,
    }
}

snapshot! {
    /// What one namespace holds now. Sizes are in bytes, counted as the budget counts them.
    NamespaceStats {
        /// Entries held in memory, expired ones that no call has met yet included.
        entries: usize,
        /// Bytes that those entries count against `l1_bytes_max`.
        bytes_in_use: usize,
        /// About how many bytes its live records take on disk: see [`NamespaceQuota`].
        l2_bytes_in_use: u64,
        /// Its limits in each tier.
        quota: NamespaceQuota,
    }
}

snapshot! {
    /// The memory tier's part of [`BlobCacheStats`].
    L1Stats {
        /// Hits that were answered from memory.
        hits: u64,
        /// Entries pushed out to make room.
        evictions: u64,
        /// Entries removed because they were idle for longer than their idle ttl.
        idle_expirations: u64,
        /// Entries held now, expired ones that no call has met yet included.
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
        /// Hits that were answered from disk.
        hits: u64,
        /// Misses in memory that did not look further, since the synopsis ruled out the disk.
        negative_skips: u64,
        /// Lookups of the index, by gets and `exists`.
        index_lookups: u64,
        /// Puts whose blob was not taken to disk, for the budget of the index or a quota.
        full_rejections: u64,
        /// Records in the index, those included that only shadow others.
        entries: usize,
        /// Bytes of the log that are in use.
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
        /// Records and directories that were found damaged.
        corruptions: u64,
        /// Reads, writes and syncs that failed.
        io_errors: u64,
        /// Segments that were reused.
        reclaimed_segments: u64,
        /// Records that were written again when their segment was reused.
        reinserted: u64,
        /// Bytes of those records.
        reinserted_bytes: u64,
        /// Bytes of compressed values before compression.
        compressed_from: u64,
        /// Bytes of compressed values after compression.
        compressed_to: u64,
        /// Values that were stored as they are although compression is on.
        compression_skipped: u64,
        /// Values read from disk that were offered to memory.
        promotions_queued: u64,
        /// Promotions that memory did not take.
        promotions_dropped: u64,
        /// Promotions that memory took.
        promotions_completed: u64,
        /// Values that wait for promotion now.
        promotion_queue_depth: usize,
        /// Live records that were found at open.
        recovered_records: u64,
        /// Segments that were dropped at open because of damage.
        recovery_dropped: u64,
        /// How long the open took.
        recovery_duration: Duration,
    }
}

snapshot! {
    /// The part of [`BlobCacheStats`] that `get_or_fetch` and `get_or_refresh` account for.
    FetchStats {
        /// Fetches that were begun, refreshes included.
        begun: u64,
        /// Fetches that failed or panicked.
        errors: u64,
        /// Fetches whose value was answered and could not be stored.
        not_stored: u64,
        /// Callers that were given another caller's fetch.
        joined: u64,
        /// Keys that are being fetched now, or whose refresh is handed out and not begun.
        under_way: usize,
    }
}

snapshot! {
    /// The memory that [`BlobCacheStats`] accounts for, in bytes, by purpose.
    MemoryStats {
        /// Entries and tables of the memory tier.
        l1_bytes: usize,
        /// Postings that lead from tags and dependencies to entries.
        labels_bytes: usize,
        /// The disk index, with flushed parts until they are free.
        index_bytes: usize,
        /// Filters of the synopses.
        synopsis_bytes: usize,
        /// Buffers: values being copied or compressed, reads under way, records that wait to be
        /// written, and values that wait to be promoted.
        buffers_bytes: usize,
        /// The part of the buffers that reads under way take.
        reads_bytes: usize,
    }
}

impl MemoryStats {
    /// The sum, in bytes. Reads under way count once, among the buffers.
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
            hits: self.l2_hits,
            negative_skips: self.l2_negative_skips,
            index_lookups: self.l2_metadata_reads,
            full_rejections: self.l2_full_rejections,
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
            recovery_duration: self.recovery_duration,
        }
    }

    /// Fetches.
    #[must_use]
    pub fn fetch(&self) -> FetchStats {
        FetchStats {
            begun: self.fetches,
            errors: self.fetch_errors,
            not_stored: self.fetches_not_stored,
            joined: self.flights_joined,
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

impl BlobCacheStats {
    /// How many times smaller compression makes the values that are stored compressed. 1 while
    /// there are none.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn l2_compression_ratio_observed(&self) -> f64 {
        match self.l2_compressed_to {
            0 => 1.0,
            to => self.l2_compressed_from as f64 / to as f64,
        }
    }

    /// Bytes that compression has kept off the disk.
    #[must_use]
    pub fn l2_bytes_saved_total(&self) -> u64 {
        self.l2_compressed_from.saturating_sub(self.l2_compressed_to)
    }
}

/// Whether the disk tier works.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum L2State {
    /// There is no disk tier.
    #[default]
    Off,
    /// It works.
    Healthy,
    /// It failed and was turned off: memory goes on alone.
    Degraded {
        /// What went wrong.
        reason: String,
    },
}

impl fmt::Display for L2State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => formatter.pad("off"),
            Self::Healthy => formatter.pad("healthy"),
            Self::Degraded { reason } => write!(formatter, "degraded: {reason}"),
        }
    }
}
