//! `BlobCacheConfig`: every limit and its default. `builder` says what each is, and checks it.

mod builder;

use std::fmt;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

pub use self::builder::BlobCacheConfigBuilder;
pub(crate) use self::builder::L1_BYTES_MAX;
use crate::clock::Clock;
use crate::modes::{BackgroundSweep, CrashSafety, L2Compression, L2PromotionPolicy};
use crate::quota::{NamespaceQuota, Quotas};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: u64 = 1 << 30;

const INDEX_BYTES_MAX: usize = 1 << 40;

/// The most bytes of a namespace's name.
pub(crate) const NAMESPACE_BYTES_MAX: usize = 255;

/// What an entry of (key, value) counts against the budget, where that is not its memory.
pub(crate) type Charge = fn(key: &[u8], value: &[u8]) -> usize;

/// A checked configuration. [`BlobCacheConfig::default`] is a memory tier of 256 MiB.
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
    pub(crate) l2_bytes_max: u64,
    pub(crate) l2_segment_bytes: u32,
    pub(crate) l2_index_bytes_max: usize,
    pub(crate) l2_read_bytes_max: usize,
    pub(crate) l2_compression: L2Compression,
    pub(crate) l2_promotion_policy: L2PromotionPolicy,
    pub(crate) l2_second_chances: bool,
    pub(crate) promotion_queue_max: usize,
    pub(crate) crash_safety: CrashSafety,
    pub(crate) background_sweep: BackgroundSweep,
    pub(crate) quotas: Quotas,
}

impl BlobCacheConfig {
    /// A builder that starts from the defaults.
    pub fn builder() -> BlobCacheConfigBuilder {
        BlobCacheConfigBuilder::new(Self::defaults())
    }

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
            l2_bytes_max: 4 * GIB,
            l2_segment_bytes: default_segment_bytes(4 * GIB),
            l2_index_bytes_max: default_index_bytes(4 * GIB),
            l2_read_bytes_max: 64 * MIB,
            l2_compression: L2Compression::default(),
            l2_promotion_policy: L2PromotionPolicy::default(),
            l2_second_chances: true,
            promotion_queue_max: 1024,
            crash_safety: CrashSafety::default(),
            background_sweep: BackgroundSweep::default(),
            quotas: Quotas::default(),
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

    /// The directory of the disk tier; None where there is none.
    #[must_use]
    pub fn l2_path(&self) -> Option<&Path> {
        self.l2_path.as_deref()
    }

    /// The size of the disk tier's file, in bytes.
    #[must_use]
    pub fn l2_bytes_max(&self) -> u64 {
        self.l2_bytes_max
    }

    /// The budget of the index of the disk tier, in bytes of memory.
    #[must_use]
    pub fn l2_index_bytes_max(&self) -> usize {
        self.l2_index_bytes_max
    }

    /// What reads of the disk tier that are under way may take in memory, in bytes.
    #[must_use]
    pub fn l2_read_bytes_max(&self) -> usize {
        self.l2_read_bytes_max
    }

    /// What a crash may cost.
    #[must_use]
    pub fn crash_safety(&self) -> CrashSafety {
        self.crash_safety
    }

    /// Whether memory of what is gone is given back in the background.
    #[must_use]
    pub fn background_sweep(&self) -> BackgroundSweep {
        self.background_sweep
    }

    /// What a namespace may take of each tier; nothing but the tiers' own budgets where it has no
    /// quota.
    #[must_use]
    pub fn quota(&self, namespace: &str) -> NamespaceQuota {
        self.quotas.of(namespace).map_or_else(Default::default, |quota| quota.limits)
    }

    /// The number of lists that the SIEVE queue of one priority is cut into.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.shard_count
    }
}

impl Default for BlobCacheConfig {
    fn default() -> Self {
        Self::defaults()
    }
}

impl fmt::Debug for BlobCacheConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BlobCacheConfig")
            .field("l1_bytes_max", &self.l1_bytes_max)
            .field("max_namespaces", &self.max_namespaces)
            .field("content_metadata_keys_max", &self.content_metadata_keys_max)
            .field("content_metadata_bytes_max", &self.content_metadata_bytes_max)
            .field("key_bytes_max", &self.key_bytes_max)
            .field("labels_max", &self.labels_max)
            .field("label_bytes_max", &self.label_bytes_max)
            .field("shard_count", &self.shard_count)
            .field("l2_path", &self.l2_path)
            .field("l2_bytes_max", &self.l2_bytes_max)
            .field("l2_segment_bytes", &self.l2_segment_bytes)
            .field("crash_safety", &self.crash_safety)
            .field("background_sweep", &self.background_sweep)
            .field("quotas", &self.quotas)
            .finish_non_exhaustive()
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
