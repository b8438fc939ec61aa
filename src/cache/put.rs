//! Writing: `put`, from the limits down to the append section.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::cache::durability::Acknowledgement;
use crate::cache::record::{Recording, named, with_change};
use crate::cache::shared::Shared;
use crate::counters::Event;
use crate::entry::{Entry, Extras};
use crate::error::CacheError;
use crate::key::{KeyHash, LabelHash, NamespaceRef};
use crate::l1::{self, Reservation};
use crate::l2::{Change, Dealt, Draft, L2, Position, Record, Refusal, Slot};
use crate::namespace::Namespace;
use crate::order::Section;
use crate::policy::{BlobCachePolicy, L1Admission};
use crate::put::BlobCachePut;
use crate::sequence::ReadPoint;

/// What a slot of the index takes, all of the index's slack included: see `l2/index`.
const SLOT_BYTES: usize = 24;

/// A put that has passed the limits. Only the append section can still refuse it.
struct Proposal<'a> {
    namespace: NamespaceRef<'a>,
    entry: Entry,
    version: Option<u64>,
    read_at: Option<ReadPoint>,
    in_memory: InMemory<'a>,
    /// None: L2 does not hold it.
    recording: Option<Recording>,
    /// The version that the record at a position carries, which was read for it.
    known: Option<(Position, Option<u64>)>,
}

/// What L1 does with a proposal.
enum InMemory<'a> {
    /// It was not to be held there.
    Unwanted,
    /// Everything there is of a higher priority: as good as evicted.
    NoRoom,
    Reserved(Reservation<'a>),
}

