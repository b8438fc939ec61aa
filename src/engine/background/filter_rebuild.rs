//! `FilterRebuild`: rebuilds worn filters, in one task that sleeps until one is worn.

use std::sync::{Arc, Weak};

use crate::batch::{BATCH_ENTRIES, yield_now};
use crate::commit_lock::CommitLock;
use crate::engine::background::filter_signal::FilterSignal;
use crate::engine::background::wakeup::Wakeup;
use crate::engine::parts::Parts;
use crate::l2::Position;
use crate::namespace::{Generation, Namespaces};

pub(crate) struct FilterRebuild {
    commit_lock: Arc<CommitLock>,
    namespaces: Arc<Namespaces>,
}

impl FilterRebuild {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self { commit_lock: parts.commit_lock.clone(), namespaces: parts.namespaces.clone() }
    }

    /// In a section, so that no put is between the old filter and its slot.
    fn begin_filter(&self, generation: &Generation) -> bool {
        generation.begin_filter(&mut self.commit_lock.section())
    }
}

/// The task: rebuilds worn filters until it is closed or the cache is gone.
pub(crate) async fn run(filters: Arc<FilterSignal>, rebuild: Weak<FilterRebuild>) {
    let upgrade = || rebuild.upgrade();
    // Bounded: a wait in each turn.
    loop {
        let mut next = Some(0);
        // Bounded: a batch in each turn, then a yield.
        while let Some(from) = next {
            let Some(this) = upgrade() else { return };
            let mut generations = Vec::new();
            next = this.namespaces.some(from, &mut generations);
            drop(this);
            // Bounded: by a batch.
            for generation in generations {
                // Bounded: a filter in each turn, which yields.
                while generation.synopsis().needs_rebuild() {
                    let Some(this) = upgrade() else { return };
                    let has_begun = this.begin_filter(&generation);
                    // Dropping the cache must not wait for the rest.
                    drop(this);
                    if !has_begun || !make(&generation, filters.wakeup()).await {
                        break;
                    }
                    let Some(this) = upgrade() else { return };
                    let old = generation.finish_filter(&mut this.commit_lock.section());
                    drop(old);
                }
            }
            yield_now().await;
        }
        if !filters.wakeup().notified().await {
            return;
        }
    }
}

/// Fills a new filter from the index. False if it is no longer needed.
async fn make(generation: &Generation, wakeup: &Wakeup) -> bool {
    let mut cursor = Some(Default::default());
    // Bounded: a batch in each turn, then a yield.
    while let Some(from) = cursor {
        let (mut found, everything) = (Vec::new(), Position::FIRST..Position::LAST);
        cursor = generation.index().scan(from, everything, BATCH_ENTRIES, &mut found);
        generation.synopsis().tell(found.into_iter().map(|(hash, _)| hash));
        yield_now().await;
        if wakeup.is_closed() || generation.has_ended() {
            return false;
        }
    }
    true
}
