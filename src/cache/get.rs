//! Reading: `get` and `exists`. What is in memory is answered at once; what is on disk is awaited.

use std::io;
use std::sync::Arc;

use crate::cache::record::{Allowance, Attempt, Extent, Read};
use crate::cache::shared::Shared;
use crate::counters::Event;
use crate::entry::{Entry, Mark};
use crate::flaw::{Flaw, planted};
use crate::hit::{BlobCacheHit, CachePresence};
use crate::key::{KeyHash, NamespaceRef};
use crate::l1;
use crate::l2::{Slot, tally};
use crate::modes::L2PromotionPolicy;
use crate::namespace::Namespace;
use crate::policy::Freshness;
use crate::sequence::Sequence;

/// A record to be looked at.
pub(super) struct OnDisk {
    generation: Arc<Namespace>,
    hash: KeyHash,
    slot: Slot,
}

/// What a record has turned out to hold.
pub(super) struct Found {
    pub(super) hit: BlobCacheHit,
    slot: Slot,
}

/// No configuration allows longer keys.
const KEY_BYTES_MOST: usize = 65_535;

/// What a synopsis says.
pub(super) struct SurelyAbsent;

impl Shared {
    /// Memory first, at once; then, in a box of its own, the disk.
    #[inline]
    pub(super) async fn get(
        self: &Arc<Self>,
        namespace: NamespaceRef<'_>,
        key: &[u8],
    ) -> Option<BlobCacheHit> {
        // What no key can be is not even hashed.
        if key.len() > KEY_BYTES_MOST {
            return self.miss();
        }
        let hash = self.hasher.key(namespace.seed, key);
        if let Some(hit) = self.look(namespace, key, hash) {
            return Some(hit);
        }
        match self.look_below(namespace, hash) {
            Some(on_disk) => Box::pin(self.get_below(on_disk, key)).await,
            None => None,
        }
    }

    /// An entry in memory that needs no fetch, and is a hit.
    #[inline]
    pub(super) fn look_fresh(
        &self,
        namespace: NamespaceRef<'_>,
        key: &[u8],
    ) -> Option<BlobCacheHit> {
        if key.len() > KEY_BYTES_MOST {
            return None;
        }
        let hash = self.hasher.key(namespace.seed, key);
        let hit = self.find(namespace, key, hash).filter(|hit| !hit.is_stale())?;
        self.count(&hit);
        Some(hit)
    }

    /// What memory does not hold: where it may be on disk, or else a miss. Kept out of the way of
    /// hits.
    #[inline(never)]
    fn look_below(&self, namespace: NamespaceRef<'_>, hash: KeyHash) -> Option<OnDisk> {
        match self.find_on_disk(namespace, hash) {
            Ok(Some(on_disk)) => Some(on_disk),
            nothing => {
                self.counters.add(Event::NegativeSkip, u64::from(nothing.is_err()));
                self.miss()
            }
        }
    }

    #[cold]
    fn miss<T>(&self) -> Option<T> {
        self.counters.count(Event::Miss);
        None
    }

    /// The whole of a hit in memory: one hash, one read lock, no allocation, no copy, no shared
    /// line written but the entry's own count.
    #[inline]
    fn look(&self, namespace: NamespaceRef<'_>, key: &[u8], hash: KeyHash) -> Option<BlobCacheHit> {
        let entry = self.visible(namespace, key, hash)?;
        if entry.is_endless() {
            entry.visit();
            self.counters.count(Event::Hit);
            return Some(BlobCacheHit { entry, stale: None });
        }
        self.judge_hit(entry).map_err(|(entry, gone)| self.expire(&entry, gone)).ok()
    }

    /// The same, but counts nothing.
    pub(super) fn find(
        &self,
        namespace: NamespaceRef<'_>,
        key: &[u8],
        hash: KeyHash,
    ) -> Option<BlobCacheHit> {
        let entry = self.visible(namespace, key, hash)?;
        if entry.is_endless() {
            entry.visit();
            return Some(BlobCacheHit { entry, stale: None });
        }
        self.judge(entry).map_err(|(entry, gone)| self.expire(&entry, gone)).ok()
    }

