//! `Checker`: checks every checksum of a store's segments, and finds which records are damaged.
//!
//! A directory that is good tells where records are and whose they are, so damage is found record
//! by record, whatever is damaged. Without one, frames lead from record to record. What lies behind
//! the last good frame of a store that was not closed is no damage: a write may have been torn.

use std::io;
use std::iter::Peekable;

use super::FoundStore;
use crate::batch::BATCH_BYTES;
use crate::l2::blob::Blob;
use crate::l2::checksum::BodyHasher;
use crate::l2::directory::Directory;
use crate::l2::directory_entry::{Change, DirectoryEntry};
use crate::l2::error::DecodeError;
use crate::l2::format::{
    BLOCK_BYTES, FRAME_HEADER_BYTES, Position, RECORD_FIXED_BYTES, SegmentNumber, align,
};
use crate::l2::frame::FrameHeader;
use crate::l2::frames::Frames;
use crate::l2::places::lost;
use crate::l2::record::{KIND_BLOB, Record, RecordHead, RecordLengths};
use crate::l2::recovery_error::RecoveryError;
use crate::l2::resume::start_of;
use crate::l2::segment::SegmentHeader;
use crate::l2::wire::{Reader, is_zero};

/// Something that is damaged.
#[derive(Debug)]
pub(crate) struct Damage {
    pub(crate) part: Part,
    /// Where it begins in the file, if that is known.
    pub(crate) offset: Option<u64>,
    pub(crate) namespace: Option<Box<str>>,
    pub(crate) key: Option<Box<[u8]>>,
    pub(crate) reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Header,
    Directory,
    Frame,
    Record,
    /// What could not be read of a segment.
    Unread,
}

#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Good ones.
    pub(crate) records: u64,
    pub(crate) damage: Vec<Damage>,
}

/// Is told of bytes of the file that are done.
pub(crate) type Tell<'a> = &'a mut (dyn FnMut(u64) + Send);

pub(crate) struct Checker<'a> {
    store: &'a FoundStore,
    ending: Ending,
}

/// Where the log ends.
#[derive(Clone, Copy)]
enum Ending {
    /// Only sealed segments are checked.
    Behind,
    Clean(Position),
    /// In this segment, if in any.
    Unclean(Option<SegmentNumber>),
}

/// What a segment has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Sealed,
    /// Its directory may be torn.
    MaybeSealed,
    /// Its frames end there.
    OpenUntil(usize),
    Open,
}

impl<'a> Checker<'a> {
    pub(crate) async fn new(store: &'a FoundStore) -> Self {
        let superblock = store.superblock();
        let ending = match (store.has_owner(), superblock.clean) {
            (true, _) => Ending::Behind,
            (false, true) => Ending::Clean(superblock.tail),
            (false, false) => Ending::Unclean(find_open(store).await),
        };
        Self { store, ending }
    }

    /// The segments that it checks, oldest first.
    pub(crate) fn numbers(&self) -> Vec<SegmentNumber> {
        let last = match self.ending {
            Ending::Behind => self.store.last_sealed(),
            _ => Some(SegmentNumber(u64::MAX)),
        };
        // Bounded: by the segments.
        let numbers = self.store.segments().iter().map(|segment| segment.number);
        // Bounded: likewise.
        numbers.filter(|number| last.is_some_and(|last| *number <= last)).collect()
    }

    fn expected(&self, number: SegmentNumber) -> Expected {
        let geometry = self.store.file.geometry;
        match self.ending {
            Ending::Behind => Expected::Sealed,
            Ending::Clean(tail) if number < geometry.segment_of(tail) => Expected::Sealed,
            Ending::Clean(tail) if number == geometry.segment_of(tail) => {
                Expected::OpenUntil(geometry.offset_in_segment(tail) as usize)
            }
            // It was announced for what comes next.
            Ending::Clean(_) => Expected::OpenUntil(BLOCK_BYTES),
            Ending::Unclean(Some(open)) if number < open => Expected::Sealed,
            Ending::Unclean(Some(open)) if number == open => Expected::MaybeSealed,
            Ending::Unclean(_) => Expected::Open,
        }
    }

