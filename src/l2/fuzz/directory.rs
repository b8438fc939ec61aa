//! A directory: whatever decodes has the same entries for every reader, and is the same after it
//! was built again.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use futures::executor::block_on;

use super::{OPENS, SEALED, SEGMENT, geometry, key, position};
use crate::clock::Timestamp;
use crate::l2::checksum::{Domain, checksum};
use crate::l2::directory::Directory;
use crate::l2::directory_builder::DirectoryBuilder;
use crate::l2::directory_entry::{Change, DirectoryEntry};
use crate::l2::error::DecodeError;
use crate::l2::footer::Footer;
use crate::l2::format::{BLOCK_BYTES, FOOTER_BYTES, PAGE_KEY_BYTES_MAX};
use crate::l2::segment_records::SegmentRecords;
use crate::l2::wire::Reader;

/// Any bytes, as the pages of a directory and the end of a segment. Two bytes say how long the
/// pages are, whose place is in the footer; all between is zero.
pub(crate) fn directory(bytes: &[u8]) {
    let Some((&[mode, low, high], bytes)) = bytes.split_first_chunk() else { return };
    let length = geometry().segment_bytes() as usize;
    let mut segment = vec![0; length];
    let (pages, tail) =
        bytes.split_at(usize::from(u16::from_le_bytes([low, high])).min(bytes.len()));
    let cut = tail.len().min(length);
    segment[length - cut..].copy_from_slice(&tail[tail.len() - cut..]);
    if let Ok(footer) = Footer::decode(&segment, SEGMENT, OPENS, geometry()) {
        let behind = &mut segment[footer.start as usize..];
        let cut = pages.len().min(behind.len().saturating_sub(tail.len()));
        behind[..cut].copy_from_slice(&pages[..cut]);
    }
    if mode & SEALED != 0 {
        reseal(&mut segment);
    }
    let decoded = Directory::decode(&segment, key(), SEGMENT, OPENS, geometry());
    let listed = decoded.as_ref().map(|it| it.entries().count()).map_err(|error| *error);
    for may_be_plain in [false, true] {
        assert_eq!(replayed(&segment, may_be_plain), listed);
    }
    if let Ok(directory) = decoded {
        encode_again(&directory);
        search(directory);
    }
}

/// Sets the checksums of the pages, as far as their table makes sense, and of the table.
fn reseal(segment: &mut [u8]) {
    let Ok(footer) = Footer::decode(segment, SEGMENT, OPENS, geometry()) else { return };
    let seed = |domain| key().seed(domain, SEGMENT.0, footer.open_count);
    for (at, page) in pages(segment, &footer) {
        let sum = checksum(&segment[page], seed(Domain::DirectoryPage));
        segment[at..at + 8].copy_from_slice(&sum.to_le_bytes());
    }
    let (covered, sum) = segment.split_at_mut(segment.len() - 8);
    let from = (covered.len() + 8).saturating_sub(footer.tail_bytes());
    let covered = covered.get(from..).unwrap_or_default();
    sum.copy_from_slice(&checksum(covered, seed(Domain::Directory)).to_le_bytes());
}

/// Where the table has the checksum of each page, and where the page is, up to the first row that
/// makes no sense.
fn pages(segment: &[u8], footer: &Footer) -> Vec<(usize, Range<usize>)> {
    let (mut found, mut start) = (Vec::new(), footer.start as usize);
    let end = segment.len() - FOOTER_BYTES;
    let table = (segment.len().saturating_sub(footer.tail_bytes())) + footer.name_bytes as usize;
    let mut reader = Reader::new(segment.get(table..end).unwrap_or_default());
    for number in 0..footer.blob_pages.saturating_add(footer.other_pages) {
        let mut row = || -> Result<(usize, usize), DecodeError> {
            let length = reader.length(table)?;
            if number < footer.blob_pages {
                reader.varint()?;
                reader.prefixed(PAGE_KEY_BYTES_MAX)?;
            }
            let at = end - reader.rest().len();
            reader.u64()?;
            Ok((at, length))
        };
        let Ok((at, length)) = row() else { break };
        if start + length > table {
            break;
        }
        found.push((at, start..start + length));
        start += length;
    }
    found
}

/// The number of records that a replay sees.
fn replayed(segment: &[u8], may_be_plain: bool) -> Result<usize, DecodeError> {
    let place = (SEGMENT, OPENS, geometry());
    let image = Bytes::copy_from_slice(segment);
    let reading = SegmentRecords::read(image, key(), place, (Timestamp(0), may_be_plain));
    let records = block_on(reading)?;
    let listed = records.from(position(0));
    let newest_first = listed.windows(2).all(|pair| {
        let [newer, older] = pair else { return true };
        records.position(newer) >= records.position(older)
    });
    assert!(newest_first);
    Ok(records.plain().map_or(listed.len(), |plain| plain.records().len()))
}

fn encode_again(directory: &Directory<'_>) {
    let Footer { end, open_count, .. } = *directory.footer();
    let Some(bytes) = build(&directory.entries().collect::<Vec<_>>(), directory) else { return };
    let again = Directory::decode(&bytes, key(), SEGMENT, OPENS, geometry());
    let again = again.expect("what was built decodes");
    assert!(again.entries().eq(directory.entries()));
    assert_eq!((again.footer().end, again.footer().open_count), (end, open_count));
    let twice = build(&again.entries().collect::<Vec<_>>(), &again);
    assert_eq!(twice.as_ref(), Some(&bytes));
}

/// None if its records overlap, so that they cannot be read, or if it would be too long.
fn build(entries: &[DirectoryEntry<'_>], directory: &Directory<'_>) -> Option<Vec<u8>> {
    let Footer { end, open_count, .. } = *directory.footer();
    let mut builder = DirectoryBuilder::new(SEGMENT, geometry());
    for entry in entries {
        builder.append(entry).ok()?;
    }
    let mut bytes = Vec::new();
    block_on(builder.write(key(), open_count, end, &mut bytes)).ok()?;
    assert_eq!(bytes.len() % BLOCK_BYTES, 0);
    assert!(bytes.len() <= builder.encoded_len());
    Some(bytes)
}

/// A search for the key of a blob leads to a page that has it, unless a namespace has two rows.
fn search(directory: Directory<'_>) {
    let names = directory.namespaces();
    let distinct: BTreeSet<_> = names.iter().map(|it| (it.name, it.generation.0)).collect();
    if distinct.len() < names.len() {
        return;
    }
    let pages = directory.pages().len();
    let blobs: Vec<_> = directory.placed().collect();
    let outline = directory.into_outline();
    let start = geometry().segment_bytes() as usize - pages;
    for (at, change) in blobs {
        let Change::Blob(blob) = change else { continue };
        let row = outline.row_of(blob.namespace).expect("it is in the table of names");
        for end in [0, blob.key.len() / 2, blob.key.len()] {
            let mut searched = outline.pages_of(row, &blob.key[..end]);
            assert!(searched.any(|page| outline.span(page).contains(&(start + at))));
        }
    }
}
