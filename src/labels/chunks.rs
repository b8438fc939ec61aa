//! `Chunks`: an array that grows and shrinks at its end, without ever moving more than one chunk.

use std::ops::{Index, IndexMut};

/// Items in a chunk. The list of the chunks itself takes 24 bytes for each.
pub(super) const CHUNK: usize = 1024;

/// The last chunk grows by at least this many items, or by a quarter.
const GROWTH_MIN: usize = 4;

#[derive(Debug)]
pub(super) struct Chunks<T> {
    /// All but the last one are full.
    chunks: Vec<Vec<T>>,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T> Chunks<T> {
    pub(super) fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    pub(super) fn push(&mut self, item: T) {
        match self.chunks.last_mut().filter(|last| last.len() < CHUNK) {
            Some(last) => {
                if last.len() == last.capacity() {
                    // Room to double would count, too.
                    let more = (last.len() / 4).max(GROWTH_MIN).min(CHUNK - last.len());
                    last.reserve_exact(more);
                }
                last.push(item);
            }
            None => {
                let mut chunk = Vec::with_capacity(GROWTH_MIN);
                chunk.push(item);
                self.chunks.push(chunk);
            }
        }
    }

    /// Removes the last item. Gives back memory when the last chunk is half empty.
    pub(super) fn pop(&mut self) -> Option<T> {
        let last = self.chunks.last_mut()?;
        let item = last.pop();
        if last.is_empty() {
            self.chunks.pop();
        } else if last.len() < last.capacity() / 2 {
            last.shrink_to(last.len() + last.len() / 4 + GROWTH_MIN);
        }
        item
    }

    /// Frees the last chunk. Returns its bytes; None if there is none.
    pub(super) fn free_chunk(&mut self) -> Option<usize> {
        let chunk = self.chunks.pop()?;
        if self.chunks.is_empty() {
            self.chunks = Vec::new();
        }
        Some(chunk.capacity() * size_of::<T>())
    }

    /// The chunk that begins with the item of that number; empty at the end.
    pub(super) fn chunk(&self, first: u32) -> &[T] {
        let chunk = self.chunks.get(first as usize / CHUNK);
        chunk.map_or(&[], Vec::as_slice)
    }

    /// Adds the chunk that begins with item `first`, if it is the next one of a list of `end`
    /// items. False if it is not.
    pub(super) fn add_chunk(&mut self, first: usize, end: u32, chunk: Vec<T>) -> bool {
        let expected = (end as usize).checked_sub(first).map(|left| left.min(CHUNK));
        let is_next = first == self.len() && expected == Some(chunk.len()) && !chunk.is_empty();
        if is_next {
            self.chunks.push(chunk);
        }
        is_next
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let last = self.chunks.last().map_or(0, Vec::capacity);
        let full = self.chunks.len().saturating_sub(1) * CHUNK;
        (full + last) * size_of::<T>()
    }
}

impl<T> Index<u32> for Chunks<T> {
    type Output = T;

    fn index(&self, number: u32) -> &T {
        &self.chunks[number as usize / CHUNK][number as usize % CHUNK]
    }
}

impl<T> IndexMut<u32> for Chunks<T> {
    fn index_mut(&mut self, number: u32) -> &mut T {
        &mut self.chunks[number as usize / CHUNK][number as usize % CHUNK]
    }
}
