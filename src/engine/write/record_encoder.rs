//! `RecordEncoder`: turns an entry into a record: compressed, checksummed, encoded.

use std::mem::take;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::codec;
use crate::codec::Codecs;
use crate::config::BlobCacheConfig;
use crate::counters::{Counters, Event};
use crate::engine::disk_tier::DiskTier;
use crate::engine::parts::Parts;
use crate::entry::{Entry, Mark};
use crate::l2::{
    Blob, BodySum, Change, Codec, EncodedRecord, Idle, LabelHashes, Labels, Metadata, Record,
};
use crate::modes::L2Compression;
use crate::put::BlobCachePut;

pub(crate) struct RecordEncoder {
    config: Arc<BlobCacheConfig>,
    counters: Counters,
    codecs: Arc<Codecs>,
    disk: Arc<DiskTier>,
}

impl RecordEncoder {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            config: parts.config.clone(),
            counters: parts.counters.clone(),
            codecs: parts.codecs.clone(),
            disk: parts.disk.clone(),
        }
    }

    /// The value, compressed if that is worth it. None if it is longer than any record.
    pub(crate) async fn body_of(&self, entry: &Entry) -> Option<Body> {
        let (bytes, codec) = self.compress(entry).await;
        let sum = BodySum::over(&bytes).await?;
        Some(Body { bytes, codec, sum })
    }

    async fn compress(&self, entry: &Entry) -> (Bytes, Codec) {
        let value = &entry.value;
        let mut content_type = entry.content_metadata().iter();
        let content_type = content_type.find(|(key, _)| key.eq_ignore_ascii_case("content-type"));
        let is_left_alone = content_type.is_some_and(|(_, kind)| codec::is_compressed_type(kind));
        let length = u32::try_from(value.len());
        let is_on = self.is_compressed(entry.generation.name());
        if let (true, Ok(uncompressed_bytes)) = (is_on, length) {
            let frame = if is_left_alone { None } else { self.codecs.compress(value).await };
            if let Some(frame) = frame {
                self.counters.add(Event::CompressedFrom, value.len() as u64);
                self.counters.add(Event::CompressedTo, frame.len() as u64);
                return (frame, Codec::Zstd { uncompressed_bytes });
            }
            self.counters.count(Event::CompressionSkipped);
        }
        (value.clone(), Codec::Raw)
    }

    /// The most memory that compressing a value takes besides it.
    pub(crate) fn compressed_bytes_max(&self, namespace: &str, value_bytes: usize) -> usize {
        let is_compressed = self.disk.has_file() && self.is_compressed(namespace);
        if is_compressed { codec::encoder_bytes(value_bytes) } else { 0 }
    }

    fn is_compressed(&self, namespace: &str) -> bool {
        let own = self.config.namespaces.of(namespace).compression;
        own.unwrap_or(self.config.l2_compression) == L2Compression::On
    }
}

#[derive(Debug)]
pub(crate) struct Body {
    bytes: Bytes,
    codec: Codec,
    sum: BodySum,
}

/// The parts of a put's record that the entry does not have.
#[derive(Debug)]
pub(crate) struct Recording {
    body: Body,
    tags: Vec<String>,
    dependencies: Vec<String>,
}

impl Recording {
    /// Takes the labels out of a put.
    pub(crate) fn of(body: Body, put: &mut BlobCachePut) -> Self {
        let (tags, dependencies) = (take(&mut put.tags), take(&mut put.dependencies));
        Self { body, tags, dependencies }
    }

    pub(crate) fn give_back(self, put: &mut BlobCachePut) -> Body {
        (put.tags, put.dependencies) = (self.tags, self.dependencies);
        self.body
    }

    pub(crate) fn encode(&self, entry: &Entry) -> Option<EncodedRecord> {
        let namespace = entry.generation.named();
        let mut blob = Blob::new(namespace, &entry.key, entry.written.0, self.body.sum);
        blob.expires_ns = (entry.expires() != Timestamp::NEVER).then_some(entry.expires().0);
        blob.stale_window_ns = entry.stale_serve();
        blob.idle_ttl_ns = entry.idle_ttl();
        blob.version = entry.version();
        (blob.priority, blob.admission) = (entry.priority, entry.admission);
        blob.metadata = Metadata::new(entry.content_metadata());
        blob.tags = Labels::new(&self.tags);
        blob.dependencies = Labels::new(&self.dependencies);
        blob.codec = self.body.codec;
        blob.is_absent = entry.is(Mark::Absent);
        EncodedRecord::new(&Record::Blob(blob), self.body.bytes.clone()).ok()
    }
}

/// The directory entry of an entry.
pub(crate) fn with_change<T>(entry: &Entry, then: impl FnOnce(&Change<'_>) -> T) -> T {
    // Bounded: by the labels of one entry.
    let labels: Vec<u64> = entry.labels().iter().map(|label| label.0).collect();
    then(&Change::Blob(crate::l2::BlobSummary {
        namespace: entry.generation.named(),
        hash: entry.hash.0,
        key: &entry.key,
        window_end_ns: entry.window_end().map(|at| at.0),
        version: entry.version(),
        labels: LabelHashes::new(&labels),
        idle: entry.idle_ttl().map(|ttl_ns| Idle { written_ns: entry.written.0, ttl_ns }),
    }))
}
