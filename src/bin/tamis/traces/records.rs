//! `Records`: requests as records of oracleGeneral, the binary traces of libCacheSim.
//!
//! A record has 24 bytes, little-endian and packed: a time in seconds (u32), the number of the
//! object (u64), its size (u32), and the number of the next request of it (i64), which is -1 or the
//! highest number if there is none. Records of size 0 are passed over, as libCacheSim does.

use std::io::{BufRead, ErrorKind};
use std::path::{Path, PathBuf};

use super::error::InputError;
use super::request::Request;

const RECORD_BYTES: usize = 24;

/// No program writes a lower one: some mark what they do not know with it.
const NEXT_MIN: i64 = -2;

pub(super) struct Records<'a> {
    path: PathBuf,
    source: Box<dyn BufRead + 'a>,
    /// Of the next record.
    offset: u64,
}

struct Record {
    time: u32,
    object: u64,
    size: u32,
    next: i64,
}

impl Record {
    fn decode(bytes: &[u8; RECORD_BYTES]) -> Self {
        let [a, b, c, d, rest @ ..] = *bytes;
        let [e, f, g, h, i, j, k, l, rest @ ..] = rest;
        let [m, n, o, p, next @ ..] = rest;
        Self {
            time: u32::from_le_bytes([a, b, c, d]),
            object: u64::from_le_bytes([e, f, g, h, i, j, k, l]),
            size: u32::from_le_bytes([m, n, o, p]),
            next: i64::from_le_bytes(next),
        }
    }
}

impl<'a> Records<'a> {
    pub(super) fn new(path: &Path, source: Box<dyn BufRead + 'a>) -> Self {
        Self { path: path.to_owned(), source, offset: 0 }
    }

    /// Whether a file that begins so has records: times that never go back, no impossible number of
    /// a next request, and a zero byte, which no text has.
    pub(super) fn are_likely(head: &[u8]) -> bool {
        let records = || head.chunks_exact(RECORD_BYTES).filter_map(|chunk| chunk.first_chunk());
        let mut before = 0;
        let mut is_record = |bytes| {
            let Record { time, next, .. } = Record::decode(bytes);
            time >= std::mem::replace(&mut before, time) && next >= NEXT_MIN
        };
        head.contains(&0) && head.len() >= RECORD_BYTES && records().all(&mut is_record)
    }

    pub(super) fn advance(&mut self) -> Result<Option<Request>, InputError> {
        while let Some(bytes) = self.read()? {
            let Record { object, size, next, .. } = Record::decode(&bytes);
            if next < NEXT_MIN {
                return Err(self.malformed("no record: its next request is before the first one"));
            }
            self.offset += RECORD_BYTES as u64;
            if size > 0 {
                return Ok(Some(Request { key: object, size: size.into() }));
            }
        }
        Ok(None)
    }

    fn read(&mut self) -> Result<Option<[u8; RECORD_BYTES]>, InputError> {
        let (mut bytes, mut filled) = ([0; RECORD_BYTES], 0);
        while filled < RECORD_BYTES {
            match self.source.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(self.malformed("the last record is cut off")),
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => {
                    let (path, offset) = (self.path.clone(), self.offset);
                    return Err(InputError::UnreadableRecord { path, offset, source });
                }
            }
        }
        Ok(Some(bytes))
    }

    fn malformed(&self, reason: &'static str) -> InputError {
        let (path, offset) = (self.path.clone(), self.offset);
        InputError::MalformedRecord { path, offset, reason }
    }
}