    /// Checks a segment.
    ///
    /// # Errors
    /// Positions have run out.
    pub(crate) async fn check(
        &self,
        number: SegmentNumber,
        tell: Tell<'_>,
    ) -> Result<Checked, RecoveryError> {
        let store = self.store;
        let start = start_of(store.file.geometry, number)?;
        let segment_bytes = store.file.geometry.segment_bytes();
        let offset = store.file.places.offset(number);
        let mut check = SegmentCheck {
            store,
            number,
            start,
            offset: offset.or_else(|| store.usual_offset(number)),
            frames: Frames::new(&store.file, number, start, store.opens()),
            checked: Checked::default(),
            tell,
            told: 0,
        };
        let done = match offset {
            Some(_) => check.run(self.expected(number)).await,
            None => Err(lost()),
        };
        if let Err(error) = done {
            let part = if offset.is_some() { Part::Unread } else { Part::Header };
            check.note(part, 0, segment_bytes as usize, error.to_string());
        }
        let SegmentCheck { checked, tell, told, .. } = check;
        tell(u64::from(segment_bytes).saturating_sub(told));
        Ok(checked)
    }
}

/// The last segment that has anything, of a store that was not closed.
async fn find_open(store: &FoundStore) -> Option<SegmentNumber> {
    // Bounded: two or three; what comes after the last one that is used was only announced.
    for segment in store.segments().iter().rev() {
        if segment.footer.is_some() {
            return Some(segment.number);
        }
        let start = store.file.geometry.start_of(segment.number)?;
        let mut frames = Frames::new(&store.file, segment.number, start, store.opens());
        if let Ok(Some(_)) = frames.find_from(BLOCK_BYTES).await {
            return Some(segment.number);
        }
    }
    None
}

struct SegmentCheck<'a, 'b> {
    store: &'a FoundStore,
    number: SegmentNumber,
    start: Position,
    /// Where it begins in the file, or would.
    offset: Option<u64>,
    frames: Frames<'a>,
    checked: Checked,
    tell: Tell<'b>,
    told: u64,
}

struct BadRecord {
    reason: DecodeError,
    /// To the next one, if that is known.
    padded: Option<usize>,
    /// Namespace and key, as far as they can be read.
    named: Option<(Box<str>, Box<[u8]>)>,
}

impl From<DecodeError> for BadRecord {
    fn from(reason: DecodeError) -> Self {
        Self { reason, padded: None, named: None }
    }
}

impl SegmentCheck<'_, '_> {
    /// Notes damage that reaches from one offset of the segment to another, unless nothing of it
    /// counts any more.
    fn note(&mut self, part: Part, from: usize, to: usize, reason: String) {
        self.note_named(part, (from, to), reason, (None, None));
    }

    fn note_named(
        &mut self,
        part: Part,
        (from, to): (usize, usize),
        reason: String,
        (namespace, key): (Option<Box<str>>, Option<Box<[u8]>>),
    ) {
        if self.start.value() + to as u64 <= self.store.superblock().head.value() {
            return;
        }
        let offset = self.offset.map(|start| start + from as u64);
        self.checked.damage.push(Damage { part, offset, namespace, key, reason });
    }

    fn tell(&mut self, bytes: usize) {
        self.told += bytes as u64;
        (self.tell)(bytes as u64);
    }

    async fn run(&mut self, expected: Expected) -> io::Result<()> {
        let (store, number, opens) = (self.store, self.number, self.store.opens());
        let file = &store.file;
        let id = store.superblock().store_id;
        let header = self.frames.bytes(0, BLOCK_BYTES).await?.unwrap_or_default();
        if let Err(reason) = SegmentHeader::decode(header, id, number, opens) {
            self.note(Part::Header, 0, BLOCK_BYTES, reason.to_string());
        }
        let is_sealed = matches!(expected, Expected::Sealed | Expected::MaybeSealed);
        let image = if is_sealed { file.read_directory(number, opens).await? } else { None };
        let directory = match &image {
            Some(image) => Directory::read(image, file.key, number, opens, file.geometry).await,
            None => Err(DecodeError::Magic),
        };
        match directory {
            Ok(directory) => self.check_listed(&directory).await,
            Err(reason) => {
                if expected == Expected::Sealed {
                    let end = file.geometry.segment_bytes() as usize;
                    let start = image.map_or(BLOCK_BYTES, |image| image.len());
                    self.note(Part::Directory, end - start, end, reason.to_string());
                }
                let end = match expected {
                    Expected::OpenUntil(end) => Some(end),
                    _ => None,
                };
                self.check_unlisted(end).await
            }
        }
    }

