//! `NamespaceQuota`: limits of one namespace in each tier.

use std::fmt;

/// Limits of one namespace in each tier, so that it cannot push out the entries of others. Default:
/// no limits.
///
/// In memory, a namespace at its quota evicts among its own entries, in a SIEVE order of its own.
///
/// On disk, a namespace at its quota gets no more records until some of its own are overwritten,
/// invalidated, reclaimed, or found to have expired. A put beyond that is stored in memory only, if
/// memory may hold it, and counted in
/// [`l2_full_rejections`](crate::BlobCacheStats::l2_full_rejections).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct NamespaceQuota {
    /// Bytes in memory, counted as for the configuration's `l1_bytes_max`. Default: no separate
    /// limit.
    pub l1_bytes_max: Option<usize>,
    /// Bytes of live records on disk, estimated from the blocks that the records touch: within a
    /// few percent for a thousand records of mixed sizes, off by up to half a block (2 KiB) a
    /// record if all have neighbours of one size. Default: no limit.
    pub l2_bytes_max: Option<u64>,
}

#[derive(Clone, Default)]
pub(crate) struct Quotas(Vec<(Box<str>, NamespaceQuota)>);

/// A quota and its number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quota {
    pub(crate) number: usize,
    pub(crate) limits: NamespaceQuota,
}

impl Quotas {
    /// The last quota of a name wins.
    pub(crate) fn set(&mut self, namespace: &str, quota: NamespaceQuota) {
        match self.0.binary_search_by(|(name, _)| (**name).cmp(namespace)) {
            Ok(at) => self.0[at].1 = quota,
            Err(at) => self.0.insert(at, (namespace.into(), quota)),
        }
    }

    pub(crate) fn of(&self, namespace: &str) -> Option<Quota> {
        let number = self.0.binary_search_by(|(name, _)| (**name).cmp(namespace)).ok()?;
        Some(Quota { number, limits: self.0[number].1 })
    }

    /// The memory limits, by number.
    pub(crate) fn in_memory(&self) -> impl Iterator<Item = Option<usize>> {
        self.0.iter().map(|(_, quota)| quota.l1_bytes_max)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, NamespaceQuota)> {
        self.0.iter().map(|(name, quota)| (&**name, *quota))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }
}

impl fmt::Debug for Quotas {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}
