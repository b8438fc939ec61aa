//! `WatchGuard`: the read point of a fetch, while it lasts.

use std::sync::{Arc, Weak};

use crate::commit_lock::CommitLock;
use crate::failpoint::{Failpoint, failpoint};
use crate::key::KeyHash;
use crate::moment::ReadPoint;

/// The read point of a fetch. While it lives, its key is tracked exactly: see `Watermarks`.
pub(crate) struct WatchGuard {
    pub(crate) point: ReadPoint,
    /// Weak: a fetch that hangs, or an error that is held, must not keep a cache's memory.
    commit_lock: Weak<CommitLock>,
    hash: KeyHash,
}

impl WatchGuard {
    pub(crate) fn new(commit_lock: &Arc<CommitLock>, hash: KeyHash) -> Self {
        let point = commit_lock.section().watch(hash);
        Self { point, commit_lock: Arc::downgrade(commit_lock), hash }
    }
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        if failpoint(Failpoint::WatchLost) {
            return;
        }
        if let Some(commit_lock) = self.commit_lock.upgrade() {
            commit_lock.section().watermarks().unwatch(self.hash);
        }
    }
}
