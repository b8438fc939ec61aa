//! `BlobCacheConfig`: every limit and its default. `builder` documents and checks them.

mod builder;
mod l2;
mod namespace;
mod range;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;

pub use self::builder::BlobCacheConfigBuilder;
pub use self::l2::L2ConfigBuilder;
use self::namespace::DefaultsByName;
pub use self::namespace::{NamespaceConfig, NamespaceConfigBuilder};
pub(crate) use self::range::{L1_BYTES_MAX, NAMESPACE_BYTES_MAX, check_l1_bytes_max};
use crate::clock::Clock;
use crate::fetch_policy::FetchPolicy;
use crate::modes::{
    BackgroundSweep, CrashSafety, L2Admission, L2Compression, L2Engine, L2PromotionPolicy,
};
use crate::quota::{NamespaceQuota, Quotas};
use crate::spawn::Spawn;
use crate::write_rate::WriteRate;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: u64 = 1 << 30;

const INDEX_BYTES_MAX: usize = 1 << 40;

/// The charge of an entry of (key, value), if it is not its memory.
pub(crate) type Charge = fn(key: &[u8], value: &[u8]) -> usize;

/// A checked configuration. [`BlobCacheConfig::default`] is a memory tier of 256 MiB; everything
/// else is set through the [builder](Self::builder), whose setters document each setting. There is
/// a getter for each.
#[derive(Clone)]
pub struct BlobCacheConfig {
    pub(crate) l1_bytes_max: usize,
    pub(crate) max_namespaces: usize,
    pub(crate) content_metadata_keys_max: usize,
    pub(crate) content_metadata_bytes_max: usize,
    pub(crate) key_bytes_max: usize,
    pub(crate) labels_max: usize,
    pub(crate) label_bytes_max: usize,
    pub(crate) shard_count: usize,
    pub(crate) clock: Clock,
    pub(crate) charge: Option<Charge>,
    pub(crate) key_hash_bits: u32,
    /// None: no disk tier.
    pub(crate) l2_path: Option<PathBuf>,
    pub(crate) l2_required: bool,
    pub(crate) l2_status_socket: bool,
    pub(crate) l2_bytes_max: u64,
    pub(crate) l2_segment_bytes: u32,
    /// The user asked for it.
    pub(crate) l2_segment_is_set: bool,
    pub(crate) l2_index_bytes_max: usize,
    pub(crate) l2_read_bytes_max: usize,
    pub(crate) l2_engine: L2Engine,
    pub(crate) l2_compression: L2Compression,
    pub(crate) l2_admission: L2Admission,
    pub(crate) l2_promotion_policy: L2PromotionPolicy,
    pub(crate) l2_second_chances: bool,
    pub(crate) l2_write_amplification_pct_max: u32,
    /// None: no limit.
    pub(crate) l2_write_rate_max: Option<WriteRate>,
    pub(crate) promotion_queue_max: usize,
    pub(crate) crash_safety: CrashSafety,
    pub(crate) background_sweep: BackgroundSweep,
    pub(crate) quotas: Quotas,
    pub(crate) namespaces: DefaultsByName,
    pub(crate) fetch_policy: FetchPolicy,
    pub(crate) spawner: Option<Arc<dyn Spawn>>,
    pub(crate) spawned_fetches_max: usize,
}

impl BlobCacheConfig {
    fn defaults() -> Self {
        Self {
            l1_bytes_max: 256 * MIB,
            max_namespaces: 256,
            content_metadata_keys_max: 32,
            content_metadata_bytes_max: 4 * KIB,
            key_bytes_max: 4 * KIB,
            labels_max: 64,
            label_bytes_max: 4 * KIB,
            shard_count: default_shard_count(256 * MIB),
            clock: Clock::system(),
            charge: None,
            key_hash_bits: u64::BITS,
            l2_path: None,
            l2_required: true,
            l2_status_socket: false,
            l2_bytes_max: 4 * GIB,
            l2_segment_bytes: default_segment_bytes(4 * GIB),
            l2_segment_is_set: false,
            l2_index_bytes_max: default_index_bytes(4 * GIB),
            l2_read_bytes_max: 64 * MIB,
            l2_engine: L2Engine::default(),
            l2_compression: L2Compression::default(),
            l2_admission: L2Admission::default(),
            l2_promotion_policy: L2PromotionPolicy::default(),
            l2_second_chances: true,
            l2_write_amplification_pct_max: 130,
            l2_write_rate_max: None,
            promotion_queue_max: 1024,
            crash_safety: CrashSafety::default(),
            background_sweep: BackgroundSweep::default(),
            quotas: Quotas::default(),
            namespaces: DefaultsByName::default(),
            fetch_policy: FetchPolicy::default(),
            spawner: None,
            spawned_fetches_max: 1024,
        }
    }

    /// The budget of the memory tier, in bytes.
    #[must_use]
    pub fn l1_bytes_max(&self) -> usize {
        self.l1_bytes_max
    }