    /// Counts a hit that is going to be given to somebody who asked.
    pub(super) fn count(&self, hit: &BlobCacheHit) {
        self.counters.count(Event::Hit);
        if hit.is_stale() {
            self.counters.count(Event::StaleServe);
        }
        if hit.entry.is(Mark::FromDisk) {
            self.counters.count(Event::L2Hit);
        }
    }

    /// Where the index says that a value of the hash is. An error where the synopsis says already
    /// that there is none.
    pub(super) fn find_on_disk(
        &self,
        namespace: NamespaceRef<'_>,
        hash: KeyHash,
    ) -> Result<Option<OnDisk>, SurelyAbsent> {
        if self.l2().is_none_or(|l2| l2.health().is_off()) {
            return Ok(None);
        }
        let Some(generation) = self.namespaces.find(namespace.name) else { return Ok(None) };
        if !generation.synopsis().may_hold(hash) {
            self.counters.count(Event::SynopsisAnswer);
            return Err(SurelyAbsent);
        }
        self.counters.count(Event::IndexAnswer);
        let slot = generation.index().get(hash).filter(|slot| !slot.gone);
        Ok(slot.map(|slot| OnDisk { generation, hash, slot }))
    }

    /// Makes a hit of an entry in memory that is not gone, and counts it.
    fn judge_hit(&self, entry: Arc<Entry>) -> Result<BlobCacheHit, (Arc<Entry>, Freshness)> {
        let hit = self.judge(entry)?;
        self.counters.count(Event::Hit);
        if hit.is_stale() {
            self.counters.count(Event::StaleServe);
        }
        Ok(hit)
    }

    /// Makes a hit of an entry that is not gone. A part of each hit with a deadline: a call of its
    /// own would cost a seventh of that.
    #[inline(always)]
    pub(super) fn judge(&self, entry: Arc<Entry>) -> Result<BlobCacheHit, (Arc<Entry>, Freshness)> {
        let now = self.clock.timestamp();
        let freshness = entry.freshness(now);
        if freshness.is_gone() {
            return Err((entry, freshness));
        }
        entry.visit();
        if entry.accessed(now) && !entry.seat.is_taken() {
            self.keep_access(&entry);
        }
        Ok(BlobCacheHit { entry, stale: freshness.window_left() })
    }

    async fn get_below(self: &Arc<Self>, on_disk: OnDisk, key: &[u8]) -> Option<BlobCacheHit> {
        match self.find_below(on_disk, key).await {
            Some(found) => {
                let hit = self.offer_found(found);
                self.count(&hit);
                Some(hit)
            }
            None => self.miss(),
        }
    }

    /// Reads the record of a key that memory does not hold. Counts neither hit nor miss.
    pub(super) async fn find_below(
        self: &Arc<Self>,
        mut on_disk: OnDisk,
        key: &[u8],
    ) -> Option<Found> {
        // Bounded: a read in each turn.
        loop {
            let OnDisk { generation, hash, slot } = &on_disk;
            match self.read(generation, (key, *hash), *slot, Extent::Whole).await {
                Ok(Some(Read::Entry(entry))) => {
                    if self.rules.covering(&entry).is_some() && !planted(Flaw::RuleNotAsked) {
                        return None;
                    }
                    // Memory may have taken it in since, and then nobody else knows when it was
                    // last asked for.
                    let place = entry.idle_ttl().map(|_| self.l1.slot(entry.hash));
                    // Last, as in memory: what a rule covers is buried before it is withdrawn.
                    if self.is_on_disk(&entry.namespace, entry.hash, entry.sequence()) {
                        return self.serve(entry, place, on_disk.slot);
                    }
                }
                Ok(None) => {}
                Ok(Some(Read::Other)) | Err(_) => return None,
            }
            // It has moved, or another value has come in its place.
            match on_disk.generation.index().get(on_disk.hash) {
                Some(slot) if !slot.gone && !on_disk.generation.has_ended() => on_disk.slot = slot,
                _ => return None,
            }
        }
    }