/// What the append section has made of a proposal.
enum Verdict<'a> {
    /// In force, or quietly refused.
    Done(Acknowledgement),
    /// Its namespace has ended since it was looked up.
    NamespaceEnded(Proposal<'a>),
    /// The log has no room yet.
    NoRoom(Proposal<'a>),
    /// What it must be compared with is on disk.
    VersionUnknown(Proposal<'a>, Slot),
}

impl Shared {
    pub(super) async fn put(
        &self,
        namespace: NamespaceRef<'_>,
        key: &[u8],
        put: BlobCachePut,
        default: &BlobCachePolicy,
    ) -> Result<(), CacheError> {
        self.check_open()?;
        self.check_put(namespace.name, key, &put)?;
        let policy = put.policy.as_ref().unwrap_or(default);
        let life = self.lifetime(policy, namespace, key);
        let hash = self.hasher.key(namespace.seed, key);
        let tags = put.tags.iter().map(String::as_str);
        let dependencies = put.dependencies.iter().map(String::as_str);
        let labels = self.label_hashes(namespace, tags, dependencies);
        let metadata = put.content_metadata.into_iter().map(shrunk).collect();
        let extras = Extras::new(metadata, labels, policy.version, &life);
        let value = put.value.as_slice();
        let charge = match self.config.charge {
            Some(charge) => charge(key, value).max(1),
            None => Entry::footprint(key, value, extras.as_deref()),
        };
        let is_wanted = self.admits(policy, value.len(), charge)?;

        // Judged here as well as in the section, so that a put which is bound to be refused neither
        // evicts anything nor takes a namespace slot.
        let current = self.visible(namespace, key, hash);
        if let Some(current) = &current {
            let version = current.version().filter(|_| !self.freshness(current).is_gone());
            self.judge_version(version, policy.version)?;
        }
        let read_at = put.read_at;
        let labels = extras.as_ref().map_or(&[][..], |extras| &extras.labels);
        if self.is_stale(read_at, namespace, (key, hash), labels, &mut self.order.section()) {
            return self.acknowledge(self.refuse_stale()).await;
        }
        let spare = current.map_or(0, |entry| entry.charge);

        let turn = self.intake.turn(charge).await;
        let generation = self.find_or_begin(namespace.name)?;
        let mut entry = Entry::new(generation, (key, hash), &life, policy.priority, extras);
        entry.charge = charge;
        let mut in_memory = InMemory::Unwanted;
        if is_wanted {
            in_memory = InMemory::Reserved(self.l1.reserve(charge));
            if !self.make_room(spare, policy.priority).await {
                in_memory = InMemory::NoRoom;
            }
        }
        let mut recording = None;
        if self.l2().is_some() || matches!(in_memory, InMemory::Reserved(_)) {
            entry.value = put.value.into_exact().await;
        }
        if self.l2().is_some() {
            recording = Recording::new(entry.value.clone(), put.tags, put.dependencies).await;
        }
        let (version, known) = (policy.version, None);
        let proposal = Proposal { namespace, entry, version, read_at, in_memory, recording, known };
        if !is_wanted {
            self.check_place(&proposal)?;
        }
        let acknowledgement = self.commit(proposal).await?;
        drop(turn);
        self.make_room(0, u8::MAX).await;
        self.help();
        self.acknowledge(acknowledgement).await
    }

    fn check_put(&self, namespace: &str, key: &[u8], put: &BlobCachePut) -> Result<(), CacheError> {
        self.check_namespace(namespace)?;
        self.check_key(key)?;
        self.check_labels(put.tags.iter().chain(&put.dependencies).map(String::as_str))?;
        let metadata = &put.content_metadata;
        let keys = metadata.len();
        let bytes = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        let max_keys = self.config.content_metadata_keys_max;
        let max_bytes = self.config.content_metadata_bytes_max;
        if keys > max_keys || bytes > max_bytes {
            return Err(CacheError::MetadataTooLarge { keys, bytes, max_keys, max_bytes });
        }
        Ok(())
    }

    /// Whether L1 takes a blob that counts `charge`. An error where no tier does.
    fn admits(
        &self,
        policy: &BlobCachePolicy,
        value_bytes: usize,
        charge: usize,
    ) -> Result<bool, CacheError> {
        if let Some(max) = policy.blob_bytes_max.filter(|max| value_bytes > *max) {
            return Err(CacheError::BlobTooLarge { size: value_bytes, max });
        }
        let max = match policy.l1_admission {
            L1Admission::Never => return Ok(false),
            L1Admission::Auto => self.l1.bytes_max() / 8,
            L1Admission::Always => self.l1.bytes_max(),
        };
        let below = self.l2().map_or(0, |l2| l2.geometry().segment_bytes() as usize);
        if charge <= max {
            Ok(true)
        } else if charge <= below {
            Ok(false)
        } else {
            Err(CacheError::BlobTooLarge { size: charge, max: max.max(below) })
        }
    }

    /// An error where a blob that is not for memory is too large for the disk.
    fn check_place(&self, proposal: &Proposal<'_>) -> Result<(), CacheError> {
        let Some(l2) = self.l2() else { return Ok(()) };
        match draft(l2, proposal) {
            Some(Draftee { is_blob: true, .. }) => Ok(()),
            _ => Err(CacheError::BlobTooLarge {
                size: proposal.entry.charge,
                max: l2.geometry().segment_bytes() as usize,
            }),
        }
    }

    fn judge_version(
        &self,
        existing: Option<u64>,
        attempted: Option<u64>,
    ) -> Result<(), CacheError> {
        match (existing, attempted) {
            (Some(existing), Some(attempted)) if existing >= attempted => {
                self.counters.count(Event::VersionMismatch);
                Err(CacheError::VersionMismatch { existing, attempted })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn find_or_begin(&self, name: &str) -> Result<Arc<Namespace>, CacheError> {
        self.namespaces.find_or_begin(name, &self.order, || self.next_generation())
    }

    /// Enters the append section, again where something has changed that it could not wait for.
    async fn commit<'a>(
        &'a self,
        mut proposal: Proposal<'a>,
    ) -> Result<Acknowledgement, CacheError> {
        loop {
            let turn = self.l2().map_or(0, |l2| l2.log.turn());
            proposal = match self.append(proposal)? {
                Verdict::Done(acknowledgement) => return Ok(acknowledgement),
                Verdict::NamespaceEnded(mut proposal) => {
                    proposal.entry.namespace = self.find_or_begin(proposal.namespace.name)?;
                    proposal
                }
                Verdict::NoRoom(proposal) => {
                    if let Some(l2) = self.l2() {
                        l2.log.room(turn).await;
                    }
                    proposal
                }
                Verdict::VersionUnknown(mut proposal, slot) => {
                    let entry = &proposal.entry;
                    let key = (&*entry.key, entry.hash);
                    let version = self.version_on_disk(&entry.namespace, key, slot).await;
                    proposal.known = Some((slot.position, version));
                    proposal
                }
            };
        }
    }

    /// The append section of a put. Nothing in it waits, and what it replaces is freed behind it.
    fn append<'a>(&self, proposal: Proposal<'a>) -> Result<Verdict<'a>, CacheError> {
        let hash = proposal.entry.hash;
        let draft = self.l2().and_then(|l2| draft(l2, &proposal));
        let slot = self.l1.slot(hash);
        let mut section = self.order.section();
        if section.is_closed() {
            return Err(CacheError::Closed);
        }
        if proposal.entry.namespace.has_ended() {
            return Ok(Verdict::NamespaceEnded(proposal));
        }
        let held = proposal.entry.namespace.index().get(hash);
        let covering = slot.entry().and_then(|entry| self.rules.covering(entry));
        let is_current = |entry: &&Arc<Entry>| {
            covering.is_none() && entry.is_of(proposal.namespace.name, &proposal.entry.key)
        };
        let current = slot.entry().filter(is_current);
        match self.existing_version(&proposal, current, held) {
            Ok(existing) => self.judge_version(existing, proposal.version)?,
            Err(slot) => return Ok(Verdict::VersionUnknown(proposal, slot)),
        }
        let Proposal { namespace, ref entry, read_at, .. } = proposal;
        let key = (&*entry.key, hash);
        if self.is_stale(read_at, namespace, key, entry.labels(), &mut section) {
            return Ok(Verdict::Done(self.refuse_stale()));
        }
        let draft = match draft {
            Some(blob) if held.is_none() && blob.is_blob && self.is_index_full() => {
                self.counters.count(Event::L2Full);
                tombstone(&proposal.entry.namespace, hash)
                    .map(|draft| Draftee { draft, is_blob: false })
            }
            draft => draft,
        };
        let recorded = match (self.l2(), draft) {
            (Some(l2), Some(draft)) => match record(l2, draft, &proposal.entry) {
                Ok(recorded) => Some(recorded),
                Err(Refusal::NoRoom) => return Ok(Verdict::NoRoom(proposal)),
                Err(Refusal::Off) => None,
            },
            _ => None,
        };
        let Proposal { mut entry, in_memory, .. } = proposal;
        let moment = section.moment();
        section.watermarks().key_mutated(hash, moment);
        let position = recorded.map(|recorded| recorded.dealt.position.value());
        entry.sequence = section.sequence(position);
        if let (Some(recorded), Some(_)) = (recorded, held) {
            self.shadowed_until(recorded.dealt.end);
        }
        if set_slot(&entry, recorded, held) {
            self.slots.fetch_add(1, Ordering::Relaxed);
        }
        let is_recorded = recorded.is_some_and(|recorded| recorded.is_blob);
        let replaced = self.install(entry, in_memory, is_recorded, slot, &mut section);
        if let Some(replaced) = &replaced {
            self.settle(replaced, covering.as_deref(), &mut section);
        }
        drop(section);
        let recorded = recorded.map(|recorded| recorded.dealt.end);
        Ok(Verdict::Done(Acknowledgement::over(held.is_some(), recorded)))
    }

    /// Makes the entry what its key has, in memory. Gives what was there.
    fn install(
        &self,
        entry: Entry,
        in_memory: InMemory<'_>,
        is_recorded: bool,
        slot: l1::Slot<'_>,
        section: &mut Section<'_>,
    ) -> Option<Arc<Entry>> {
        if is_recorded || matches!(in_memory, InMemory::Reserved(_)) {
            for &label in entry.labels() {
                section.labels().insert(label, entry.hash, entry.sequence);
            }
        }
        if is_recorded || !matches!(in_memory, InMemory::Unwanted) {
            self.counters.count(Event::Insertion);
        }
        match in_memory {
            InMemory::Reserved(reservation) => {
                entry.namespace.grow(entry.charge);
                // Counted once: as held, from here on.
                drop(reservation);
                slot.put(Arc::new(entry))
            }
            InMemory::NoRoom => {
                self.counters.count(Event::Eviction);
                slot.remove()
            }
            InMemory::Unwanted => slot.remove(),
        }
    }

    /// Whether the index is at its budget.
    fn is_index_full(&self) -> bool {
        self.slots.load(Ordering::Relaxed) >= self.config.l2_index_bytes_max / SLOT_BYTES
    }

    /// The version that a put must be above. An error where it is on disk, at that slot.
    fn existing_version(
        &self,
        proposal: &Proposal<'_>,
        current: Option<&Arc<Entry>>,
        held: Option<Slot>,
    ) -> Result<Option<u64>, Slot> {
        if proposal.version.is_none() {
            return Ok(None);
        }
        if let Some(current) = current {
            return Ok(current.version().filter(|_| !self.freshness(current).is_gone()));
        }
        match (held, proposal.known) {
            (Some(held), Some((position, version))) if held.position == position => Ok(version),
            (Some(held), _) if held.versioned && !held.gone => Err(held),
            _ => Ok(None),
        }
    }

    /// Whether the key has been mutated, or covered by an invalidation, after the point.
    fn is_stale(
        &self,
        point: Option<ReadPoint>,
        namespace: NamespaceRef<'_>,
        (key, hash): (&[u8], KeyHash),
        labels: &[LabelHash],
        section: &mut Section<'_>,
    ) -> bool {
        point.is_some_and(|point| {
            let latest = section.watermarks().latest(namespace.seed, key, hash, labels);
            !section.covers(point, latest)
        })
    }

    fn refuse_stale(&self) -> Acknowledgement {
        self.counters.count(Event::StaleSetRefused);
        Acknowledgement::Nothing
    }
}

/// A record to be taken into the log.
struct Draftee {
    draft: Draft,
    /// Else it is a tombstone: the blob is too large for a segment.
    is_blob: bool,
}

/// A record that has been taken.
#[derive(Debug, Clone, Copy)]
struct Recorded {
    dealt: Dealt,
    is_blob: bool,
}

fn draft(l2: &L2, proposal: &Proposal<'_>) -> Option<Draftee> {
    let entry = &proposal.entry;
    let blob = proposal.recording.as_ref().and_then(|recording| recording.draft(entry));
    let fits = |draft: &Draft| with_change(entry, |change| l2.log.fits(draft.lengths(), change));
    match blob.filter(fits) {
        Some(draft) => Some(Draftee { draft, is_blob: true }),
        None => Some(Draftee { draft: tombstone(&entry.namespace, entry.hash)?, is_blob: false }),
    }
}

/// The record that says a hash holds nothing any more.
pub(super) fn tombstone(namespace: &Namespace, hash: KeyHash) -> Option<Draft> {
    let record = Record::Tombstone { namespace: named(namespace), hash: hash.0 };
    Draft::new(&record, Bytes::new()).ok()
}

fn record(l2: &L2, draftee: Draftee, entry: &Entry) -> Result<Recorded, Refusal> {
    let Draftee { draft, is_blob } = draftee;
    let dealt = if is_blob {
        with_change(entry, |change| l2.log.append(draft, change))?
    } else {
        let namespace = named(&entry.namespace);
        l2.log.append(draft, &Change::Tombstone { namespace, hash: entry.hash.0 })?
    };
    Ok(Recorded { dealt, is_blob })
}

/// Points the index at what has been recorded. True where that takes a new slot.
fn set_slot(entry: &Entry, recorded: Option<Recorded>, held: Option<Slot>) -> bool {
    let Some(Recorded { dealt, is_blob }) = recorded else { return false };
    let is_new = is_blob && held.is_none();
    if is_blob || held.is_some() {
        let mut slot = Slot::new(dealt.position, dealt.blocks);
        slot.versioned = is_blob && entry.version().is_some();
        slot.gone = !is_blob;
        entry.namespace.index().insert(entry.hash, slot);
    }
    is_new
}

/// A pair of strings that own no more than their bytes.
fn shrunk((mut key, mut value): (String, String)) -> (String, String) {
    key.shrink_to_fit();
    value.shrink_to_fit();
    (key, value)
}
