//! `Frames`: reads the frames of a segment that has no directory, through a window.
//! The window has a mebibyte, or the head of one record if that is longer. A frame is good if its
//! header, all its heads and all its bodies are.

use std::io;

use super::checksum::BodyHasher;
use super::directory_builder::DirectoryBuilder;
use super::directory_entry::{Change, DirectoryEntry};
use super::format::{
    ALIGNMENT, BLOCK_BYTES, FRAME_HEADER_BYTES, FRAME_MAGIC, OpenRange, Position,
    RECORD_FIXED_BYTES, SegmentNumber,
};
use super::frame::{FrameCheck, FrameHeader};
use super::record::{Record, RecordHead, RecordLengths};
use super::segment_file::SegmentFile;
use crate::batch::{BATCH_BYTES, Pacer};
use crate::failpoint::{Failpoint, failpoint};
use crate::io::AlignedBuffer;
use crate::key::{KeyHasher, LabelKind};

const WINDOW_BYTES: usize = 1 << 20;

/// Bytes that are searched at once for the mark of a frame.
const SEARCH_BYTES: usize = 64 << 10;

const MARK: usize = 8;

pub(super) struct Frames<'a> {
    file: &'a SegmentFile,
    segment: SegmentNumber,
    start: Position,
    /// Open counts never decrease; a frame of an older open is a leftover.
    pub(super) opens: OpenRange,
    /// The window's offset in the segment.
    offset: usize,
    window: AlignedBuffer,
    steps: Pacer,
}

impl<'a> Frames<'a> {
    pub(super) fn new(
        file: &'a SegmentFile,
        segment: SegmentNumber,
        start: Position,
        opens: OpenRange,
    ) -> Self {
        let window = AlignedBuffer::default();
        Self { file, segment, start, opens, offset: 0, window, steps: Pacer::default() }
    }

    /// Bytes of the segment. None beyond its end.
    pub(super) async fn bytes(&mut self, at: usize, length: usize) -> io::Result<Option<&[u8]>> {
        let segment_bytes = self.file.geometry.segment_bytes() as usize;
        if at + length > segment_bytes {
            return Ok(None);
        }
        let is_seen = self.offset <= at && at + length <= self.offset + self.window.len();
        if !is_seen {
            let offset = at / BLOCK_BYTES * BLOCK_BYTES;
            let end = (at + length).next_multiple_of(BLOCK_BYTES).max(offset + WINDOW_BYTES);
            let bytes = end.min(segment_bytes) - offset;
            self.window = self.file.read(self.segment, offset, bytes).await?;
            self.offset = offset;
        }
        let start = at - self.offset;
        Ok(self.window.get(start..start + length))
    }

    /// The header of the frame at an offset, if the frame is good.
    pub(super) async fn at(&mut self, offset: usize) -> io::Result<Option<FrameHeader>> {
        let SegmentFile { geometry, key, .. } = *self.file;
        let (Some(position), opens) = (self.start.after(offset as u64), self.opens) else {
            return Ok(None);
        };
        let Some(header) = self.bytes(offset, FRAME_HEADER_BYTES).await? else { return Ok(None) };
        let Ok(header) = FrameHeader::decode(header, position, opens, geometry) else {
            return Ok(None);
        };
        let mut check = FrameCheck::new(key, header);
        while let Some(next) = check.next_offset() {
            let at = offset + next;
            let Some(lengths) = self.lengths(at).await? else { return Ok(None) };
            if next + lengths.padded() > header.length as usize {
                return Ok(None);
            }
            let padding = lengths.padded() - lengths.total();
            let Some(padding) = self.bytes(at + lengths.total(), padding).await? else {
                return Ok(None);
            };
            let padding = padding.to_vec();
            let Some(head) = self.head(at, lengths, &header).await? else { return Ok(None) };
            if check.add(&head, &padding).is_err() {
                return Ok(None);
            }
            let Record::Blob(blob) = head.record else { continue };
            let (body, mut left) = (blob.body, lengths.body_range());
            let mut sum = BodyHasher::new();
            while !left.is_empty() {
                let piece = left.len().min(BATCH_BYTES);
                self.steps.bytes(piece).await;
                let Some(bytes) = self.bytes(at + left.start, piece).await? else {
                    return Ok(None);
                };
                sum.update(bytes);
                left.start += piece;
            }
            if sum.verify(body).is_err() {
                return Ok(None);
            }
        }
        Ok(check.finish().is_ok().then_some(header))
    }

