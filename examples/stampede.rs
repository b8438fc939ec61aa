//! Many callers request one key at the same time, and the origin behind the cache is slow.
//!
//! Three ways to ask, first for a missing key, then for one that has expired and is within its
//! stale window:
//!
//! - `get`, and unless it finds a fresh entry, ask the origin and `put`;
//! - `get_or_fetch`: one caller asks the origin, the others wait for it;
//! - `get_or_refresh`: a stale entry is returned at once, and one refresh is spawned.
//!
//! ```text
//! cargo run --release --example stampede
//! cargo run --release --example stampede -- --callers 10000 --origin-ms 100 --origin-slots 8
//! ```

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use futures::future::join_all;
use hdrhistogram::Histogram;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCacheHit, BlobCachePolicy, BlobCachePut, CacheError, Clock,
    ExtendedTtlPolicy, FetchError,
};
use tokio::sync::Semaphore;

/// Origin calls and latencies when many callers request one key.
#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// Concurrent callers
    #[arg(long, default_value_t = 1000)]
    callers: usize,
    /// Milliseconds of an origin call
    #[arg(long, default_value_t = 20)]
    origin_ms: u64,
    /// Concurrent origin calls; further ones queue
    #[arg(long, default_value_t = 32)]
    origin_slots: usize,
    /// Bytes of the value
    #[arg(long, default_value_t = 10_000)]
    value_bytes: usize,
}

/// The data source behind the cache: slow, and slower under load.
struct Origin {
    slots: Semaphore,
    takes: Duration,
    value_bytes: usize,
    calls: AtomicU64,
}

impl Origin {
    async fn ask(&self) -> Result<BlobCachePut, Unreachable> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let _slot = self.slots.acquire().await.map_err(|_| Unreachable)?;
        tokio::time::sleep(self.takes).await;
        let extended = ExtendedTtlPolicy { stale_serve: Some(STALE), ..Default::default() };
        let policy = BlobCachePolicy::default().ttl(TTL).extended(extended);
        Ok(BlobCachePut::from(vec![7; self.value_bytes]).with_policy(policy))
    }
}

const TTL: Duration = Duration::from_secs(60);
const STALE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the origin cannot be reached")]
struct Unreachable;

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Fetch(#[from] FetchError<Unreachable>),
    #[error(transparent)]
    Origin(#[from] Unreachable),
    #[error(transparent)]
    Cache(#[from] CacheError),
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Plain,
    Fetch,
    Refresh,
}

impl Way {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Plain, "get and put"),
        (Self::Fetch, "get_or_fetch"),
        (Self::Refresh, "get_or_refresh"),
    ];

    async fn ask(self, cache: &BlobCache, origin: &Arc<Origin>) -> Result<(), Failure> {
        let origin = Arc::clone(origin);
        let fetch = move || async move { origin.ask().await };
        match self {
            Self::Plain => {
                let fresh = cache.get("pages", KEY).await.filter(|hit| !hit.is_stale());
                match fresh {
                    Some(hit) => use_up(&hit),
                    None => cache.put("pages", KEY, fetch().await?).await?,
                }
            }
            Self::Fetch => use_up(&cache.get_or_fetch("pages", KEY, fetch).await?),
            Self::Refresh => {
                let (hit, refresh) = cache.get_or_refresh("pages", KEY, fetch).await?;
                use_up(&hit);
                if let Some(refresh) = refresh {
                    // It runs on its own; no caller waits for it.
                    drop(tokio::spawn(refresh));
                }
            }
        }
        Ok(())
    }
}

const KEY: &str = "/front-page";

fn use_up(hit: &BlobCacheHit) {
    assert!(!hit.value().is_empty());
}

/// Runs all callers, and prints the results.
async fn crowd(
    arguments: &Arguments,
    cache: &BlobCache,
    (way, name): (Way, &str),
    found: &str,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let origin = Arc::new(Origin {
        slots: Semaphore::new(arguments.origin_slots),
        takes: Duration::from_millis(arguments.origin_ms),
        value_bytes: arguments.value_bytes,
        calls: AtomicU64::new(0),
    });
    let callers = (0..arguments.callers).map(|_| {
        let (cache, origin) = (cache.clone(), Arc::clone(&origin));
        tokio::spawn(async move {
            let begun = Instant::now();
            way.ask(&cache, &origin).await.map(|()| begun.elapsed())
        })
    });
    let callers: Vec<_> = callers.collect();
    let mut latencies: Histogram<u64> = Histogram::new(3)?;
    for caller in join_all(callers).await {
        latencies.record(u64::try_from(caller??.as_micros())?)?;
    }
    // A refresh in progress may finish, so that the next callers find its value.
    tokio::time::sleep(2 * origin.takes).await;
    let milliseconds = |quantile: f64| {
        Duration::from_micros(latencies.value_at_quantile(quantile)).as_secs_f64() * 1000.0
    };
    println!(
        "{name:<16}{found:<10}{:>12}{:>10.1}{:>10.1}{:>10.1}",
        origin.calls.load(Ordering::Relaxed),
        milliseconds(0.5),
        milliseconds(0.99),
        milliseconds(1.0),
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments = Arguments::parse();
    println!("{} callers of one key", arguments.callers);
    println!(
        "{:<16}{:<10}{:>12}{:>10}{:>10}{:>10}",
        "asked by", "key is", "origin calls", "p50 ms", "p99 ms", "max ms"
    );
    for way in Way::ALL {
        let clock = Clock::manual(SystemTime::UNIX_EPOCH + TTL);
        let config = BlobCacheConfig::builder().clock(clock.clone()).build()?;
        let cache = BlobCache::open(config).await?;
        crowd(&arguments, &cache, way, "missing").await?;
        clock.advance(TTL);
        crowd(&arguments, &cache, way, "stale").await?;
        cache.close().await?;
    }
    Ok(())
}
