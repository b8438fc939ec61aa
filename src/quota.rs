//! `NamespaceQuota`: a limit on what a namespace takes of each tier.

use std::fmt;

/// A limit on what one namespace takes of each tier, so that it cannot push out the entries of
/// others. The default is no limit.
///
/// In memory, a namespace at its quota evicts among its own entries, in a SIEVE order of its own.
///
/// On disk, a namespace at its quota gets no more records until some of its own are overwritten,
/// invalidated, reclaimed, or found to have expired. A put beyond that is held in memory only, if
/// memory may hold it, and else nowhere; it is counted among
/// [`l2_full_rejections`](crate::BlobCacheStats::l2_full_rejections).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct NamespaceQuota {
    /// Bytes in memory, counted as for the configuration's `l1_bytes_max`. Default: no limit but
    /// that one.
    pub l1_bytes_max: Option<usize>,
    /// Bytes of live records on disk, estimated from the blocks that the records touch: within some
    /// percent for a thousand records of mixed sizes, and off by up to half a block (2 KiB) a
    /// record where all have neighbours of one size. Default: no limit.
    pub l2_bytes_max: Option<u64>,
}

/// The quotas that were configured, by name.
#[derive(Clone, Default)]
pub(crate) struct Quotas(Vec<(Box<str>, NamespaceQuota)>);

/// One of them, with its number among all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quota {
    pub(crate) number: usize,
    pub(crate) limits: NamespaceQuota,
}

impl Quotas {
    /// The last one counts.
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

    /// Their limits in memory, by their numbers.
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
