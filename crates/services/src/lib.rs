//! Services over a tamis cache.
//!
//! - [`pages`]: an axum service that caches rendered pages, by tags, with soft invalidation.
//! - [`files`]: a thread for each core, each with a runtime of tokio-uring, over one cache.
//!
//! `grafana.json` beside the source is a dashboard over what `/metrics` answers.

pub mod files;
pub mod pages;
