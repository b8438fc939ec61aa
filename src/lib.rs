//! A blob cache for async services on Linux that never serves what has been overwritten or
//! invalidated.
//!
//! Values of 100 bytes to 64 MB live in namespaces, under keys, with tags, dependencies, content
//! metadata, versions and policies. L1 is memory: bounded in bytes, everything counted, in SIEVE
//! order. L2, if a path is given, is a segmented log on NVMe through io_uring, or through threads
//! where the kernel refuses that ([`L2Engine`]).
//! A value must fit into a segment of it, which is by default a 64th of the file, or else into an
//! eighth of L1: see [`l2_segment_bytes`](BlobCacheConfigBuilder::l2_segment_bytes) and
//! [`L1Admission`].
//!
//! ```
//! use std::time::Duration;
//! use tamis::{BlobCache, BlobCacheConfig, BlobCachePut};
//!
//! # futures::executor::block_on(async {
//! let cache = BlobCache::open(BlobCacheConfig::builder().l1_bytes_max(64 << 20).build()?).await?;
//! let put = BlobCachePut::new("<h1>Drum sieve</h1>")
//!     .with_dependencies(["product:7"])
//!     .with_ttl(Duration::from_secs(60));
//! cache.put("pages", "/sieves/20cm", put).await?;
//! assert_eq!(cache.invalidate_dependencies("pages", &["product:7"]).await?, 1);
//! assert!(cache.get("pages", "/sieves/20cm").await.is_none());
//! # Ok::<(), tamis::CacheError>(())
//! # }).unwrap();
//! ```
//!
//! Start with [`BlobCache`]; [`BlobCacheConfigBuilder`] has the settings, [`BlobCachePolicy`] the
//! life of an entry, [`CacheError`] the errors, [`BlobCacheStats`] the figures.
//! [`docs`] has more: [an entry's life](docs::freshness), [what a returned call
//! means](docs::guarantees) in each mode of crash safety, and [other caches](docs::comparison).
//!
//! # I want to cache ...
//!
//! ## ... rendered pages
//!
//! Keep the handle of a namespace in the state of the service: it is cheap to clone. An expired
//! page is returned at once while one task renders it again. A page is removed at once when a
//! product on it changes.
//!
//! ```
//! # use std::time::Duration;
//! # use tamis::*;
//! # async fn render(path: &str) -> Result<String, std::io::Error> { Ok(path.to_owned()) }
//! # fn spawn(_: impl Future + Send) {}
//! # futures::executor::block_on(async {
//! # let cache = BlobCache::open(BlobCacheConfig::default()).await.unwrap();
//! let fresh = BlobCachePolicy::default().ttl(Duration::from_secs(60)).jitter_pct(10);
//! let pages = cache.namespace("pages").with_policy(fresh.stale_serve(Duration::from_secs(600)));
//!
//! let fetch = || async {
//!     let page = render("/sieves").await?;
//!     Ok(BlobCachePut::from(page).with_dependencies(["product:7"]))
//! };
//! let (page, refresh) = pages.get_or_refresh("/sieves", fetch).await?;
//! if let Some(refresh) = refresh {
//!     spawn(refresh);
//! }
//! # assert_eq!(page.value(), b"/sieves");
//! pages.invalidate_dependencies(&["product:7"]).await.unwrap();
//! # Ok::<(), FetchError<std::io::Error>>(())
//! # }).unwrap();
//! ```
//!
//! With an executor in the [configuration](BlobCacheConfigBuilder::spawner) that is one call,
//! [`get_or_refresh_spawned`](BlobCache::get_or_refresh_spawned).
//!
//! In a service on axum, the handle is the state of the router, and a handler takes it from there:
//!
//! ```
//! # mod axum {
//! #     pub mod body { pub use bytes::Bytes; }
//! #     pub mod extract { pub struct State<S>(pub S); pub struct Path<P>(pub P); }
//! #     pub mod http {
//! #         pub struct StatusCode;
//! #         impl StatusCode { pub const BAD_GATEWAY: Self = Self; }
//! #     }
//! #     pub mod response { pub struct Html<T>(pub T); }
//! # }
//! use axum::body::Bytes;
//! use axum::extract::{Path, State};
//! use axum::http::StatusCode;
//! use axum::response::Html;
//! use tamis::{BlobCacheNamespace, BlobCachePut};
//!
//! async fn page(
//!     State(pages): State<BlobCacheNamespace>,
//!     Path(path): Path<String>,
//! ) -> Result<Html<Bytes>, StatusCode> {
//!     let page = pages.get_or_fetch(&path, || render(&path)).await;
//!     page.map(|hit| Html(hit.into_bytes())).map_err(|_| StatusCode::BAD_GATEWAY)
//! }
//!
//! async fn render(path: &str) -> Result<BlobCachePut, std::io::Error> {
//!     Ok(BlobCachePut::from(format!("<h1>{path}</h1>")))
//! }
//!
//! // Router::new().route("/pages/{*path}", get(page)).with_state(cache.namespace("pages"))
//! # fn is_a_handler<F: Future + Send>(_: fn(State<BlobCacheNamespace>, Path<String>) -> F) {}
//! # is_a_handler(page);
//! ```
//!
//! ## ... query results
//!
//! [`get_or_fetch`](BlobCache::get_or_fetch) runs one query for all callers of a key. It caches the
//! absence of a row as well. The result of a query that began before an invalidation of its key is
//! not stored.
//!
//! ```
//! # use std::time::Duration;
//! # use tamis::*;
//! # async fn query(_: u64) -> Result<Option<Vec<u8>>, std::io::Error> { Ok(None) }
//! # futures::executor::block_on(async {
//! # let cache = BlobCache::open(BlobCacheConfig::default()).await.unwrap();
//! let users = cache.namespace("users");
//! let user = users.get_or_fetch("7", || async {
//!     Ok::<_, std::io::Error>(match query(7).await? {
//!         Some(row) => BlobCachePut::from(row).with_ttl(Duration::from_secs(300)),
//!         // Its own policy: no stale window, whatever the namespace has.
//!         None => BlobCachePut::absent()
//!             .with_policy(BlobCachePolicy::default().ttl(Duration::from_secs(5))),
//!     })
//! });
//! assert!(user.await?.is_absent());
//! // After each commit that changes the row:
//! users.invalidate_key("7").await.unwrap();
//! # Ok::<(), FetchError<std::io::Error>>(())
//! # }).unwrap();
//! ```
//!
//! ## ... values of my own types
//!
//! [`typed`](BlobCacheNamespace::typed) makes a handle whose values have a type, by a [`Codec`]:
//! JSON by serde with the feature `json`, postcard with `postcard`. An `Option` that a fetch
//! returns is a row or a cached absence. Values that an older release has left, and that no longer
//! decode, are fetched anew.
//!
//! ```
//! # use tamis::*;
//! # async fn query(_: u64) -> Result<Option<String>, std::io::Error> { Ok(Some("ada".into())) }
//! # futures::executor::block_on(async {
//! # let cache = BlobCache::open(BlobCacheConfig::default()).await.unwrap();
//! let names = cache.namespace("names").typed::<String, _>(Plain);
//! let name = names.get_or_fetch("7", || query(7)).await?;
//! assert_eq!(name.value().map(String::as_str), Some("ada"));
//! # Ok::<(), FetchError<std::io::Error>>(())
//! # }).unwrap();
//! ```
//!
//! ## ... ranges of objects
//!
//! Large values live on disk, and many of them only there: [`L1Admission::Auto`] keeps blobs over
//! an eighth of the memory tier out of it, unless the disk tier does not admit them. If keys begin
//! with the name of their object, one call removes all ranges of an object.
//!
//! ```
//! # use tamis::*;
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path();
//! # futures::executor::block_on(async {
//! let config = BlobCacheConfig::builder()
//!     .l1_bytes_max(64 << 20)
//!     .l2(path, |l2| l2.bytes_max(1 << 30).compression(L2Compression::Off));
//! let cache = BlobCache::open(config.build()?).await?;
//! cache.put("objects", "video.mp4/0-1048575", vec![7; 1 << 20]).await?;
//! assert_eq!(cache.invalidate_prefix("objects", "video.mp4/").await?, 1);
//! cache.close().await
//! # }).unwrap();
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # After a restart
//!
//! A disk tier comes back with its entries. It does not know of changes at the origin while the
//! process was down. If an entry must not outlive them, flush its namespace after `open`, or
//! put a version of the data into the namespace's name; a ttl bounds the age of all other entries.
//! [`docs::freshness`] shows it.
//!
//! # A broken disk
//!
//! A device that fails turns the disk tier off, and memory goes on. With
//! [`l2_required(false)`](BlobCacheConfigBuilder::l2_required) a cache opens, too, if its store
//! cannot be opened, for whatever reason; [`reopen_l2`](BlobCache::reopen_l2) tries again.
//!
//! # Log lines and features
//!
//! The cache tells `tracing` of opened stores, damage, a disk tier that turns itself off or comes
//! back, and refreshes that fail; opens, closes, fetches and sweeps are spans. Without a subscriber
//! nothing is printed. [`docs::observe`] lists targets and fields.
//!
//! The feature `disk` is on by default. Without it, and on other systems than Linux, the crate is
//! the memory tier. These features are off by default:
//!
//! - `log`: the events go to a logger of the `log` crate while no subscriber is installed.
//! - `metrics`: `BlobCacheMetrics` gives figures and latencies to the `metrics` facade.
//! - `serde` implements `serde::Serialize` for statistics.
//! - `tokio` implements [`Spawn`] for handles of tokio's runtime.
//! - `cli`: the command-line tool `tamis`, which looks at stores, copies them, watches running
//!   caches, estimates sizes, measures devices and replays traces, and `StoreReader`,
//!   `StatusClient` and `SizeQuery`, its library.
//! - `json` and `postcard` are codecs of typed values for all types that serde knows.

