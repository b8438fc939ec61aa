//! `cargo run --release -p tamis-services --bin pages -- --l2 /var/cache/pages`, then
//!
//! ```text
//! curl -X PUT localhost:8080/products/7 -H 'content-type: application/json' \
//!     -d '{"name": "sieve", "category": "kitchen", "price": 20}'
//! curl -i localhost:8080/categories/kitchen
//! curl -X POST 'localhost:8080/purge?tag=product:7'
//! curl localhost:8080/metrics
//! ```

use std::error::Error;
use std::path::PathBuf;

use clap::Parser;
use tamis_services::pages;
use tokio::net::TcpListener;

#[derive(Parser)]
struct Args {
    /// The port on the loopback address; 0 for any that is free.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// A directory for the disk tier; without one there is memory alone.
    #[arg(long)]
    l2: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let stop = tamis_services::asked_to_end()?;
    let exporter = tamis_scrape::install()?;
    let cache = tamis_services::open(args.l2.as_deref()).await?;
    let listener = TcpListener::bind(("127.0.0.1", args.port)).await?;
    println!("http://{}", listener.local_addr()?);
    pages::serve(listener, pages::router(&cache, exporter)?, stop).await?;
    // Warm at the next start.
    cache.close().await?;
    Ok(())
}
