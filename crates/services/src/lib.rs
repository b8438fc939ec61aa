//! Services over a tamis cache.
//!
//! - [`pages`]: an axum service that caches rendered pages, by tags, with soft invalidation.
//! - [`files`]: a thread for each core, each with a runtime of tokio-uring, over one cache.
//! - [`rows`]: a tonic service that caches the results of SQL queries, by the tables they read.
//!
//! `grafana.json` beside the source is a dashboard over what `/metrics` answers.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use tamis::{BlobCache, BlobCacheConfig, CacheError, L2State};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::sleep;

pub mod files;
pub mod pages;
pub mod rows;

/// How long a start waits for the process before it, which may still be closing the store.
const PATIENCE: Duration = Duration::from_secs(30);

/// Calls that have begun at the end have so long.
const GRACE: Duration = Duration::from_secs(10);

/// Opens a cache for a service on tokio: with a disk tier of 1 GiB if it is given a directory. A
/// disk that cannot be opened must not stop the service, which goes on in memory, and tries the
/// disk again once in ten seconds.
///
/// # Errors
///
/// Those of [`BlobCache::open`], among them [`L2Locked`](CacheError::L2Locked) if another process
/// keeps the store for half a minute: to go on without it would make it begin empty.
pub async fn open(l2: Option<&Path>) -> Result<BlobCache, CacheError> {
    let mut config = BlobCacheConfig::builder().l1_bytes_max(64 << 20).spawner(Handle::current());
    let Some(path) = l2 else { return BlobCache::open(config.build()?).await };
    config = config.l2(path, |l2| l2.bytes_max(1 << 30));
    let (strict, lenient) = (config.clone().build()?, config.l2_required(false).build()?);
    let begun = Instant::now();
    let cache = loop {
        match BlobCache::open(strict.clone()).await {
            Ok(cache) => break cache,
            Err(CacheError::L2Locked { .. }) if begun.elapsed() < PATIENCE => {
                sleep(Duration::from_millis(100)).await;
            }
            Err(error @ CacheError::L2Locked { .. }) => return Err(error),
            Err(_) => break BlobCache::open(lenient).await?,
        }
    };
    tokio::spawn(reopen(cache.clone()));
    Ok(cache)
}

async fn reopen(cache: BlobCache) {
    loop {
        sleep(Duration::from_secs(10)).await;
        if !matches!(cache.stats().l2_state(), L2State::Degraded { .. }) {
            continue;
        }
        match cache.reopen_l2().await {
            Ok(_) => eprintln!("the disk tier works again"),
            Err(CacheError::Closed) => return,
            Err(error) => eprintln!("{error}"),
        }
    }
}

/// Resolves once the process is asked to end: by a terminal, or by systemd, Docker or Kubernetes.
///
/// # Errors
///
/// The signals cannot be received.
pub fn asked_to_end() -> io::Result<impl Future<Output = ()> + Send> {
    // From here on, and not from the first poll.
    let (mut interrupted, mut terminated) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    })
}

/// When a server is to take no more calls, and when it is to leave those that have begun: a client
/// that has sent half of a call, or that hangs, holds its connection for as long as it likes.
fn with_grace(
    stop: impl Future<Output = ()>,
) -> (impl Future<Output = ()>, impl Future<Output = ()>) {
    let (stopped, stopping) = oneshot::channel();
    let stop = async {
        stop.await;
        let _ = stopped.send(());
    };
    let out_of_patience = async {
        let _ = stopping.await;
        sleep(GRACE).await;
    };
    (stop, out_of_patience)
}
