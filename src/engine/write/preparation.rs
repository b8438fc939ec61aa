//! `Preparation`: an attempt of a put, up to its commit section: memory, its copy, its record.

use std::sync::Arc;

use bytes::Bytes;

use crate::batch::BATCH_BYTES;
use crate::disk_admission::DiskAdmission;
use crate::engine::disk_tier::DiskTier;
use crate::engine::eviction::Eviction;
use crate::engine::parts::Parts;
use crate::engine::write::admitted::{Admitted, DiskRefusal};
use crate::engine::write::commit::{Commit, InMemory, NewRecord, Proposal, encode};
use crate::engine::write::record_encoder::{Body, RecordEncoder, Recording};
use crate::entry::Entry;
use crate::error::{BlobLimit, CacheError};
use crate::failpoint::{Failpoint, failpoint};
use crate::key::{HashedKey, KeyHash, NamespaceRef};
use crate::l1::L1;
use crate::namespace::Generation;
use crate::put::{BlobCachePut, Value};

/// A key, and the namespace that it is in.
type NamedKey<'a> = (NamespaceRef<'a>, HashedKey<'a>);

/// An attempt of a put.
pub(super) struct Prepared<'a> {
    pub(super) proposal: Proposal<'a>,
    /// The bytes of its entry, if the put has others.
    pub(super) copy: Option<Bytes>,
    /// Why the disk does not take it.
    pub(super) refusal: Option<DiskRefusal>,
}

pub(super) struct Preparation {
    l1: Arc<L1>,
    disk: Arc<DiskTier>,
    disk_admission: Arc<DiskAdmission>,
    eviction: Eviction,
    encoder: RecordEncoder,
    commit: Commit,
}

impl Preparation {
    pub(super) fn new(parts: &Parts) -> Self {
        Self {
            l1: Arc::clone(&parts.l1),
            disk: Arc::clone(&parts.disk),
            disk_admission: Arc::clone(&parts.disk_admission),
            eviction: Eviction::new(parts),
            encoder: RecordEncoder::new(parts),
            commit: Commit::new(parts),
        }
    }

    /// Copies and encodes a value, and reserves room in memory. An error if the value fits no tier.
    pub(super) async fn prepare<'a>(
        &'a self,
        ((namespace, key), generation): (NamedKey<'a>, &Arc<Generation>),
        admitted: &mut Admitted,
        put: &mut BlobCachePut,
        mut body: Option<Body>,
    ) -> Result<Prepared<'a>, CacheError> {
        let is_over_rate = self.is_over_rate(generation, key.hash);
        let is_wanted = admitted.is_wanted || (is_over_rate && admitted.is_held_alone);
        let is_on_disk = self.disk.has_file();
        let is_full = self.has_no_room_on_disk(generation, key.hash);
        let judged = admitted.newcomer;
        let settle = |is_in_memory: bool| {
            // Without room in memory no tier would have it.
            let newcomer = judged.or_taken(|| !is_in_memory);
            (newcomer, DiskRefusal::first(is_full, newcomer, is_over_rate))
        };
        // Between the polls that a long value takes, the put may sleep: it reserves behind them.
        let reserved = if put.value.as_slice().len() > BATCH_BYTES {
            None
        } else {
            Some(self.room_for(generation, admitted, is_wanted).await)
        };
        let is_for_memory = match &reserved {
            Some(in_memory) => matches!(in_memory, InMemory::Reserved(_)),
            None => is_wanted && self.l1.could_hold(admitted.room),
        };
        let value =
            if is_on_disk || is_for_memory { put.value.exact().await } else { Bytes::new() };
        // Else it has the bytes of the entry already.
        let is_copied = !matches!(put.value, Value::Exact(_)) && !value.is_empty();
        let copy = is_copied.then(|| value.clone());
        let entry = admitted.entry(generation, key, value);
        let (mut newcomer, mut refusal) = settle(is_for_memory);
        let mut recording = match refusal {
            None if is_on_disk => self.recording(body.take(), &entry, put).await,
            _ => None,
        };
        let in_memory = match reserved {
            Some(in_memory) => in_memory,
            None if is_for_memory => self.room_for(generation, admitted, true).await,
            None if is_wanted => InMemory::NoRoom,
            None => InMemory::Unwanted,
        };
        if is_for_memory && !matches!(in_memory, InMemory::Reserved(_)) {
            let was_refused = refusal.is_some();
            (newcomer, refusal) = settle(false);
            if is_on_disk && was_refused && refusal.is_none() {
                recording = self.recording(body.take(), &entry, put).await;
            }
        }
        let proposal = Proposal {
            namespace,
            entry: Arc::new(entry),
            version: admitted.version,
            read_at: put.read_at,
            in_memory,
            recording,
            known: admitted.known,
            newcomer,
        };
        // Neither tier would have it.
        if is_on_disk && !admitted.is_wanted && refusal.is_none() {
            self.check_room(&proposal)?;
        }
        Ok(Prepared { proposal, copy, refusal })
    }

    /// `body`: if it was made before.
    async fn recording(
        &self,
        body: Option<Body>,
        entry: &Entry,
        put: &mut BlobCachePut,
    ) -> Option<Recording> {
        let body = match body {
            Some(body) => Some(body),
            None => self.encoder.body_of(entry).await,
        };
        body.map(|body| Recording::of(body, put))
    }

    async fn room_for(
        &self,
        generation: &Generation,
        admitted: &Admitted,
        is_wanted: bool,
    ) -> InMemory<'_> {
        if !is_wanted {
            return InMemory::Unwanted;
        }
        match self.eviction.reserve(generation, admitted.room, admitted.kind.0).await {
            Some(reservation) => InMemory::Reserved(reservation),
            None => InMemory::NoRoom,
        }
    }

    /// Whether the disk quota is used up. Near the limit the section decides.
    fn has_no_room_on_disk(&self, generation: &Generation, hash: KeyHash) -> bool {
        if generation.quota().is_none() || self.disk.l2().is_none() {
            return false;
        }
        self.commit.is_beyond_quota(generation, 1, generation.index().get(hash))
    }

    /// Whether the write rate keeps a new key off the disk.
    fn is_over_rate(&self, generation: &Generation, hash: KeyHash) -> bool {
        let Some(l2) = self.disk.l2() else { return false };
        self.disk_admission.is_over_rate(|| l2.bytes_written())
            && (generation.index().get(hash).is_none() || failpoint(Failpoint::OverwriteRefused))
    }

    /// An error if a blob that memory does not take is too large for the disk.
    fn check_room(&self, proposal: &Proposal<'_>) -> Result<(), CacheError> {
        let Some(l2) = self.disk.l2() else { return Ok(()) };
        let size = proposal.entry.charge.max(proposal.entry.value.len());
        match encode(l2, proposal) {
            Some(NewRecord { is_blob: true, .. }) => Ok(()),
            _ => Err(CacheError::BlobTooLarge {
                size,
                // A record and its directory entry share the segment with its header.
                max: l2.geometry().blob_bytes_max().min(size - 1),
                limit: BlobLimit::Segment,
            }),
        }
    }
}
