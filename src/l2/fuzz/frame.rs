//! A frame: in memory and through the window of recovery, with the same verdict; a good one encodes
//! again to the same bytes.

use futures::executor::block_on;

use super::{
    BODIES_SEALED, OPEN, OPENS, SEALED, SEGMENT, file_with, frames_at, geometry, key, position,
};
use crate::key::KeyHasher;
use crate::l2::checksum::BodySum;
use crate::l2::directory_builder::DirectoryBuilder;
use crate::l2::format::{BLOCK_BYTES, FRAME_HEADER_BYTES, Position};
use crate::l2::frame::{Frame, FrameBuilder, FrameHeader};
use crate::l2::frames::Frames;
use crate::l2::record::{KIND_BLOB, RecordLengths, seal};

/// Where the kind of a record is, and the checksum of a blob's body.
const KIND: usize = 8;
const BODY_SUM: usize = 20;

/// Any bytes, as the first frame of a segment.
pub(crate) fn frame(bytes: &[u8]) {
    let Some((&mode, bytes)) = bytes.split_first() else { return };
    let segment_bytes = geometry().segment_bytes() as usize;
    let mut frames = bytes.to_vec();
    frames.resize(segment_bytes - BLOCK_BYTES, 0);
    if mode & SEALED != 0 {
        reseal(&mut frames, mode);
    }
    let decoded = Frame::decode(&frames, key(), at(), OPENS, geometry());
    let good = decoded.ok().filter(|frame| frame.verify_bodies().is_ok());
    let read = block_on(read(&frames)).expect("the disk has no faults");
    assert_eq!(good.map(|frame| frame.header), read);
    if let Some(good) = good {
        encode_again(&good, &frames);
    }
}

fn at() -> Position {
    position(BLOCK_BYTES)
}

/// Sets the checksums of what looks like the records of a frame, and makes its header.
fn reseal(frame: &mut [u8], mode: u8) {
    let mut builder = FrameBuilder::new(key(), at(), OPEN, geometry());
    while let Some(position) = builder.next_position() {
        let Some(record) = frame.get_mut(builder.length()..) else { break };
        let Ok(lengths) = RecordLengths::peek(record) else { break };
        if mode & BODIES_SEALED != 0 && record[KIND] == KIND_BLOB {
            let sum = record.get(lengths.body_range()).and_then(BodySum::of);
            let place = record.get_mut(BODY_SUM..BODY_SUM + 8).filter(|_| lengths.head() > 28);
            if let Some((place, sum)) = place.zip(sum) {
                place.copy_from_slice(&sum.checksum.to_le_bytes());
            }
        }
        let Ok(sum) = seal(record, key(), position, OPEN) else { break };
        if builder.add(lengths, sum).is_err() {
            break;
        }
    }
    if let Ok(header) = builder.finish() {
        frame[..FRAME_HEADER_BYTES].copy_from_slice(&header);
    }
}

/// The header of the first frame of a segment as recovery finds it, if it is good.
async fn read(frames: &[u8]) -> std::io::Result<Option<FrameHeader>> {
    let file = file_with(frames_at(), frames, geometry().file_bytes());
    let mut frames = Frames::new(&file, SEGMENT, position(0), OPENS);
    let found = frames.at(BLOCK_BYTES).await?;
    let next = frames.find_from(BLOCK_BYTES).await?;
    assert_eq!(next == Some(BLOCK_BYTES), found.is_some());
    if let Some(header) = &found {
        let mut directory = DirectoryBuilder::new(SEGMENT, geometry());
        let hasher = KeyHasher::new(1, 64);
        // A directory of so many records may have no room, which a writer would have seen.
        if frames.list(BLOCK_BYTES, header, &hasher, &mut directory).await.is_ok() {
            assert_eq!(directory.entries(), header.records);
        }
    }
    Ok(found)
}

fn encode_again(frame: &Frame<'_>, bytes: &[u8]) {
    let header = frame.header;
    let mut again = vec![0; FRAME_HEADER_BYTES];
    let mut builder = FrameBuilder::new(key(), at(), header.open_count, geometry());
    for found in frame.records() {
        assert_eq!(builder.next_position(), Some(found.position));
        let start = again.len();
        let lengths = found.head.record.encode(&mut again);
        assert_eq!(lengths, Ok(found.head.lengths));
        let sum = seal(&mut again[start..], key(), found.position, header.open_count);
        again.extend_from_slice(found.body);
        again.resize(start + found.head.lengths.padded(), 0);
        assert_eq!(builder.add(found.head.lengths, sum.expect("it was encoded")), Ok(()));
    }
    assert_eq!(builder.records(), header.records);
    let made = builder.finish().expect("it has records");
    again[..FRAME_HEADER_BYTES].copy_from_slice(&made);
    assert_eq!(again, bytes[..header.length as usize]);
}
