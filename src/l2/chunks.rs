//! `Chunks`: a byte buffer that grows entry by entry, with cheap snapshots.
//!
//! Full chunks never change, so a snapshot shares them and copies only the last one; and growth
//! moves nothing.

use std::mem;

use bytes::Bytes;

use super::wire::Sink;

/// A chunk is full from this many bytes on.
const CHUNK_BYTES: usize = 64 << 10;

#[derive(Default)]
pub(super) struct Chunks {
    full: Vec<Bytes>,
    full_bytes: usize,
    last: Vec<u8>,
}

impl Chunks {
    pub(super) fn len(&self) -> usize {
        self.full_bytes + self.last.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let list = self.full.capacity() * size_of::<Bytes>();
        self.full_bytes + self.last.capacity() + list
    }

    /// Ends an entry: the next bytes may go to another chunk.
    pub(super) fn end_entry(&mut self) {
        if self.last.len() >= CHUNK_BYTES {
            self.full_bytes += self.last.len();
            self.full.push(mem::take(&mut self.last).into());
        }
    }

    /// A copy that does not change.
    pub(super) fn snapshot(&self) -> Self {
        let (full, last) = (self.full.clone(), self.last.clone());
        Self { full, full_bytes: self.full_bytes, last }
    }

    /// All bytes in order, in pieces of little more than a chunk.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.full.iter().map(|chunk| &**chunk).chain([&*self.last])
    }
}

impl Sink for Chunks {
    fn bytes(&mut self, bytes: &[u8]) {
        self.last.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_stays_and_what_is_written_comes_back() {
        let (mut chunks, mut all) = (Chunks::default(), Vec::new());
        let mut snapshots = Vec::new();
        for number in 0..20_000_u32 {
            let entry = number.to_le_bytes().repeat(1 + number as usize % 9);
            chunks.bytes(&entry);
            chunks.end_entry();
            all.extend(entry);
            if number % 4001 == 0 {
                snapshots.push((chunks.snapshot(), all.clone()));
            }
        }
        snapshots.push((chunks.snapshot(), all));
        for (snapshot, expected) in snapshots {
            assert_eq!(snapshot.pieces().collect::<Vec<_>>().concat(), expected);
            assert_eq!(snapshot.len(), expected.len());
            assert!(snapshot.last.len() < CHUNK_BYTES && snapshot.memory_bytes() >= expected.len());
        }
    }
}
