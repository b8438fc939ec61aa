//! `ClusterError`.

use std::time::Duration;

use tamis::CacheError;

/// Why a cluster was not joined, or what is not known of an invalidation.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The address of the server is not understood.
    #[error("the server's address is not understood: {reason}")]
    Address {
        /// What is wrong with it.
        reason: String,
    },
    /// A setting is out of its range.
    #[error("{field}: {reason}")]
    InvalidConfig {
        /// The setting.
        field: &'static str,
        /// Its range.
        reason: &'static str,
    },
    /// The invalidation is too large to be sent. Nothing was done.
    #[error("the invalidation has {size} bytes; {max} are allowed")]
    TooLarge {
        /// Its bytes.
        size: usize,
        /// How many are allowed.
        max: usize,
    },
    /// The server has not acknowledged the invalidation in time. It is in force on this node, and
    /// goes on being sent for as long as the cluster is open.
    #[error("the invalidation has not been acknowledged within {waited:?}; it is in force here")]
    Unacknowledged {
        /// How long it was waited for.
        waited: Duration,
    },
    /// The cache of this node has failed. The invalidation is sent to the others nevertheless.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The cluster was closed on this node.
    #[error("the cluster is closed")]
    Closed,
}
