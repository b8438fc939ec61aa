//! `Outline`: the table of a directory. It tells where the entries of a namespace and a prefix are,
//! and what each page must be.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::blob::NamedGeneration;
use super::checksum::{ChecksumKey, Domain, checksum};
use super::directory_builder::checksum_in_steps;
use super::error::DecodeError;
use super::footer::Footer;
use super::format::{BLOCK_BYTES, Geometry, OpenRange, PAGE_KEY_BYTES_MAX, SegmentNumber};
use super::wire::{Reader, is_zero};
use crate::batch::{Pacer, sort_in_batches};

#[derive(Debug)]
pub(crate) struct Outline {
    pub(crate) footer: Footer,
    seed: u64,
    names: Box<[u8]>,
    /// By hash.
    rows: Box<[NameRow]>,
    /// Those of blobs by row and key, then the others.
    pages: Box<[Page]>,
    /// The beginnings of keys that lead to pages.
    keys: Box<[u8]>,
    /// Where the last page ends, in the segment.
    end: u32,
}

/// A namespace, and its place in the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct NameRow {
    hash: u64,
    row: u32,
    start: u32,
}

#[derive(Clone, Copy, Debug)]
struct Page {
    sum: u64,
    /// Its offset in the segment.
    start: u32,
    row: u32,
    /// Where the beginning of its first key starts.
    key: u32,
}

impl Outline {
    /// The outline at the end of `bytes`, which end with the segment.
    ///
    /// # Errors
    /// Why it is invalid; `Truncated` if `bytes` do not reach back far enough, see `Footer`.
    pub(crate) async fn read(
        bytes: &[u8],
        key: ChecksumKey,
        segment: SegmentNumber,
        opens: OpenRange,
        geometry: Geometry,
        steps: &mut Pacer,
    ) -> Result<Self, DecodeError> {
        let footer = Footer::decode(bytes, segment, opens, geometry)?;
        let before = bytes.len().checked_sub(footer.tail_bytes()).ok_or(DecodeError::Truncated)?;
        let tail = bytes.get(before..).ok_or(DecodeError::Truncated)?;
        let (covered, sum) = tail.split_last_chunk().ok_or(DecodeError::Truncated)?;
        let seed = key.seed(Domain::Directory, segment.0, footer.open_count);
        if u64::from_le_bytes(*sum) != checksum_in_steps(covered, seed, steps).await {
            return Err(DecodeError::Checksum);
        }
        let mut reader = Reader::new(covered);
        let names = reader.take(footer.name_bytes as usize)?;
        let rows = Self::read_names(names, footer.name_rows, steps).await?;
        let table = reader.take(footer.table_bytes as usize)?;
        let (pages, keys, end) = Self::read_pages(table, &footer, steps).await?;
        let padding = (geometry.segment_bytes() as usize)
            .checked_sub(footer.tail_bytes() + end as usize)
            .ok_or(DecodeError::Length)?;
        if padding >= BLOCK_BYTES {
            return Err(DecodeError::Length);
        }
        let seed = key.seed(Domain::DirectoryPage, segment.0, footer.open_count);
        Ok(Self { footer, seed, names: names.into(), rows, pages, keys, end })
    }

    async fn read_names(
        names: &[u8],
        count: u32,
        steps: &mut Pacer,
    ) -> Result<Box<[NameRow]>, DecodeError> {
        let mut rows = Vec::with_capacity(count as usize);
        let mut reader = Reader::new(names);
        for row in 0..count {
            steps.entry().await;
            let start = to_u32(names.len() - reader.rest().len())?;
            let hash = hash(NamedGeneration::read(&mut reader)?);
            rows.push(NameRow { hash, row, start });
        }
        reader.end()?;
        Ok(sort_in_batches(rows, steps).await.into())
    }

    async fn read_pages(
        table: &[u8],
        footer: &Footer,
        steps: &mut Pacer,
    ) -> Result<(Box<[Page]>, Box<[u8]>, u32), DecodeError> {
        let count = footer.blob_pages as usize + footer.other_pages as usize;
        let (mut pages, mut keys) = (Vec::with_capacity(count), Vec::new());
        let mut reader = Reader::new(table);
        let mut start = footer.start;
        for number in 0..count {
            steps.entry().await;
            let length = to_u32(reader.length(u32::MAX as usize)?)?;
            let is_of_blobs = number < footer.blob_pages as usize;
            let (row, key) = if is_of_blobs {
                (
                    to_u32(reader.length(footer.name_rows as usize)?)?,
                    reader.prefixed(PAGE_KEY_BYTES_MAX)?,
                )
            } else {
                (u32::MAX, &[][..])
            };
            let is_sorted = pages.last().is_none_or(|last: &Page| {
                (last.row, keys.get(last.key as usize..).unwrap_or_default()) <= (row, key)
            });
            if length == 0 || (is_of_blobs && row >= footer.name_rows) || !is_sorted {
                return Err(DecodeError::Field);
            }
            pages.push(Page { sum: reader.u64()?, start, row, key: to_u32(keys.len())? });
            keys.extend_from_slice(key);
            start = start.checked_add(length).ok_or(DecodeError::Length)?;
        }
        reader.end()?;
        Ok((pages.into(), keys.into(), start))
    }

