//! A hit in this process beside a hit in a redis-server on loopback, both through async calls.
//!
//! All tasks share one multiplexed connection. The CPU time is that of the client alone.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use redis::AsyncTypedCommands;
use redis::aio::MultiplexedConnection;
use tamis::{BlobCache, BlobCacheConfig, BlobCachePut};

use crate::Error;
use crate::bench::Bench;
use crate::blobs::Blobs;
use crate::contest::{Contest, Contestant, Outcome};
use crate::load::{Request, drive, for_each, timed, two_workers};
use crate::metric::Metric::CallsPerSecond;
use crate::metric::Sample;

const NAMESPACE: &str = "thumbnails";

const VALUE_BYTES: u64 = 100;

/// A server of its own, which ends with this.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    /// None if it is not installed.
    fn start(bench: &Bench) -> Result<Option<Self>, Error> {
        // Free now, and most likely in a moment, too.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let started = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(bench.directory())
            .stdout(Stdio::null())
            .spawn();
        let url = format!("redis://127.0.0.1:{port}/");
        Ok(started.ok().map(|process| Self { process, url }))
    }

    /// Waits until it takes connections.
    async fn connect(&self) -> Result<MultiplexedConnection, Error> {
        let client = redis::Client::open(self.url.as_str())?;
        for _ in 0..50 {
            if let Ok(connection) = client.get_multiplexed_async_connection().await {
                return Ok(connection);
            }
            thread::sleep(Duration::from_millis(100));
        }
        Err("redis-server takes no connections".into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(super) fn run(bench: &Bench) -> Result<Vec<Outcome>, Error> {
    let Some(server) = Server::start(bench)? else {
        bench.note("redis-server is not installed: row redis is left out");
        return Ok(Vec::new());
    };
    let entries = bench.pick(100_000, 2_000);
    let blobs = Blobs::of(VALUE_BYTES);
    let runtime = two_workers()?;
    let cache = runtime.block_on(async {
        let config = BlobCacheConfig::builder().l1_bytes_max(256 << 20).build()?;
        let cache = BlobCache::open(config).await?;
        let connection = server.connect().await?;
        let target = cache.clone();
        for_each(entries, 8, move |number| {
            let (cache, mut connection) = (target.clone(), connection.clone());
            let (key, value) = (Blobs::key(number), blobs.value(number));
            async move {
                connection.set(&key, value.as_ref()).await?;
                Ok(cache.put(NAMESPACE, key, BlobCachePut::new(value)).await?)
            }
        })
        .await?;
        Ok::<_, Error>(cache)
    })?;
    [1, 64]
        .map(|depth| {
            let contestants = vec![
                Contestant::new("redis", || {
                    runtime.block_on(from_redis(bench, &server, depth, entries))
                }),
                Contestant::new("tamis", || {
                    runtime.block_on(from_tamis(bench, &cache, depth, entries))
                }),
            ];
            let title = format!("{VALUE_BYTES}-byte values, depth {depth}");
            Contest::new(title, CallsPerSecond, "redis").run(bench, contestants)
        })
        .into_iter()
        .collect()
}

async fn from_redis(
    bench: &Bench,
    server: &Server,
    depth: usize,
    entries: u64,
) -> Result<Sample, Error> {
    let connection = server.connect().await?;
    drive(depth, bench.span(), move |random| {
        let (mut connection, number) = (connection.clone(), random.random_range(0..entries));
        async move {
            let get = redis::cmd("GET").arg(Blobs::key(number)).to_owned();
            let (time, found) = timed(get.query_async::<Option<Bytes>>(&mut connection)).await;
            Ok(Request { get: Some((time, found?.is_some())), put: None })
        }
    })
    .await
}

async fn from_tamis(
    bench: &Bench,
    cache: &BlobCache,
    depth: usize,
    entries: u64,
) -> Result<Sample, Error> {
    let cache = cache.clone();
    drive(depth, bench.span(), move |random| {
        let (cache, number) = (cache.clone(), random.random_range(0..entries));
        async move {
            let (time, found) = timed(cache.get(NAMESPACE, Blobs::key(number))).await;
            Ok(Request { get: Some((time, found.is_some())), put: None })
        }
    })
    .await
}