    /// Makes a hit of an entry that was read by a slot, with its place in memory locked if that
    /// matters.
    fn serve(&self, entry: Arc<Entry>, place: Option<l1::Slot<'_>>, slot: Slot) -> Option<Found> {
        let held = place.as_ref().and_then(l1::Slot::entry);
        let held = held.filter(|held| held.sequence() == entry.sequence());
        match held {
            Some(held) => entry.accessed_like(held),
            None => self.recall_access(&entry),
        }
        if self.misses_accesses(&entry) {
            self.want_accesses(&mut self.order.section());
        }
        match self.judge(entry) {
            Ok(hit) => {
                held.inspect(|held| held.accessed_like(&hit.entry));
                Some(Found { hit, slot })
            }
            Err((entry, gone)) => {
                drop(place);
                self.expire_below(&entry.namespace, (entry.hash, entry.sequence()), gone);
                None
            }
        }
    }

    /// What was found is going to be given to somebody: it is worth a second chance, and is offered
    /// to memory.
    pub(super) fn offer_found(&self, Found { hit, slot }: Found) -> BlobCacheHit {
        let was_read = hit.entry.namespace.index().mark_read(hit.entry.hash, slot.position);
        if was_read || self.config.l2_promotion_policy == L2PromotionPolicy::Immediate {
            self.offer(&hit.entry, slot.blocks);
        }
        hit
    }

    /// Reads the record of a slot. None where the slot no longer holds that record. What is damaged
    /// is told, counted, and not looked at again.
    pub(super) async fn read(
        self: &Arc<Self>,
        generation: &Arc<Namespace>,
        (key, hash): (&[u8], KeyHash),
        slot: Slot,
        extent: Extent,
    ) -> io::Result<Option<Read>> {
        let Some(l2) = self.l2() else { return Ok(None) };
        let blocks = l2.bytes_to_read(slot, extent);
        let (key, mut spare): (Arc<[u8]>, _) = (key.into(), 0);
        // Bounded: a read in each turn.
        let read = loop {
            let bytes = blocks.saturating_add(spare);
            let read = self.reads.of(bytes).run(bytes, |permit| {
                let (shared, generation) = (Arc::clone(self), Arc::clone(generation));
                let key = Arc::clone(&key);
                async move {
                    let allowance = Allowance { permit, spare };
                    shared.read_within(&generation, (&key, hash), slot, extent, allowance).await
                }
            });
            match read.await {
                Ok(Attempt::Short(wanted)) => spare = wanted,
                Ok(Attempt::Done(read)) => break Ok(read),
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = &read {
            // What the log had in memory when it ended is not where it was to be written.
            if error.kind() == io::ErrorKind::InvalidData && !self.is_off() {
                tally(&l2.health().tally.corruptions, 1);
                log::warn!("the record at {} is damaged: {error}", slot.position.value());
                self.bury(generation, hash, Sequence(slot.position.value()));
            }
        }
        read
    }

    /// The same, in memory that is set aside for it.
    async fn read_within(
        &self,
        generation: &Arc<Namespace>,
        (key, hash): (&[u8], KeyHash),
        slot: Slot,
        extent: Extent,
        allowance: Allowance,
    ) -> io::Result<Attempt> {
        let Some(l2) = self.l2() else { return Ok(Attempt::Done(None)) };
        let is_wanted = || {
            let now = generation.index().get(hash);
            now.is_some_and(|now| now.position == slot.position && !now.gone)
        };
        match l2.fetch(slot, extent, &allowance.permit, is_wanted).await? {
            None => Ok(Attempt::Done(None)),
            Some(taken) => {
                self.read_record(l2, taken, generation, (key, hash), extent, &allowance).await
            }
        }
    }

    /// Looks without counting as an access, or as a hit or a miss.
    pub(super) fn exists(&self, namespace: NamespaceRef<'_>, key: &[u8]) -> CachePresence {
        if key.len() > KEY_BYTES_MOST {
            return CachePresence::Absent;
        }
        let hash = self.hasher.key(namespace.seed, key);
        match self.visible(namespace, key, hash) {
            Some(entry) if !self.freshness(&entry).is_gone() => CachePresence::Present,
            Some(_) => CachePresence::Absent,
            None if matches!(self.find_on_disk(namespace, hash), Ok(Some(_))) => {
                CachePresence::MaybePresent
            }
            None => CachePresence::Absent,
        }
    }
}
