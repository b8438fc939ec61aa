//! `Puts`: `put`, from the limits to the commit section.
//!
//! ```text
//! BlobCachePut                        value, metadata, labels and policy of the caller
//!   store        Admitted             within the limits; its charge, lifetime and version
//!   write                             room in the log, a namespace slot, the generation
//!   prepare      Entry                with memory reserved
//!                Body, Recording      compressed and checksummed; with the names of the labels
//!                Proposal             entry, reservation and recording
//!   append       NewRecord, Appended  in the commit section: encoded; with its position
//!                Verdict              done, or what it has to wait for
//! Written                             what finish_put waits for
//! ```

use std::mem::{replace, take};
use std::sync::Arc;
use std::time::Instant;

use crate::batch::{BATCH_BYTES, yield_now};
use crate::clock::Clock;
use crate::commit_lock::CommitLock;
use crate::config::BlobCacheConfig;
use crate::counters::Counters;
use crate::disk_admission::{DiskAdmission, Newcomer};
use crate::disposal::Freeing;
use crate::engine::acknowledge::{Acknowledgement, Acknowledger};
use crate::engine::admission::Admission;
use crate::engine::disk_tier::DiskTier;
use crate::engine::eviction::Eviction;
use crate::engine::index_budget::IndexBudget;
use crate::engine::invalidate::cleanup::Cleanup;
use crate::engine::parts::Parts;
use crate::engine::visibility::Visibility;
use crate::engine::write::admitted::{Admitted, DiskRefusal};
use crate::engine::write::commit::{Commit, Lack, Proposal, Verdict};
use crate::engine::write::namespace_slots::NamespaceSlots;
use crate::engine::write::preparation::{Preparation, Prepared};
use crate::engine::write::record_encoder::RecordEncoder;
use crate::engine::write::versions::{PutVersion, Versions};
use crate::entry::{Entry, Extras};
use crate::error::CacheError;
use crate::failpoint::{Failpoint, failpoint};
use crate::key::{HashedKey, KeyHash, KeyHasher, NamespaceRef};
use crate::l1::Room;
use crate::l2::RoomTicket;
use crate::label_texts::LabelTexts;
use crate::latency::Latencies;
use crate::limiter::Limiter;
use crate::namespace::{Generation, Namespaces};
use crate::policy::{BlobCachePolicy, Lifetime};
use crate::put::{BlobCachePut, Value, without_slack};
use crate::wake::discard;

pub(crate) struct Puts {
    config: Arc<BlobCacheConfig>,
    latencies: Arc<Latencies>,
    hasher: KeyHasher,
    clock: Clock,
    counters: Counters,
    budget: Arc<IndexBudget>,
    commit_lock: Arc<CommitLock>,
    namespaces: Arc<Namespaces>,
    visibility: Visibility,
    copies: Arc<Limiter>,
    freeing: Arc<Freeing>,
    slots: NamespaceSlots,
    pub(super) acknowledger: Arc<Acknowledger>,
    disk: Arc<DiskTier>,
    admission: Admission,
    encoder: RecordEncoder,
    cleanup: Cleanup,
    eviction: Eviction,
    versions: Versions,
    disk_admission: Arc<DiskAdmission>,
    preparation: Preparation,
    commit: Commit,
}

