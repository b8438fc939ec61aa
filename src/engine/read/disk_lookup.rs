//! `DiskLookup`: finds entries that memory does not hold, and offers them for promotion.

use std::sync::Arc;
use std::time::Instant;

use crate::commit_lock::CommitLock;
use crate::config::BlobCacheConfig;
use crate::counters::{Counters, Event};
use crate::disk_admission::DiskAdmission;
use crate::engine::admission::Admission;
use crate::engine::background::promotion::Promoter;
use crate::engine::disk_tier::DiskTier;
use crate::engine::expired_slots::ExpiredSlots;
use crate::engine::index_budget::IndexBudget;
use crate::engine::last_access::LastAccess;
use crate::engine::parts::Parts;
use crate::engine::read::record_reader::{Read, RecordReader};
use crate::engine::removal::Removal;
use crate::engine::renewed_slots::RenewedSlots;
use crate::engine::visibility::Visibility;
use crate::entry::{Entry, Mark};
use crate::failpoint::{Failpoint, failpoint};
use crate::gate::Answerable;
use crate::hit::BlobCacheHit;
use crate::io::BLOCK_BYTES;
use crate::key::{KeyHash, NamespaceRef};
use crate::l1;
use crate::l1::L1;
use crate::l2::{Extent, Slot};
use crate::latency::Latencies;
use crate::modes::L2PromotionPolicy;
use crate::namespace::{Generation, Namespaces};
use crate::pending::PendingInvalidations;
use crate::policy::Lifetime;

pub(crate) struct DiskLookup {
    config: Arc<BlobCacheConfig>,
    counters: Counters,
    commit_lock: Arc<CommitLock>,
    namespaces: Arc<Namespaces>,
    pending: Arc<PendingInvalidations>,
    l1: Arc<L1>,
    promoter: Promoter,
    last_access: LastAccess,
    visibility: Visibility,
    budget: Arc<IndexBudget>,
    removal: Removal,
    expired: ExpiredSlots,
    renewed: RenewedSlots,
    disk: Arc<DiskTier>,
    disk_admission: Arc<DiskAdmission>,
    admission: Admission,
    reader: Arc<RecordReader>,
    latencies: Arc<Latencies>,
}

