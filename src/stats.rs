//! Public snapshots of what a cache has done and holds.

macro_rules! snapshot {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name { $(pub(crate) $field: $type,)* }

        impl $name { $(
            $(#[$doc])*
            #[must_use]
            pub fn $field(&self) -> $type { self.$field }
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
        /// Gets that were not.
        misses: u64,
        /// Puts that stored an entry.
        insertions: u64,
        /// Entries pushed out to make room.
        evictions: u64,
        /// Entries found past their life and removed, idle ones included.
        expirations: u64,
        /// Entries removed by an invalidation of their key, prefix, tag or dependency.
        invalidations: u64,
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
        /// Hits that were stale, within their stale window.
        l1_stale_serves_total: u64,
        /// Entries removed because nobody had asked for them for longer than their idle ttl.
        l1_idle_evicts_total: u64,
        /// Memory of the memory tier's entries and tables.
        memory_l1_bytes: usize,
        /// Memory of the postings that lead from tags and dependencies to entries.
        memory_labels_bytes: usize,
        /// Memory of values that puts under way are copying.
        memory_buffers_bytes: usize,
    }
}

snapshot! {
    /// What one namespace holds now. Sizes are in bytes, counted as the budget counts them.
    NamespaceStats {
        /// Entries held, expired ones that nobody has met yet included.
        entries: usize,
        /// What they count against `l1_bytes_max`.
        bytes_in_use: usize,
    }
}
