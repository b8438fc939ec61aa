//! `RecordReader`: reads the record of a slot as an entry, within the budget of reads.

use std::io;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::codec;
use crate::codec::Codecs;
use crate::config::BlobCacheConfig;
use crate::engine::admission::Admission;
use crate::engine::disk_tier::DiskTier;
use crate::engine::parts::Parts;
use crate::engine::read::read_limit::Reads;
use crate::engine::removal::Removal;
use crate::engine::renewed_slots::RenewedSlots;
use crate::entry::{Entry, Extras, Mark};
use crate::failpoint::{Failpoint, failpoint};
use crate::key::{HashedKey, KeyHash, KeyHasher};
use crate::l1::L1;
use crate::l2::{Blob, BodySum, Codec, Extent, FetchedRecord, L2, Record, Slot, count};
use crate::label_texts::LabelTexts;
use crate::limiter::Permit;
use crate::meter;
use crate::namespace::Generation;
use crate::policy::Lifetime;
use crate::put::ready_to_share;
use crate::sequence::Sequence;
use crate::telemetry::tell;

/// Values of up to this many bytes are copied out of the blocks that were read: the blocks are
/// returned at once, and promotion has no need of another copy.
const COPIED_BYTES_MAX: usize = 16 << 10;

pub(crate) struct RecordReader {
    config: Arc<BlobCacheConfig>,
    hasher: KeyHasher,
    l1: Arc<L1>,
    reads: Arc<Reads>,
    codecs: Arc<Codecs>,
    removal: Removal,
    renewed: RenewedSlots,
    disk: Arc<DiskTier>,
    admission: Admission,
}