    /// Bytes of memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.names.len()
            + self.rows.len() * size_of::<NameRow>()
            + self.pages.len() * size_of::<Page>()
            + self.keys.len()
    }

    /// The row of a namespace, if the segment has records of it.
    pub(crate) fn row_of(&self, namespace: NamedGeneration<'_>) -> Option<u32> {
        let hash = hash(namespace);
        let first = self.rows.partition_point(|row| row.hash < hash);
        // Bounded: by the names with one hash.
        let mut same = self.rows.iter().skip(first).take_while(|row| row.hash == hash);
        let found = same.find(|row| self.name_at(row.start) == Some(namespace))?;
        Some(found.row)
    }

    fn name_at(&self, start: u32) -> Option<NamedGeneration<'_>> {
        NamedGeneration::read(&mut Reader::new(self.names.get(start as usize..)?)).ok()
    }

    pub(crate) fn page_count(&self) -> usize {
        self.pages.len()
    }

    pub(crate) fn blob_page_count(&self) -> usize {
        self.footer.blob_pages as usize
    }

    /// The pages that blobs of a row whose keys begin with `prefix` may be in.
    pub(crate) fn pages_of(&self, row: u32, prefix: &[u8]) -> Range<usize> {
        let pages = self.pages.get(..self.blob_page_count()).unwrap_or_default();
        // The beginning of a key is cut, if it would be long: then keys before may share it.
        let is_behind_others = |number: usize| {
            let (of, key) = self.place(number);
            let is_cut = key.len() == PAGE_KEY_BYTES_MAX && prefix.starts_with(key);
            (of, key) < (row, prefix) && !(of == row && is_cut)
        };
        let is_up_to = |number: usize| {
            let (of, key) = self.place(number);
            (of, key) <= (row, prefix) || (of == row && key.starts_with(prefix))
        };
        let first = partition_point(pages.len(), is_behind_others).saturating_sub(1);
        first..partition_point(pages.len(), is_up_to).max(first)
    }

    fn place(&self, number: usize) -> (u32, &[u8]) {
        let Some(page) = self.pages.get(number) else { return (u32::MAX, &[]) };
        let end = self.pages.get(number + 1).map_or(self.keys.len(), |next| next.key as usize);
        (page.row, self.keys.get(page.key as usize..end).unwrap_or_default())
    }

    /// Where a page is in the segment.
    pub(crate) fn span(&self, number: usize) -> Range<usize> {
        let start = |number: usize| self.pages.get(number).map_or(self.end, |page| page.start);
        start(number) as usize..start(number + 1) as usize
    }

    /// Whether these are the bytes of a page.
    pub(crate) fn is_page(&self, number: usize, bytes: &[u8]) -> bool {
        self.pages.get(number).is_some_and(|page| page.sum == checksum(bytes, self.seed))
    }

    /// Whether a first blob of that row and key belongs to this page.
    pub(super) fn leads_to(&self, number: usize, row: u32, key: &[u8]) -> bool {
        let (of, beginning) = self.place(number);
        of == row && key.starts_with(beginning)
    }

    /// Whether the bytes behind the last page are zeros. `bytes` end with the segment.
    pub(super) fn is_padded(&self, bytes: &[u8], geometry: Geometry) -> bool {
        let behind = geometry.segment_bytes() as usize - self.end as usize;
        let from = bytes.len().checked_sub(behind);
        let to = bytes.len().checked_sub(self.footer.tail_bytes());
        let padding = from.zip(to).and_then(|(from, to)| bytes.get(from..to));
        padding.is_some_and(is_zero)
    }
}

/// The first of so many numbers that is not `true`, where all that are `true` come first.
fn partition_point(count: usize, is_true: impl Fn(usize) -> bool) -> usize {
    let (mut first, mut end) = (0, count);
    // Bounded: it halves in each turn.
    while first < end {
        let middle = first + (end - first) / 2;
        if is_true(middle) {
            first = middle + 1;
        } else {
            end = middle;
        }
    }
    first
}

fn hash(namespace: NamedGeneration<'_>) -> u64 {
    xxh3_64_with_seed(namespace.name.as_bytes(), namespace.generation.0)
}

fn to_u32(length: usize) -> Result<u32, DecodeError> {
    u32::try_from(length).map_err(|_| DecodeError::Length)
}
