//! The documents of the repository's `docs` folder.
//!
//! - [`freshness`]: ttls, stale entries, fetching, read points, restarts.
//! - [`guarantees`]: what a returned call means in each mode, and where the limits are.
//! - [`operations`]: the machine, sizes, watching a running cache, log lines, figures, alerts.
//! - [`coming_from`]: for those who know RedDB's cache, foyer, moka, FusionCache or Redis.
//! - [`comparison`]: with foyer, moka, CacheLib, cache2 and Redis.
//! - [`observe`]: log lines, spans and figures.
//! - [`architecture`]: the map of the code.
//! - [`design`]: the reasons.
//! - [`proof`]: why nothing is stale, and how that is tested.
//! - [`reliability`]: what of it has been tried, and how often.
//! - [`performance`]: beside peers and the device.
//! - [`hit_ratio`]: misses on traces beside other policies.
//! - [`format`](mod@self::format): the bytes on disk.

// The documents end with definitions of links to each other's files. The first definition of a name
// wins, so those here lead to pages instead.

/// How the parts fit together.
///
/// [design]: design
/// [freshness]: freshness
#[doc = include_str!("../docs/architecture.md")]
pub mod architecture {}

/// What other caches call it, and how it is written here.
///
/// [comparison]: comparison
/// [freshness]: freshness
/// [guarantees]: guarantees
#[doc = include_str!("../docs/coming-from.md")]
pub mod coming_from {}

/// Other caches, and what each does better.
///
#[doc = include_str!("../docs/comparison.md")]
pub mod comparison {}

/// Questions and answers.
///
/// [architecture]: architecture
/// [guarantees]: guarantees
/// [hit-ratio]: hit_ratio
/// [proof]: proof
#[doc = include_str!("../docs/design.md")]
pub mod design {}

/// The store format, byte for byte.
///
#[doc = include_str!("../docs/format.md")]
pub mod format {}

/// An entry's life, and how it is fetched.
///
#[doc = include_str!("../docs/freshness.md")]
pub mod freshness {}

/// Misses on traces beside other policies.
///
/// [design]: design
#[doc = include_str!("../docs/hit-ratio.md")]
pub mod hit_ratio {}

/// Log lines, spans and figures.
///
/// [operations]: operations
#[doc = include_str!("../docs/observe.md")]
pub mod observe {}

/// For those who run it.
///
/// [design]: design
/// [format]: mod@self::format
/// [guarantees]: guarantees
/// [hit-ratio]: hit_ratio
/// [observe]: observe
/// [performance]: performance
/// [reliability]: reliability
#[doc = include_str!("../docs/operations.md")]
pub mod operations {}

/// The meaning of a returned call.
///
/// [design]: design
/// [freshness]: freshness
/// [proof]: proof
#[doc = include_str!("../docs/guarantees.md")]
pub mod guarantees {}

/// Speed beside peers and the device, and its limits.
#[doc = include_str!("../docs/performance.md")]
pub mod performance {}

/// The argument that nothing is stale.
///
/// [architecture]: architecture
#[doc = include_str!("../docs/proof.md")]
pub mod proof {}

/// Promises, laboratories and counts.
///
/// [proof]: proof
#[doc = include_str!("../docs/reliability.md")]
pub mod reliability {}

/// The README's programs compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
