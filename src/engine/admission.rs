//! `Admission`: refuses calls before they change anything, and limits what memory may hold.

use std::sync::Arc;

use crate::commit_lock::CommitLock;
use crate::config::{BlobCacheConfig, L1_BYTES_MAX, NAMESPACE_BYTES_MAX};
use crate::engine::disk_tier::DiskTier;
use crate::engine::parts::Parts;
use crate::entry::{Entry, Extras};
use crate::error::{BlobLimit, CacheError};
use crate::l1::L1;
use crate::modes::L1Admission;
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;
use crate::wake::contained;

/// A blob that the disk does not take may be so many times as large.
const ALONE_FACTOR: usize = 4;

pub(crate) struct Admission {
    config: Arc<BlobCacheConfig>,
    commit_lock: Arc<CommitLock>,
    l1: Arc<L1>,
    disk: Arc<DiskTier>,
}

impl Admission {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            config: parts.config.clone(),
            commit_lock: parts.commit_lock.clone(),
            l1: parts.l1.clone(),
            disk: parts.disk.clone(),
        }
    }

    pub(crate) fn check_open(&self) -> Result<(), CacheError> {
        if self.commit_lock.is_closed() { Err(CacheError::Closed) } else { self.disk.check_ours() }
    }

    pub(crate) fn check_namespace(&self, name: &str) -> Result<(), CacheError> {
        within(name.len(), NAMESPACE_BYTES_MAX, |size, max| CacheError::NamespaceTooLarge {
            size,
            max,
        })
    }

    pub(crate) fn check_key(&self, key: &[u8]) -> Result<(), CacheError> {
        within(key.len(), self.config.key_bytes_max, |size, max| CacheError::KeyTooLarge {
            size,
            max,
        })
    }

    pub(crate) fn check_labels<'a>(
        &self,
        labels: impl Iterator<Item = &'a str>,
    ) -> Result<(), CacheError> {
        // Bounded: by the labels of one call.
        let (labels, bytes) = labels.fold((0, 0), |(n, bytes), label| (n + 1, bytes + label.len()));
        let (max_labels, max_bytes) = (self.config.labels_max, self.config.label_bytes_max);
        if labels > max_labels || bytes > max_bytes {
            return Err(CacheError::LabelsTooLarge { labels, bytes, max_labels, max_bytes });
        }
        Ok(())
    }

    pub(crate) fn check_put(
        &self,
        namespace: &str,
        key: &[u8],
        put: &BlobCachePut,
    ) -> Result<(), CacheError> {
        self.check_namespace(namespace)?;
        self.check_key(key)?;
        self.check_labels(put.tags.iter().chain(&put.dependencies).map(String::as_str))?;
        let metadata = &put.content_metadata;
        let keys = metadata.len();
        // Bounded: by the metadata of one put, before anything is held.
        let bytes = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        let max_keys = self.config.content_metadata_keys_max;
        let max_bytes = self.config.content_metadata_bytes_max;
        if keys > max_keys || bytes > max_bytes {
            return Err(CacheError::MetadataTooLarge { keys, bytes, max_keys, max_bytes });
        }
        Ok(())
    }

    pub(crate) fn charge(&self, key: &[u8], value: &[u8], extras: Option<&Extras>) -> usize {
        let footprint = || Entry::footprint(key, value, extras);
        match self.config.charge {
            // Capped above any budget, so that sums do not overflow. Contained, because a panic of
            // the user's closure must not end a task that others need.
            Some(charge) => contained(|| charge(key, value))
                .map_or_else(footprint, |charge| charge.clamp(1, L1_BYTES_MAX + 1)),
            None => footprint(),
        }
    }

    pub(crate) fn l1_charge_max(&self, admission: L1Admission) -> usize {
        match admission {
            L1Admission::Never => 0,
            L1Admission::Auto => self.l1.bytes_max() / 8,
            L1Admission::Always => self.l1.bytes_max(),
        }
    }

    /// Whether memory takes a blob of this charge if the disk does not. Else those that are too
    /// large for a share of memory would all be on disk, and scans of them push out the rest.
    pub(crate) fn is_held_alone(
        &self,
        namespace: &str,
        policy: &BlobCachePolicy,
        charge: usize,
    ) -> bool {
        let quota = self.config.quota(namespace).l1_bytes_max.unwrap_or(usize::MAX);
        let max = self.l1_charge_max(policy.l1_admission).saturating_mul(ALONE_FACTOR);
        charge <= max.min(self.l1.bytes_max()).min(quota)
    }

    /// Whether memory takes a blob of this charge. An error if no tier does.
    pub(crate) fn admits(
        &self,
        namespace: &str,
        policy: &BlobCachePolicy,
        value_bytes: usize,
        charge: usize,
    ) -> Result<bool, CacheError> {
        if let Some(max) = policy.blob_bytes_max.filter(|max| value_bytes > *max) {
            let (size, limit) = (value_bytes, BlobLimit::Policy);
            return Err(CacheError::BlobTooLarge { size, max, limit });
        }
        if policy.l1_admission == L1Admission::Never {
            return Ok(false);
        }
        let quota = self.config.quota(namespace).l1_bytes_max.unwrap_or(usize::MAX);
        let max = self.l1_charge_max(policy.l1_admission).min(quota);
        let below = self.disk.l2().filter(|_| self.disk.has_file());
        let below = below.map_or(0, |l2| l2.geometry().segment_bytes() as usize);
        if charge <= max {
            Ok(true)
        } else if charge <= below {
            Ok(false)
        } else {
            let limit = match policy.l1_admission {
                _ if below > max => BlobLimit::Segment,
                _ if max == quota => BlobLimit::Quota,
                L1Admission::Always => BlobLimit::Memory,
                _ => BlobLimit::ShareOfMemory,
            };
            Err(CacheError::BlobTooLarge { size: charge, max: max.max(below), limit })
        }
    }
}

fn within(
    size: usize,
    max: usize,
    error: impl FnOnce(usize, usize) -> CacheError,
) -> Result<(), CacheError> {
    if size > max { Err(error(size, max)) } else { Ok(()) }
}
