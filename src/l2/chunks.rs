//! `Chunks`: a byte buffer that grows entry by entry. Growth moves no full chunk.

use std::mem;

use super::wire::Sink;

/// A chunk is full from this many bytes on.
const CHUNK_BYTES: usize = 64 << 10;

#[derive(Default)]
pub(super) struct Chunks {
    full: Vec<Vec<u8>>,
    full_bytes: usize,
    last: Vec<u8>,
}

impl Chunks {
    pub(super) fn len(&self) -> usize {
        self.full_bytes + self.last.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let list = self.full.capacity() * size_of::<Vec<u8>>();
        self.full_bytes + self.last.capacity() + list
    }

    /// Ends an entry: the next bytes may go to another chunk.
    pub(super) fn end_entry(&mut self) {
        if self.last.len() >= CHUNK_BYTES {
            self.full_bytes += self.last.len();
            self.full.push(mem::take(&mut self.last));
        }
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
    fn what_is_written_comes_back() {
        let (mut chunks, mut all) = (Chunks::default(), Vec::new());
        for number in 0..20_000_u32 {
            let entry = number.to_le_bytes().repeat(1 + number as usize % 9);
            chunks.bytes(&entry);
            chunks.end_entry();
            all.extend(entry);
        }
        assert_eq!(chunks.len(), all.len());
        assert!(chunks.last.len() < CHUNK_BYTES && chunks.memory_bytes() >= all.len());
        assert_eq!(chunks.pieces().collect::<Vec<_>>().concat(), all);
    }
}
