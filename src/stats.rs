//! Public snapshots of counters and sizes.

mod groups;

use std::time::Duration;

pub use self::groups::{FetchStats, L1Stats, L2Stats, MemoryStats};

use crate::figures::{Figure, FigureKind, FigureUnit, Measured, figures, snapshot};
pub use crate::l2_state::L2State;
use crate::latency::Latency;
use crate::modes::L2Engine;
use crate::quota::NamespaceQuota;

figures! {
    /// Counters since the cache was opened, and its current sizes.
    ///
    /// Cheap to take: no entry is visited. The figures are read one after the other, so under load
    /// they may be a few calls apart. Sizes are in bytes, counted as the budget counts them: with
    /// keys, metadata, labels and the overhead of allocator and tables.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use tamis::{BlobCache, BlobCacheConfig};
    /// # let cache = BlobCache::open(BlobCacheConfig::default()).await?;
    /// // The text format of Prometheus.
    /// let mut text = String::new();
    /// for figure in cache.stats().figures() {
    ///     let name = figure.export_name();
    ///     text += &format!("# HELP {name} {}\n", figure.help());
    ///     text += &format!("# TYPE {name} {}\n", figure.kind());
    ///     text += &format!("{name} {}\n", figure.value());
    /// }
    /// assert!(text.contains("# TYPE tamis_hits_total counter\ntamis_hits_total 0\n"));
    /// # Ok::<(), tamis::CacheError>(())
    /// # }).unwrap();
    /// ```
    BlobCacheStats as "tamis_" {
        /// Gets that returned an entry, stale ones included, from either tier.
        hits: u64 = Counter Number,
        /// Gets that returned none, and calls of fetching methods that found nothing fresh.
        misses: u64 = Counter Number,
        /// Misses in namespaces that answer nothing while their gate is closed, told while it was.
        gate_misses: u64 = Counter Number,
        /// Puts that stored an entry.
        insertions: u64 = Counter Number,
        /// Entries evicted to make room.
        evictions: u64 = Counter Number,
        /// Expired entries that were removed, idle ones included, by any call or task.
        expirations: u64 = Counter Number,
        /// Entries removed by an invalidation of their key, prefix, tag or dependency.
        invalidations: u64 = Counter Number,
        /// Entries made stale before their time by an `expire_*` call. Those that go at once for
        /// want of a stale window are among `invalidations` instead; of one on disk only that is
        /// not known, and it counts here. What `expire_namespace` covers on disk only is not
        /// counted.
        entries_made_stale: u64 = Counter Number,
        /// Entries that a put of their key replaced, whether or not the new value is held.
        replacements: u64 = Counter Number,
        /// Entries whose deadlines a `touch` has renewed.
        touches: u64 = Counter Number,
        /// Entries of flushed namespaces: for each namespace the larger of its counts in memory and
        /// on disk. An entry in both counts once; if each tier holds entries that the other does
        /// not, the count is too low.
        entries_flushed: u64 = Counter Number,
        /// Entries that made room in the last tier that held them: evicted and not on disk, or
        /// reclaimed on disk and not in memory. So each entry of `insertions` and
        /// `recovery_records` is still held, or counted once as expired, invalidated, replaced,
        /// flushed or forgotten.
        forgotten: u64 = Counter Number,
        /// Namespaces flushed, including each one of a flush of everything.
        namespace_flushes: u64 = Counter Number,
        /// Puts refused because the live entry's version was not below theirs.
        version_mismatches: u64 = Counter Number,
        /// Puts refused because their key was mutated after their read point.
        stale_sets_refused: u64 = Counter Number,
        /// Entries held in memory now, including expired ones not found yet.
        entries: usize = Gauge Number,
        /// Bytes that count against `l1_bytes_max` now.
        bytes_in_use: usize = Gauge Bytes,
        /// The budget of the memory tier.
        l1_bytes_max: usize = Gauge Bytes,
        /// Namespaces in use now.
        namespaces: usize = Gauge Number,
        /// The most namespaces that can be in use.
        max_namespaces: usize = Gauge Number,
        /// Stale answers, within their stale window or because a gate was closed: hits, and entries
        /// returned in place of a failed fetch, which was a miss.
        l1_stale_serves_total: u64 = Counter Number,
        /// Fetches begun by `get_or_fetch`, `get_or_refresh` and their spawned forms, refreshes
        /// included.
        fetches: u64 = Counter Number,
        /// Fetches that failed, panicked or took too long.
        fetch_errors: u64 = Counter Number,
        /// Fetches that took longer than their hard timeout.
        fetch_timeouts: u64 = Counter Number,
        /// Calls answered without a fetch, since one had failed a moment before.
        fetches_held_off: u64 = Counter Number,
        /// Fetches given to the spawner, refreshes included.
        fetches_spawned: u64 = Counter Number,
        /// Fetches that were to run in a task and did not, or not to their end: there were too
        /// many, the spawner dropped or did not poll the task, or the cache was closed. They ran in
        /// the polls of their callers, or were dropped if nobody waited; refreshes were left to a
        /// later call.
        fetches_not_spawned: u64 = Counter Number,
        /// Fetches that are with the spawner now.
        fetch_tasks: usize = Gauge Number,
        /// Refreshes begun while their entry was still fresh.
        refreshes_ahead: u64 = Counter Number,
        /// Calls given the stale entry because the fetch took longer than their soft timeout. The
        /// fetch went on.
        soft_timeouts: u64 = Counter Number,
        /// Fetches whose value was refused as a put: too large, version not above the live one,
        /// cache closed, device failed and so on; or whose codec could not encode it.
        fetches_not_stored: u64 = Counter Number,
        /// Calls of a typed namespace that found a value that does not decode, and took that for a
        /// miss.
        values_undecoded: u64 = Counter Number,
        /// Callers given the value or the error of another caller's fetch.
        flights_joined: u64 = Counter Number,
        /// Callers that have waited for another caller's fetch for as long as their hard timeout.
        flight_timeouts: u64 = Counter Number,
        /// Keys being fetched now, or whose refresh was handed out and not begun.
        flights_under_way: usize = Gauge Number,
        /// Entries removed because they exceeded their idle ttl.
        l1_idle_evicts_total: u64 = Counter Number,
        /// Memory of the memory tier's entries and tables.
        memory_l1_bytes: usize = Gauge Bytes,
        /// Memory of the postings from tags and dependencies to entries.
        memory_labels_bytes: usize = Gauge Bytes,
        /// Records in the disk index, including tombstones.
        l2_entries: usize = Gauge Number,
        /// The size of the store's file.
        l2_bytes_max: u64 = Gauge Bytes,
        /// Hits that came from disk.
        l2_hits: u64 = Counter Number,
        /// Misses in memory that the synopsis answered without a disk lookup.
        l2_negative_skips: u64 = Counter Number,
        /// Lookups on disk, by gets and `exists`, that went on to the index.
        l2_metadata_reads: u64 = Counter Number,
        /// Lookups that the synopsis answered: absent.
        synopsis_metadata_reads: u64 = Counter Number,
        /// Bytes of the synopses' filters.
        synopsis_bytes: usize = Gauge Bytes,
        /// Equal to `synopsis_bytes`; among the memory figures.
        memory_synopsis_bytes: usize = Gauge Bytes,
        /// Puts that the disk tier refused because its index is at its budget, or their namespace
        /// at its quota.
        l2_full_rejections: u64 = Counter Number,
        /// Puts whose value the disk tier did not take by its admission.
        l2_not_admitted: u64 = Counter Number,
        /// Puts whose value the disk tier did not take because of its write rate.
        l2_write_rate_rejections: u64 = Counter Number,
        /// Bytes of compressed values before compression.
        l2_compressed_from: u64 = Counter Bytes,
        /// Bytes of compressed values after compression.
        l2_compressed_to: u64 = Counter Bytes,
        /// Values stored uncompressed although compression is on: short ones, those with a
        /// compressed content type, and those that hardly shrink.
        l2_compression_skipped_total: u64 = Counter Number,
        /// Values read from disk and offered for promotion to memory. Some are promoted at once.
        promotion_queued: u64 = Counter Number,
        /// Values offered for promotion and not promoted: the queue was full, their key was mutated
        /// meanwhile, or there was no room.
        promotion_dropped: u64 = Counter Number,
        /// Values promoted to memory.
        promotion_completed: u64 = Counter Number,
        /// Values waiting for promotion now.
        promotion_queue_depth: usize = Gauge Number,
        /// Bytes of the log in use, from the start of the oldest segment to the log's end.
        l2_bytes_in_use: u64 = Gauge Bytes,
        /// Reads of the store's file.
        l2_reads: u64 = Counter Number,
        /// Bytes read from the store's file.
        l2_read_bytes: u64 = Counter Bytes,
        /// Writes to the store's file.
        l2_writes: u64 = Counter Number,
        /// Bytes written to the store's file.
        l2_write_bytes: u64 = Counter Bytes,
        /// Syncs of the store's file.
        l2_syncs: u64 = Counter Number,
        /// Records and directories found damaged.
        l2_corruptions: u64 = Counter Number,
        /// Reads, writes and syncs that failed.
        l2_io_errors: u64 = Counter Number,
        /// How often the disk tier began anew, empty: after a failure, or when it was reopened.
        l2_restarts: u64 = Counter Number,
        /// Segments reused.
        l2_reclaimed_segments: u64 = Counter Number,
        /// Records reinserted when their segment was reused, because they had been read.
        l2_reinserted: u64 = Counter Number,
        /// Bytes of reinserted records.
        l2_reinserted_bytes: u64 = Counter Bytes,
        /// Whether the disk tier works; as a figure 0 if there is none, 1 if it works, 2 if it is
        /// turned off.
        l2_state: L2State = Gauge Number,
        /// What transfers the file of the disk tier, if there is one; as a figure 0 if there is
        /// none, 1 for io_uring, 2 for threads.
        l2_engine: Option<L2Engine> = Gauge Number,
        /// Live records found at open.
        recovery_records: u64 = Gauge Number,
        /// Segments dropped at open because of damage, or because fewer fit into the file.
        recovery_dropped: u64 = Gauge Number,
        /// Whether the open read the index from the image that a close had left.
        recovery_from_image: bool = Gauge Number,
        /// How long the open took.
        recovery_duration: Duration = Gauge Seconds,
        /// Events that were lost because the listener was too slow, or another took its place.
        events_lost: u64 = Counter Number,
        /// Memory of the disk index, including flushed parts not freed yet.
        memory_index_bytes: usize = Gauge Bytes,
        /// Memory of values being copied or compressed, of reads in progress, of records waiting to
        /// be written, of values waiting for promotion, of errors of fetches that are held (without
        /// what these point to), of requests and answers at the status socket, and of zstd
        /// contexts: up to two of 1 MiB for each core and direction are kept for reuse.
        memory_buffers_bytes: usize = Gauge Bytes,
        /// The part of `memory_buffers_bytes` of reads in progress, limited by `l2_read_bytes_max`.
        memory_reads_bytes: usize = Gauge Bytes,
    } and {
        /// How long calls took. Hits in memory are not measured: reading the clock would take as
        /// long as they do.
        latencies: LatencyStats,
    }
}

