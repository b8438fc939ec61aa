//! Public snapshots of what a cache has done and holds.

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
        /// Gets that were answered with an entry, stale ones included.
        hits: u64,
        /// Gets that were not, and calls of fetching verbs that found nothing fresh.
        misses: u64,
        /// Puts that stored an entry.
        insertions: u64,
        /// Entries pushed out to make room.
        evictions: u64,
        /// Entries found past their life and removed, idle ones included, whoever has removed them.
        expirations: u64,
        /// Entries removed by an invalidation of their key, prefix, tag or dependency.
        invalidations: u64,
        /// Entries that a put of their key took the place of, whether or not that is held.
        replacements: u64,
        /// Entries of namespaces that were flushed, each in whichever tiers it was.
        entries_flushed: u64,
        /// Entries that have gone to make room from the last tier that held them: evicted, and not
        /// on disk, or left behind by the log, and not in memory. So whatever has come in,
        /// `insertions` and `recovery_records`, is held, or has expired, or been invalidated,
        /// replaced, flushed or forgotten, and is counted there once.
        forgotten: u64,
        /// Namespaces flushed, each of a flush of everything included.
        namespace_flushes: u64,
        /// Puts refused because the live entry's version was not below theirs.
        version_mismatches: u64,
        /// Puts refused because their key was mutated after their read point.
        stale_sets_refused: u64,
        /// Entries held now, expired ones that nobody has met yet included.
        entries: usize,
        /// What counts against `l1_bytes_max` now.
        bytes_in_use: usize,
        /// The budget of the memory tier.
        l1_bytes_max: usize,
        /// Namespaces in use now.
        namespaces: usize,
        /// The most namespaces that can be in use.
        max_namespaces: usize,
        /// Answers that were stale, within their stale window: hits, and what stood in for a fetch
        /// that failed, which was a miss.
        l1_stale_serves_total: u64,
        /// Fetches that were begun by `get_or_fetch` and `get_or_refresh`, refreshes included.
        fetches: u64,
        /// Of those, fetches that failed or panicked.
        fetch_errors: u64,
        /// Of those, fetches whose value was refused as a put: it is too large, its version is not
        /// above the live one, the cache is closed, the device failed and so on.
        fetches_not_stored: u64,
        /// Callers who were given what another caller fetched meanwhile.
        flights_joined: u64,
        /// Keys that are being fetched now, or whose refresh has been handed out and not begun.
        flights_under_way: usize,
        /// Entries removed because nobody had asked for them for longer than their idle ttl.
        l1_idle_evicts_total: u64,
        /// Memory of the memory tier's entries and tables.
        memory_l1_bytes: usize,
        /// Memory of the postings that lead from tags and dependencies to entries.
        memory_labels_bytes: usize,
        /// Records that the index knows of, those included that only shadow others.
        l2_entries: usize,
        /// The size of the store's file.
        l2_bytes_max: u64,
        /// Of the hits, those that came from disk.
        l2_hits: u64,
        /// Misses in memory that did not look further, since the synopsis said that the disk
        /// surely has nothing.
        l2_negative_skips: u64,
        /// Looks for something on disk, by gets and `exists`, that went on to the index.
        l2_metadata_reads: u64,
        /// Looks that the synopsis answered: surely nothing.
        synopsis_metadata_reads: u64,
        /// Bytes of the filters that the synopses are made of.
        synopsis_bytes: usize,
        /// The same, among the figures of memory.
        memory_synopsis_bytes: usize,
        /// Puts whose blob was not taken to disk because the index is at its budget, or their
        /// namespace at its [quota](NamespaceQuota).
        l2_full_rejections: u64,
        /// Bytes of values that were compressed on their way to disk, before they were.
        l2_compressed_from: u64,
        /// What they came to.
        l2_compressed_to: u64,
        /// Values that were stored as they are though compression is on: short ones, those whose
        /// content type says that they are compressed already, and those that it gains nothing on.
        l2_compression_skipped_total: u64,
        /// Values read from disk that were offered to memory.
        promotion_queued: u64,
        /// Of those, values that memory has not taken: the queue was full, their key had been
        /// mutated meanwhile, or there was no room.
        promotion_dropped: u64,
        /// And values that it has.
        promotion_completed: u64,
        /// Values that wait for it now.
        promotion_queue_depth: usize,
        /// Bytes of the log that are in use: the oldest segment's start to the log's end.
        l2_bytes_in_use: u64,
        /// Reads of the store's file.
        l2_reads: u64,
        /// Bytes of them.
        l2_read_bytes: u64,
        /// Writes to the store's file.
        l2_writes: u64,
        /// Bytes of them.
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
        /// Bytes of them.
        l2_reinserted_bytes: u64,
        /// Whether the disk tier takes and gives.
        l2_state: L2State,
        /// Live records that were found at open.
        recovery_records: u64,
        /// Segments that were dropped at open because of damage.
        recovery_dropped: u64,
        /// How long the open took.
        recovery_duration: Duration,
        /// Memory of the index of the disk tier, with what flushes have ended until it is free.
        memory_index_bytes: usize,
        /// Memory of values that puts are copying or compressing, of reads under way, of records
        /// that wait to be written, of values that wait to be promoted, and of what compresses.
        memory_buffers_bytes: usize,
        /// The part of it that reads under way take, of `l2_read_bytes_max`.
        memory_reads_bytes: usize,
    }
}

snapshot! {
    /// What one namespace holds now. Sizes are in bytes, counted as the budget counts them.
    NamespaceStats {
        /// Entries held, expired ones that nobody has met yet included.
        entries: usize,
        /// What they count against `l1_bytes_max`.
        bytes_in_use: usize,
        /// About how much its live records take on disk: see [`NamespaceQuota`].
        l2_bytes_in_use: u64,
        /// What it may take of each tier.
        quota: NamespaceQuota,
    }
}

impl BlobCacheStats {
    /// How many times smaller compression has made the values that it was worth for. 1 while there
    /// are none.
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

/// Whether the disk tier takes and gives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum L2State {
    /// There is none.
    #[default]
    Off,
    /// It does.
    Healthy,
    /// It has been turned off: memory goes on alone.
    Degraded {
        /// What went wrong.
        reason: String,
    },
}
