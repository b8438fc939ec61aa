//! The directory at the end of a sealed segment: one entry for each record in it.
//!
//! Blobs are sorted by namespace and key, in pages that can each be read and checked alone, so that
//! a prefix is a search (`Outline`, `SegmentSearch`). All other records follow in the order of the
//! log. `Directory` reads the whole and gives it in the order of the log. It borrows from the bytes
//! read; it allocates its table of namespaces and pages, and eight bytes for each entry.
//! `docs/format.md`, section 8.

use super::blob::NamedGeneration;
use super::checksum::ChecksumKey;
use super::directory_entry::{Change, DirectoryEntry, EntryReader};
use super::error::DecodeError;
#[cfg(any(test, feature = "simulation"))]
use super::footer::Footer;
use super::format::{Geometry, OpenRange, SegmentNumber};
use super::outline::Outline;
use super::wire::Reader;
use crate::batch::{Pacer, sort_in_batches};

/// A directory that was read and verified.
#[derive(Debug)]
pub(crate) struct Directory<'a> {
    outline: Outline,
    namespaces: Vec<NamedGeneration<'a>>,
    /// All pages.
    pages: &'a [u8],
    reader: EntryReader,
    /// In the order of the log.
    places: Vec<Place>,
}

/// An entry's record in the segment, and where the entry begins in the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    offset: u32,
    start: u32,
}

impl<'a> Directory<'a> {
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn decode(
        bytes: &'a [u8],
        key: ChecksumKey,
        segment: SegmentNumber,
        opens: OpenRange,
        geometry: Geometry,
    ) -> Result<Self, DecodeError> {
        futures::executor::block_on(Self::read(bytes, key, segment, opens, geometry))
    }

    /// The directory of `segment` from the segment's last bytes: `bytes` ends with the segment and
    /// reaches back to the directory's start or further.
    ///
    /// # Errors
    /// Why it is invalid; `Truncated` if `bytes` do not reach back far enough, see `Footer`.
    pub(crate) async fn read(
        bytes: &'a [u8],
        key: ChecksumKey,
        segment: SegmentNumber,
        opens: OpenRange,
        geometry: Geometry,
    ) -> Result<Self, DecodeError> {
        let mut places = Vec::new();
        let take = |start, _, entry: &DirectoryEntry<'_>| {
            places.push(Place { offset: entry.offset, start });
        };
        let mut directory = Self::read_each(bytes, key, (segment, opens, geometry), take).await?;
        directory.places = sort_in_batches(places, &mut Pacer::default()).await;
        Ok(directory)
    }

    /// The same, without the order of the log. `take` gets each entry, where it begins in the
    /// pages, and its row in the name table. If the directory is invalid, it got some in vain.
    pub(super) async fn read_each(
        bytes: &'a [u8],
        key: ChecksumKey,
        (segment, opens, geometry): (SegmentNumber, OpenRange, Geometry),
        take: impl FnMut(u32, Option<u32>, &DirectoryEntry<'a>),
    ) -> Result<Self, DecodeError> {
        let mut steps = Pacer::default();
        let outline = Outline::read(bytes, key, segment, opens, geometry, &mut steps).await?;
        let footer = outline.footer;
        let length = (geometry.segment_bytes() - footer.start) as usize;
        let before = bytes.len().checked_sub(length).ok_or(DecodeError::Truncated)?;
        let bytes = bytes.get(before..).ok_or(DecodeError::Truncated)?;
        if !outline.is_padded(bytes, geometry) {
            return Err(DecodeError::Field);
        }
        let names = bytes.len() - footer.tail_bytes();
        let mut names = Reader::new(bytes.get(names..).unwrap_or_default());
        let mut namespaces = Vec::with_capacity(footer.name_rows as usize);
        for _ in 0..footer.name_rows {
            steps.entry().await;
            namespaces.push(NamedGeneration::read(&mut names)?);
        }
        let end_max = geometry.offset_in_segment(footer.end) as usize;
        let reader = EntryReader { bases: footer.bases, end_max };
        let directory = Self { outline, namespaces, pages: bytes, reader, places: Vec::new() };
        directory.read_pages(&mut steps, take).await?;
        Ok(directory)
    }

    async fn read_pages(
        &self,
        steps: &mut Pacer,
        mut take: impl FnMut(u32, Option<u32>, &DirectoryEntry<'a>),
    ) -> Result<(), DecodeError> {
        let (bytes, outline, reader) = (self.pages, &self.outline, self.reader);
        let start = outline.footer.start as usize;
        let mut entries = 0;
        let mut last: Option<(u32, &[u8], u32)> = None;
        for number in 0..outline.page_count() {
            let span = outline.span(number);
            let page = bytes.get(span.start - start..span.end - start);
            let page = page.ok_or(DecodeError::Truncated)?;
            steps.bytes(page.len()).await;
            if !outline.is_page(number, page) {
                return Err(DecodeError::Checksum);
            }
            let is_of_blobs = number < outline.blob_page_count();
            let mut rest = Reader::new(page);
            let mut is_first = true;
            while !rest.rest().is_empty() {
                steps.entry().await;
                let at = span.end - start - rest.rest().len();
                let (row, entry) = self.read_entry(reader, &mut rest)?;
                let place = match (row, &entry.change) {
                    (Some(row), Change::Blob(blob)) if is_of_blobs => (row, blob.key, entry.offset),
                    (_, Change::Blob(_)) => return Err(DecodeError::Field),
                    _ if is_of_blobs => return Err(DecodeError::Field),
                    _ => (u32::MAX, &[][..], entry.offset),
                };
                let is_led_to = !is_of_blobs || outline.leads_to(number, place.0, place.1);
                if last.is_some_and(|last| last >= place) || (is_first && !is_led_to) {
                    return Err(DecodeError::Field);
                }
                (last, is_first) = (Some(place), false);
                take(u32::try_from(at).map_err(|_| DecodeError::Length)?, row, &entry);
                entries += 1;
            }
        }
        if entries == outline.footer.entries { Ok(()) } else { Err(DecodeError::Length) }
    }

    fn read_entry(
        &self,
        reader: EntryReader,
        rest: &mut Reader<'a>,
    ) -> Result<(Option<u32>, DirectoryEntry<'a>), DecodeError> {
        reader.read(rest, |row| self.namespaces.get(row as usize).copied())
    }

    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn footer(&self) -> &Footer {
        &self.outline.footer
    }

    /// Where the entry of each record begins in the pages, and its change.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn placed(&self) -> impl Iterator<Item = (usize, Change<'a>)> {
        let changes = self.entries().map(|entry| entry.change);
        self.places.iter().map(|place| place.start as usize).zip(changes)
    }

    /// The bytes of the directory.
    pub(super) fn pages(&self) -> &'a [u8] {
        self.pages
    }

    pub(super) fn reader(&self) -> EntryReader {
        self.reader
    }

    /// The part that searches need.
    pub(crate) fn into_outline(self) -> Outline {
        self.outline
    }

    /// The name table: a row for each generation of each name that occurs.
    pub(crate) fn namespaces(&self) -> &[NamedGeneration<'a>] {
        &self.namespaces
    }

    /// The entries in the order of the log.
    pub(crate) fn entries(&self) -> impl DoubleEndedIterator<Item = DirectoryEntry<'a>> {
        self.places.iter().filter_map(|place| {
            // It was read before.
            let mut rest = Reader::new(self.pages.get(place.start as usize..)?);
            self.read_entry(self.reader, &mut rest).ok().map(|(_, entry)| entry)
        })
    }
}
