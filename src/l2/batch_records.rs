//! `BatchRecords`: the records of a write batch, in the order of the log.
//!
//! Heads are short and many, so they are copied into a few buffers. Bodies are held by reference.

use std::ops::Range;

use bytes::Bytes;

use super::format::Position;

/// Bytes of a buffer of heads; a longer head has its own. Growth moves none of them.
const HEADS_BYTES: usize = 32 << 10;

/// A record that is not on file yet.
#[derive(Debug)]
pub(crate) struct PendingRecord {
    pub(crate) position: Position,
    pub(crate) head: Bytes,
    pub(crate) body: Bytes,
}

#[derive(Debug)]
pub(super) struct BatchRecords {
    heads: Vec<Vec<u8>>,
    records: Vec<BatchRecord>,
}

#[derive(Debug)]
struct BatchRecord {
    position: Position,
    /// The buffer of its head, and where the head is there.
    buffer: usize,
    head: Range<usize>,
    body: Bytes,
}

impl BatchRecords {
    /// With room for so many records.
    pub(super) fn with_room(records: usize) -> Self {
        Self { heads: Vec::new(), records: Vec::with_capacity(records) }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Adds a record behind all others.
    pub(super) fn push(&mut self, position: Position, head: &[u8], body: Bytes) {
        let is_full = |heads: &Vec<u8>| heads.capacity() - heads.len() < head.len();
        if self.heads.last().is_none_or(is_full) {
            self.heads.push(Vec::with_capacity(HEADS_BYTES.max(head.len())));
        }
        let buffer = self.heads.len() - 1;
        let heads = &mut self.heads[buffer];
        let start = heads.len();
        heads.extend_from_slice(head);
        let head = start..heads.len();
        self.records.push(BatchRecord { position, buffer, head, body });
    }

    pub(super) fn find(&self, position: Position) -> Option<PendingRecord> {
        let found = self.records.binary_search_by_key(&position, |record| record.position).ok()?;
        let record = &self.records[found];
        let head = Bytes::copy_from_slice(self.head_of(record));
        Some(PendingRecord { position, head, body: record.body.clone() })
    }

    /// The head and the body of each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.records.iter().map(|record| (self.head_of(record), &*record.body))
    }

    /// Their bodies, which may be values of the callers.
    pub(super) fn into_bodies(self) -> impl ExactSizeIterator<Item = Bytes> + Send {
        self.records.into_iter().map(|record| record.body)
    }

    fn head_of(&self, record: &BatchRecord) -> &[u8] {
        self.heads[record.buffer].get(record.head.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_by_position_and_in_order() {
        let mut records = BatchRecords::with_room(4);
        let position = |number: usize| Position::new(64 * number as u64).expect("a position");
        let lengths = (0..3000).map(|number| if number % 500 == 9 { 40_000 } else { number % 97 });
        let head = |number: usize, length: usize| vec![number.to_le_bytes()[0]; length];
        let body = |number: usize| Bytes::from(format!("{number}"));
        for (number, length) in lengths.clone().enumerate() {
            records.push(position(number), &head(number, length), body(number));
        }
        assert_eq!(records.len(), 3000);
        for (number, length) in lengths.clone().enumerate() {
            let found = records.find(position(number)).expect("it is there");
            assert_eq!((found.position, found.body), (position(number), body(number)));
            assert_eq!(found.head, head(number, length));
        }
        assert!(records.find(position(3000)).is_none());
        let all: Vec<_> = records.iter().map(|(head, body)| [head, body].concat()).collect();
        let expected =
            lengths.enumerate().map(|(n, length)| [head(n, length), body(n).into()].concat());
        assert_eq!(all, expected.collect::<Vec<_>>());
        assert!(records.into_bodies().eq((0..3000).map(body)));
    }
}
