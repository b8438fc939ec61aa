//! A query of DataFusion over object storage whose requests take 20 ms: without a cache, with an
//! LRU of ranges in memory, and through tamis; cold, warm and after a restart. Prints a table.
//!
//! ```sh
//! cargo run --release
//! ```

mod data;
mod query;
mod stores;

use std::error::Error;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::ObjectStore;
use object_store::memory::InMemory;
use tamis::{BlobCache, BlobCacheConfig, L2Compression};
use tamis_object_store::CachedObjectStore;

use crate::query::query;
use crate::stores::{Lru, Origin};

type AnyError = Box<dyn Error + Send + Sync>;

/// What is asked for: the row groups of two of three days.
const DAYS: Range<i32> = 15..65;

/// One cache, and how it begins in a new process.
enum Kind {
    None,
    Lru,
    /// With how old an answer may be; None: files never change.
    Tamis(Option<Duration>),
}

/// A store as a process has it.
struct Open {
    store: Arc<dyn ObjectStore>,
    cache: Option<BlobCache>,
}

impl Kind {
    async fn open(&self, origin: Arc<Origin>, folder: &Path) -> Result<Open, AnyError> {
        Ok(match self {
            Self::None => Open { store: origin, cache: None },
            Self::Lru => Open { store: Arc::new(Lru::new(origin, 64 << 20)), cache: None },
            Self::Tamis(staleness) => {
                let config = BlobCacheConfig::builder()
                    .l1_bytes_max(64 << 20)
                    .l2(folder, |l2| l2.bytes_max(512 << 20).compression(L2Compression::Off));
                let cache = BlobCache::open(config.build()?).await?;
                let store = CachedObjectStore::builder(origin, &cache, "sales");
                let store = match staleness {
                    None => store.immutable(|_| true),
                    Some(staleness) => store.staleness(*staleness),
                };
                Open { store: Arc::new(store.build()?), cache: Some(cache) }
            }
        })
    }
}

impl Open {
    async fn close(self) -> Result<(), AnyError> {
        drop(self.store);
        if let Some(cache) = self.cache {
            cache.close().await?;
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let files = InMemory::new();
    let bytes = data::put(&files).await?;
    println!("8 files, {:.1} MB; a request takes 20 ms, and 100 MB/s\n", mb(bytes));
    println!("| cache | query | time | requests | bytes |");
    println!("| --- | --- | --- | --- | --- |");
    let kinds = [
        ("none", Kind::None),
        ("LRU of ranges in memory", Kind::Lru),
        ("tamis, files never change", Kind::Tamis(None)),
        ("tamis, each get asks", Kind::Tamis(Some(Duration::ZERO))),
    ];
    let mut expected = None;
    for (name, kind) in kinds {
        let (folder, origin) = (tempfile::tempdir()?, Arc::new(Origin::new(files.clone())));
        let mut open = kind.open(origin.clone(), folder.path()).await?;
        for when in ["cold", "again", "after a restart"] {
            if when == "after a restart" {
                open.close().await?;
                open = kind.open(origin.clone(), folder.path()).await?;
            }
            origin.take();
            let began = Instant::now();
            let answer = query(open.store.clone(), DAYS).await?;
            let time = began.elapsed().as_millis();
            let (requests, bytes) = origin.take();
            println!("| {name} | {when} | {time} ms | {requests} | {:.1} MB |", mb(bytes));
            let expected = expected.get_or_insert_with(|| answer.clone());
            if *expected != answer {
                return Err(format!("{name} answers {answer:?} instead of {expected:?}").into());
            }
        }
        open.close().await?;
    }
    Ok(())
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
