//! Inputs that the targets of `fuzz` begin with: good structures of all kinds.

use rand::RngExt;
use rand::rngs::StdRng;

use super::Sample;
use super::superblocks::superblock;
use crate::l2::directory_builder::DirectoryBuilder;
use crate::l2::directory_entry::{Change, DirectoryEntry};
use crate::l2::footer::Footer;
use crate::l2::format::{BLOCK_BYTES, FRAME_HEADER_BYTES, OpenCount, align};
use crate::l2::fuzz::{
    BODIES_SEALED, OPEN, OPENS, SEALED, SEGMENT, STORE, geometry, key, position,
};
use crate::l2::segment::SegmentHeader;

/// Of each target.
pub(crate) fn all() -> Vec<(&'static str, Vec<u8>)> {
    let mut random = super::seeded(91);
    let mut seeds = Vec::new();
    for kind in [1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11] {
        let mut record = vec![SEALED];
        Sample::of_kind(&mut random, kind).record().encode(&mut record).unwrap();
        seeds.push(("record", record));
    }
    for count in [0, 1, 5, 40] {
        seeds.push(("directory", directory(&mut random, count)));
    }
    seeds.extend([1, 2, 6].map(|count| ("frame", frame(&mut random, count))));
    seeds.extend(superblocks().map(|seed| ("superblock", seed)));
    seeds.extend(crate::l2::image::fuzz::seeds().into_iter().map(|seed| ("image", seed)));
    seeds
}

fn frame(random: &mut StdRng, count: usize) -> Vec<u8> {
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    for _ in 0..count {
        let sample = Sample::new(random);
        sample.record().encode(&mut frame).unwrap();
        frame.extend_from_slice(&sample.body);
        frame.resize(align(frame.len()), 0);
    }
    frame.insert(0, SEALED | BODIES_SEALED);
    frame
}

fn directory(random: &mut StdRng, count: usize) -> Vec<u8> {
    let mut builder = DirectoryBuilder::new(SEGMENT, geometry());
    let mut at = BLOCK_BYTES + FRAME_HEADER_BYTES;
    for _ in 0..count {
        let sample = Sample::new(random);
        let record = sample.record();
        let total = record.lengths().unwrap().total();
        let change = Change::new(&record, sample.hash(), &sample.label_hashes);
        let offset = u32::try_from(at).unwrap();
        let entry = DirectoryEntry { offset, length: u32::try_from(total).unwrap(), change };
        if builder.append(&entry).is_err() {
            break;
        }
        at += align(total) + if random.random_bool(0.3) { FRAME_HEADER_BYTES } else { 0 };
    }
    let mut bytes = Vec::new();
    builder.encode(key(), OPEN, position(at), &mut bytes).unwrap();
    // Without the padding.
    let footer = Footer::decode(&bytes, SEGMENT, OPENS, geometry()).unwrap();
    let (pages, tail) = bytes.split_at(bytes.len() - footer.tail_bytes());
    let end = pages.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let length = u16::try_from(end).unwrap().to_le_bytes();
    [&[SEALED][..], &length, &pages[..end], tail].concat()
}

/// Two copies, one of them newer; one copy; a header of a segment.
fn superblocks() -> [Vec<u8>; 3] {
    let fields = |counter: u64| {
        let mut superblock = superblock();
        (superblock.write_counter, superblock.open_count) = (counter, OpenCount(2));
        superblock.encode().unwrap()[..128].to_vec()
    };
    let both = [&[3, 128, 0][..], &fields(4), &fields(5)].concat();
    let one = [&[SEALED, 128, 0][..], &fields(6)].concat();
    let header = SegmentHeader { store_id: STORE, number: SEGMENT, open_count: OPEN }.encode();
    [both, one, [&[4 | SEALED, 0, 0][..], &header[..40]].concat()]
}
