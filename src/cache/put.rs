//! Writing: `put`, from the limits down to the append section, which is `append`'s.

use std::mem::take;
use std::sync::Arc;

use crate::cache::append::{Draftee, InMemory, Proposal, Verdict, draft};
use crate::cache::durability::Acknowledgement;
use crate::cache::record::Recording;
use crate::cache::shared::Shared;
use crate::cache::version::Attempted;
use crate::config::L1_BYTES_MAX;
use crate::counters::Event;
use crate::entry::{Entry, Extras, Mark};
use crate::error::{BlobLimit, CacheError};
use crate::io::BLOCK_BYTES;
use crate::key::NamespaceRef;
use crate::modes::{L1Admission, L2Compression};
use crate::policy::{BlobCachePolicy, Lifetime};
use crate::put::{BlobCachePut, Value};
use crate::wake::contained;

impl Shared {
    pub(super) async fn put(
        self: &Arc<Self>,
        namespace: NamespaceRef<'_>,
        key: &[u8],
        mut put: BlobCachePut,
        default: &BlobCachePolicy,
    ) -> Result<(), CacheError> {
        let own = put.policy.take();
        let policy = own.as_ref().unwrap_or(default);
        let life = self.lifetime(policy, namespace, key);
        self.store(namespace, key, &mut put, (policy, &life)).await
    }

    /// Puts a value whose life is decided. The value is left behind in `put`, and where it has been
    /// stored, in the memory that the entry has it in.
    pub(super) async fn store(
        self: &Arc<Self>,
        namespace: NamespaceRef<'_>,
        key: &[u8],
        put: &mut BlobCachePut,
        (policy, life): (&BlobCachePolicy, &Lifetime),
    ) -> Result<(), CacheError> {
        self.check_open()?;
        self.check_put(namespace.name, key, put)?;
        let hash = self.hasher.key(namespace.seed, key);
        let tags = put.tags.iter().map(String::as_str);
        let dependencies = put.dependencies.iter().map(String::as_str);
        let labels = self.label_hashes(namespace, tags, dependencies);
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
        let read_at = put.read_at;
        let labels = extras.as_ref().map_or(&[][..], |extras| &extras.labels);
        if self.is_stale(read_at, namespace, (key, hash), labels, &mut self.order.section()) {
            return self.acknowledge(self.refuse_stale()).await;
        }
        let spare = current.as_ref().map_or(0, |entry| entry.charge);
        if let Some(l2) = self.l2() {
            l2.log.uncrowded().await;
        }
        let turn = self.intake.turn(charge + self.compressed_bytes_max(value.len())).await;
        let generation = self.find_or_begin(namespace.name).await?;
        let kind = (policy.priority, policy.l1_admission);
        let mut entry = Entry::new(generation, (key, hash), life, kind, extras);
        entry.charge = charge;
        if put.is_absent {
            entry.mark(Mark::Absent);
        }
        let in_memory = match is_wanted {
            true => self.room_for(&entry, spare).await,
            false => InMemory::Unwanted,
        };
        let mut recording = None;
        if self.l2().is_some() || matches!(in_memory, InMemory::Reserved(_)) {
            entry.value = take(&mut put.value).into_exact().await;
            put.value = Value::Exact(entry.value.clone());
        }
        let is_refused = self.l2().is_some() && self.has_no_room_on_disk(&entry);
        if self.l2().is_some() && !is_refused {
            let body = self.compress(&entry).await;
            let (tags, dependencies) = (take(&mut put.tags), take(&mut put.dependencies));
            recording = Recording::new(body, tags, dependencies).await;
        }
        let proposal =
            Proposal { namespace, entry, attempted, read_at, in_memory, recording, known };
        let begun = Arc::clone(&proposal.entry.namespace);
        let is_placed = is_wanted || is_refused;
        let placed = if is_placed { Ok(()) } else { self.check_place(&proposal) };
        let committed = match placed {
            Ok(()) => self.commit(proposal).await,
            Err(error) => Err(error),
        };
        if committed.is_err() {
            self.namespaces.give_up(&begun, &self.order);
        }
        let acknowledgement = committed?;
        drop(turn);
        self.keep_to_quota(&begun).await;
        self.make_room(0, u8::MAX).await;
        self.help();
        self.acknowledge(acknowledgement).await
    }

    /// Makes room in memory for an entry, besides what it takes the place of.
    async fn room_for(&self, entry: &Entry, spare: usize) -> InMemory<'_> {
        let charges = (entry.charge, spare);
        match self.reserve(&entry.namespace, charges, entry.priority).await {
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
        let is_refused = self.is_beyond_quota(entry, 1, held);
        self.counters.add(Event::L2Full, u64::from(is_refused));
        is_refused
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

    /// Enters the append section, again where something has changed that it could not wait for.
    async fn commit<'a>(
        self: &'a Arc<Self>,
        mut proposal: Proposal<'a>,
    ) -> Result<Acknowledgement, CacheError> {
        loop {
            let turn = self.l2().map_or(0, |l2| l2.log.turn());
            proposal = match self.append(proposal)? {
                Verdict::Done(acknowledgement) => return Ok(acknowledgement),
                Verdict::NamespaceEnded(mut proposal) => {
                    proposal.entry.namespace = self.find_or_begin(proposal.namespace.name).await?;
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
                    let (generation, attempted) = (&entry.namespace, proposal.attempted);
                    let known = self.version_on_disk(generation, key, slot, attempted).await?;
                    proposal.known = Some(known);
                    proposal
                }
            };
        }
    }
}

/// A pair of strings that own no more than their bytes.
fn shrunk((mut key, mut value): (String, String)) -> (String, String) {
    key.shrink_to_fit();
    value.shrink_to_fit();
    (key, value)
}