    /// Checks the frames of the records that a directory lists.
    async fn check_listed(&mut self, directory: &Directory<'_>) -> io::Result<()> {
        let mut entries = directory.entries().peekable();
        // Bounded: a frame in each turn, read in steps.
        while let Some(first) = entries.peek() {
            let at = (first.offset as usize).saturating_sub(FRAME_HEADER_BYTES);
            let Some(header) = self.frames.at(at).await? else {
                self.find_listed(at, &mut entries).await?;
                continue;
            };
            self.frames.opens.first = header.open_count;
            self.checked.records += u64::from(header.records);
            self.tell(header.length as usize);
            // Bounded: by the records of one frame, which were read in steps.
            for _ in 0..header.records {
                entries.next();
            }
        }
        Ok(())
    }

    /// Finds what is damaged in a frame whose records are listed.
    async fn find_listed<'d>(
        &mut self,
        frame: usize,
        entries: &mut Peekable<impl Iterator<Item = DirectoryEntry<'d>>>,
    ) -> io::Result<()> {
        let (mut is_found, mut end) = (false, frame + FRAME_HEADER_BYTES);
        // Bounded: by the records of one frame, each read in steps.
        while let Some(entry) = entries.next_if(|entry| entry.offset as usize == end) {
            let at = end;
            end = at + align(entry.length as usize);
            match self.record(at, Some(entry.length)).await? {
                Ok(_) => self.checked.records += 1,
                Err(bad) => {
                    is_found = true;
                    let namespace = entry.change.namespace().map(|it| it.name.into());
                    let key = match entry.change {
                        Change::Blob(blob) => Some(blob.key.into()),
                        _ => None,
                    };
                    let reason = bad.reason.to_string();
                    self.note_named(Part::Record, (at, end), reason, (namespace, key));
                }
            }
        }
        if !is_found {
            let reason = DecodeError::Checksum.to_string();
            self.note(Part::Frame, frame, end, reason);
        }
        self.tell(end - frame);
        Ok(())
    }

    /// Checks frames one after the other, up to an end if that is known.
    async fn check_unlisted(&mut self, end: Option<usize>) -> io::Result<()> {
        let mut at = BLOCK_BYTES;
        // Bounded: a frame in each turn, read in steps.
        while end.is_none_or(|end| at < end) {
            if let Some(header) = self.frames.at(at).await? {
                self.frames.opens.first = header.open_count;
                self.checked.records += u64::from(header.records);
                self.tell(header.length as usize);
                at += header.length as usize;
                continue;
            }
            let behind = self.frames.find_from(at).await?;
            let behind = behind.filter(|behind| end.is_none_or(|end| *behind < end));
            // Behind the last good one, a frame may be torn.
            let Some(until) = behind.or(end) else { break };
            at = self.find_unlisted(at, until).await?;
        }
        Ok(())
    }

    /// Finds what is damaged from the start of a frame on, and returns where it ends. Records lead
    /// to each other, until another frame begins; the header may be wrong.
    async fn find_unlisted(&mut self, frame: usize, until: usize) -> io::Result<usize> {
        let header = self.header(frame).await?;
        let end = header.map_or(until, |header| frame + header.length as usize).min(until);
        let (mut is_found, mut at) = (false, frame + FRAME_HEADER_BYTES);
        // Bounded: by the records of one frame, each read in steps.
        while at < until && self.header(at).await?.is_none() {
            let bad = match self.record(at, None).await? {
                Ok(padded) => {
                    self.checked.records += 1;
                    at += padded;
                    continue;
                }
                Err(bad) => bad,
            };
            // What leads nowhere is the rest of the frame.
            let next = bad.padded.map(|padded| at + padded).filter(|next| *next <= until);
            let next = next.unwrap_or(if end > at { end } else { until });
            if header.is_some() || bad.padded.is_some() {
                is_found = true;
                let (namespace, key) = bad.named.unzip();
                let reason = bad.reason.to_string();
                self.note_named(Part::Record, (at, next), reason, (namespace, key));
            }
            at = next;
        }
        let end = at.max(frame + FRAME_HEADER_BYTES);
        if !is_found {
            self.note(Part::Frame, frame, end, DecodeError::Checksum.to_string());
        }
        self.tell(end - frame);
        Ok(end)
    }

    /// The header of a frame, as far as it looks like one.
    async fn header(&mut self, at: usize) -> io::Result<Option<FrameHeader>> {
        let Some(position) = self.start.after(at as u64) else { return Ok(None) };
        let (opens, geometry) = (self.store.opens(), self.store.file.geometry);
        let bytes = self.frames.bytes(at, FRAME_HEADER_BYTES).await?;
        Ok(bytes.and_then(|bytes| FrameHeader::decode(bytes, position, opens, geometry).ok()))
    }

    /// Checks a record, and returns its bytes to the next one. `listed`: what a directory says of
    /// its length.
    async fn record(
        &mut self,
        at: usize,
        listed: Option<u32>,
    ) -> io::Result<Result<usize, BadRecord>> {
        let (opens, key) = (self.store.opens(), self.store.file.key);
        let Some(position) = self.start.after(at as u64) else {
            return Ok(Err(DecodeError::Misplaced.into()));
        };
        let Some(fixed) = self.frames.bytes(at, RECORD_FIXED_BYTES).await? else {
            return Ok(Err(DecodeError::Truncated.into()));
        };
        let lengths = match RecordLengths::peek(fixed) {
            Ok(lengths) if listed.is_none_or(|listed| listed as usize == lengths.total()) => {
                lengths
            }
            Ok(_) => return Ok(Err(DecodeError::Length.into())),
            Err(reason) => return Ok(Err(reason.into())),
        };
        let Some(head) = self.frames.bytes(at, lengths.head()).await? else {
            return Ok(Err(DecodeError::Truncated.into()));
        };
        let padded = Some(lengths.padded());
        let body = match RecordHead::decode(head, key, position, opens) {
            Err(reason) => {
                let named = named(head, lengths);
                let padded =
                    self.is_followed(at + lengths.padded()).await?.then_some(lengths.padded());
                return Ok(Err(BadRecord { reason, padded, named }));
            }
            Ok(RecordHead { record: Record::Blob(blob), .. }) => Some(blob.body),
            Ok(_) => None,
        };
        let mut sum = BodyHasher::new();
        let mut left = lengths.body_range();
        // Bounded: by the bytes of a record, read in steps.
        while !left.is_empty() {
            let piece = left.len().min(BATCH_BYTES);
            let Some(bytes) = self.frames.bytes(at + left.start, piece).await? else {
                return Ok(Err(DecodeError::Truncated.into()));
            };
            sum.update(bytes);
            left.start += piece;
        }
        let padding = (at + lengths.total(), lengths.padded() - lengths.total());
        let padding = self.frames.bytes(padding.0, padding.1).await?.unwrap_or_default();
        let reason = match body.map_or(Ok(()), |body| sum.verify(body)) {
            Ok(()) if is_zero(padding) => return Ok(Ok(lengths.padded())),
            Ok(()) => DecodeError::Field,
            Err(reason) => reason,
        };
        let head = self.frames.bytes(at, lengths.head()).await?.unwrap_or_default();
        Ok(Err(BadRecord { reason, padded, named: named(head, lengths) }))
    }

    /// Whether a record or a frame begins there, as far as that shows.
    async fn is_followed(&mut self, at: usize) -> io::Result<bool> {
        if self.header(at).await?.is_some() {
            return Ok(true);
        }
        let (opens, key) = (self.store.opens(), self.store.file.key);
        let Some(position) = self.start.after(at as u64) else { return Ok(false) };
        let Some(fixed) = self.frames.bytes(at, RECORD_FIXED_BYTES).await? else {
            return Ok(false);
        };
        let Ok(lengths) = RecordLengths::peek(fixed) else { return Ok(false) };
        let head = self.frames.bytes(at, lengths.head()).await?;
        Ok(head.is_some_and(|head| RecordHead::decode(head, key, position, opens).is_ok()))
    }
}

/// The namespace and the key in a head that may be damaged.
fn named(head: &[u8], lengths: RecordLengths) -> Option<(Box<str>, Box<[u8]>)> {
    let kind = head.get(8)?;
    let mut fields = Reader::new(head.get(RECORD_FIXED_BYTES..)?);
    let body = u32::try_from(lengths.body_range().len()).ok()?;
    let blob = (*kind == KIND_BLOB).then(|| Blob::read(&mut fields, body))?.ok()?;
    Some((blob.namespace.name.into(), blob.key.into()))
}