impl RecordReader {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            config: parts.config.clone(),
            hasher: parts.hasher.clone(),
            l1: parts.l1.clone(),
            reads: parts.reads.clone(),
            codecs: parts.codecs.clone(),
            removal: Removal::new(parts),
            renewed: RenewedSlots::new(parts),
            disk: parts.disk.clone(),
            admission: Admission::new(parts),
        }
    }

    /// Reads the record of a slot. None if it has moved. Damage is logged and marked dead.
    pub(crate) async fn read(
        self: &Arc<Self>,
        generation: &Arc<Generation>,
        (key, hash): (&Arc<[u8]>, KeyHash),
        slot: Slot,
        extent: Extent,
    ) -> io::Result<Option<Read>> {
        let Some(l2) = self.disk.l2() else { return Ok(None) };
        let record_bytes = l2.bytes_to_read(slot, extent);
        let mut decompressed_bytes = 0;
        // Bounded: a read in each turn.
        let read = loop {
            let bytes = record_bytes.saturating_add(decompressed_bytes);
            let read = self.reads.of(bytes).run(bytes, |permit| {
                let (reader, generation) = (Arc::clone(self), Arc::clone(generation));
                let key = Arc::clone(key);
                async move {
                    let allowance = Allowance { permit, decompressed_bytes };
                    let key = HashedKey { bytes: &key, hash };
                    reader.read_within(&generation, key, slot, extent, allowance).await
                }
            });
            match read.await {
                Ok(ReadOutcome::Short(wanted)) => decompressed_bytes = wanted,
                Ok(ReadOutcome::Done(read)) => break Ok(read),
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = &read {
            self.note_damage(generation, (hash, slot), error);
        }
        read
    }

    /// Reads the head of whichever record of its namespace a slot has, as an entry without its
    /// value that takes the bytes of the record. None if it has moved, or is of another namespace
    /// with the same hash. Damage is logged and marked dead.
    pub(crate) async fn read_head(
        self: &Arc<Self>,
        generation: &Arc<Generation>,
        hash: KeyHash,
        slot: Slot,
    ) -> io::Result<Option<Arc<Entry>>> {
        let Some(l2) = self.disk.l2() else { return Ok(None) };
        let bytes = l2.bytes_to_read(slot, Extent::Head);
        let read = self.reads.of(bytes).run(bytes, |permit| {
            let (reader, generation) = (Arc::clone(self), Arc::clone(generation));
            async move { reader.read_head_within(&generation, hash, slot, &permit).await }
        });
        let read = read.await;
        if let Err(error) = &read {
            self.note_damage(generation, (hash, slot), error);
        }
        read
    }

    async fn read_head_within(
        &self,
        generation: &Arc<Generation>,
        hash: KeyHash,
        slot: Slot,
        permit: &Arc<Permit>,
    ) -> io::Result<Option<Arc<Entry>>> {
        let Some(l2) = self.disk.l2() else { return Ok(None) };
        let is_wanted = || Self::is_current(generation, hash, slot);
        let fetched = l2.fetch(slot, Extent::Head, permit, is_wanted).await?;
        let Some(fetched) = fetched else { return Ok(None) };
        let head = l2.decode(&fetched)?;
        let Record::Blob(blob) = head.record else { return Ok(None) };
        if blob.namespace != generation.named() {
            return Ok(None);
        }
        let mut entry = self.entry_of(&blob, generation, hash, &fetched);
        entry.charge = fetched.head.len() + blob.body.length as usize;
        Ok(Some(Arc::new(entry)))
    }

    fn is_current(generation: &Generation, hash: KeyHash, slot: Slot) -> bool {
        let now = generation.index().get(hash);
        now.is_some_and(|now| now.position == slot.position && !now.dead)
    }

    fn note_damage(
        &self,
        generation: &Generation,
        (hash, slot): (KeyHash, Slot),
        error: &io::Error,
    ) {
        // Records that the log had in memory when it was turned off are not on file.
        let Some(l2) = self.disk.l2().filter(|_| !self.disk.is_off()) else { return };
        if error.kind() == io::ErrorKind::InvalidData {
            count(&l2.health().metrics.corruptions, 1);
            let position = slot.position.value();
            self.removal.mark_dead(generation, hash, Sequence(position));
            let namespace = generation.name();
            tell!(warn, "disk", namespace, position, %error, "a record is damaged");
        }
    }

    async fn read_within(
        &self,
        generation: &Arc<Generation>,
        key: HashedKey<'_>,
        slot: Slot,
        extent: Extent,
        allowance: Allowance,
    ) -> io::Result<ReadOutcome> {
        let Some(l2) = self.disk.l2() else { return Ok(ReadOutcome::Done(None)) };
        let is_wanted = || Self::is_current(generation, key.hash, slot);
        match l2.fetch(slot, extent, &allowance.permit, is_wanted).await? {
            None => Ok(ReadOutcome::Done(None)),
            Some(fetched) => {
                self.read_record(l2, fetched, generation, key, extent, &allowance).await
            }
        }
    }

    /// Makes an entry of a fetched record, if it is of this key. A head alone has no value.
    pub(crate) async fn read_record(
        &self,
        l2: &L2,
        fetched: FetchedRecord,
        generation: &Arc<Generation>,
        key: HashedKey<'_>,
        extent: Extent,
        allowance: &Allowance,
    ) -> io::Result<ReadOutcome> {
        let (mut entry, expected, codec) = {
            let head = l2.decode(&fetched)?;
            let Record::Blob(blob) = head.record else { return Ok(Read::Other.into()) };
            let is_other = blob.key != key.bytes || blob.namespace != generation.named();
            if is_other && !failpoint(Failpoint::KeyNotCompared) {
                return Ok(Read::Other.into());
            }
            (self.entry_of(&blob, generation, key.hash, &fetched), blob.body, blob.codec)
        };
        if extent == Extent::Head {
            return Ok(Read::Entry(Arc::new(entry)).into());
        }
        if let Codec::Zstd { uncompressed_bytes } = codec {
            let length = usize::try_from(uncompressed_bytes).unwrap_or(usize::MAX);
            self.check_uncompressed(length)?;
            let wanted = length.saturating_add(codec::decoder_bytes(length));
            if !allowance.permit.grow(wanted.saturating_sub(allowance.decompressed_bytes)) {
                return Ok(ReadOutcome::Short(wanted));
            }
        }
        let damaged = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        expected.check(BodySum::over(&fetched.body).await).map_err(damaged)?;
        if let Codec::Zstd { uncompressed_bytes } = codec {
            let length = usize::try_from(uncompressed_bytes).unwrap_or(usize::MAX);
            entry.value = self.codecs.decompress(&fetched.body, length).await?;
        }
        if fetched.body.len() <= COPIED_BYTES_MAX && codec == Codec::Raw {
            meter::bytes(fetched.body.len());
            entry.value = ready_to_share(fetched.body.to_vec().into());
            entry.mark(Mark::Exact);
        }
        entry.charge = self.admission.charge(key.bytes, &entry.value, entry.extras());
        Ok(Read::Entry(Arc::new(entry)).into())
    }

    /// Refuses a length that no put of this configuration can have; another one may have had it.
    fn check_uncompressed(&self, length: usize) -> io::Result<()> {
        let segment = self.disk.l2().map_or(0, |l2| l2.geometry().segment_bytes() as usize);
        let most = self.l1.bytes_max().max(segment);
        // A charge of the user's own does not bound bytes.
        if length <= most || self.config.charge.is_some() {
            return Ok(());
        }
        let error = format!("a value of {length} bytes, where no tier takes more than {most}");
        Err(io::Error::other(error))
    }

    fn entry_of(
        &self,
        blob: &Blob<'_>,
        generation: &Arc<Generation>,
        hash: KeyHash,
        fetched: &FetchedRecord,
    ) -> Entry {
        let sequence = Sequence(fetched.position.value());
        let written = Timestamp(blob.written_ns);
        let own = Lifetime {
            written,
            expires: blob.expires_ns.map_or(Timestamp::NEVER, Timestamp),
            stale_serve: blob.stale_window_ns.unwrap_or(0),
            idle_ttl: blob.idle_ttl_ns.unwrap_or(u64::MAX),
        };
        let slot = generation.live_slot(hash, sequence);
        let renewed = slot.and_then(|slot| self.renewed.of(hash, slot));
        let life = renewed.map_or(own, |life| Lifetime { written, ..life });
        let named = self.hasher.namespace(generation.name());
        let texts = LabelTexts::new(blob.tags.iter(), blob.dependencies.iter());
        let labels = self.hasher.label_hashes(named, blob.tags.iter(), blob.dependencies.iter());
        let extras = Extras::new(blob.metadata.to_map(), (labels, texts), blob.version, &life);
        let mut entry = Entry::new(
            Arc::clone(generation),
            HashedKey { bytes: blob.key, hash },
            &life,
            (blob.priority, blob.admission),
            extras,
        );
        entry.set_sequence(sequence);
        // Bounded: one.
        renewed.into_iter().for_each(|life| {
            self.renewed.begin(&mut entry, &life);
            entry.accessed(life.written);
        });
        entry.value = fetched.body.clone();
        entry.mark(Mark::FromDisk);
        if blob.is_absent {
            entry.mark(Mark::Absent);
        }
        entry
    }
}

pub(crate) struct Allowance {
    pub(crate) permit: Arc<Permit>,
    pub(crate) decompressed_bytes: usize,
}

pub(crate) enum ReadOutcome {
    Done(Option<Read>),
    /// The value decompresses to this many bytes, more than was granted.
    Short(usize),
}

pub(crate) enum Read {
    Entry(Arc<Entry>),
    /// The record of another key with the same hash, or of another generation.
    Other,
}

impl From<Read> for ReadOutcome {
    fn from(read: Read) -> Self {
        Self::Done(Some(read))
    }
}
