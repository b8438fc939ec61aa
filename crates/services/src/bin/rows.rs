//! `cargo run --release -p tamis-services --bin rows -- --database shop.db --l2 /var/cache/rows`,
//! then with any client of gRPC, such as grpcurl:
//!
//! ```text
//! alias ask='grpcurl -plaintext -import-path crates/services/proto -proto rows.proto'
//! ask -d '{"steps": [{"statement": "put_product", "parameters": [{"integer": 7},
//!     {"text": "sieve"}, {"text": "kitchen"}, {"integer": 20}]}]}' \
//!     localhost:8082 tamis.rows.v1.Rows/Change
//! ask -d '{"statement": "category", "parameters": [{"text": "kitchen"}]}' \
//!     localhost:8082 tamis.rows.v1.Rows/Query
//! ask localhost:8082 tamis.rows.v1.Rows/Stats
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use tamis_services::rows::Rows;
use tokio::net::TcpListener;

#[derive(Parser)]
struct Args {
    /// The port on the loopback address; 0 for any that is free.
    #[arg(long, default_value_t = 8082)]
    port: u16,
    /// The file of the database; it is made if there is none.
    #[arg(long)]
    database: PathBuf,
    /// A directory for the disk tier; without one there is memory alone.
    #[arg(long)]
    l2: Option<PathBuf>,
    /// Milliseconds that each query takes longer, as if the database were far away.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let stop = tamis_services::asked_to_end()?;
    let cache = tamis_services::open(args.l2.as_deref()).await?;
    let delay = Duration::from_millis(args.delay_ms);
    let rows = Rows::open(&cache, &args.database, delay).await?;
    let listener = TcpListener::bind(("127.0.0.1", args.port)).await?;
    println!("http://{}", listener.local_addr()?);
    rows.serve(listener, stop).await?;
    // Warm at the next start.
    cache.close().await?;
    Ok(())
}