// What only a disk uses is idle without one.
// On docs.rs each item says which feature it needs.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(all(feature = "disk", target_os = "linux")), allow(dead_code))]

mod access_times;
mod backup;
mod backup_report;
mod batch;
mod blocking;
mod boot_clock;
mod cache;
mod clock;
mod codec;
mod commit_lock;
mod config;
mod counters;
mod disk_admission;
mod disposal;
pub mod docs;
mod engine;
mod entry;
mod error;
mod events;
mod expire;
mod expiries;
mod failpoint;
mod fetch_policy;
mod figures;
mod flight;
mod footprint;
#[cfg(any(test, feature = "simulation"))]
#[doc(hidden)]
pub mod fuzz;
mod gate;
mod helpers;
mod hit;
mod hits;
mod io;
mod json_text;
mod key;
mod keys;
mod l1;
mod l2;
mod l2_state;
mod label_texts;
mod labels;
mod latency;
mod limiter;
mod listing;
mod many;
mod meter;
mod modes;
mod moment;
mod monitor;
mod namespace;
mod namespaced;
mod pending;
mod policy;
mod position;
#[cfg(feature = "metrics")]
mod publish;
mod put;
mod queue;
mod quota;
mod record_table;
mod remote;
mod renewals;
mod reopen;
#[cfg(test)]
mod rounds;
mod scope;
mod sequence;
mod sizes;
#[cfg(all(any(test, feature = "cli"), feature = "disk", target_os = "linux"))]
mod sizing;
mod spawn;
mod spawned;
mod stats;
#[cfg(all(any(test, feature = "cli"), feature = "disk", target_os = "linux"))]
mod status_client;
#[cfg(all(any(test, feature = "cli"), feature = "disk", target_os = "linux"))]
mod store_reader;
mod sweep;
mod sweeper;
mod sync;
mod synopsis;
mod tallies;
mod telemetry;
mod thread_number;
mod timeout;
mod timer;
mod touch;
mod typed;
mod waiters;
mod wake;
mod watermarks;
mod write_rate;

