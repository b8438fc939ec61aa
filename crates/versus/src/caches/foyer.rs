//! foyer with its block engine, over a directory opened with `O_DIRECT`, through its io_uring
//! engine. That one's thread spins as long as the cache is open.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::foyer::{
    BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder,
    HybridCachePolicy, IoEngineConfig, UringIoEngineConfig,
};
use bytes::Bytes;

use super::setup::Setup;
use crate::Error;

/// foyer has two such buffers and fills one while it writes the other; it drops what does not fit.
const BUFFER_BYTES: usize = 64 << 20;

/// Puts wait while more than this is not yet written, so that nothing is dropped.
const UNWRITTEN_BYTES_MAX: usize = 16 << 20;

/// Between two looks at what is written. It takes far longer to write what may be unwritten.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Twice the largest number of gets in flight in any row.
const READS_IN_FLIGHT_MAX: usize = 256;

/// foyer writes whole blocks of this size.
const BLOCK_BYTES: usize = 4096;

#[derive(Clone)]
pub(crate) struct Foyer {
    cache: HybridCache<String, Bytes>,
    /// Bytes given to the disk tier; None if they are written on eviction.
    given: Option<Arc<AtomicUsize>>,
}

impl Foyer {
    pub(super) async fn open(
        path: &Path,
        setup: &Setup,
        writes_on_eviction: bool,
    ) -> Result<Self, Error> {
        let policy = match writes_on_eviction {
            true => HybridCachePolicy::WriteOnEviction,
            false => HybridCachePolicy::WriteOnInsertion,
        };
        let device = FsDeviceBuilder::new(path)
            .with_capacity(usize::try_from(setup.file_bytes)?)
            .with_direct(true)
            .build()?;
        let engine = BlockEngineConfig::new(device)
            .with_buffer_pool_size(BUFFER_BYTES)
            .with_submit_queue_size_threshold(2 * BUFFER_BYTES);
        let rings = UringIoEngineConfig::new().with_io_depth(READS_IN_FLIGHT_MAX);
        let cache = HybridCacheBuilder::new()
            .with_policy(policy)
            .memory(setup.memory_bytes)
            .with_weighter(|key: &String, value: &Bytes| key.len() + value.len())
            .storage()
            .with_io_engine_config(Box::new(rings) as Box<dyn IoEngineConfig>)
            .with_engine_config(engine)
            .build()
            .await?;
        Ok(Self { cache, given: (!writes_on_eviction).then(Arc::default) })
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<Bytes>, Error> {
        let found = self.cache.get(key).await?;
        Ok(found.map(|entry| Bytes::clone(&entry)))
    }

    pub(super) async fn put(&self, key: String, value: Bytes) {
        if let Some(given) = &self.given {
            let bytes = (key.len() + value.len()).next_multiple_of(BLOCK_BYTES);
            let given = given.fetch_add(bytes, Ordering::Relaxed);
            let written = || self.cache.statistics().disk_write_bytes();
            while given.saturating_sub(written()) > UNWRITTEN_BYTES_MAX {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        self.cache.insert(key, value);
    }

    pub(super) async fn settle(&self) {
        self.cache.storage().wait().await;
    }

    pub(super) async fn close(self) -> Result<(), Error> {
        Ok(self.cache.close().await?)
    }
}
