//! `ExpiredRecords`: marks expired records on disk as dead, so that they no longer count against
//! their namespace's quota.
//!
//! Memory stores no deadlines for records that are only on disk; the directories of the segments
//! do. If a namespace is refused a record for its quota, and some of its records may have expired,
//! a task searches the directories for them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::batch::{Pacer, yield_now};
use crate::clock::{Clock, Timestamp};
use crate::engine::background::wakeup::Wakeup;
use crate::engine::disk_tier::DiskTier;
use crate::engine::parts::Parts;
use crate::engine::removal::Removal;
use crate::engine::visibility::Visibility;
use crate::io::TaskRunner;
use crate::key::{HashedKey, KeyHash};
use crate::l2::{BlobSummary, L2, Position, SearchTargets, SegmentNumber};
use crate::namespace::{Generation, Namespaces};
use crate::sequence::Sequence;

/// Average time for a listed record. It bounds the task's share of processor and device.
const RECORD_PAUSE: Duration = Duration::from_micros(2);

/// The least time between two segments, and between two passes.
const SEGMENT_PAUSE: Duration = Duration::from_millis(1);

const PASS_PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct ExpiredRecords {
    clock: Clock,
    namespaces: Arc<Namespaces>,
    disk: Arc<DiskTier>,
    visibility: Visibility,
    removal: Removal,
}

impl ExpiredRecords {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            clock: parts.clock.clone(),
            namespaces: parts.namespaces.clone(),
            disk: parts.disk.clone(),
            visibility: Visibility::new(parts),
            removal: Removal::new(parts),
        }
    }

    /// Adds a batch of namespaces with a quota that may have expired records. Later records note
    /// their deadlines; the pass meets all others. Returns where to go on.
    fn begin_pass(&self, from: usize, found: &mut Vec<Arc<Generation>>) -> Option<usize> {
        let now = self.clock.timestamp();
        let mut generations = Vec::new();
        let next = self.namespaces.some(from, &mut generations);
        // Bounded: by a batch.
        generations.retain(|it| it.quota().is_some() && it.next_end_on_disk() <= now);
        // Bounded: by a batch.
        generations.iter().for_each(|generation| generation.forget_ends_on_disk());
        found.append(&mut generations);
        next
    }

    /// Searches a segment. Gives the number of records found.
    async fn expire_listed(
        &self,
        l2: &L2,
        segment: SegmentNumber,
        generations: &[Arc<Generation>],
        targets: &Arc<SearchTargets>,
    ) -> u32 {
        let now = self.clock.timestamp();
        let (mut records, mut steps) = (0, Pacer::default());
        // An unreadable directory's records stay until they are reclaimed.
        let Ok(Some(mut search)) = l2.search(segment, targets).await else { return 0 };
        while let Ok(Some(found)) = search.next().await {
            for (position, blob) in found.iter() {
                steps.entry().await;
                records += 1;
                let is_of = |generation: &&Arc<Generation>| blob.namespace == generation.named();
                // Bounded: by the quotas of a configuration.
                if let Some(generation) = generations.iter().find(is_of) {
                    self.expire(generation, position, &blob, now);
                }
            }
        }
        records
    }

    fn expire(
        &self,
        generation: &Arc<Generation>,
        position: Position,
        blob: &BlobSummary<'_>,
        now: Timestamp,
    ) {
        let (hash, sequence) = (KeyHash(blob.hash), Sequence(position.value()));
        let Some(slot) = generation.live_slot(hash, sequence) else { return };
        let judged = self.visibility.renewal(hash, slot);
        let (life, last_access) = self.visibility.life_listed(slot, blob);
        let freshness = life.freshness(now, last_access);
        if freshness.is_expired() {
            // Its labels stay while its record does.
            let key = HashedKey { bytes: blob.key, hash };
            self.removal.expire_on_disk(generation, (key, sequence), (freshness, judged));
        } else {
            generation.note_end_on_disk(life.ends(last_access));
        }
    }
}

/// The task: makes a pass after each wakeup, until it is closed or the cache is gone.
pub(crate) async fn run(
    wakeup: Arc<Wakeup>,
    runner: Arc<dyn TaskRunner>,
    records: Weak<ExpiredRecords>,
) {
    // Bounded: a wait in each turn.
    while wakeup.notified().await {
        let Some(this) = records.upgrade() else { return };
        let Some(l2) = this.disk.l2() else { return };
        let mut generations = Vec::new();
        let mut next = Some(0);
        // Bounded: a batch in each turn, then a yield.
        while let Some(from) = next {
            next = this.begin_pass(from, &mut generations);
            yield_now().await;
        }
        let segments = if generations.is_empty() { None } else { Some(l2.segments()) };
        let mut targets = SearchTargets::default();
        // Bounded: by the quotas of a configuration.
        generations.iter().for_each(|generation| targets.add(generation.named(), &[]));
        let targets = Arc::new(targets);
        drop(this);
        // Bounded: a wait in each turn.
        for segment in segments.into_iter().flatten() {
            let Some(this) = records.upgrade().filter(|_| !wakeup.is_closed()) else { return };
            let Some(l2) = this.disk.l2() else { return };
            let count =
                this.expire_listed(l2, SegmentNumber(segment), &generations, &targets).await;
            drop(this);
            wakeup.rest(runner.sleep(SEGMENT_PAUSE + RECORD_PAUSE * count)).await;
        }
        wakeup.rest(runner.sleep(PASS_PAUSE)).await;
    }
}
