//! Writing: `put`, from the limits down to the append section, which is `append`'s.

use std::mem::take;
use std::sync::Arc;

use bytes::Bytes;

use crate::cache::append::{Draftee, InMemory, Proposal, Verdict, draft};
use crate::cache::durability::Acknowledgement;
use crate::cache::record::Recording;
use crate::cache::shared::Shared;
use crate::cache::version::{Attempted, Known};
use crate::config::L1_BYTES_MAX;
use crate::counters::Event;
use crate::entry::{Entry, Extras, Mark};
use crate::error::{BlobLimit, CacheError};
use crate::io::BLOCK_BYTES;
use crate::key::{KeyHash, NamespaceRef};
use crate::l1::Room;
use crate::l2::Place;
use crate::modes::{L1Admission, L2Compression};
use crate::namespace::Namespace;
use crate::policy::{BlobCachePolicy, Lifetime};
use crate::put::{BlobCachePut, Value};
use crate::step::STEP_BYTES;
use crate::wake::contained;

/// A put that has passed the limits.
struct Admitted<'a> {
    namespace: NamespaceRef<'a>,
    key: &'a [u8],
    terms: Terms,
}

/// What has been found out for it.
#[derive(Debug, Clone, Copy)]
struct Terms {
    hash: KeyHash,
    life: Lifetime,
    /// Priority and admission.
    kind: (u8, L1Admission),
    /// What it counts against the budget of memory, and what it takes the place of.
    room: Room,
    /// Whether memory is to hold it.
    is_wanted: bool,
    attempted: Attempted,
    known: Option<Known>,
}

/// What a put waits for when it is in force, and where it was written; None where it was refused.
pub(super) type Written = (Acknowledgement, Option<Arc<Namespace>>);

impl Shared {
    pub(super) async fn put(
        self: &Arc<Self>,
        namespace: NamespaceRef<'_>,
        key: &[u8],
        mut put: BlobCachePut,
        default: &BlobCachePolicy,
    ) -> Result<(), CacheError> {
        let policy = put.policy_or(default);
        let life = self.lifetime(&policy, namespace, key);
        let written = self.store(namespace, key, &mut put, (&policy, &life)).await?;
        // The value is the cache's from here on, which may let go of it while this call waits.
        drop(put);
        self.finish_put(written).await
    }

    /// Puts a value whose life is decided, and leaves it to [`Self::finish_put`] to wait until it
    /// may be called done. The value is left behind in `put`, and where it has been stored, in the
    /// memory that the entry has it in.
    pub(super) async fn store(
        self: &Arc<Self>,
        namespace: NamespaceRef<'_>,
        key: &[u8],
        put: &mut BlobCachePut,
        (policy, life): (&BlobCachePolicy, &Lifetime),
    ) -> Result<Written, CacheError> {
        self.check_open()?;
        self.check_put(namespace.name, key, put)?;
        let hash = self.hasher.key(namespace.seed, key);
        let tags = put.tags.iter().map(String::as_str);
        let dependencies = put.dependencies.iter().map(String::as_str);
        let labels = self.label_hashes(namespace, tags, dependencies);
        // Bounded: by the metadata of one entry.
        let metadata = take(&mut put.content_metadata).into_iter().map(shrunk).collect();
        let extras = Extras::new(metadata, labels, policy.version, life);
        let value = put.value.as_slice();
        let charge = self.charge(key, value, extras.as_deref());
        let is_wanted = self.admits(namespace.name, policy, value.len(), charge)?;

        // Judged here as well as in the section, so that a put which is bound to be refused neither
        // evicts anything nor takes a namespace slot.
        let current = self.visible(namespace, key, hash);
        let attempted = Attempted { version: policy.version, renews: put.renews };
        let known = self.foresee(current.as_deref(), namespace, (key, hash), attempted).await?;
        let labels = extras.as_ref().map_or(&[][..], |extras| &extras.labels);
        if self.is_stale(put.read_at, namespace, (key, hash), labels, &mut self.order.section()) {
            return Ok((self.refuse_stale(), None));
        }
        let spare = current.map_or(0, |entry| entry.charge);
        let kind = (policy.priority, policy.l1_admission);
        let room = Room { bytes: charge, spare };
        let terms = Terms { hash, life: *life, kind, room, is_wanted, attempted, known };
        let admitted = Admitted { namespace, key, terms };
        if put.value.as_slice().len() <= STEP_BYTES {
            self.write(admitted, extras, put).await
        } else {
            self.write_long(admitted, extras, put).await
        }
    }

    /// What is left to do for a put that is in force.
    pub(super) async fn finish_put(&self, written: Written) -> Result<(), CacheError> {
        let (acknowledgement, namespace) = written;
        if let Some(namespace) = namespace {
            self.keep_to_quota(&namespace).await;
            self.make_room(Room::default(), u8::MAX).await;
            self.help();
        }
        self.acknowledge(acknowledgement).await
    }

