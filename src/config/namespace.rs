//! `NamespaceConfig`: what applies within one namespace, and its builder.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::range::{NAMESPACE_BYTES_MAX, of_namespace, within};
use crate::error::CacheError;
use crate::failpoint::{Failpoint, failpoint};
use crate::fetch_policy::FetchPolicy;
use crate::gate::{Gate, Gates, Governed, WhileClosed};
use crate::modes::{L1Admission, L2Compression};
use crate::policy::BlobCachePolicy;
use crate::quota::NamespaceQuota;

/// What applies within one namespace: its own settings, and the cache's where it has none. From
/// [`BlobCacheConfig::namespace`](super::BlobCacheConfig::namespace).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceConfig {
    pub(super) policy: BlobCachePolicy,
    pub(super) quota: NamespaceQuota,
    pub(super) compression: L2Compression,
    pub(super) fetch_policy: FetchPolicy,
    pub(super) governed: Option<Governed>,
}

impl NamespaceConfig {
    /// The policy of puts that have none, unless their handle has one.
    #[must_use]
    pub fn policy(&self) -> &BlobCachePolicy {
        &self.policy
    }

    /// The limits in each tier.
    #[must_use]
    pub fn quota(&self) -> NamespaceQuota {
        self.quota
    }

    /// Whether values are compressed on their way to disk.
    #[must_use]
    pub fn compression(&self) -> L2Compression {
        self.compression
    }

    /// When fetches are given up and tried again, unless their handle says otherwise.
    #[must_use]
    pub fn fetch_policy(&self) -> FetchPolicy {
        self.fetch_policy
    }

    /// The gate that its gets ask, if any, and what they answer while that is closed.
    #[must_use]
    pub fn gate(&self) -> Option<(&Gate, WhileClosed)> {
        self.governed.as_ref().map(|governed| (&governed.gate, governed.while_closed))
    }
}

/// The settings of one namespace, for
/// [`BlobCacheConfigBuilder::namespace`](super::BlobCacheConfigBuilder::namespace).
///
/// ```
/// use std::time::Duration;
/// use tamis::*;
///
/// let minute = BlobCachePolicy::default().ttl(Duration::from_secs(60));
/// let patient = FetchPolicy::default().hard_timeout(Duration::from_secs(2));
/// let quota = NamespaceQuota { l1_bytes_max: Some(16 << 20), ..NamespaceQuota::default() };
/// let set = |pages: NamespaceConfigBuilder| {
///     pages
///         .policy(minute)
///         .l1_admission(L1Admission::Always)
///         .fetch_policy(patient)
///         .quota(quota)
///         .compression(L2Compression::Off)
/// };
/// let config = BlobCacheConfig::builder().namespace("pages", set).build()?;
/// assert_eq!(config.namespace("pages").fetch_policy(), patient);
/// assert_eq!(config.namespace("others").fetch_policy(), FetchPolicy::default());
/// # Ok::<(), CacheError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct NamespaceConfigBuilder {
    policy: Option<BlobCachePolicy>,
    l1_admission: Option<L1Admission>,
    compression: Option<L2Compression>,
    fetch_policy: Option<FetchPolicy>,
    governed: Option<Governed>,
    pub(super) quota: Option<NamespaceQuota>,
}

