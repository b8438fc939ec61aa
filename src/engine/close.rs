//! `Closing`: ends a cache, when it is closed or its last handle is dropped.

use std::convert::Infallible;
use std::sync::Arc;

use crate::commit_lock::CommitLock;
use crate::disposal::{Remains, Unfreed};
use crate::engine::background::filter_signal::FilterSignal;
use crate::engine::background::promotion_queue::Promotions;
use crate::engine::background::wakeup::Wakeup;
use crate::engine::closed_index::ClosedCache;
use crate::engine::disk_tier::DiskTier;
use crate::engine::fetch::held::HeldErrors;
use crate::engine::fetch::tasks::FetchTasks;
use crate::engine::index_budget::IndexBudget;
use crate::engine::invalidate::cleanup::Cleanup;
use crate::engine::invalidate::flush::Flushes;
use crate::engine::parts::Parts;
use crate::error::CacheError;
use crate::events::Events;
use crate::failpoint::{Failpoint, failpoint};
use crate::l1::L1;
use crate::l2::{ClosedIndex, Off, SegmentNumber};
use crate::namespace::{Ended, Namespaces};
use crate::pending::PendingInvalidations;
use crate::renewals::Renewals;
use crate::sequence::Sequence;

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
    events: Events,
    renewals: Arc<Renewals>,
    held_errors: Arc<HeldErrors>,
    fetch_tasks: Arc<FetchTasks>,
    flushes: Arc<Flushes>,
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
            events: parts.events.clone(),
            renewals: Arc::clone(&parts.renewals),
            held_errors: Arc::clone(&parts.held_errors),
            fetch_tasks: Arc::clone(&parts.fetch_tasks),
            flushes: Arc::new(Flushes::new(parts)),
        }
    }

    /// Ends all mutations. False if they had ended before.
    pub(crate) fn end(&self) -> bool {
        let (is_first, is_settled) = {
            let mut section = self.commit_lock.section();
            // Not later: a scan that finds the cache closed ends without having removed anything.
            let is_settled =
                !self.pending.any_in_force() || failpoint(Failpoint::ImageBeforeInvalidations);
            (section.close(), is_settled)
        };
        if is_first {
            // Bounded: one.
            self.disk.missing().into_iter().for_each(|missing| missing.reopening.close());
            self.events.close();
            self.held_errors.close();
            self.fetch_tasks.close();
            let index = self.closed_index(is_settled);
            self.pending.sweep_ended();
            self.end_tasks(index);
            self.disk.close_file();
        }
        is_first
    }

    /// Ends all namespaces. Gives their index if an image of it may be written: if it is settled,
    /// which means that it has no entries that an invalidation matches, and not in a forked
    /// process.
    fn closed_index(&self, is_settled: bool) -> Option<Arc<dyn ClosedIndex>> {
        // Before they end, as the head may move on.
        let oldest = self.disk.l2().map(|l2| l2.log.head_segment());
        // An image has no times since when records are stale and no renewed deadlines; the log has.
        let first = oldest.and_then(|oldest| self.first_of(oldest));
        let is_plain = first.is_some_and(|first| {
            !self.namespaces.have_expired(first) && !self.renewals.concern(first)
        });
        let contents = self.end_namespaces();
        let is_ours = self.disk.check_ours().is_ok();
        let Some(oldest) = oldest.filter(|_| is_settled && is_plain && is_ours) else {
            self.flushes.free_all(contents.0, contents.1);
            return None;
        };
        Some(Arc::new(ClosedCache::new(oldest, &self.flushes, contents)))
    }

    /// The first sequence that a record of a segment may have.
    fn first_of(&self, segment: SegmentNumber) -> Option<Sequence> {
        let positions = self.disk.l2()?.positions_of(segment)?;
        Some(Sequence(positions.start.value()))
    }

    /// Removes all entries from memory, then waits until the disk tier is written and its lock is
    /// free.
    pub(crate) async fn finish(&self) -> Result<(), CacheError> {
        self.disk.check_ours()?;
        self.cleanup.finish_all().await;
        if let Some(missing) = self.disk.missing() {
            missing.reopening.idle().await;
        }
        if let Some(missing) = self.disk.missing() {
            missing.cover.settle().await;
        }
        let Some(l2) = self.disk.l2().filter(|_| self.disk.has_file()) else { return Ok(()) };
        let closed = l2.log.closed().await;
        if let Some(file) = self.disk.close_file() {
            file.wait().await;
        }
        closed.map_err(|Off| self.disk.device_error())
    }

    /// Ends a cache without handles, and frees its memory on another thread.
    pub(crate) fn abandon(&self) {
        self.commit_lock.section().close();
        self.events.close();
        self.held_errors.close();
        self.fetch_tasks.close();
        self.end_tasks(None);
        self.disk.close_file();
        let entries = Arc::clone(&self.l1).pieces();
        let (ended, _) = self.end_namespaces();
        drop(Remains::new(ended.pieces().map(|freed| freed.entries).chain(entries)));
    }

    fn end_tasks(&self, index: Option<Arc<dyn ClosedIndex>>) {
        self.disk.close_log(index);
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