impl DiskLookup {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            config: parts.config.clone(),
            counters: parts.counters.clone(),
            commit_lock: parts.commit_lock.clone(),
            namespaces: parts.namespaces.clone(),
            pending: parts.pending.clone(),
            l1: parts.l1.clone(),
            promoter: Promoter::new(parts),
            last_access: LastAccess::new(parts),
            visibility: Visibility::new(parts),
            budget: parts.budget.clone(),
            removal: Removal::new(parts),
            expired: ExpiredSlots::new(parts),
            renewed: RenewedSlots::new(parts),
            disk: parts.disk.clone(),
            disk_admission: parts.disk_admission.clone(),
            admission: Admission::new(parts),
            reader: Arc::new(RecordReader::new(parts)),
            latencies: parts.latencies.clone(),
        }
    }

    /// The slot of a live record of this hash, if the namespace's gate lets it be answered. An
    /// error if the filter rules it out.
    pub(crate) fn find_on_disk(
        &self,
        namespace: NamespaceRef<'_>,
        hash: KeyHash,
    ) -> Result<Option<OnDisk>, SurelyAbsent> {
        if self.disk.l2().is_none_or(|l2| l2.health().is_off()) {
            return Ok(None);
        }
        let Some(generation) = self.namespaces.find(namespace.name) else { return Ok(None) };
        // Before the slot is found and, once the record was read, found again: a mutation before
        // the gate was opened is seen then.
        let answerable = generation.ask_gate();
        if answerable == Answerable::No && !failpoint(Failpoint::GateUnaskedOnDisk) {
            return Ok(None);
        }
        if !generation.synopsis().may_hold(hash) {
            self.counters.count(Event::SynopsisAnswer);
            return Err(SurelyAbsent);
        }
        self.counters.count(Event::IndexAnswer);
        let slot = generation.index().get(hash).filter(|slot| !slot.dead);
        Ok(slot.map(|slot| OnDisk { generation, hash, slot, answerable }))
    }

    /// Reads the record of a key. Counts neither a hit nor a miss.
    pub(crate) async fn read_entry(&self, on_disk: OnDisk, key: Arc<[u8]>) -> Option<Found> {
        let begun = Instant::now();
        let found = self.read_current(on_disk, key).await;
        if found.is_some() {
            self.latencies.l2_get.count(begun);
        }
        found
    }

    async fn read_current(&self, mut on_disk: OnDisk, key: Arc<[u8]>) -> Option<Found> {
        // Bounded: a read in each turn.
        loop {
            let OnDisk { generation, hash, slot, .. } = &on_disk;
            match self.reader.read(generation, (&key, *hash), *slot, Extent::Whole).await {
                Ok(Some(Read::Entry(entry))) => {
                    if self.pending.matching(&entry).is_some()
                        && !failpoint(Failpoint::PendingInvalidationIgnored)
                    {
                        return None;
                    }
                    // If memory has taken the entry in since, only memory knows its last access.
                    let place = entry.idle_ttl().map(|_| self.l1.lock_place(entry.hash));
                    // Asked before its deadlines are compared: so a removal finds a later touch.
                    let judged = self.renewed.of(on_disk.hash, on_disk.slot);
                    // The slot comes last: an invalidation marks the records that it matches dead
                    // before it is withdrawn.
                    if self.expired.restore(&entry) && self.renewed.are_current(&entry) {
                        let found = self.serve(entry, place, (on_disk.slot, judged))?;
                        let hit = self.visibility.told(found.hit, on_disk.answerable);
                        return Some(Found { hit, ..found });
                    }
                }
                Ok(None) => {}
                Ok(Some(Read::Other)) | Err(_) => return None,
            }
            // The record has moved or was touched, or another value has replaced it.
            match on_disk.generation.index().get(on_disk.hash) {
                Some(slot) if !slot.dead && !on_disk.generation.has_ended() => on_disk.slot = slot,
                _ => return None,
            }
        }
    }

    /// Makes a hit of an entry that was read, with its life since the last touch. `place` is locked
    /// if access times matter.
    fn serve(
        &self,
        entry: Arc<Entry>,
        place: Option<l1::LockedPlace<'_>>,
        (slot, judged): (Slot, Option<Lifetime>),
    ) -> Option<Found> {
        let in_memory = place.as_ref().and_then(l1::LockedPlace::entry);
        let same = in_memory.filter(|same| same.sequence() == entry.sequence());
        match same {
            Some(same) => entry.accessed_like(same),
            None => self.last_access.restore(&entry),
        }
        if self.budget.misses_accesses(&entry) {
            self.budget.want_accesses(&mut self.commit_lock.section());
        }
        match self.visibility.judge(&entry) {
            Ok(stale) => {
                same.inspect(|same| same.accessed_like(&entry));
                Some(Found { hit: BlobCacheHit { entry, stale }, slot })
            }
            Err(expired) => {
                drop(place);
                self.removal.expire_on_disk(
                    &entry.generation,
                    (entry.hashed_key(), entry.sequence()),
                    (expired, judged),
                );
                None
            }
        }
    }

    /// Marks the record as read and offers the entry for promotion.
    pub(crate) fn offer_found(&self, Found { hit, slot }: Found) -> BlobCacheHit {
        self.disk_admission.found(hit.entry.hash, hit.entry.key.len() + hit.entry.value.len());
        let was_read = hit.entry.generation.index().mark_read(hit.entry.hash, slot.position);
        if was_read || self.config.l2_promotion_policy == L2PromotionPolicy::Immediate {
            self.offer(&hit.entry, slot.blocks);
        }
        hit
    }

    /// Offers an entry for promotion if memory may hold it. A value that is still to be copied
    /// keeps all blocks that were read for it.
    pub(crate) fn offer(&self, entry: &Arc<Entry>, blocks: u16) {
        let quota = entry.generation.quota().and_then(|quota| quota.limits.l1_bytes_max);
        let max = self.admission.l1_charge_max(entry.admission).min(quota.unwrap_or(usize::MAX));
        if entry.charge <= max {
            let is_exact = entry.is(Mark::Exact);
            let read = if is_exact { 0 } else { usize::from(blocks) * BLOCK_BYTES };
            self.promoter.offer(entry, entry.charge.max(read));
        }
    }
}

pub(crate) struct OnDisk {
    generation: Arc<Generation>,
    hash: KeyHash,
    slot: Slot,
    answerable: Answerable,
}

impl OnDisk {
    /// Of the blocks that hold the record.
    pub(crate) fn bytes(&self) -> usize {
        usize::from(self.slot.blocks) * BLOCK_BYTES
    }
}

pub(crate) struct Found {
    pub(crate) hit: BlobCacheHit,
    slot: Slot,
}

/// The filter rules the hash out.
pub(crate) struct SurelyAbsent;