    /// Writes a value that takes many polls, in memory that is set aside for that: its copy, and
    /// what it is compressed to.
    async fn write_long(
        self: &Arc<Self>,
        admitted: Admitted<'_>,
        extras: Option<Box<Extras>>,
        put: &mut BlobCachePut,
    ) -> Result<Written, CacheError> {
        // Its charge may be the user's own, and say nothing of memory.
        let length = put.value.as_slice().len();
        let bytes = length.saturating_add(self.compressed_bytes_max(length));
        // Should the work be revoked, it begins anew with the same bytes.
        let source = BlobCachePut { value: take(&mut put.value).into_shareable(), ..put.clone() };
        let name: Arc<str> = admitted.namespace.name.into();
        let key: Arc<[u8]> = admitted.key.into();
        let (seed, terms) = (admitted.namespace.seed, admitted.terms);
        let (written, value) = self
            .intake
            .run(bytes, |permit| {
                let (shared, name, key) = (Arc::clone(self), Arc::clone(&name), Arc::clone(&key));
                let extras = extras.as_ref().and_then(|extras| extras.twin(&terms.life));
                let mut put = source.clone();
                async move {
                    let namespace = NamespaceRef { name: &name, seed };
                    let admitted = Admitted { namespace, key: &key, terms };
                    let written = shared.write(admitted, extras, &mut put).await;
                    drop(permit);
                    (written, put.value)
                }
            })
            .await;
        put.value = value;
        written
    }

    /// Writes a value to both tiers. One of up to 256 KiB is copied, compressed and committed in
    /// one poll: whoever waits, for room in the log or in memory, holds nothing.
    async fn write(
        self: &Arc<Self>,
        admitted: Admitted<'_>,
        extras: Option<Box<Extras>>,
        put: &mut BlobCachePut,
    ) -> Result<Written, CacheError> {
        let Admitted { namespace, key, terms } = admitted;
        let Terms { hash, life, kind, room, .. } = terms;
        // Before it takes a namespace's place, which is another's for as long as it is empty.
        let place = match self.l2() {
            Some(l2) => Some(l2.log.room(room.bytes, None).await),
            None => None,
        };
        let generation = self.find_or_begin(namespace.name).await?;
        let begun = Arc::clone(&generation);
        let mut entry = Entry::new(generation, (key, hash), &life, kind, extras);
        entry.charge = room.bytes;
        if put.is_absent {
            entry.mark(Mark::Absent);
        }
        let written = self.write_entry((namespace, terms), entry, put, place).await;
        if written.is_err() {
            self.namespaces.give_up(&begun, &self.order);
        }
        written
    }

    async fn write_entry(
        self: &Arc<Self>,
        (namespace, terms): (NamespaceRef<'_>, Terms),
        mut entry: Entry,
        put: &mut BlobCachePut,
        mut place: Option<Place>,
    ) -> Result<Written, CacheError> {
        let Terms { room, is_wanted, attempted, mut known, .. } = terms;
        let (read_at, is_long) = (put.read_at, put.value.as_slice().len() > STEP_BYTES);
        let mut body = None;
        let mut is_refused = false;
        // Bounded: a wait or an attempt in each turn.
        loop {
            if let Some(l2) = self.l2().filter(|_| take(&mut is_refused)) {
                place = Some(l2.log.room(room.bytes, place).await);
            }
            let in_memory = match is_wanted {
                true => self.room_for(&entry, room).await,
                false => InMemory::Unwanted,
            };
            if self.l2().is_some() || matches!(in_memory, InMemory::Reserved(_)) {
                entry.value = put.value.exact().await;
            }
            let is_full = self.l2().is_some() && self.has_no_room_on_disk(&entry);
            let recording = match (self.l2(), body.take()) {
                (Some(_), Some(body)) if !is_full => Some(Recording::of(body, put)),
                (Some(_), None) if !is_full => {
                    let body = self.compress(&entry).await.summed().await;
                    body.map(|body| Recording::of(body, put))
                }
                _ => None,
            };
            let (generation, value) = (Arc::clone(&entry.namespace), entry.value.clone());
            let proposal =
                Proposal { namespace, entry, attempted, read_at, in_memory, recording, known };
            if !is_wanted && !is_full {
                self.check_place(&proposal)?;
            }
            let (undone, slot) = match self.append(proposal)? {
                Verdict::Done(acknowledgement) => {
                    self.counters.add(Event::L2Full, u64::from(is_full));
                    if !value.is_empty() {
                        put.value = Value::Exact(value);
                    }
                    return Ok((acknowledgement, Some(generation)));
                }
                Verdict::NamespaceEnded(proposal) => (proposal, None),
                Verdict::NoRoom(proposal) => {
                    is_refused = true;
                    (proposal, None)
                }
                Verdict::VersionUnknown(proposal, slot) => (proposal, Some(slot)),
            };
            let Proposal { entry: again, in_memory, recording, .. } = undone;
            drop((in_memory, value));
            entry = again;
            if let Some(recording) = recording {
                let again = recording.give_back(put);
                // It was a step's work, and is memory.
                body = Some(again).filter(|_| is_long);
            }
            if !is_long {
                entry.value = Bytes::new();
            }
            if entry.namespace.has_ended() {
                entry.namespace = self.find_or_begin(namespace.name).await?;
            }
            if let Some(slot) = slot {
                let key = (&*entry.key, entry.hash);
                let generation = Arc::clone(&entry.namespace);
                known = Some(self.version_on_disk(&generation, key, slot, attempted).await?);
            }
        }
    }

    /// Makes room in memory for an entry, besides what it takes the place of.
    async fn room_for(&self, entry: &Entry, room: Room) -> InMemory<'_> {
        match self.reserve(&entry.namespace, room, entry.priority).await {
            Some(reservation) => InMemory::Reserved(reservation),
            None => InMemory::NoRoom,
        }
    }

