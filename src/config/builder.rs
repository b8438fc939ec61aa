//! `BlobCacheConfigBuilder`: each setting with its meaning, default, range and check.

use std::path::PathBuf;
use std::sync::Arc;

use super::range::{
    NAMESPACE_BYTES_MAX, SEGMENTS_MAX, check_l1_bytes_max, check_status_socket, check_write_rate,
    within,
};
use super::{
    BlobCacheConfig, INDEX_BYTES_MAX, KIB, MIB, NamespaceConfigBuilder, default_index_bytes,
    default_segment_bytes, default_shard_count,
};
use crate::clock::Clock;
use crate::error::CacheError;
use crate::fetch_policy::FetchPolicy;
use crate::modes::{
    BackgroundSweep, CrashSafety, L2Admission, L2Compression, L2Engine, L2PromotionPolicy,
};
use crate::quota::NamespaceQuota;
use crate::spawn::Spawn;
use crate::write_rate::WriteRate;

const SEGMENT_BYTES_MAX: u32 = 256 << 20;

/// Each quota has a list in every SIEVE.
const QUOTAS_MAX: usize = 256;

/// Builds a [`BlobCacheConfig`]; settings that are not named keep their defaults.
///
/// Each setter states its unit, default and range; [`build`](Self::build) checks them all.
///
/// ```
/// use tamis::BlobCacheConfig;
///
/// let config = BlobCacheConfig::builder().l1_bytes_max(64 << 20).max_namespaces(16).build()?;
/// assert_eq!(config.l1_bytes_max(), 64 << 20);
/// # Ok::<(), tamis::CacheError>(())
/// ```
#[derive(Debug, Clone)]
pub struct BlobCacheConfigBuilder {
    pub(super) config: BlobCacheConfig,
    /// None: derived from the budget in `build`.
    shard_count: Option<usize>,
    l2_segment_bytes: Option<u32>,
    l2_index_bytes_max: Option<usize>,
}

/// All defaults, as [`BlobCacheConfig::builder`] gives them.
impl Default for BlobCacheConfigBuilder {
    fn default() -> Self {
        Self::new(BlobCacheConfig::default())
    }
}

// Here and not beside the getters, so that the settings know nothing of their builder.
impl BlobCacheConfig {
    /// A builder that starts from the defaults.
    pub fn builder() -> BlobCacheConfigBuilder {
        BlobCacheConfigBuilder::new(Self::default())
    }
}

impl BlobCacheConfigBuilder {
    fn new(config: BlobCacheConfig) -> Self {
        Self { config, shard_count: None, l2_segment_bytes: None, l2_index_bytes_max: None }
    }

    /// The budget of the memory tier in bytes, with all overhead: values, keys, metadata, labels,
    /// allocator and tables. Default 256 MiB; 64 KiB to 64 TiB.
    #[must_use]
    pub fn l1_bytes_max(mut self, bytes: usize) -> Self {
        self.config.l1_bytes_max = bytes;
        self
    }

    /// The most namespaces that can hold entries at one time. Default 256; 1 to 65,536. A slot is
    /// free again when its namespace is flushed, or empty in memory and on disk. On disk, keys that
    /// were invalidated one by one count until their segment is reused.
    ///
    /// Besides the budgets of both tiers, a namespace takes up to 1 KiB, 48 bytes for each
    /// core, and twice its name.
    #[must_use]
    pub fn max_namespaces(mut self, namespaces: usize) -> Self {
        self.config.max_namespaces = namespaces;
        self
    }

    /// The most content metadata keys of one entry. Default 32; up to 1024.
    #[must_use]
    pub fn content_metadata_keys_max(mut self, keys: usize) -> Self {
        self.config.content_metadata_keys_max = keys;
        self
    }

    /// The most bytes of one entry's content metadata, keys and values together. Default 4096; up
    /// to 65,536.
    #[must_use]
    pub fn content_metadata_bytes_max(mut self, bytes: usize) -> Self {
        self.config.content_metadata_bytes_max = bytes;
        self
    }

