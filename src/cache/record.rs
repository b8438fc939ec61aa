//! Entries to records and back: what a put writes to the log, and what a read makes of it.

use std::io;
use std::mem::take;
use std::sync::Arc;

use bytes::Bytes;

use crate::cache::shared::Shared;
use crate::clock::Timestamp;
use crate::codec;
use crate::counters::Event;
use crate::entry::{Entry, Extras, Mark};
use crate::flaw::{Flaw, planted};
use crate::key::{KeyHash, LabelHash, LabelKind, NamespaceRef};
pub(super) use crate::l2::Extent;
use crate::l2::{
    Blob, BodyHasher, BodySum, Change, Codec, Draft, Idle, L2, LabelHashes, Labels, Metadata,
    NamedGeneration, Record, Taken,
};
use crate::limiter::Permit;
use crate::meter;
use crate::modes::L2Compression;
use crate::namespace::Namespace;
use crate::policy::{BlobCachePolicy, Lifetime};
use crate::put::BlobCachePut;
use crate::sequence::Sequence;
use crate::step::{STEP_BYTES, pause};

/// A value as it is to be stored.
#[derive(Debug)]
pub(super) struct Body {
    bytes: Bytes,
    codec: Codec,
}

/// The same with its checksum.
#[derive(Debug)]
pub(super) struct SummedBody {
    body: Body,
    sum: BodySum,
}

impl Body {
    /// Takes the checksum, in steps. None where the body is longer than any record.
    pub(super) async fn summed(self) -> Option<SummedBody> {
        let sum = sum(&self.bytes).await.sum()?;
        Some(SummedBody { body: self, sum })
    }
}

/// What a put is to leave on file. The entry has the rest.
#[derive(Debug)]
pub(super) struct Recording {
    body: SummedBody,
    tags: Vec<String>,
    dependencies: Vec<String>,
}

impl Recording {
    /// Takes its labels from a put.
    pub(super) fn of(body: SummedBody, put: &mut BlobCachePut) -> Self {
        let (tags, dependencies) = (take(&mut put.tags), take(&mut put.dependencies));
        Self { body, tags, dependencies }
    }

    /// Gives them back.
    pub(super) fn give_back(self, put: &mut BlobCachePut) -> SummedBody {
        (put.tags, put.dependencies) = (self.tags, self.dependencies);
        self.body
    }

    /// The record of `entry` with this body.
    pub(super) fn draft(&self, entry: &Entry) -> Option<Draft> {
        let namespace = named(&entry.namespace);
        let mut blob = Blob::new(namespace, &entry.key, entry.written.0, self.body.sum);
        blob.expires_ns = (entry.expires != Timestamp::NEVER).then_some(entry.expires.0);
        blob.stale_window_ns = entry.stale_serve();
        blob.idle_ttl_ns = entry.idle_ttl();
        blob.version = entry.version();
        (blob.priority, blob.admission) = (entry.priority, entry.admission);
        blob.metadata = Metadata::new(entry.content_metadata());
        blob.tags = Labels::new(&self.tags);
        blob.dependencies = Labels::new(&self.dependencies);
        blob.codec = self.body.body.codec;
        blob.is_absent = entry.is(Mark::Absent);
        Draft::new(&Record::Blob(blob), self.body.body.bytes.clone()).ok()
    }
}

/// A namespace as records name it.
pub(super) fn named(namespace: &Namespace) -> NamedGeneration<'_> {
    NamedGeneration { name: namespace.name(), generation: namespace.generation() }
}

