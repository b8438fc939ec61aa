//! `Missing`: what a cache knows of a disk tier that could not be opened.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::engine::cover::Cover;
use crate::engine::reopening::Reopening;
use crate::error::CacheError;
use crate::io::{LateDisk, TaskRunner};

pub(crate) struct Missing {
    /// The disk of the tier, once it is open.
    pub(crate) disk: Arc<LateDisk>,
    pub(crate) cover: Cover,
    pub(crate) reopening: Arc<Reopening>,
    /// Of the store, if it is taken over. The entries in memory are hashed with this key.
    pub(crate) identity: Identity,
    /// Runs tasks meanwhile; for simulated disks only.
    pub(crate) simulated: Option<Arc<dyn TaskRunner>>,
    /// Why it could not be opened, the last time.
    error: Mutex<CacheError>,
}

/// Of a store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) store_id: [u8; 16],
    pub(crate) hash_key: u64,
}

impl Missing {
    pub(crate) fn new(
        cover: Cover,
        identity: Identity,
        simulated: Option<Arc<dyn TaskRunner>>,
        error: CacheError,
    ) -> Self {
        Self {
            disk: Arc::default(),
            cover,
            reopening: Arc::default(),
            identity,
            simulated,
            error: Mutex::new(error),
        }
    }

    pub(crate) fn error(&self) -> CacheError {
        self.error.lock().clone()
    }

    pub(crate) fn set_error(&self, error: &CacheError) {
        // The earlier one is dropped without the lock.
        let earlier = std::mem::replace(&mut *self.error.lock(), error.clone());
        drop(earlier);
    }
}