    /// Whether its namespace has used up its quota on disk, so that no work need be done for its
    /// record. Where that is close, the section judges.
    fn has_no_room_on_disk(&self, entry: &Entry) -> bool {
        if entry.namespace.quota().is_none() {
            return false;
        }
        let held = entry.namespace.index().get(entry.hash);
        self.is_beyond_quota(entry, 1, held)
    }

    /// What compressing a value may take besides it.
    fn compressed_bytes_max(&self, value_bytes: usize) -> usize {
        let is_compressed = self.l2().is_some() && self.config.l2_compression == L2Compression::On;
        if is_compressed { value_bytes } else { 0 }
    }

    fn check_put(&self, namespace: &str, key: &[u8], put: &BlobCachePut) -> Result<(), CacheError> {
        self.check_namespace(namespace)?;
        self.check_key(key)?;
        self.check_labels(put.tags.iter().chain(&put.dependencies).map(String::as_str))?;
        let metadata = &put.content_metadata;
        let keys = metadata.len();
        // Bounded: by the metadata of one put, before anything is held.
        let bytes = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        let max_keys = self.config.content_metadata_keys_max;
        let max_bytes = self.config.content_metadata_bytes_max;
        if keys > max_keys || bytes > max_bytes {
            return Err(CacheError::MetadataTooLarge { keys, bytes, max_keys, max_bytes });
        }
        Ok(())
    }

    /// What an entry with these parts counts against the budget.
    pub(super) fn charge(&self, key: &[u8], value: &[u8], extras: Option<&Extras>) -> usize {
        let footprint = || Entry::footprint(key, value, extras);
        match self.config.charge {
            // Beyond any budget it is all the same, and sums of such do not overflow. A panic of
            // what is not ours must not end a task that others need.
            Some(charge) => contained(|| charge(key, value))
                .map_or_else(footprint, |charge| charge.clamp(1, L1_BYTES_MAX + 1)),
            None => footprint(),
        }
    }

    /// The most that an entry may count for memory to hold it.
    pub(super) fn l1_charge_max(&self, admission: L1Admission) -> usize {
        match admission {
            L1Admission::Never => 0,
            L1Admission::Auto => self.l1.bytes_max() / 8,
            L1Admission::Always => self.l1.bytes_max(),
        }
    }

    /// Whether L1 takes a blob that counts `charge`. An error where no tier does.
    fn admits(
        &self,
        namespace: &str,
        policy: &BlobCachePolicy,
        value_bytes: usize,
        charge: usize,
    ) -> Result<bool, CacheError> {
        if let Some(max) = policy.blob_bytes_max.filter(|max| value_bytes > *max) {
            let (size, limit) = (value_bytes, BlobLimit::Policy);
            return Err(CacheError::BlobTooLarge { size, max, limit });
        }
        if policy.l1_admission == L1Admission::Never {
            return Ok(false);
        }
        let quota = self.config.quota(namespace).l1_bytes_max.unwrap_or(usize::MAX);
        let max = self.l1_charge_max(policy.l1_admission).min(quota);
        let below = self.l2().map_or(0, |l2| l2.geometry().segment_bytes() as usize);
        if charge <= max {
            Ok(true)
        } else if charge <= below {
            Ok(false)
        } else {
            let limit = match policy.l1_admission {
                _ if below > max => BlobLimit::Segment,
                _ if max == quota => BlobLimit::Quota,
                L1Admission::Always => BlobLimit::Memory,
                _ => BlobLimit::ShareOfMemory,
            };
            Err(CacheError::BlobTooLarge { size: charge, max: max.max(below), limit })
        }
    }

    /// An error where a blob that is not for memory is too large for the disk.
    fn check_place(&self, proposal: &Proposal<'_>) -> Result<(), CacheError> {
        let Some(l2) = self.l2() else { return Ok(()) };
        let size = proposal.entry.charge.max(proposal.entry.value.len());
        match draft(l2, proposal) {
            Some(Draftee { is_blob: true, .. }) => Ok(()),
            _ => Err(CacheError::BlobTooLarge {
                size,
                // A record and what lists it share the segment with its header.
                max: (l2.geometry().segment_bytes() as usize - 3 * BLOCK_BYTES).min(size - 1),
                limit: BlobLimit::Segment,
            }),
        }
    }
}

/// A pair of strings that own no more than their bytes.
fn shrunk((mut key, mut value): (String, String)) -> (String, String) {
    key.shrink_to_fit();
    value.shrink_to_fit();
    (key, value)
}
