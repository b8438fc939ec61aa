//! `Closing`: ends a cache, when it is closed or its last handle is dropped.

use std::convert::Infallible;
use std::sync::Arc;

use crate::commit_lock::CommitLock;
use crate::disposal::{Remains, Unfreed};
use crate::engine::background::filter_signal::FilterSignal;
use crate::engine::background::promotion_queue::Promotions;
use crate::engine::background::wakeup::Wakeup;
use crate::engine::disk_tier::DiskTier;
use crate::engine::index_budget::IndexBudget;
use crate::engine::invalidate::cleanup::Cleanup;
use crate::engine::invalidate::flush::Flushes;
use crate::engine::parts::Parts;
use crate::error::CacheError;
use crate::l1::L1;
use crate::l2::Off;
use crate::namespace::{Ended, Namespaces};
use crate::pending::PendingInvalidations;

pub(crate) struct Closing {
    commit_lock: Arc<CommitLock>,
    namespaces: Arc<Namespaces>,
    pending: Arc<PendingInvalidations>,
    l1: Arc<L1>,
    promotions: Arc<Promotions>,
    filters: Arc<FilterSignal>,
    records_expired: Arc<Wakeup>,
    budget: Arc<IndexBudget>,
    disk: Arc<DiskTier>,
    cleanup: Cleanup,
    flushes: Flushes,
}

impl Closing {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            commit_lock: Arc::clone(&parts.commit_lock),
            namespaces: Arc::clone(&parts.namespaces),
            pending: Arc::clone(&parts.pending),
            l1: Arc::clone(&parts.l1),
            promotions: Arc::clone(&parts.promotions),
            filters: Arc::clone(&parts.filters),
            records_expired: Arc::clone(&parts.records_expired),
            budget: Arc::clone(&parts.budget),
            disk: Arc::clone(&parts.disk),
            cleanup: Cleanup::new(parts),
            flushes: Flushes::new(parts),
        }
    }

    /// Ends all mutations. False if they had ended before.
    pub(crate) fn end(&self) -> bool {
        let is_first = self.commit_lock.section().close();
        if is_first {
            self.end_tasks();
            let (ended, unfreed) = self.end_namespaces();
            self.pending.sweep_ended();
            self.flushes.free_all(ended, unfreed);
            self.disk.close_file();
        }
        is_first
    }

    /// Removes all entries from memory, then waits until the disk tier is written and its lock is
    /// free.
    pub(crate) async fn finish(&self) -> Result<(), CacheError> {
        self.disk.check_ours()?;
        self.cleanup.finish_all().await;
        let Some(l2) = self.disk.l2() else { return Ok(()) };
        let closed = l2.log.closed().await;
        if let Some(file) = self.disk.close_file() {
            file.wait().await;
        }
        closed.map_err(|Off| self.disk.device_error())
    }

    /// Ends a cache without handles, and frees its memory on another thread.
    pub(crate) fn abandon(&self) {
        self.commit_lock.section().close();
        self.end_tasks();
        self.disk.close_file();
        let entries = Arc::clone(&self.l1).pieces();
        let (ended, _) = self.end_namespaces();
        drop(Remains::new(ended.pieces().map(|freed| freed.entries).chain(entries)));
    }

    fn end_tasks(&self) {
        self.disk.close_log();
        self.promotions.close();
        self.filters.wakeup().close();
        self.records_expired.close();
    }

    /// What they leave, and the count of it.
    fn end_namespaces(&self) -> (Ended, Unfreed) {
        let Ok(ended) = self.namespaces.flush_all(&self.commit_lock, |section, sums| {
            Ok::<_, Infallible>(self.budget.end_all(sums, section))
        });
        ended
    }
}
