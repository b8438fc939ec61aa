//! `Judge`: whether a get would find an entry now, and what a listing says of it. It counts neither
//! as a hit nor as an access.

use std::sync::Arc;

use crate::engine::disk_tier::DiskTier;
use crate::engine::expired_slots::ExpiredSlots;
use crate::engine::last_access::LastAccess;
use crate::engine::parts::Parts;
use crate::engine::read::record_reader::RecordReader;
use crate::engine::renewed_slots::RenewedSlots;
use crate::engine::visibility::Visibility;
use crate::entry::Entry;
use crate::failpoint::{Failpoint, failpoint};
use crate::key::{HashedKey, KeyHash, LabelHash, NamespaceRef, NamespaceSeed};
use crate::keys::KeyEntry;
use crate::l1::L1;
use crate::l2::{BlobSummary, Position, Slot};
use crate::namespace::Generation;
use crate::pending::PendingInvalidations;
use crate::sequence::Sequence;

pub(super) struct Judge {
    l1: Arc<L1>,
    pending: Arc<PendingInvalidations>,
    visibility: Visibility,
    last_access: LastAccess,
    expired: ExpiredSlots,
    renewed: RenewedSlots,
    reader: Arc<RecordReader>,
    disk: Arc<DiskTier>,
}

/// What is listed.
pub(super) struct Listed {
    pub(super) generation: Arc<Generation>,
    pub(super) seed: NamespaceSeed,
    pub(super) prefix: Box<[u8]>,
    pub(super) is_detailed: bool,
}

/// A record as its directory lists it, with the bytes that it takes.
pub(super) type ListedRecord<'a> = (Position, usize, BlobSummary<'a>);

/// What a directory alone tells of a record.
pub(super) enum Verdict {
    Entry(KeyEntry),
    /// A get finds nothing by it.
    Nothing,
    /// The hash has to be asked for what it has now.
    Unknown,
}

impl Judge {
    pub(super) fn new(parts: &Parts) -> Self {
        Self {
            l1: Arc::clone(&parts.l1),
            pending: Arc::clone(&parts.pending),
            visibility: Visibility::new(parts),
            last_access: LastAccess::new(parts),
            expired: ExpiredSlots::new(parts),
            renewed: RenewedSlots::new(parts),
            reader: Arc::new(RecordReader::new(parts)),
            disk: Arc::clone(&parts.disk),
        }
    }

    /// A record whose hash may have got another one from `bound` on.
    pub(super) fn record(
        &self,
        listed: &Listed,
        (position, bytes, blob): ListedRecord<'_>,
        bound: Position,
    ) -> Verdict {
        let (generation, hash) = (&listed.generation, KeyHash(blob.hash));
        let is_here = |slot: Slot| slot.position == position;
        match generation.index().get(hash) {
            Some(_) if failpoint(Failpoint::ListedUnchecked) => {
                let listed = KeyEntry::listed(blob.key, bytes, blob.version, blob.window_end_ns);
                return Verdict::Entry(listed);
            }
            Some(slot) if is_here(slot) => {}
            Some(slot) if slot.position >= bound => return Verdict::Unknown,
            _ => return self.held_only(generation, (blob.key, hash), position),
        }
        // A get asks memory first.
        let namespace = NamespaceRef { name: generation.name(), seed: listed.seed };
        let key = HashedKey { bytes: blob.key, hash };
        if let Some(entry) = self.visibility.visible(namespace, key) {
            return self.entry(&entry).map_or(Verdict::Nothing, Verdict::Entry);
        }
        if self.disk.is_off() {
            return Verdict::Nothing;
        }
        let sequence = Sequence(position.value());
        let is_covered = self.pending.any_in_force() && {
            // Bounded: by the labels of one entry.
            let labels: Vec<_> = blob.labels.iter().map(LabelHash).collect();
            self.pending.covers_record(generation, sequence, blob.key, &labels)
        };
        // The slot comes last: an invalidation marks the records that it covers before it is
        // withdrawn.
        let Some(slot) = generation.live_slot(hash, sequence) else { return Verdict::Unknown };
        let is_expired = slot.expired || generation.expired_since(sequence).is_some();
        // Of one that was touched the directory has other deadlines.
        let is_touched = self.visibility.renewal(hash, slot).is_some();
        if is_covered || is_expired || is_touched || listed.is_detailed {
            return Verdict::Unknown;
        }
        if self.visibility.freshness_listed(slot, &blob).is_expired() {
            return Verdict::Nothing;
        }
        Verdict::Entry(KeyEntry::listed(blob.key, bytes, blob.version, blob.window_end_ns))
    }

    /// A record whose slot has left the index. Memory may hold its entry all the same, and the walk
    /// over memory takes it as listed.
    fn held_only(
        &self,
        generation: &Arc<Generation>,
        (key, hash): (&[u8], KeyHash),
        position: Position,
    ) -> Verdict {
        let is_it = |entry: &Arc<Entry>| *entry.key == *key && entry.is_at(position);
        let held = self.held(generation, hash).filter(is_it);
        let held = held.filter(|_| !failpoint(Failpoint::ListedUnheld));
        held.and_then(|entry| self.entry(&entry)).map_or(Verdict::Nothing, Verdict::Entry)
    }

    /// What a hash has now, if it is wanted: asks memory, then the head of its record.
    pub(super) async fn current(
        &self,
        generation: &Arc<Generation>,
        hash: KeyHash,
        is_wanted: impl Fn(&Entry) -> bool + Send,
    ) -> Option<KeyEntry> {
        // Bounded: a read in each turn.
        loop {
            if let Some(entry) = self.held(generation, hash) {
                return self.entry(&entry).filter(|_| is_wanted(&entry));
            }
            let slot = self.slot(generation, hash)?;
            if let Some(entry) = self.reader.read_head(generation, hash, slot).await.ok()? {
                if is_wanted(&entry) && self.pending.matching(&entry).is_none() {
                    self.last_access.restore_from_either(&entry);
                    // The slot comes last, as above.
                    if self.expired.restore(&entry) {
                        // It was touched since it was read.
                        if !self.renewed.are_current(&entry) {
                            continue;
                        }
                        return self.entry(&entry);
                    }
                }
            }
            // The record has moved, or another one has replaced it, or it has left the log after
            // memory got its entry.
            let now = self.slot(generation, hash);
            if now.is_some_and(|now| now.position == slot.position) {
                return None;
            }
        }
    }

    /// The entry in memory of a hash.
    pub(super) fn held(&self, generation: &Arc<Generation>, hash: KeyHash) -> Option<Arc<Entry>> {
        self.l1.find(hash, |entry| {
            // `is_held` comes last, as in `Visibility::visible`.
            Arc::ptr_eq(&entry.generation, generation)
                && self.pending.matching(entry).is_none()
                && entry.is_held()
        })
    }

    /// What is said of an entry in memory, or of a head. None if it has expired.
    pub(super) fn entry(&self, entry: &Entry) -> Option<KeyEntry> {
        KeyEntry::of(entry, self.visibility.freshness(entry))
    }

    /// The sequence of what a hash has.
    pub(super) fn sequence(&self, generation: &Arc<Generation>, hash: KeyHash) -> Option<Sequence> {
        let held = self.held(generation, hash).map(|entry| entry.sequence());
        held.or_else(|| Some(Sequence(self.slot(generation, hash)?.position.value())))
    }

    fn slot(&self, generation: &Generation, hash: KeyHash) -> Option<Slot> {
        let is_on = self.disk.l2().is_some() && !self.disk.is_off() && !generation.has_ended();
        generation.index().get(hash).filter(|slot| is_on && !slot.dead)
    }
}