    /// The same, if a second read of a bad frame finds it as bad: a bit that flips on the way must
    /// not pass for the end of the log.
    pub(super) async fn certainly_at(&mut self, offset: usize) -> io::Result<Option<FrameHeader>> {
        let found = self.at(offset).await?;
        if found.is_some() || failpoint(Failpoint::TearUnseen) {
            return Ok(found);
        }
        self.window = AlignedBuffer::default();
        self.at(offset).await
    }

    pub(super) async fn list(
        &mut self,
        offset: usize,
        header: &FrameHeader,
        hasher: &KeyHasher,
        directory: &mut DirectoryBuilder,
    ) -> io::Result<()> {
        let mut next = FRAME_HEADER_BYTES;
        // Bounded: by the records of one frame, each read in steps.
        for _ in 0..header.records {
            let at = offset + next;
            let lost = || io::Error::other("a good frame has become unreadable");
            let lengths = self.certain_lengths(at, header).await?.ok_or_else(lost)?;
            let head = self.head(at, lengths, header).await?.ok_or_else(lost)?;
            let (hash, labels) = hashes(hasher, &head.record);
            let change = Change::new(&head.record, hash, &labels);
            let offset = u32::try_from(at).map_err(io::Error::other)?;
            let length = u32::try_from(lengths.total()).map_err(io::Error::other)?;
            let listed = directory.append(&DirectoryEntry { offset, length, change });
            listed.map_err(io::Error::other)?;
            next += lengths.padded();
        }
        Ok(())
    }

    /// The offset of the next good frame, if there is one.
    pub(super) async fn find_from(&mut self, offset: usize) -> io::Result<Option<usize>> {
        let segment_bytes = self.file.geometry.segment_bytes() as usize;
        let mut from = offset;
        while from + FRAME_HEADER_BYTES <= segment_bytes {
            let length = SEARCH_BYTES.min(segment_bytes - from);
            self.steps.bytes(length).await;
            let Some(bytes) = self.bytes(from, length).await? else { return Ok(None) };
            let is_mark = |at: &usize| bytes.get(at + MARK..at + MARK + 4) == Some(&FRAME_MAGIC);
            let offsets = (0..=length - FRAME_HEADER_BYTES).step_by(ALIGNMENT);
            let behind = offsets.clone().last().map_or(length, |last| last + ALIGNMENT);
            match offsets.clone().find(is_mark) {
                Some(found) => {
                    if self.at(from + found).await?.is_some() {
                        return Ok(Some(from + found));
                    }
                    from += found + ALIGNMENT;
                }
                None => from += behind,
            }
        }
        Ok(None)
    }

    async fn lengths(&mut self, at: usize) -> io::Result<Option<RecordLengths>> {
        self.steps.entry().await;
        let start = self.bytes(at, RECORD_FIXED_BYTES).await?;
        Ok(start.and_then(|start| RecordLengths::peek(start).ok()))
    }

    /// Those of a record of a good frame, whose head is in the window then. The window may have
    /// moved since the frame was checked, so a bad one is read once more.
    async fn certain_lengths(
        &mut self,
        at: usize,
        header: &FrameHeader,
    ) -> io::Result<Option<RecordLengths>> {
        // Bounded: by the tries.
        for _ in 0..2 {
            if let Some(lengths) = self.lengths(at).await? {
                if self.head(at, lengths, header).await?.is_some() {
                    return Ok(Some(lengths));
                }
            }
            self.window = AlignedBuffer::default();
        }
        Ok(None)
    }

    /// The head of a record of a frame, if it is good.
    async fn head(
        &mut self,
        at: usize,
        lengths: RecordLengths,
        header: &FrameHeader,
    ) -> io::Result<Option<RecordHead<'_>>> {
        let Some(position) = self.start.after(at as u64) else { return Ok(None) };
        let (key, opens) = (self.file.key, OpenRange::only(header.open_count));
        let Some(head) = self.bytes(at, lengths.head()).await? else { return Ok(None) };
        Ok(RecordHead::decode(head, key, position, opens).ok())
    }
}

/// The hashes of a record that a directory lists.
fn hashes(hasher: &KeyHasher, record: &Record<'_>) -> (u64, Vec<u64>) {
    let Record::Blob(blob) = record else { return (0, Vec::new()) };
    let namespace = hasher.namespace(blob.namespace.name);
    let hash = hasher.key(namespace.seed, blob.key).0;
    let tags = blob.tags.iter().map(|tag| (LabelKind::Tag, tag));
    let dependencies = blob.dependencies.iter().map(|label| (LabelKind::Dependency, label));
    // Bounded: by the labels of one entry.
    let mut labels: Vec<u64> = tags
        .chain(dependencies)
        .map(|(kind, label)| hasher.label(namespace.seed, kind, label).0)
        .collect();
    labels.sort_unstable();
    labels.dedup();
    (hash, labels)
}