/// What the directory lists of an entry, with its label hashes at hand.
pub(super) fn with_change<T>(entry: &Entry, then: impl FnOnce(&Change<'_>) -> T) -> T {
    // Bounded: by the labels of one entry.
    let labels: Vec<u64> = entry.labels().iter().map(|label| label.0).collect();
    then(&Change::Blob(crate::l2::BlobSummary {
        namespace: named(&entry.namespace),
        hash: entry.hash.0,
        key: &entry.key,
        gone_at_ns: entry.gone_at().map(|at| at.0),
        version: entry.version(),
        labels: LabelHashes::new(&labels),
        idle: entry.idle_ttl().map(|ttl_ns| Idle { written_ns: entry.written.0, ttl_ns }),
    }))
}

/// The memory that is set aside for reading a record.
pub(super) struct Allowance {
    pub(super) permit: Arc<Permit>,
    /// How much of it is for what the record is decompressed to.
    pub(super) spare: usize,
}

/// What reading a record in such memory comes to.
pub(super) enum Attempt {
    Done(Option<Read>),
    /// It decompresses to so much more than there is room for.
    Short(usize),
}

/// What a fetched record comes to.
pub(super) enum Read {
    Entry(Arc<Entry>),
    /// A record of another key with the same hash, or of another generation.
    Other,
}

impl From<Read> for Attempt {
    fn from(read: Read) -> Self {
        Self::Done(Some(read))
    }
}

impl Shared {
    /// The value of an entry as it is to be stored: compressed, where that is wanted and worth it.
    pub(super) async fn compress(&self, entry: &Entry) -> Body {
        let value = &entry.value;
        let mut content_type = entry.content_metadata().iter();
        let content_type = content_type.find(|(key, _)| key.eq_ignore_ascii_case("content-type"));
        let is_left_alone = content_type.is_some_and(|(_, kind)| codec::is_compressed_type(kind));
        let length = u32::try_from(value.len());
        if let (L2Compression::On, Ok(uncompressed_bytes)) = (self.config.l2_compression, length) {
            let frame = if is_left_alone { None } else { self.codecs.compress(value).await };
            if let Some(frame) = frame {
                self.counters.add(Event::CompressedFrom, value.len() as u64);
                self.counters.add(Event::CompressedTo, frame.len() as u64);
                return Body { bytes: frame, codec: Codec::Zstd { uncompressed_bytes } };
            }
            self.counters.count(Event::CompressionSkipped);
        }
        Body { bytes: value.clone(), codec: Codec::Raw }
    }

    /// The entry that a fetched record holds, if it is of this key. Its body is checked, and
    /// decompressed, in steps; of a head alone the entry has no value.
    pub(super) async fn read_record(
        &self,
        l2: &L2,
        taken: Taken,
        namespace: &Arc<Namespace>,
        (key, hash): (&[u8], KeyHash),
        extent: Extent,
        allowance: &Allowance,
    ) -> io::Result<Attempt> {
        let (mut entry, expected, codec) = {
            let head = l2.decode(&taken)?;
            let Record::Blob(blob) = head.record else { return Ok(Read::Other.into()) };
            let is_other = blob.key != key || blob.namespace != named(namespace);
            if is_other && !planted(Flaw::KeyNotCompared) {
                return Ok(Read::Other.into());
            }
            (self.entry_of(&blob, namespace, hash, &taken), blob.body, blob.codec)
        };
        if extent == Extent::Head {
            return Ok(Read::Entry(Arc::new(entry)).into());
        }
        if let Codec::Zstd { uncompressed_bytes } = codec {
            let length = usize::try_from(uncompressed_bytes).unwrap_or(usize::MAX);
            self.check_uncompressed(length)?;
            let wanted = length.saturating_add(codec::decoder_bytes(length));
            if !allowance.permit.grow(wanted.saturating_sub(allowance.spare)) {
                return Ok(Attempt::Short(wanted));
            }
        }
        let damaged = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        sum(&taken.body).await.verify(expected).map_err(damaged)?;
        if let Codec::Zstd { uncompressed_bytes } = codec {
            let length = usize::try_from(uncompressed_bytes).unwrap_or(usize::MAX);
            entry.value = self.codecs.decompress(&taken.body, length).await?;
        }
        entry.charge = self.charge(key, &entry.value, entry.extras());
        Ok(Read::Entry(Arc::new(entry)).into())
    }

    /// No memory is asked for on the word of a record that no put of this configuration can have
    /// written. It is no damage: the configuration may have been another one.
    fn check_uncompressed(&self, length: usize) -> io::Result<()> {
        let segment = self.l2().map_or(0, |l2| l2.geometry().segment_bytes() as usize);
        let most = self.l1.bytes_max().max(segment);
        // A charge of the user's own says nothing of bytes.
        if length <= most || self.config.charge.is_some() {
            return Ok(());
        }
        let error = format!("a value of {length} bytes, where no tier takes more than {most}");
        Err(io::Error::other(error))
    }

    fn entry_of(
        &self,
        blob: &Blob<'_>,
        namespace: &Arc<Namespace>,
        hash: KeyHash,
        taken: &Taken,
    ) -> Entry {
        let life = Lifetime {
            written: Timestamp(blob.written_ns),
            expires: blob.expires_ns.map_or(Timestamp::NEVER, Timestamp),
            stale_serve: blob.stale_window_ns.unwrap_or(0),
            idle_ttl: blob.idle_ttl_ns.unwrap_or(u64::MAX),
        };
        let named = self.hasher.namespace(namespace.name());
        let labels = self.label_hashes(named, blob.tags.iter(), blob.dependencies.iter());
        let extras = Extras::new(blob.metadata.to_map(), labels, blob.version, &life);
        let generation = Arc::clone(namespace);
        let mut entry = Entry::new(
            generation,
            (blob.key, hash),
            &life,
            (blob.priority, blob.admission),
            extras,
        );
        entry.set_sequence(Sequence(taken.position.value()));
        entry.value = taken.body.clone();
        entry.mark(Mark::FromDisk);
        if blob.is_absent {
            entry.mark(Mark::Absent);
        }
        entry
    }

    /// The hashes of an entry's labels, sorted, each once.
    pub(super) fn label_hashes<'a>(
        &self,
        namespace: NamespaceRef<'_>,
        tags: impl Iterator<Item = &'a str>,
        dependencies: impl Iterator<Item = &'a str>,
    ) -> Box<[LabelHash]> {
        let hash = |kind| move |label| self.hasher.label(namespace.seed, kind, label);
        let tags = tags.map(hash(LabelKind::Tag));
        // Bounded: by the labels of one entry.
        let mut labels: Vec<_> =
            tags.chain(dependencies.map(hash(LabelKind::Dependency))).collect();
        labels.sort_unstable();
        labels.dedup();
        labels.into()
    }

    /// What the policy makes of a put now.
    pub(super) fn lifetime(
        &self,
        policy: &BlobCachePolicy,
        namespace: NamespaceRef<'_>,
        key: &[u8],
    ) -> Lifetime {
        policy.lifetime(namespace.name, key, self.clock.timestamp())
    }
}

/// Hashes a body in steps.
async fn sum(body: &[u8]) -> BodyHasher {
    let mut hasher = BodyHasher::new();
    for (number, step) in (1..).zip(body.chunks(STEP_BYTES)) {
        hasher.update(step);
        meter::bytes(step.len());
        if number * STEP_BYTES < body.len() {
            pause().await;
        }
    }
    hasher
}
