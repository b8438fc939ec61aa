//! `cargo run --release -p tamis-services --bin files -- --folder docs`, then
//! `echo README.md | nc localhost 8081`.

use std::error::Error;
use std::net::TcpListener;
use std::path::PathBuf;
use std::thread;

use clap::Parser;
use tamis::{BlobCache, BlobCacheConfig};

#[derive(Parser)]
struct Args {
    /// The port on the loopback address; 0 for any that is free.
    #[arg(long, default_value_t = 8081)]
    port: u16,
    /// The folder whose files are served.
    #[arg(long)]
    folder: PathBuf,
    /// A directory for the disk tier; without one there is memory alone.
    #[arg(long)]
    l2: Option<PathBuf>,
    /// Threads; one for each core if it is not given.
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut config = BlobCacheConfig::builder().l1_bytes_max(64 << 20);
    if let Some(path) = &args.l2 {
        config = config.l2(path, |l2| l2.bytes_max(1 << 30));
    }
    // The cache has threads of its own, so any runtime may open it.
    let cache = tokio_uring::start(BlobCache::open(config.build()?))?;
    let listener = TcpListener::bind(("127.0.0.1", args.port))?;
    println!("{}", listener.local_addr()?);
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.unwrap_or_else(cores);
    tamis_services::files::serve(&cache, &args.folder, &listener, threads)?;
    Ok(())
}