    /// The most bytes of a key. Default 4096; 1 to 65,535.
    #[must_use]
    pub fn key_bytes_max(mut self, bytes: usize) -> Self {
        self.config.key_bytes_max = bytes;
        self
    }

    /// The most tags and dependencies of one entry, together, and of one invalidation by labels.
    /// Default 64; up to 1024.
    #[must_use]
    pub fn labels_max(mut self, labels: usize) -> Self {
        self.config.labels_max = labels;
        self
    }

    /// The most bytes of one entry's tags and dependencies, together. Default 4096; up to 65,536.
    #[must_use]
    pub fn label_bytes_max(mut self, bytes: usize) -> Self {
        self.config.label_bytes_max = bytes;
        self
    }

    /// The number of lists into which the SIEVE queue of one priority is divided, to reduce
    /// contention among threads that put and evict. Does not change the choice of victims. Default:
    /// four for each core, at most 64, and at most one for each MiB of the budget. 1 to 1024. The
    /// lookup table has shards of its own.
    #[must_use]
    pub fn shard_count(mut self, shards: usize) -> Self {
        self.shard_count = Some(shards);
        self
    }

    /// The directory of the disk tier, created if missing. Default: no disk tier. See also
    /// [`l2`](Self::l2). Without the feature `disk`, and on other systems than Linux, `open`
    /// answers [`L2Unavailable`](crate::CacheError::L2Unavailable) if there is a path.
    #[must_use]
    pub fn l2_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.l2_path = Some(path.into());
        self
    }

    /// Whether an open fails if the disk tier cannot be opened. Default true. If false, the cache
    /// opens whatever the reason, and runs in memory:
    /// [`l2_state`](crate::BlobCacheStats::l2_state) says why, and
    /// [`reopen_l2`](crate::BlobCache::reopen_l2) tries again. Before a mutation returns, a mark
    /// is left in the directory, so that the next open begins with an empty disk tier and not with
    /// what the mutation has replaced; where that fails, mutations answer
    /// [`L2Io`](crate::CacheError::L2Io) and are in force in this process.
    ///
    /// If only the process before this one still has the store, an open that fails with
    /// [`L2Locked`](crate::CacheError::L2Locked) and is repeated keeps it warm.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use tamis::{BlobCache, BlobCacheConfig, L2State};
    /// # let file = tempfile::NamedTempFile::new().unwrap();
    /// # let no_directory = file.path();
    /// let config = BlobCacheConfig::builder().l2_path(no_directory).l2_required(false).build()?;
    /// let cache = BlobCache::open(config).await?;
    /// assert!(matches!(cache.stats().l2_state(), L2State::Degraded { .. }));
    /// # Ok::<(), tamis::CacheError>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn l2_required(mut self, required: bool) -> Self {
        self.config.l2_required = required;
        self
    }

    /// The size of the disk tier's file, in bytes, rounded down to whole segments. It is reserved
    /// when the store is made. Default 4 GiB; 4 to 1,048,576 segments. A store that was made with
    /// another size gets this one when it is opened: all of it is kept, or the newest segments that
    /// fit. See also [`set_l2_bytes_max`](crate::BlobCache::set_l2_bytes_max). A closed store is
    /// longer by the image of its index, up to [`Self::l2_index_bytes_max`].
    #[must_use]
    pub fn l2_bytes_max(mut self, bytes: u64) -> Self {
        self.config.l2_bytes_max = bytes;
        self
    }

    /// The size of a segment, in bytes: the largest blob that the disk tier takes is a little
    /// smaller. Default: a 64th of the file, 1 MiB to 256 MiB; so a store of 1 GiB takes blobs of
    /// almost 16 MiB, one of 4 GiB almost 64 MiB. A multiple of 4096, 16 KiB to 256 MiB.
    ///
    /// It is for new and empty stores. One with entries keeps the size of its segments, and the log
    /// says so; if it has room for fewer than 4 of them, it begins anew.
    #[must_use]
    pub fn l2_segment_bytes(mut self, bytes: u32) -> Self {
        self.l2_segment_bytes = Some(bytes);
        self.config.l2_segment_is_set = true;
        self
    }

    /// The memory budget of the disk index, in bytes: 32 for each blob, 52 for each of its labels;
    /// with idle ttls, an eighth is for last accesses. At the budget the oldest blobs give way to
    /// new ones, even if the file has room; an open keeps to it as well. Each segment being written
    /// takes up to an eighth of it in addition, and a namespace [1 KiB](Self::max_namespaces).
    ///
    /// Default: a 32nd of the file, at least 1 MiB; 64 KiB to 1 TiB. So a file can be filled if
    /// blobs take at least 1 KiB on average, key and header included. For blobs of 100 bytes use a
    /// seventh of the file.
    #[must_use]
    pub fn l2_index_bytes_max(mut self, bytes: usize) -> Self {
        self.l2_index_bytes_max = Some(bytes);
        self
    }

    /// The memory budget of disk reads in progress, in bytes: the blocks read and the decompressed
    /// values. Reads of up to 256 KiB have a quarter of it reserved; others wait in order of
    /// arrival, and a value larger than the rest is read alone. Default 64 MiB; 1 MiB to 1 TiB.
    #[must_use]
    pub fn l2_read_bytes_max(mut self, bytes: usize) -> Self {
        self.config.l2_read_bytes_max = bytes;
        self
    }

    /// What transfers the file of the disk tier. Default [`L2Engine::Auto`]: io_uring, or threads
    /// where the kernel refuses it, as it does under the default seccomp profiles of Docker and
    /// containerd, and where sysctl `kernel.io_uring_disabled` forbids it.
    /// [`l2_engine`](crate::BlobCacheStats::l2_engine) tells which it has become.
    ///
    /// ```
    /// # use tamis::*;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path();
    /// # futures::executor::block_on(async {
    /// let builder = BlobCacheConfig::builder().l2_path(path).l2_bytes_max(16 << 20);
    /// let cache = BlobCache::open(builder.l2_engine(L2Engine::Threads).build()?).await?;
    /// assert_eq!(cache.stats().l2_engine(), Some(L2Engine::Threads));
    /// cache.close().await
    /// # }).unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn l2_engine(mut self, engine: L2Engine) -> Self {
        self.config.l2_engine = engine;
        self
    }

    /// Whether values are compressed on their way to disk. Default [`L2Compression::On`]. A
    /// [`namespace`](Self::namespace) may have its own setting.
    #[must_use]
    pub fn l2_compression(mut self, compression: L2Compression) -> Self {
        self.config.l2_compression = compression;
        self
    }

    /// Which new values the disk tier takes. Default [`L2Admission::Adaptive`], which takes all
    /// with an index budget below 1 MiB.
    #[must_use]
    pub fn l2_admission(mut self, admission: L2Admission) -> Self {
        self.config.l2_admission = admission;
        self
    }

    /// When a value read from disk is promoted to memory. Default
    /// [`L2PromotionPolicy::Immediate`].
    #[must_use]
    pub fn l2_promotion_policy(mut self, policy: L2PromotionPolicy) -> Self {
        self.config.l2_promotion_policy = policy;
        self
    }

    /// The most values waiting for promotion; one more pushes out the oldest. Default 1024; 1 to
    /// 1,048,576. Their bytes are limited as well, to an eighth of `l1_bytes_max`.
    #[must_use]
    pub fn promotion_queue_max(mut self, values: usize) -> Self {
        self.config.promotion_queue_max = values;
        self
    }

    /// Whether records in use are reinserted when their segment is reused: those that were read or
    /// hit in memory since they were written, and those that memory holds. Default true: more hits,
    /// for more bytes written, within [`Self::l2_write_amplification_pct_max`].
    #[must_use]
    pub fn l2_second_chances(mut self, second_chances: bool) -> Self {
        self.config.l2_second_chances = second_chances;
        self
    }

    /// The most record bytes that are written to disk, in percent of those that are put: the bound
    /// on what reinsertion adds. What some segments do not use of it, others may: as much as four
    /// segments, or an eighth of the file if that is less. Default 130; 100 to 400. With 100
    /// records are reinserted only in place of values that the disk does not take.
    #[must_use]
    pub fn l2_write_amplification_pct_max(mut self, percent: u32) -> Self {
        self.config.l2_write_amplification_pct_max = percent;
        self
    }

    /// How fast the disk tier may be written; beyond that, new keys stay in memory. Default: no
    /// limit. Rate and burst: 1 byte or more. [`WriteRate`] has an example.
    #[must_use]
    pub fn l2_write_rate_max(mut self, rate: WriteRate) -> Self {
        self.config.l2_write_rate_max = Some(rate);
        self
    }

    /// How much survives a crash. Default [`CrashSafety::Process`].
    #[must_use]
    pub fn crash_safety(mut self, crash_safety: CrashSafety) -> Self {
        self.config.crash_safety = crash_safety;
        self
    }

    /// Whether memory of expired, flushed and invalidated entries is freed in the background.
    /// Default [`BackgroundSweep::On`].
    #[must_use]
    pub fn background_sweep(mut self, sweep: BackgroundSweep) -> Self {
        self.config.background_sweep = sweep;
        self
    }

    /// Limits of one namespace in each tier. Default: no quotas; up to 256 of them. The last quota
    /// of a name wins, those of [`namespace`](Self::namespace) included.
    #[must_use]
    pub fn quota(mut self, namespace: &str, quota: NamespaceQuota) -> Self {
        self.config.quotas.set(namespace, quota);
        self
    }

    /// What applies within one namespace: the policy of puts that have none, the fetch policy,
    /// limits, admission, compression. It applies to all calls that name the namespace, and to its
    /// handles. Default:
    /// what applies to the cache; up to 4096 namespaces, with names of up to 255 bytes.
    ///
    /// The policy of a put is its own, or else that of its handle
    /// ([`with_policy`](crate::BlobCacheNamespace::with_policy)), or else the namespace's, or else
    /// [`BlobCachePolicy::default`](crate::BlobCachePolicy). The first of them counts as a whole;
    /// only [`with_ttl`](crate::BlobCachePut::with_ttl) replaces a part of it.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use tamis::*;
    /// use std::time::Duration;
    ///
    /// let minute = BlobCachePolicy::default().ttl(Duration::from_secs(60));
    /// let quota = NamespaceQuota { l1_bytes_max: Some(64 << 20), ..Default::default() };
    /// let config = BlobCacheConfig::builder()
    ///     .namespace("pages", |pages| pages.policy(minute).quota(quota))
    ///     .namespace("thumbs", |thumbs| thumbs.compression(L2Compression::Off))
    ///     .build()?;
    /// let cache = BlobCache::open(config).await?;
    /// cache.put("pages", "/index", "<h1>Tamis</h1>").await?;
    /// assert!(cache.get("pages", "/index").await.unwrap().expires_at().is_some());
    /// assert_eq!(cache.config().namespace("thumbs").compression(), L2Compression::Off);
    /// # Ok::<(), CacheError>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn namespace(
        mut self,
        name: &str,
        set: impl FnOnce(NamespaceConfigBuilder) -> NamespaceConfigBuilder,
    ) -> Self {
        let set = set(NamespaceConfigBuilder::default());
        if let Some(quota) = set.quota {
            self.config.quotas.set(name, quota);
        }
        self.config.namespaces.add(name, set.finish());
        self
    }

    /// When fetches are given up, and when they are tried again, unless their
    /// [`namespace`](Self::namespace) or handle says otherwise. Default [`FetchPolicy::default`]:
    /// all off.
    #[must_use]
    pub fn fetch_policy(mut self, policy: FetchPolicy) -> Self {
        self.config.fetch_policy = policy;
        self
    }

    /// Where fetches of [`get_or_fetch_spawned`](crate::BlobCache::get_or_fetch_spawned) and
    /// [`get_or_refresh_spawned`](crate::BlobCache::get_or_refresh_spawned) run: see [`Spawn`].
    /// Default: nowhere, so that these calls are refused.
    #[must_use]
    pub fn spawner(mut self, spawner: impl Spawn) -> Self {
        self.config.spawner = Some(Arc::new(spawner));
        self
    }

    /// The most fetches that are given to the [`spawner`](Self::spawner) and have not ended, or
    /// whose tasks it still keeps. Beyond that a fetch runs in the polls of its caller, a refresh
    /// is left to a later call, and
    /// [`fetches_not_spawned`](crate::BlobCacheStats::fetches_not_spawned) counts both. Default
    /// 1024; 1 to 65,536.
    #[must_use]
    pub fn spawned_fetches_max(mut self, fetches: usize) -> Self {
        self.config.spawned_fetches_max = fetches;
        self
    }

    /// The source of time. Default [`Clock::system`].
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.config.clock = clock;
        self
    }

    /// Charges an entry of (key, value) with `charge` bytes instead of its memory, to compare miss
    /// ratios with simulators that charge objects or payload bytes only. `l1_bytes_max` then no
    /// longer bounds the memory in use. If `charge` panics, the memory counts; more than 64 TiB
    /// counts as 64 TiB. Default: memory is counted.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use tamis::{BlobCache, BlobCacheConfig};
    /// // A thousand entries, whatever their sizes: each weighs 1 KiB.
    /// let config = BlobCacheConfig::builder().l1_bytes_max(1000 << 10).l1_charge(|_, _| 1 << 10);
    /// let cache = BlobCache::open(config.build()?).await?;
    /// cache.put("pages", "/index", "<h1>Tamis</h1>").await?;
    /// assert_eq!(cache.stats().bytes_in_use(), 1 << 10);
    /// # Ok::<(), tamis::CacheError>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn l1_charge(mut self, charge: fn(key: &[u8], value: &[u8]) -> usize) -> Self {
        self.config.charge = Some(charge);
        self
    }

    /// Keeps only `bits` of the key hash, so that tests can force collisions.
    #[doc(hidden)]
    #[must_use]
    pub fn key_hash_bits(mut self, bits: u32) -> Self {
        self.config.key_hash_bits = bits;
        self
    }

    /// Checks every setting and returns the configuration.
    ///
    /// # Errors
    ///
    /// [`CacheError::InvalidConfig`] names the first setting that is out of its range or
    /// contradicts another, and gives the valid range.
    pub fn build(self) -> Result<BlobCacheConfig, CacheError> {
        let mut config = self.config;
        config.shard_count =
            self.shard_count.unwrap_or_else(|| default_shard_count(config.l1_bytes_max));
        check_l1_bytes_max(config.l1_bytes_max)?;
        within("max_namespaces", config.max_namespaces, 1..=65_536)?;
        within("content_metadata_keys_max", config.content_metadata_keys_max, 0..=1024)?;
        within("content_metadata_bytes_max", config.content_metadata_bytes_max, 0..=64 * KIB)?;
        within("key_bytes_max", config.key_bytes_max, 1..=65_535)?;
        within("labels_max", config.labels_max, 0..=1024)?;
        within("label_bytes_max", config.label_bytes_max, 0..=64 * KIB)?;
        within("promotion_queue_max", config.promotion_queue_max, 1..=1 << 20)?;
        within("l2_read_bytes_max", config.l2_read_bytes_max, MIB..=1 << 40)?;
        let percent = config.l2_write_amplification_pct_max as usize;
        within("l2_write_amplification_pct_max", percent, 100..=400)?;
        check_write_rate(config.l2_write_rate_max)?;
        check_status_socket(config.l2_status_socket, config.l2_path.is_some())?;
        within("key_hash_bits", config.key_hash_bits as usize, 1..=64)?;
        within("shard_count", config.shard_count, 1..=1024)?;
        let has_spawner = config.spawner.is_some();
        config.fetch_policy.check("fetch_policy", has_spawner)?;
        within("spawned_fetches_max", config.spawned_fetches_max, 1..=65_536)?;
        within("quota", config.quotas.len(), 0..=QUOTAS_MAX)?;
        // Bounded: by the quotas of a configuration, once.
        for name in config.quotas.names() {
            within("quota", name.len(), 0..=NAMESPACE_BYTES_MAX)?;
        }
        config.namespaces.check(has_spawner)?;
        config.l2_segment_bytes =
            self.l2_segment_bytes.unwrap_or_else(|| default_segment_bytes(config.l2_bytes_max));
        let segment = config.l2_segment_bytes;
        if !(16 << 10..=SEGMENT_BYTES_MAX).contains(&segment) || segment % 4096 != 0 {
            let reason =
                format!("{segment} is not a multiple of 4096 within 16384 to {SEGMENT_BYTES_MAX}");
            return Err(CacheError::InvalidConfig { field: "l2_segment_bytes", reason });
        }
        let least = config.l2_segment_bytes_min();
        if config.l2_path.is_some() && (segment as usize) < least {
            let reason = format!(
                "{segment} is less than {least}, the minimum for these key and label limits"
            );
            return Err(CacheError::InvalidConfig { field: "l2_segment_bytes", reason });
        }
        config.l2_index_bytes_max =
            self.l2_index_bytes_max.unwrap_or_else(|| default_index_bytes(config.l2_bytes_max));
        within("l2_index_bytes_max", config.l2_index_bytes_max, 64 * KIB..=INDEX_BYTES_MAX)?;
        let segments = config.l2_bytes_max / u64::from(segment);
        if !(4..=SEGMENTS_MAX).contains(&segments) {
            let (least, most) = (4 * u64::from(segment), SEGMENTS_MAX * u64::from(segment));
            let reason = format!(
                "{} is not within {least} to {most}: 4 to {SEGMENTS_MAX} segments of {segment} \
                 bytes, which is l2_segment_bytes",
                config.l2_bytes_max
            );
            return Err(CacheError::InvalidConfig { field: "l2_bytes_max", reason });
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::namespace::NAMESPACES_MAX;

    fn no_time() -> FetchPolicy {
        FetchPolicy::default().hard_timeout(Duration::ZERO)
    }

    #[test]
    fn every_field_is_checked_and_named() {
        type Set = fn(BlobCacheConfigBuilder) -> BlobCacheConfigBuilder;
        let bad: [(&str, Set); 18] = [
            ("l2_status_socket", |builder| builder.l2_status_socket(true)),
            ("l2_read_bytes_max", |builder| builder.l2_read_bytes_max(1)),
            ("l1_bytes_max", |builder| builder.l1_bytes_max(1)),
            ("l2_write_amplification_pct_max", |it| it.l2_write_amplification_pct_max(99)),
            ("max_namespaces", |builder| builder.max_namespaces(0)),
            ("content_metadata_keys_max", |builder| builder.content_metadata_keys_max(1025)),
            ("content_metadata_bytes_max", |builder| builder.content_metadata_bytes_max(1 << 20)),
            ("key_bytes_max", |builder| builder.key_bytes_max(0)),
            ("labels_max", |builder| builder.labels_max(1025)),
            ("label_bytes_max", |builder| builder.label_bytes_max(1 << 20)),
            ("shard_count", |builder| builder.shard_count(0)),
            ("promotion_queue_max", |builder| builder.promotion_queue_max(0)),
            ("key_hash_bits", |builder| builder.key_hash_bits(65)),
            ("fetch_policy", |builder| builder.fetch_policy(no_time())),
            ("namespace", |builder| builder.namespace("n", |it| it.fetch_policy(no_time()))),
            ("namespace", |builder| builder.namespace(&"n".repeat(256), |it| it)),
            ("namespace", |builder| builder.namespace("n", |it| it).namespace("n", |it| it)),
            ("namespace", |builder| {
                let names = (0..=NAMESPACES_MAX).map(|number| number.to_string());
                names.fold(builder, |builder, name| builder.namespace(&name, |it| it))
            }),
        ];
        for (name, set) in bad {
            match set(BlobCacheConfig::builder()).build() {
                Err(CacheError::InvalidConfig { field, .. }) => assert_eq!(field, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
