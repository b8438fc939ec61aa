//! `Visibility`: which entries readers may see, and whether those are fresh, stale or expired.

use std::num::NonZeroU64;
use std::sync::Arc;

use crate::clock::{Clock, Timestamp, nanos};
use crate::commit_lock::Section;
use crate::engine::disk_tier::DiskTier;
use crate::engine::last_access::LastAccess;
use crate::engine::parts::Parts;
use crate::engine::renewed_slots::RenewedSlots;
use crate::entry::Entry;
use crate::failpoint::{Failpoint, failpoint};
use crate::gate::Answerable;
use crate::hit::BlobCacheHit;
use crate::key::{HashedKey, KeyHash, NamespaceRef};
use crate::l1::L1;
use crate::l2::{BlobSummary, Slot};
use crate::namespace::Generation;
use crate::pending::{PendingInvalidation, PendingInvalidations};
use crate::policy::{Freshness, Lifetime};
use crate::sequence::Sequence;

pub(crate) struct Visibility {
    clock: Clock,
    pending: Arc<PendingInvalidations>,
    l1: Arc<L1>,
    last_access: LastAccess,
    renewed: RenewedSlots,
    disk: Arc<DiskTier>,
}

impl Visibility {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            clock: parts.clock.clone(),
            pending: parts.pending.clone(),
            l1: parts.l1.clone(),
            last_access: LastAccess::new(parts),
            renewed: RenewedSlots::new(parts),
            disk: parts.disk.clone(),
        }
    }

    /// The entry of a key, unless a pending invalidation matches it. It may have expired.
    #[inline]
    pub(crate) fn visible(
        &self,
        namespace: NamespaceRef<'_>,
        key: HashedKey<'_>,
    ) -> Option<Arc<Entry>> {
        // All under the shard's lock, or an overwrite would look like a miss.
        self.l1.find(key.hash, |entry| {
            entry.is_of(namespace.name, key.bytes) && self.is_in_force(entry)
        })
    }

    /// The same for a reader, if the namespace's gate lets it be answered.
    #[inline]
    pub(crate) fn answerable(
        &self,
        namespace: NamespaceRef<'_>,
        key: HashedKey<'_>,
    ) -> Option<(Arc<Entry>, Answerable)> {
        let mut answerable = Answerable::AsItIs;
        let entry = self.l1.find(key.hash, |entry| {
            if !entry.is_of(namespace.name, key.bytes) {
                return false;
            }
            // Before all that a mutation changes: one before the gate was opened is seen then.
            answerable = entry.generation.ask_gate();
            self.is_in_force(entry)
        })?;
        if failpoint(Failpoint::GateAskedLate) {
            answerable = entry.generation.ask_gate();
        }
        (answerable != Answerable::No).then_some((entry, answerable))
    }

    #[inline]
    fn is_in_force(&self, entry: &Entry) -> bool {
        // `is_held` comes last: an invalidation that is no longer pending has removed all entries
        // that it matched. In the other order, an entry could be seen again after others were told
        // that it is gone.
        !(self.pending.any_in_force() && self.pending.matching(entry).is_some()) && entry.is_held()
    }

    /// A hit of what its gate lets be answered as it is, or as a stale entry.
    pub(crate) fn told(&self, mut hit: BlobCacheHit, answerable: Answerable) -> BlobCacheHit {
        if answerable == Answerable::AsStale && hit.stale.is_none() {
            let left = nanos(hit.entry.life().end().saturating_since(self.clock.timestamp()));
            hit.stale = Some(NonZeroU64::new(left).unwrap_or(NonZeroU64::MIN));
        }
        hit
    }

    /// Reads the clock only if the entry has a deadline.
    pub(crate) fn freshness(&self, entry: &Entry) -> Freshness {
        if entry.is_endless() {
            return Freshness::Fresh;
        }
        entry.freshness(self.clock.timestamp())
    }

    /// Of the record of a slot, as a directory lists it.
    pub(crate) fn freshness_listed(&self, slot: Slot, blob: &BlobSummary<'_>) -> Freshness {
        let (life, last_access) = self.life_listed(slot, blob);
        life.freshness(self.clock.timestamp(), last_access)
    }

    /// The life of its record since the last touch: then a directory lists other deadlines.
    pub(crate) fn renewal(&self, hash: KeyHash, slot: Slot) -> Option<Lifetime> {
        self.renewed.of(hash, slot)
    }

    /// Its life, and its last access.
    pub(crate) fn life_listed(&self, slot: Slot, blob: &BlobSummary<'_>) -> (Lifetime, Timestamp) {
        let renewed = self.renewed.of(KeyHash(blob.hash), slot);
        let last_access = self.last_access.of_listed(slot.position, blob, renewed.as_ref());
        (renewed.unwrap_or_else(|| blob.life()), last_access)
    }

    /// The pending invalidation that matches an entry that is on disk only.
    pub(crate) fn matching_on_disk(
        &self,
        generation: &Arc<Generation>,
        key: HashedKey<'_>,
        only: Sequence,
        section: &mut Section<'_>,
    ) -> Option<Arc<PendingInvalidation>> {
        if !self.pending.any_in_force() {
            return None;
        }
        let labels = generation.labels(section).of(key.hash, only);
        self.pending.matching_record(generation, only, key.bytes, &labels)
    }

    pub(crate) fn is_on_disk(
        &self,
        generation: &Generation,
        hash: KeyHash,
        sequence: Sequence,
    ) -> bool {
        self.disk.l2().is_some() && generation.live_slot(hash, sequence).is_some()
    }

    /// Notes a hit, and gives what is left of its stale window. An error if it has expired.
    /// Inlined: a call is a seventh of a hit with a deadline.
    #[inline(always)]
    pub(crate) fn judge(&self, entry: &Entry) -> Result<Option<NonZeroU64>, Freshness> {
        let now = self.clock.timestamp();
        if entry.has_only_a_ttl() && now < entry.expires() {
            entry.hits.note();
            return Ok(None);
        }
        self.judge_by_all(entry, now)
    }

    fn judge_by_all(&self, entry: &Entry, now: Timestamp) -> Result<Option<NonZeroU64>, Freshness> {
        let freshness = entry.freshness(now);
        if freshness.is_expired() {
            return Err(freshness);
        }
        entry.hits.note();
        if entry.accessed(now) && !entry.node.is_linked() {
            self.last_access.record(entry);
        }
        Ok(freshness.stale_window_left())
    }
}