    /// The most namespaces that can hold entries at one time.
    #[must_use]
    pub fn max_namespaces(&self) -> usize {
        self.max_namespaces
    }

    /// The most content metadata keys of one entry.
    #[must_use]
    pub fn content_metadata_keys_max(&self) -> usize {
        self.content_metadata_keys_max
    }

    /// The most bytes of one entry's content metadata, keys and values together.
    #[must_use]
    pub fn content_metadata_bytes_max(&self) -> usize {
        self.content_metadata_bytes_max
    }

    /// The most bytes of a key.
    #[must_use]
    pub fn key_bytes_max(&self) -> usize {
        self.key_bytes_max
    }

    /// The most tags and dependencies of one entry, together.
    #[must_use]
    pub fn labels_max(&self) -> usize {
        self.labels_max
    }

    /// The most bytes of one entry's tags and dependencies, together.
    #[must_use]
    pub fn label_bytes_max(&self) -> usize {
        self.label_bytes_max
    }

    /// The number of lists into which the SIEVE queue of one priority is divided.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.shard_count
    }

    /// The directory of the disk tier; None without a disk tier.
    #[must_use]
    pub fn l2_path(&self) -> Option<&Path> {
        self.l2_path.as_deref()
    }

    /// Whether an open fails if the disk tier cannot be opened.
    #[must_use]
    pub fn l2_required(&self) -> bool {
        self.l2_required
    }

    /// Whether a socket in the directory of the disk tier tells other processes of its figures.
    #[must_use]
    pub fn l2_status_socket(&self) -> bool {
        self.l2_status_socket
    }

    /// The size of the disk tier's file, in bytes.
    #[must_use]
    pub fn l2_bytes_max(&self) -> u64 {
        self.l2_bytes_max
    }

    /// The size of a segment of the disk tier, in bytes.
    #[must_use]
    pub fn l2_segment_bytes(&self) -> u32 {
        self.l2_segment_bytes
    }

    /// The memory budget of the disk index, in bytes.
    #[must_use]
    pub fn l2_index_bytes_max(&self) -> usize {
        self.l2_index_bytes_max
    }

    /// The memory budget of disk reads in progress, in bytes.
    #[must_use]
    pub fn l2_read_bytes_max(&self) -> usize {
        self.l2_read_bytes_max
    }

    /// What transfers the file of the disk tier.
    #[must_use]
    pub fn l2_engine(&self) -> L2Engine {
        self.l2_engine
    }

    /// Whether values are compressed on their way to disk.
    #[must_use]
    pub fn l2_compression(&self) -> L2Compression {
        self.l2_compression
    }

    /// Which new values the disk tier takes once it is full.
    #[must_use]
    pub fn l2_admission(&self) -> L2Admission {
        self.l2_admission
    }

    /// When a value read from disk is promoted to memory.
    #[must_use]
    pub fn l2_promotion_policy(&self) -> L2PromotionPolicy {
        self.l2_promotion_policy
    }

    /// The most values waiting for promotion.
    #[must_use]
    pub fn promotion_queue_max(&self) -> usize {
        self.promotion_queue_max
    }

    /// Whether records that were read are reinserted when their segment is reused.
    #[must_use]
    pub fn l2_second_chances(&self) -> bool {
        self.l2_second_chances
    }

    /// See [`BlobCacheConfigBuilder::l2_write_amplification_pct_max`].
    #[must_use]
    pub fn l2_write_amplification_pct_max(&self) -> u32 {
        self.l2_write_amplification_pct_max
    }

    /// How fast the disk tier may be written, if that is limited.
    #[must_use]
    pub fn l2_write_rate_max(&self) -> Option<WriteRate> {
        self.l2_write_rate_max
    }

    /// How much survives a crash.
    #[must_use]
    pub fn crash_safety(&self) -> CrashSafety {
        self.crash_safety
    }

    /// Whether memory of expired, flushed and invalidated entries is freed in the background.
    #[must_use]
    pub fn background_sweep(&self) -> BackgroundSweep {
        self.background_sweep
    }

    /// The quota of a namespace; no limits if it has none.
    #[must_use]
    pub fn quota(&self, namespace: &str) -> NamespaceQuota {
        self.quotas.of(namespace).map_or_else(Default::default, |quota| quota.limits)
    }

    /// All quotas by namespace, in order of name.
    pub fn quotas(&self) -> impl Iterator<Item = (&str, NamespaceQuota)> {
        self.quotas.iter()
    }

    /// What applies within a namespace, configured or not.
    #[must_use]
    pub fn namespace(&self, name: &str) -> NamespaceConfig {
        let own = self.namespaces.of(name);
        NamespaceConfig {
            policy: own.policy.as_deref().cloned().unwrap_or_default(),
            quota: self.quota(name),
            compression: own.compression.unwrap_or(self.l2_compression),
            fetch_policy: own.fetch_policy.unwrap_or(self.fetch_policy),
            governed: own.governed.clone(),
        }
    }

    /// The names of the namespaces that were configured by
    /// [`BlobCacheConfigBuilder::namespace`], in order.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.namespaces.names()
    }

    /// When fetches are given up and tried again, where nothing else is said.
    #[must_use]
    pub fn fetch_policy(&self) -> FetchPolicy {
        self.fetch_policy
    }

    /// Where spawned fetches run, if anywhere.
    #[must_use]
    pub fn spawner(&self) -> Option<&Arc<dyn Spawn>> {
        self.spawner.as_ref()
    }

    /// The most fetches that are given to the spawner at one time.
    #[must_use]
    pub fn spawned_fetches_max(&self) -> usize {
        self.spawned_fetches_max
    }

    /// The source of time.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The function that charges an entry; None if its memory counts.
    #[must_use]
    pub fn l1_charge(&self) -> Option<Charge> {
        self.charge
    }

    /// Bits of the key hash that are kept.
    #[doc(hidden)]
    #[must_use]
    pub fn key_hash_bits(&self) -> u32 {
        self.key_hash_bits
    }
}

