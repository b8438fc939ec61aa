//! A cache under a small load, with an endpoint for Prometheus:
//! `cargo run --release -p tamis-scrape -- --port 9184`, then `curl localhost:9184/metrics`.

use std::error::Error;
use std::time::Duration;

use clap::Parser;
use tamis::{BlobCache, BlobCacheConfig, BlobCacheMetrics, BlobCachePut, CacheError};
use tokio::net::TcpListener;

#[derive(Parser)]
struct Args {
    /// The port on the loopback address.
    #[arg(long, default_value_t = 9184)]
    port: u16,
    /// A folder for a disk tier of 64 MiB; without one there is memory alone.
    #[arg(long)]
    l2: Option<std::path::PathBuf>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut config = BlobCacheConfig::builder().l1_bytes_max(4 << 20);
    if let Some(folder) = &args.l2 {
        config = config.l2(folder, |l2| l2.bytes_max(64 << 20));
    }
    let handle = tamis_scrape::install()?;
    let cache = BlobCache::open(config.build()?).await?;
    let metrics = BlobCacheMetrics::new(&cache, "example").with_namespaces(["pages"]);
    let listener = TcpListener::bind(("127.0.0.1", args.port)).await?;
    println!("http://{}/metrics", listener.local_addr()?);
    let serving = tokio::spawn(tamis_scrape::serve(listener, handle, metrics));
    let pages = cache.namespace("pages");
    // Until it is interrupted: some keys more often than others.
    for number in 0_u64.. {
        let key = (number % 7 * (number % 1013)).to_string();
        let render = || async { Ok::<_, CacheError>(BlobCachePut::from(vec![7; 4000])) };
        pages.get_or_fetch(&key, render).await?;
        tokio::time::sleep(Duration::from_millis(1)).await;
        if serving.is_finished() {
            break;
        }
    }
    Ok(serving.await??)
}