impl NamespaceConfigBuilder {
    /// The policy of puts and fetched values that have none of their own, and whose handle has
    /// none. Default: [`BlobCachePolicy::default`].
    #[must_use]
    pub fn policy(mut self, policy: BlobCachePolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Whether entries may live in memory: replaces only the admission of the namespace's
    /// [`policy`](Self::policy), in either order of calls. Default: that of the policy.
    #[must_use]
    pub fn l1_admission(mut self, admission: L1Admission) -> Self {
        self.l1_admission = Some(admission);
        self
    }

    /// Limits of the namespace in each tier: the same as
    /// [`BlobCacheConfigBuilder::quota`](super::BlobCacheConfigBuilder::quota), with its bound on
    /// their number. Default: the limits that were set there, or none.
    #[must_use]
    pub fn quota(mut self, quota: NamespaceQuota) -> Self {
        self.quota = Some(quota);
        self
    }

    /// Whether values of the namespace are compressed on their way to disk, whatever the cache's
    /// [`l2_compression`](super::BlobCacheConfigBuilder::l2_compression). Values that are on disk
    /// already are read either way. Default: the cache's.
    #[must_use]
    pub fn compression(mut self, compression: L2Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// When fetches of the namespace are given up and tried again, unless they go through a handle
    /// [with its own policy](crate::BlobCacheNamespace::with_fetch_policy). Default: the cache's
    /// [`fetch_policy`](super::BlobCacheConfigBuilder::fetch_policy).
    #[must_use]
    pub fn fetch_policy(mut self, policy: FetchPolicy) -> Self {
        self.fetch_policy = Some(policy);
        self
    }

    /// Gets of the namespace ask a [`Gate`] from the open on, also after the namespace was emptied
    /// or flushed. A gate can govern any number of namespaces, of other caches too. Default: none.
    ///
    /// ```
    /// use tamis::*;
    ///
    /// let gate = Gate::new();
    /// let config = BlobCacheConfig::builder()
    ///     .namespace("pages", |pages| pages.gate(&gate, WhileClosed::Stale))
    ///     .namespace("sessions", |sessions| sessions.gate(&gate, WhileClosed::Miss))
    ///     .build()?;
    /// assert_eq!(config.namespace("pages").gate(), Some((&gate, WhileClosed::Stale)));
    /// assert_eq!(config.namespace("others").gate(), None);
    /// # Ok::<(), CacheError>(())
    /// ```
    #[must_use]
    pub fn gate(mut self, gate: &Gate, while_closed: WhileClosed) -> Self {
        self.governed = Some(Governed { gate: gate.clone(), while_closed });
        self
    }

    pub(super) fn finish(self) -> NamespaceDefaults {
        let Self { mut policy, l1_admission, compression, fetch_policy, governed, quota: _ } = self;
        if let Some(admission) = l1_admission {
            policy = Some(policy.unwrap_or_default().l1_admission(admission));
        }
        NamespaceDefaults { policy: policy.map(Arc::new), compression, fetch_policy, governed }
    }
}

/// Each put into a namespace by its name looks for the name among them.
pub(super) const NAMESPACES_MAX: usize = 4096;

/// What one namespace has of its own, besides a quota.
#[derive(Debug, Clone, Default)]
pub(crate) struct NamespaceDefaults {
    /// Shared with the handles of the namespace.
    pub(crate) policy: Option<Arc<BlobCachePolicy>>,
    pub(crate) compression: Option<L2Compression>,
    pub(crate) fetch_policy: Option<FetchPolicy>,
    pub(crate) governed: Option<Governed>,
}

static NONE: NamespaceDefaults =
    NamespaceDefaults { policy: None, compression: None, fetch_policy: None, governed: None };

/// Those of all namespaces, in order of name once they are checked.
#[derive(Clone, Default)]
pub(crate) struct DefaultsByName(Vec<(Box<str>, NamespaceDefaults)>);

impl DefaultsByName {
    pub(super) fn add(&mut self, name: &str, defaults: NamespaceDefaults) {
        self.0.push((name.into(), defaults));
    }

    /// Sorts them.
    ///
    /// # Errors
    /// There are too many, one was added twice, or a setting is out of its range.
    pub(super) fn check(&mut self, has_spawner: bool) -> Result<(), CacheError> {
        within("namespace", self.0.len(), 0..=NAMESPACES_MAX)?;
        self.0.sort_by(|(one, _), (other, _)| one.cmp(other));
        // Bounded: by the namespaces of a configuration, once.
        if let Some(twice) = self.0.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let reason = format!("{:?} is configured twice", twice[0].0);
            return Err(CacheError::InvalidConfig { field: "namespace", reason });
        }
        // Bounded: likewise.
        for (name, own) in &self.0 {
            let policy = own.fetch_policy.unwrap_or_default();
            within("namespace", name.len(), 0..=NAMESPACE_BYTES_MAX)
                .and_then(|()| policy.check("namespace", has_spawner))
                .map_err(|error| of_namespace(name, error))?;
        }
        Ok(())
    }

    pub(crate) fn of(&self, name: &str) -> &NamespaceDefaults {
        let at = self.0.binary_search_by(|(of, _)| (**of).cmp(name));
        let at = at.ok().filter(|_| !failpoint(Failpoint::NamespaceDefaultsIgnored));
        at.map_or(&NONE, |at| &self.0[at].1)
    }

    pub(crate) fn gates(&self) -> Gates {
        // Bounded: by the namespaces of a configuration.
        let governed = self.0.iter().filter_map(|(name, own)| Some((name, own.governed.as_ref()?)));
        Gates::new(governed.map(|(name, governed)| (name.clone(), governed.clone())))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.deref())
    }
}

/// With the names of the setters.
impl fmt::Debug for DefaultsByName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.0.iter().map(|(name, own)| (name, own))).finish()
    }
}