impl BlobCacheConfig {
    /// The least size of a segment: an invalidation's record must fit in an empty one with its
    /// directory entry.
    pub(crate) fn l2_segment_bytes_min(&self) -> usize {
        16 * KIB + 2 * self.key_bytes_max + 20 * self.labels_max
    }
}

#[cfg(all(any(test, feature = "cli"), feature = "disk", target_os = "linux"))]
impl BlobCacheConfig {
    pub(crate) const SEGMENTS_MAX: u64 = range::SEGMENTS_MAX;

    pub(crate) fn default_index_bytes(l2_bytes_max: u64) -> usize {
        default_index_bytes(l2_bytes_max)
    }

    pub(crate) fn default_segment_bytes(l2_bytes_max: u64) -> u32 {
        default_segment_bytes(l2_bytes_max)
    }
}

impl Default for BlobCacheConfig {
    fn default() -> Self {
        Self::defaults()
    }
}

/// Adds fields to what is shown, each under its own name or another one.
macro_rules! fields {
    ($shown:ident: $($field:ident $(as $name:ident)?,)*) => {
        $($shown.field(fields!(@name $field $($name)?), $field);)*
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $name:ident) => { stringify!($name) };
}

/// With the names of the setters.
impl fmt::Debug for BlobCacheConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Destructured, so that a new setting cannot be forgotten here.
        let Self {
            l1_bytes_max,
            max_namespaces,
            content_metadata_keys_max,
            content_metadata_bytes_max,
            key_bytes_max,
            labels_max,
            label_bytes_max,
            shard_count,
            clock,
            charge,
            key_hash_bits,
            l2_path,
            l2_required,
            l2_status_socket,
            l2_bytes_max,
            l2_segment_bytes,
            l2_segment_is_set: _,
            l2_index_bytes_max,
            l2_read_bytes_max,
            l2_engine,
            l2_compression,
            l2_admission,
            l2_promotion_policy,
            l2_second_chances,
            l2_write_amplification_pct_max,
            l2_write_rate_max,
            promotion_queue_max,
            crash_safety,
            background_sweep,
            quotas,
            namespaces,
            fetch_policy,
            spawner,
            spawned_fetches_max,
        } = self;
        let mut shown = formatter.debug_struct("BlobCacheConfig");
        fields! { shown:
            l1_bytes_max, max_namespaces, content_metadata_keys_max, content_metadata_bytes_max,
            key_bytes_max, labels_max, label_bytes_max, shard_count, clock, charge as l1_charge,
            key_hash_bits, l2_path, l2_required, l2_status_socket, l2_bytes_max, l2_segment_bytes,
            l2_index_bytes_max, l2_read_bytes_max, l2_engine, l2_compression, l2_admission,
            l2_promotion_policy, l2_second_chances, l2_write_amplification_pct_max,
            l2_write_rate_max, promotion_queue_max, crash_safety, background_sweep, quotas,
            namespaces, fetch_policy, spawner, spawned_fetches_max,
        }
        shown.finish()
    }
}

pub(crate) fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// A 64th of the file, in whole MiB.
fn default_segment_bytes(l2_bytes_max: u64) -> u32 {
    let mib = (l2_bytes_max / 64 / (1 << 20)).clamp(1, 256);
    u32::try_from(mib << 20).unwrap_or(1 << 20)
}

fn default_index_bytes(l2_bytes_max: u64) -> usize {
    usize::try_from(l2_bytes_max / 32).unwrap_or(INDEX_BYTES_MAX).clamp(MIB, INDEX_BYTES_MAX)
}

fn default_shard_count(l1_bytes_max: usize) -> usize {
    (4 * cores()).min(64).min(l1_bytes_max / MIB).max(1)
}
