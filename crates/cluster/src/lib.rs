//! Invalidation that reaches every node: each has a [`tamis`] cache of its own, and a server that
//! keeps a log carries invalidations among them. What it has acknowledged, no hit of a governed
//! namespace is older than, on any node, once the lease is over.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use tamis::{BlobCache, BlobCacheConfig, Gate, WhileClosed};
//! use tamis_cluster::{Cluster, Invalidation};
//!
//! # async fn joined() -> Result<(), Box<dyn std::error::Error>> {
//! let gate = Gate::new();
//! let config = BlobCacheConfig::builder()
//!     .namespace("pages", |pages| pages.gate(&gate, WhileClosed::Miss));
//! let cache = BlobCache::open(config.build()?).await?;
//! let cluster = Cluster::builder(&cache, &gate)
//!     .lease(Duration::from_secs(2))
//!     .redis("redis://127.0.0.1/")?;
//! cluster.live().await?;
//! cluster.invalidate(Invalidation::key("pages", "/about")).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The README says what is promised, what is not, and how to size the lease.
//!
//! # Layers
//!
//! Each uses those below it only:
//!
//! - [`Cluster`] starts the tasks of a node, which send, follow the log, and wait for news;
//! - the node: the outbox, and the callers that wait;
//! - the transports, one for each kind of server, and the local cache, behind a trait each;
//! - the follower, which decides what an answer of the server means, and does no I/O;
//! - messages, positions, errors.

#![cfg_attr(not(feature = "redis"), allow(dead_code, reason = "there is no other transport"))]

mod cluster;
mod error;
mod failpoint;
mod follower;
mod invalidation;
mod local;
mod message;
#[cfg(test)]
mod model;
mod node;
mod outbox;
mod position;
#[cfg(feature = "redis")]
mod redis_log;
mod settings;
mod stats;
mod tasks;
mod transport;

pub use cluster::{Cluster, ClusterBuilder};
pub use error::ClusterError;
pub use invalidation::Invalidation;
pub use stats::{ClusterState, ClusterStats};

/// Its examples are compiled.
#[cfg(all(doctest, feature = "redis"))]
#[doc = include_str!("../README.md")]
struct Readme;