snapshot! {
    /// How long calls took since the cache was opened.
    LatencyStats {
        /// Values read from disk, for gets and fetches: from the miss in memory until the value is
        /// read, checked and decompressed.
        l2_get: Latency,
        /// Puts that returned without an error, from their first poll on. Those of fetched values
        /// and of `put_many` are not among them.
        put: Latency,
        /// Fetches, from the call of the caller's closure to its answer, failed ones included.
        fetch: Latency,
        /// Writes of the log to the store's file.
        l2_write: Latency,
        /// Syncs of the store's file.
        l2_sync: Latency,
    }
}

figures! {
    /// Figures of one namespace. Sizes are in bytes, counted as the budget counts them. Counters
    /// begin at zero again when the namespace is flushed, or has given up its slot while it was
    /// empty.
    NamespaceStats as "tamis_namespace_" {
        /// Gets that returned an entry, stale ones included, from either tier.
        hits: u64 = Counter Number,
        /// Gets that returned none, and calls of fetching methods that found nothing fresh, while
        /// the namespace was in use.
        misses: u64 = Counter Number,
        /// Entries held in memory, including expired ones not found yet.
        entries: usize = Gauge Number,
        /// Bytes that the entries in memory count against `l1_bytes_max`.
        bytes_in_use: usize = Gauge Bytes,
        /// Approximate bytes of its live records on disk, as its quota counts them.
        l2_bytes_in_use: u64 = Gauge Bytes,
    } and {
        /// Its limits in each tier.
        quota: NamespaceQuota,
    }
}

impl BlobCacheStats {
    /// The compression ratio of the values stored compressed. 1 if there are none.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn l2_compression_ratio_observed(&self) -> f64 {
        match self.l2_compressed_to {
            0 => 1.0,
            to => self.l2_compressed_from as f64 / to as f64,
        }
    }

    /// Bytes saved by compression.
    #[must_use]
    pub fn l2_bytes_saved_total(&self) -> u64 {
        self.l2_compressed_from.saturating_sub(self.l2_compressed_to)
    }
}
