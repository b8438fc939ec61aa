//! `Versions`: compare and set. A put with a version must be above the version in force.
//!
//! The version of an entry that is only on disk is read from the head of its record before the
//! put's commit section, which checks that the record is still there.

use std::io;
use std::sync::Arc;

use crate::counters::{Counters, Event};
use crate::engine::admission::Admission;
use crate::engine::disk_tier::DiskTier;
use crate::engine::expired_slots::ExpiredSlots;
use crate::engine::last_access::LastAccess;
use crate::engine::parts::Parts;
use crate::engine::read::record_reader::{Read, RecordReader};
use crate::engine::visibility::Visibility;
use crate::entry::Entry;
use crate::error::CacheError;
use crate::key::{HashedKey, NamespaceRef};
use crate::l2::{Extent, Position, Slot};
use crate::namespace::{Generation, Namespaces};
use crate::pending::PendingInvalidations;
use crate::policy::Freshness;

pub(crate) struct Versions {
    counters: Counters,
    namespaces: Arc<Namespaces>,
    pending: Arc<PendingInvalidations>,
    last_access: LastAccess,
    expired: ExpiredSlots,
    visibility: Visibility,
    disk: Arc<DiskTier>,
    admission: Admission,
    reader: Arc<RecordReader>,
}

impl Versions {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            counters: parts.counters.clone(),
            namespaces: parts.namespaces.clone(),
            pending: parts.pending.clone(),
            last_access: LastAccess::new(parts),
            expired: ExpiredSlots::new(parts),
            visibility: Visibility::new(parts),
            disk: parts.disk.clone(),
            admission: Admission::new(parts),
            reader: Arc::new(RecordReader::new(parts)),
        }
    }

    /// Compares with the present version before any other work is done for the put.
    pub(crate) async fn precheck(
        &self,
        current: Option<&Entry>,
        namespace: NamespaceRef<'_>,
        key: HashedKey<'_>,
        attempted: PutVersion,
    ) -> Result<Option<Known>, CacheError> {
        if let Some(current) = current {
            self.judge_version(self.blocking_version(current, attempted), attempted)?;
            return Ok(None);
        }
        if attempted.version.is_none() || self.disk.is_off() {
            return Ok(None);
        }
        let Some(generation) = self.namespaces.find(namespace.name) else { return Ok(None) };
        let slot = generation.index().get(key.hash).filter(|slot| slot.versioned && !slot.dead);
        let Some(slot) = slot else { return Ok(None) };
        let known = self.version_on_disk(&generation, key, slot, attempted).await?;
        self.judge_version(known.1, attempted)?;
        Ok(Some(known))
    }

    /// The version in the record of a slot that blocks a put, if it is of this key.
    ///
    /// # Errors
    ///
    /// The device cannot tell. A version that may be newer must not be taken for forgotten.
    pub(crate) async fn version_on_disk(
        &self,
        generation: &Arc<Generation>,
        key: HashedKey<'_>,
        slot: Slot,
        attempted: PutVersion,
    ) -> Result<Known, CacheError> {
        let bytes = key.bytes.into();
        let entry = match self.reader.read(generation, (&bytes, key.hash), slot, Extent::Head).await
        {
            Ok(Some(Read::Entry(entry))) => entry,
            Err(error) if error.kind() != io::ErrorKind::InvalidData && !self.disk.is_off() => {
                self.admission.check_open()?;
                let attempted = attempted.version.unwrap_or_default();
                return Err(CacheError::VersionUnknown { attempted, source: error.into() });
            }
            // Damaged records are forgotten, and so is everything on a tier that was turned off.
            Ok(_) | Err(_) => return Ok((slot.position, None)),
        };
        // In this order, as for a hit: an invalidation marks the records that it matches dead
        // before it is withdrawn.
        let is_covered = self.pending.matching(&entry).is_some();
        let is_there = self.expired.restore(&entry);
        self.last_access.restore_from_either(&entry);
        let live = Some(&entry).filter(|_| !is_covered && is_there);
        Ok((slot.position, live.and_then(|entry| self.blocking_version(entry, attempted))))
    }

    /// The version that a put must be above. An error if it is on disk, in that slot.
    pub(crate) fn existing_version(
        &self,
        (attempted, known): (PutVersion, Option<Known>),
        current: Option<&Arc<Entry>>,
        slot: Option<Slot>,
    ) -> Result<Option<u64>, Slot> {
        if attempted.version.is_none() {
            return Ok(None);
        }
        if let Some(current) = current {
            return Ok(self.blocking_version(current, attempted));
        }
        match (slot, known) {
            (Some(slot), Some((position, version))) if slot.position == position => Ok(version),
            (Some(slot), _) if slot.versioned && !slot.dead && !self.disk.is_off() => Err(slot),
            _ => Ok(None),
        }
    }

    /// The version of an entry that a put must be above. An expired entry blocks nothing. A stale
    /// entry does not block its renewal: the origin may still have the same version. Neither does
    /// one whose value its readers cannot decode.
    fn blocking_version(&self, entry: &Entry, attempted: PutVersion) -> Option<u64> {
        let freshness = self.visibility.freshness(entry);
        let is_stale = matches!(freshness, Freshness::Stale(_));
        let is_renewed = attempted.renews
            && (is_stale || attempted.replaces)
            && entry.version() == attempted.version;
        entry.version().filter(|_| !freshness.is_expired() && !is_renewed)
    }

    pub(crate) fn judge_version(
        &self,
        existing: Option<u64>,
        attempted: PutVersion,
    ) -> Result<(), CacheError> {
        match (existing, attempted.version) {
            (Some(existing), Some(attempted)) if existing >= attempted => {
                self.counters.count(Event::VersionMismatch);
                Err(CacheError::VersionMismatch { existing, attempted })
            }
            _ => Ok(()),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct PutVersion {
    pub(crate) version: Option<u64>,
    /// It may replace a stale entry of the same version.
    pub(crate) renews: bool,
    /// And a fresh one.
    pub(crate) replaces: bool,
}

/// The version in the record at a position, if any.
pub(crate) type Known = (Position, Option<u64>);
