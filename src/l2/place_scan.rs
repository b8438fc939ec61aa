//! Finds at an open which segment lies at which place, from the headers.
//!
//! A header counts if its number is in use according to the superblock. Two kinds of others may
//! mislead a later open, and are erased before anything else is written:
//!
//! - A header that was never announced: an open or a process has ended between a header and the
//!   superblock that announces it. Its number will be announced later, maybe at another place.
//! - A second header of a number in use: a segment was being moved, and its old header was not
//!   erased yet. Up to the end of the log both places have the same, since nothing is written
//!   between the copy and that (`segment_mover`). The log goes on at one place, so the other one
//!   becomes old. The copy is the one that counts, so that an open with the smaller size need not
//!   make another: both headers are of the same open, and segments move to lower places.
//!
//! A header that cannot be read may be such a second one, so it is erased, too.
//!
//! Headers before the head are never in use again, because the head does not go back.

use std::collections::BTreeMap;
use std::io;

use futures::StreamExt;
use futures::stream::FuturesOrdered;

use super::format::{BLOCK_BYTES, DATA_OFFSET, Geometry, OpenCount, SegmentNumber, StoreId};
use super::places::Places;
use super::segment::SegmentHeader;
use super::segment_file::SegmentFile;
use super::superblock::Superblock;
use crate::batch::Pacer;
use crate::io::{AlignedBuffer, ReadRequest};

/// Headers that are read at once.
const READS: usize = 32;

/// Attempts to read a header, before it counts as unreadable.
const TRIES: usize = 3;

/// The places of the segments in use, and those whose headers are to be erased.
struct Scan {
    geometry: Geometry,
    in_use: (SegmentNumber, SegmentNumber),
    opens: OpenCount,
    found: BTreeMap<SegmentNumber, (OpenCount, u32)>,
    misleading: Vec<u32>,
}

impl Scan {
    fn new(superblock: &Superblock) -> Self {
        let Superblock { geometry, head, newest, open_count, .. } = *superblock;
        Self {
            geometry,
            in_use: (geometry.segment_of(head), newest),
            opens: open_count,
            found: BTreeMap::new(),
            misleading: Vec::new(),
        }
    }

    /// Headers come in the order of their places.
    fn add(&mut self, place: u32, header: SegmentHeader) {
        let SegmentHeader { number, open_count, .. } = header;
        let (oldest, newest) = self.in_use;
        if number > newest || open_count > self.opens {
            self.misleading.push(place);
        } else if number >= oldest {
            match self.found.get_mut(&number) {
                Some(first) if first.0 >= open_count => self.misleading.push(place),
                Some(first) => {
                    self.misleading.push(first.1);
                    *first = (open_count, place);
                }
                None => drop(self.found.insert(number, (open_count, place))),
            }
        }
    }

    fn places(self) -> Places {
        let count = self.geometry.segment_count();
        let newest = match self.found.last_key_value() {
            Some((_, &(_, place))) => place,
            None => u32::try_from(self.in_use.1.0 % u64::from(count)).unwrap_or(0),
        };
        // Bounded: by the segments, once at open.
        let places = self.found.into_iter().map(|(number, (_, place))| (number, place)).collect();
        Places::found(self.geometry, places, (newest + 1) % count)
    }
}

/// Reads the headers of all places.
///
/// # Errors
/// A misleading header, or one that cannot be read, cannot be erased either.
pub(super) async fn find_places(file: &SegmentFile, superblock: &Superblock) -> io::Result<Places> {
    let mut scan = Scan::new(superblock);
    if superblock.is_blank() {
        return Ok(scan.places());
    }
    let mut steps = Pacer::default();
    let (mut left, mut reading) = (0..superblock.geometry.segment_count(), FuturesOrdered::new());
    // Bounded: a header in each turn.
    loop {
        // Bounded: by the reads at once.
        while reading.len() < READS {
            let Some(place) = left.next() else { break };
            let offset = offset_of(superblock.geometry, place);
            let store_id = superblock.store_id;
            reading.push_back(async move { (place, find_header(file, offset, store_id).await) });
        }
        let Some((place, read)) = reading.next().await else { break };
        steps.bytes(BLOCK_BYTES).await;
        match read {
            Ok(Some(header)) => scan.add(place, header),
            Ok(None) => {}
            // It must not come back: the log may go on at the other place of its segment. If there
            // is none, the segment is damaged.
            Err(_) => scan.misleading.push(place),
        }
    }
    erase(file, superblock.geometry, &scan.misleading).await?;
    Ok(scan.places())
}

/// The header at a place. None if two reads find none, as a bit may have flipped on the
/// way, or if it is blank.
async fn find_header(
    file: &SegmentFile,
    offset: u64,
    store_id: StoreId,
) -> io::Result<Option<SegmentHeader>> {
    let identify = |block: &[u8]| SegmentHeader::identify(block, store_id).ok();
    let block = read_header(file, offset).await?;
    match identify(&block) {
        // Bounded: by the bytes of a block.
        None if block.iter().any(|byte| *byte != 0) => {
            Ok(identify(&read_header(file, offset).await?))
        }
        found => Ok(found),
    }
}

async fn read_header(file: &SegmentFile, offset: u64) -> io::Result<AlignedBuffer> {
    let request = || ReadRequest::new(offset, BLOCK_BYTES).background();
    let mut read = file.read_counted(request()).await;
    // Bounded: by the tries.
    for _ in 1..TRIES {
        if read.is_err() {
            read = file.read_counted(request()).await;
        }
    }
    read
}

/// Erases headers, durably.
async fn erase(file: &SegmentFile, geometry: Geometry, places: &[u32]) -> io::Result<()> {
    if places.is_empty() {
        return Ok(());
    }
    // Bounded: a write in each turn.
    for &place in places {
        file.erase_header(offset_of(geometry, place)).await?;
    }
    file.sync().await
}

fn offset_of(geometry: Geometry, place: u32) -> u64 {
    DATA_OFFSET + u64::from(geometry.segment_bytes()) * u64::from(place)
}