pub use backup_report::BackupReport;
pub use boot_clock::BootClock;
pub use cache::BlobCache;
pub use clock::Clock;
pub use config::{
    BlobCacheConfig, BlobCacheConfigBuilder, L2ConfigBuilder, NamespaceConfig,
    NamespaceConfigBuilder,
};
pub use engine::fetch::BlobCacheRefresh;
pub use error::{BlobLimit, CacheError, FetchError, IoError};
pub use events::{BlobCacheEvent, BlobCacheEvents, EntryChange, EntryEvent};
pub use fetch_policy::FetchPolicy;
pub use figures::{Figure, FigureKind, FigureUnit};
pub use gate::{Gate, WhileClosed};
pub use hit::{BlobCacheHit, CachePresence, CacheTier};
pub use keys::{BlobCacheKeys, KeyEntry, KeysQuery};
pub use latency::Latency;
pub use modes::{
    BackgroundSweep, CrashSafety, L1Admission, L2Admission, L2Compression, L2Engine,
    L2PromotionPolicy,
};
pub use moment::ReadPoint;
pub use namespaced::BlobCacheNamespace;
pub use policy::{BlobCachePolicy, ExtendedTtlPolicy};
#[cfg(feature = "metrics")]
pub use publish::BlobCacheMetrics;
pub use put::BlobCachePut;
pub use quota::NamespaceQuota;
pub use scope::NamespaceScope;
#[cfg(all(any(test, feature = "cli"), feature = "disk", target_os = "linux"))]
pub use sizing::{SizeEstimate, SizeQuery};
pub use spawn::{FetchTask, Spawn};
pub use stats::{
    BlobCacheStats, FetchStats, L1Stats, L2State, L2Stats, LatencyStats, MemoryStats,
    NamespaceStats,
};
#[cfg(all(any(test, feature = "cli"), feature = "disk", target_os = "linux"))]
pub use status_client::{StatusClient, StatusError};
#[cfg(all(any(test, feature = "cli"), feature = "disk", target_os = "linux"))]
pub use store_reader::{
    CopyDamage, CountedNamespace, CountedSegment, DamagedPart, LargeEntry, NextOpen,
    OpenStoreSegment, StoreAccess, StoreCensus, StoreContents, StoreCopyError, StoreDamage,
    StoreFacts, StoreKeys, StoreReadError, StoreReader, StoreSegment, StoreState, VerifyEvent,
    VerifyReport,
};
pub use sweep::{NamespaceSweep, SweepLimit, SweepReport};
#[cfg(feature = "json")]
pub use typed::Json;
#[cfg(feature = "postcard")]
pub use typed::Postcard;
pub use typed::{Codec, Plain, TypedError, TypedHit, TypedNamespace, TypedPut, TypedRefresh};
pub use write_rate::WriteRate;
