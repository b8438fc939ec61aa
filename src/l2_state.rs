//! `L2State`: whether the disk tier works.

use std::fmt;

use crate::figures::Measured;

/// Whether the disk tier works.
///
/// ```
/// # futures::executor::block_on(async {
/// # use tamis::*;
/// # let cache = BlobCache::open(BlobCacheConfig::default()).await?;
/// match cache.stats().l2_state() {
///     L2State::Degraded { reason } => eprintln!("the disk tier is off: {reason}"),
///     state => println!("the disk tier is {state}"),
/// }
/// # Ok::<(), CacheError>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum L2State {
    /// There is no disk tier.
    #[default]
    Off,
    /// It works.
    Healthy,
    /// It failed and was turned off, or could not be opened and is not
    /// [required](crate::BlobCacheConfigBuilder::l2_required); the cache runs in memory only. After
    /// a failure the disk tier begins anew, empty, once the device accepts writes, or once
    /// [`reopen_l2`](crate::BlobCache::reopen_l2) has succeeded.
    Degraded {
        /// The failure.
        reason: String,
    },
}

/// Of the states, in the order in which they are declared.
impl Measured for L2State {
    fn measured(&self) -> f64 {
        match self {
            Self::Off => 0.0,
            Self::Healthy => 1.0,
            Self::Degraded { .. } => 2.0,
        }
    }
}

impl fmt::Display for L2State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => formatter.pad("off"),
            Self::Healthy => formatter.pad("healthy"),
            Self::Degraded { reason } => write!(formatter, "degraded: {reason}"),
        }
    }
}
