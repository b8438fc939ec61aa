//! cache2 with its io_uring engine and direct I/O. Reads wait for a free place in the ring, since
//! cache2 would answer with a miss otherwise.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::cache2::{
    Cache, CacheConfig, Error as Cache2Error, ErrorKind, IoEngineOptions, IoMode, IoUringOptions,
    ReadAdmission, RuntimeOptions, StorageOptions, Value,
};

use super::setup::Setup;
use crate::Error;

/// The largest number of gets in flight in any row.
const READS_IN_FLIGHT_MAX: usize = 128;

const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two attempts of a put that was refused for want of room. It takes far longer to write
/// what is staged.
const TRY_AGAIN: Duration = Duration::from_millis(1);

#[derive(Clone)]
pub(crate) struct Cache2(Arc<Cache>);

impl Cache2 {
    pub(super) async fn open(path: &Path, setup: &Setup) -> Result<Self, Error> {
        let mut storage = StorageOptions::new(setup.file_bytes);
        storage.expected_entries = Some(usize::try_from(setup.entries)?);
        let mut rings = IoUringOptions::default();
        rings.read.max_in_flight = READS_IN_FLIGHT_MAX;
        let mut runtime = RuntimeOptions::default();
        runtime.io_engine = IoEngineOptions::IoUring(rings);
        runtime.io_mode = IoMode::Direct;
        runtime.l1_capacity_bytes = setup.memory_bytes;
        runtime.read_admission =
            ReadAdmission::Wait { timeout: READ_TIMEOUT, max_waiters: Some(READS_IN_FLIGHT_MAX) };
        let config = CacheConfig::new(storage.build()?, runtime)?;
        Ok(Self(Arc::new(Cache::open(path.join("data"), config).await?)))
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<Value>, Error> {
        Ok(self.0.get(key).await?)
    }

    pub(super) async fn put(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        let is_busy = |error: &Cache2Error| error.kind() == ErrorKind::Overloaded;
        while let Err(error) = self.0.put(key, value) {
            if !is_busy(&error) {
                return Err(error.into());
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
        Ok(())
    }

    pub(super) async fn settle(&self) -> Result<(), Error> {
        Ok(self.0.drain().await?)
    }

    pub(super) async fn close(self) -> Result<(), Error> {
        Ok(self.0.close_warm().await?)
    }
}