impl Puts {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            config: parts.config.clone(),
            hasher: parts.hasher.clone(),
            clock: parts.clock.clone(),
            counters: parts.counters.clone(),
            budget: parts.budget.clone(),
            commit_lock: parts.commit_lock.clone(),
            namespaces: parts.namespaces.clone(),
            visibility: Visibility::new(parts),
            copies: parts.copies.clone(),
            freeing: parts.freeing.clone(),
            slots: NamespaceSlots::new(parts),
            acknowledger: parts.acknowledger.clone(),
            disk: parts.disk.clone(),
            admission: Admission::new(parts),
            encoder: RecordEncoder::new(parts),
            cleanup: Cleanup::new(parts),
            eviction: Eviction::new(parts),
            versions: Versions::new(parts),
            disk_admission: parts.disk_admission.clone(),
            preparation: Preparation::new(parts),
            commit: Commit::new(parts),
            latencies: Arc::clone(&parts.latencies),
        }
    }

    /// Refuses calls on a closed cache, or on a forked copy.
    pub(crate) fn check_open(&self) -> Result<(), CacheError> {
        self.admission.check_open()
    }

    /// `of_handle`: the policy of the handle; that of the namespace if None.
    pub(crate) async fn put(
        self: &Arc<Self>,
        namespace: NamespaceRef<'_>,
        key: &[u8],
        put: &mut BlobCachePut,
        of_handle: Option<&BlobCachePolicy>,
    ) -> Result<(), CacheError> {
        let begun = Instant::now();
        let written = self.store_by_policy(namespace, key, put, of_handle).await?;
        self.finish_put(written).await?;
        self.latencies.put.count(begun);
        Ok(())
    }

    /// The same but for its end.
    pub(crate) async fn store_by_policy(
        self: &Arc<Self>,
        namespace: NamespaceRef<'_>,
        key: &[u8],
        put: &mut BlobCachePut,
        of_handle: Option<&BlobCachePolicy>,
    ) -> Result<Written, CacheError> {
        let fallback = BlobCachePolicy::default();
        let of_namespace = || self.config.namespaces.of(namespace.name).policy.as_deref();
        let policy = put.policy_or(of_handle.or_else(of_namespace).unwrap_or(&fallback));
        let life = self.lifetime(&policy, namespace, key);
        let written = self.store(namespace, key, put, (&policy, &life)).await?;
        // The cache may free the value while this call waits.
        discard((take(&mut put.value), take(&mut put.tags), take(&mut put.dependencies)));
        Ok(written)
    }

    /// Puts a value whose lifetime is decided. `finish_put` then waits for the acknowledgement.
    /// Leaves the value in `put`; if it was stored, in the memory that the entry shares.
    pub(crate) async fn store(
        self: &Arc<Self>,
        namespace: NamespaceRef<'_>,
        key: &[u8],
        put: &mut BlobCachePut,
        (policy, life): (&BlobCachePolicy, &Lifetime),
    ) -> Result<Written, CacheError> {
        self.admission.check_open()?;
        self.admission.check_put(namespace.name, key, put)?;
        let hashed = self.hasher.hashed(namespace.seed, key);
        let tags = put.tags.iter().map(String::as_str);
        let dependencies = put.dependencies.iter().map(String::as_str);
        let texts = LabelTexts::new(tags.clone(), dependencies.clone());
        let labels = (self.hasher.label_hashes(namespace, tags, dependencies), texts);
        let metadata = without_slack(take(&mut put.content_metadata));
        let extras = Extras::new(metadata, labels, policy.version, life);
        let value = put.value.as_slice();
        let charge = self.admission.charge(key, value, extras.as_deref());
        let is_wanted = self.admission.admits(namespace.name, policy, value.len(), charge)?;

        // Checked before the section too, so that a refused put evicts nothing and takes no slot.
        let current = self.visibility.visible(namespace, hashed);
        let (renews, replaces) = (put.renews, put.replaces);
        let version = PutVersion { version: policy.version, renews, replaces };
        let known = self.versions.precheck(current.as_deref(), namespace, hashed, version).await?;
        let labels = extras.as_ref().map_or(&[][..], |extras| &extras.labels);
        let is_stale = |point| {
            let section = &mut self.commit_lock.section();
            self.commit.is_stale(Some(point), namespace, hashed, labels, section)
        };
        if put.read_at.is_some_and(is_stale) {
            return Ok((self.commit.refuse_stale(), None));
        }
        let spare = current.map_or(0, |entry| entry.charge);
        let kind = (policy.priority, policy.l1_admission);
        let room = Room { bytes: charge, spare };
        let bytes = key.len() + put.value.as_slice().len();
        let is_held_alone = self.admission.is_held_alone(namespace.name, policy, charge);
        let is_for_memory = is_wanted || is_held_alone;
        let newcomer = self.judge_newcomer(namespace, hashed.hash, (is_for_memory, bytes));
        let is_wanted = is_wanted || !newcomer.is_taken;
        let mut admitted = Admitted {
            life: *life,
            extras,
            kind,
            is_absent: put.is_absent,
            room,
            is_wanted,
            is_held_alone,
            version,
            known,
            newcomer,
        };
        if put.value.as_slice().len() <= BATCH_BYTES {
            self.write((namespace, hashed), &mut admitted, put).await
        } else {
            self.write_long((namespace, hashed), &admitted, put).await
        }
    }

    /// The rest of a put that is in force.
    pub(crate) async fn finish_put(&self, written: Written) -> Result<(), CacheError> {
        let acknowledgement = self.tidy_up(written).await;
        self.acknowledger.acknowledge(acknowledgement).await
    }

    /// The same but for the wait. Gives what is still to be waited for.
    pub(crate) async fn tidy_up(&self, written: Written) -> Acknowledgement {
        let (acknowledgement, generation) = written;
        if let Some(generation) = generation {
            self.eviction.keep_to_quota(&generation).await;
            self.eviction.make_room(Room::default(), u8::MAX).await;
            self.cleanup.help();
            self.freeing.help();
        }
        acknowledgement
    }

    /// Puts a long value, within memory granted for its copy and its compressed form.
    async fn write_long(
        self: &Arc<Self>,
        (namespace, key): (NamespaceRef<'_>, HashedKey<'_>),
        admitted: &Admitted,
        put: &mut BlobCachePut,
    ) -> Result<Written, CacheError> {
        // A charge of the user's own says nothing about memory.
        let length = put.value.as_slice().len();
        let bytes =
            length.saturating_add(self.encoder.compressed_bytes_max(namespace.name, length));
        // If the grant is revoked, the work begins anew with the same bytes.
        let source = BlobCachePut { value: take(&mut put.value).into_shareable(), ..put.clone() };
        let (name, seed): (Arc<str>, _) = (namespace.name.into(), namespace.seed);
        let (key, hash): (Arc<[u8]>, _) = (key.bytes.into(), key.hash);
        let (written, value) = self
            .copies
            .run(bytes, |permit| {
                let (puts, name, key) = (Arc::clone(self), Arc::clone(&name), Arc::clone(&key));
                let (mut admitted, mut put) = (admitted.twin(), source.clone());
                async move {
                    let namespace = NamespaceRef { name: &name, seed };
                    let key = HashedKey { bytes: &key, hash };
                    let written = puts.write((namespace, key), &mut admitted, &mut put).await;
                    drop(permit);
                    (written, put.value)
                }
            })
            .await;
        put.value = value;
        // Its panic at the end of this function would leak the answer.
        discard(source);
        written
    }

    /// Writes a value to both tiers. A value of up to 256 KiB is copied, compressed and committed
    /// in one poll; a put that waits for room holds nothing.
    async fn write(
        self: &Arc<Self>,
        (namespace, key): (NamespaceRef<'_>, HashedKey<'_>),
        admitted: &mut Admitted,
        put: &mut BlobCachePut,
    ) -> Result<Written, CacheError> {
        // Before it takes a namespace slot, which others may take while the namespace is empty.
        let ticket = match self.disk.l2() {
            Some(l2) => Some(l2.log.room(admitted.room.bytes, None).await),
            None => None,
        };
        let mut generation = self.slots.find_or_begin(namespace.name).await?;
        match self.write_entry((namespace, key), &mut generation, admitted, put, ticket).await {
            Ok(acknowledgement) => Ok((acknowledgement, Some(generation))),
            Err(error) => {
                self.namespaces.give_up(&generation, &self.commit_lock);
                Err(error)
            }
        }
    }

    /// `generation`: that of the entry, before and after.
    async fn write_entry(
        self: &Arc<Self>,
        (namespace, key): (NamespaceRef<'_>, HashedKey<'_>),
        generation: &mut Arc<Generation>,
        admitted: &mut Admitted,
        put: &mut BlobCachePut,
        mut ticket: Option<RoomTicket>,
    ) -> Result<Acknowledgement, CacheError> {
        let version = admitted.version;
        let is_long = put.value.as_slice().len() > BATCH_BYTES;
        let mut body = None;
        let mut lack = None;
        // Bounded: a wait or an attempt in each turn.
        loop {
            ticket = self.until_room(lack.take(), admitted.room.bytes, ticket).await;
            let target = ((namespace, key), &*generation);
            let prepared = self.preparation.prepare(target, admitted, put, body.take()).await?;
            let Prepared { mut proposal, copy, refusal } = prepared;
            let verdict = self.commit.append(&mut proposal)?;
            let Proposal { entry, in_memory, recording, newcomer, .. } = proposal;
            // A short one is copied again: while it waits, it holds nothing.
            if let Some(copy) = copy.filter(|_| is_long || verdict.is_final()) {
                discard(replace(&mut put.value, Value::Exact(copy)));
            }
            let unknown = match verdict {
                Verdict::Done(acknowledgement) => {
                    self.note_refused(key.hash, newcomer, refusal);
                    return Ok(acknowledgement);
                }
                Verdict::Stale(acknowledgement) => return Ok(acknowledgement),
                Verdict::NamespaceEnded => None,
                Verdict::NoRoom(lacking) => {
                    lack = Some(lacking);
                    None
                }
                Verdict::VersionUnknown(slot) => Some(slot),
            };
            drop(in_memory);
            admitted.extras = Arc::into_inner(entry).and_then(Entry::into_extras);
            if let Some(recording) = recording {
                let again = recording.give_back(put);
                // Compressing it again would be a batch's work, and it holds memory.
                body = Some(again).filter(|_| is_long);
            }
            if generation.has_ended() {
                *generation = self.slots.find_or_begin(namespace.name).await?;
            }
            if let Some(slot) = unknown {
                let known = self.versions.version_on_disk(generation, key, slot, version).await?;
                admitted.known = Some(known);
            }
        }
    }

    /// Whether the disk takes it. A key that has a slot was held not long ago.
    fn judge_newcomer(
        &self,
        namespace: NamespaceRef<'_>,
        hash: KeyHash,
        (is_for_memory, bytes): (bool, usize),
    ) -> Newcomer {
        // Otherwise no tier would have it.
        if !is_for_memory || !self.disk.has_file() {
            return Newcomer::taken(bytes);
        }
        let newcomer = self.disk_admission.judge(hash, bytes, || self.namespaces.totals().live);
        newcomer.or_taken(|| {
            let generation = self.namespaces.find(namespace.name);
            generation.is_some_and(|generation| generation.index().get(hash).is_some())
                && !failpoint(Failpoint::OverwriteRefused)
        })
    }

    /// Counts a put that the disk did not take.
    fn note_refused(&self, hash: KeyHash, newcomer: Newcomer, refusal: Option<DiskRefusal>) {
        let Some(refusal) = refusal else { return };
        self.counters.count(refusal.event());
        if refusal == DiskRefusal::NotAdmitted {
            drop(self.disk_admission.refused(hash, newcomer.bytes, || self.budget.usage()));
        }
    }

    /// Waits until there may be what the section lacked. Gives the place for the next wait.
    async fn until_room(
        &self,
        lack: Option<Lack>,
        bytes: usize,
        ticket: Option<RoomTicket>,
    ) -> Option<RoomTicket> {
        match lack.zip(self.disk.l2()) {
            Some((Lack::Log, l2)) => Some(l2.log.room(bytes, ticket).await),
            Some((Lack::Unfreed, _)) => {
                self.freeing.help();
                yield_now().await;
                ticket
            }
            None => ticket,
        }
    }

    pub(crate) fn lifetime(
        &self,
        policy: &BlobCachePolicy,
        namespace: NamespaceRef<'_>,
        key: &[u8],
    ) -> Lifetime {
        policy.lifetime(namespace.name, key, self.clock.timestamp())
    }
}

/// What a put waits for, and the namespace it was written to; None if it was refused.
pub(crate) type Written = (Acknowledgement, Option<Arc<Generation>>);
