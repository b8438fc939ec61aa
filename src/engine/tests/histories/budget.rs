//! `MemoryBudget`: what memory may hold, while the budget of an open cache changes.

use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::manner::patient;
use super::many::Outcome;
use crate::cache::BlobCache;

/// Of one process.
#[derive(Debug)]
pub(super) struct MemoryBudget {
    /// The largest budget since a call has returned.
    most: usize,
}

pub(super) type SharedBudget = Arc<Mutex<MemoryBudget>>;

/// A call that has changed the budget, as it returned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changed {
    /// What memory could hold before the call.
    before: usize,
    bytes_max: usize,
    used: usize,
}

impl MemoryBudget {
    pub(super) fn new(bytes_max: usize) -> SharedBudget {
        Arc::new(Mutex::new(Self { most: bytes_max }))
    }

    /// The most that memory may hold.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// A budget that is in force from now on. Memory may exceed it until a call returns.
    fn begin(&mut self, bytes_max: usize) -> usize {
        let before = self.most;
        self.most = self.most.max(bytes_max);
        before
    }
}

impl Changed {
    /// Whether memory had to let go of something.
    pub(super) fn check(self) -> Result<bool, String> {
        let Self { before, bytes_max, used } = self;
        if used > bytes_max {
            return Err(format!("memory holds {used} though its budget became {bytes_max}"));
        }
        Ok(bytes_max < before)
    }
}

/// Changes the budget; or is dropped, and leaves the rest to later puts.
pub(super) fn resize_memory(
    cache: BlobCache,
    budget: SharedBudget,
    bytes_max: usize,
    polls: u32,
) -> BoxFuture<'static, Outcome> {
    Box::pin(async move {
        let before = budget.lock().begin(bytes_max);
        let Some(done) = patient(cache.set_l1_bytes_max(bytes_max), polls).await else {
            return Outcome::Nothing;
        };
        Outcome::Resized(done.map(|()| {
            let stats = cache.stats();
            let (bytes_max, used) = (stats.l1_bytes_max(), stats.bytes_in_use());
            // What later calls make of it is theirs: the present budget holds from here on.
            budget.lock().most = bytes_max;
            Changed { before, bytes_max, used }
        }))
    })
}
