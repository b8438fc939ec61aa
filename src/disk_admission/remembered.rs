//! `Remembered`: the ghosts, shared by the callers, with their memory counted.

use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::ghosts::{Forgotten, Ghosts};
use crate::disposal::Freeing;
use crate::key::KeyHash;

/// How much of the index budget is used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IndexUse {
    pub(crate) records: usize,
    pub(crate) bytes_free: usize,
}

pub(super) struct Remembered {
    /// Puts only read it.
    ghosts: RwLock<Ghosts>,
    bytes: AtomicUsize,
    freeing: Arc<Freeing>,
}

impl Remembered {
    pub(super) fn new(bytes_max: usize, freeing: &Arc<Freeing>) -> Self {
        let ghosts = RwLock::new(Ghosts::new(bytes_max));
        Self { ghosts, bytes: 0.into(), freeing: Arc::clone(freeing) }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn contains(&self, hash: KeyHash) -> bool {
        self.ghosts.read().contains(hash)
    }

    #[must_use = "it is dropped without locks"]
    pub(super) fn remember(&self, hash: KeyHash, index: IndexUse) -> Option<Forgotten> {
        let mut ghosts = self.ghosts.write();
        let oldest = ghosts.insert(hash, index.records, index.bytes_free);
        // Its bytes count on, without a gap.
        let unfreed = oldest.as_ref().map(|oldest| self.freeing.count(oldest.bytes()));
        self.bytes.store(ghosts.bytes(), Ordering::Relaxed);
        drop(ghosts);
        let (oldest, unfreed) = oldest.zip(unfreed)?;
        Some(Forgotten::new(iter::once(oldest), unfreed))
    }
}

impl Drop for Remembered {
    fn drop(&mut self) {
        let ghosts = self.ghosts.get_mut();
        let unfreed = self.freeing.count(ghosts.bytes());
        drop(Forgotten::new(ghosts.take(), unfreed));
    }
}
