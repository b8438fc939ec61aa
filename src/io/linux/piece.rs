//! `Split`: one buffer cut into disjoint pieces, so that several transfers fill or drain it at
//! once.
//!
//! Invariants: a `Split` consumes its buffer and hands out each range at most once, so no two
//! pieces overlap; no other code can see the bytes while a piece lives, because the buffer comes
//! back only when the split holds its last reference. A piece knows which of its bytes are
//! initialised (`initialised`) and how far its transfer has come (`done <= initialised`).

// Unsafe here: the ring writes through raw pointers.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::slice;
use std::sync::Arc;

use tokio_uring::buf::{IoBuf, IoBufMut};

use crate::io::buffer::{AlignedBuffer, BLOCK_BYTES};

/// A buffer being transferred in pieces.
pub(super) struct Split {
    buffer: Arc<AlignedBuffer>,
    /// The bytes to transfer, from the start of the buffer.
    span: usize,
    /// Where the next piece starts.
    next: usize,
    /// The bytes whose pieces came back done.
    returned: usize,
}

impl Split {
    /// Cuts up the first `span` bytes of `buffer`.
    ///
    /// # Panics
    ///
    /// When the span exceeds the capacity.
    pub(super) fn new(buffer: AlignedBuffer, span: usize) -> Self {
        assert!(span <= buffer.capacity(), "span beyond the capacity of the buffer");
        Self { buffer: Arc::new(buffer), span, next: 0, returned: 0 }
    }

    /// The next piece, at most `bytes` long, with its place in the span; `None` at the end.
    pub(super) fn next_piece(&mut self, bytes: usize) -> Option<(usize, Piece)> {
        let start = self.next;
        let length = bytes.min(self.span - start);
        if length == 0 {
            return None;
        }
        self.next += length;
        let initialised = self.buffer.len().saturating_sub(start).min(length);
        let buffer = Arc::clone(&self.buffer);
        Some((start, Piece { buffer, start, length, done: 0, initialised }))
    }

    /// Takes a piece back and counts what it transferred.
    pub(super) fn give_back(&mut self, piece: Piece) {
        assert!(Arc::ptr_eq(&self.buffer, &piece.buffer), "piece of another buffer");
        self.returned += piece.done;
    }

    /// The buffer, once all pieces are dropped; `None` before.
    ///
    /// Its length covers the span if every piece was transferred whole, and is unchanged otherwise.
    pub(super) fn join(self) -> Option<AlignedBuffer> {
        let whole = self.returned == self.span;
        let mut buffer = Arc::into_inner(self.buffer)?;
        if whole && buffer.len() < self.span {
            // SAFETY: pieces are disjoint parts of the span and each counted at most its done
            // bytes, which are initialised; that they add up to the span means all of it is.
            // The span was checked against the capacity in `new`.
            unsafe { buffer.assume_length(self.span) };
        }
        Some(buffer)
    }
}

/// A part of a buffer in transfer. To the ring it is a buffer of the bytes that are left.
pub(super) struct Piece {
    buffer: Arc<AlignedBuffer>,
    start: usize,
    length: usize,
    done: usize,
    initialised: usize,
}

impl Piece {
    /// The bytes transferred so far.
    pub(super) fn done(&self) -> usize {
        self.done
    }

    /// Whether all of it is transferred.
    pub(super) fn is_done(&self) -> bool {
        self.done == self.length
    }

    /// Counts `count` more bytes as transferred, and returns the number counted: only whole blocks,
    /// except at the end of the piece, because direct transfers resume at blocks.
    pub(super) fn advance(&mut self, count: usize) -> usize {
        let mut reached = (self.done + count).min(self.initialised);
        if reached < self.length {
            reached = (reached / BLOCK_BYTES * BLOCK_BYTES).max(self.done);
        }
        let counted = reached - self.done;
        self.done = reached;
        counted
    }

    /// The initialised bytes that are left.
    pub(super) fn rest(&self) -> &[u8] {
        // SAFETY: the address is valid for so many initialised bytes (see `IoBuf` below), and
        // nothing else writes to the piece's range while the piece is borrowed.
        unsafe { slice::from_raw_parts(self.address(), self.bytes_init()) }
    }

    /// Lets `fill` initialise the bytes that are left, from the first on; it returns how many.
    pub(super) fn fill(
        &mut self,
        fill: impl FnOnce(&mut [MaybeUninit<u8>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let length = self.bytes_total();
        // SAFETY: the range belongs to this piece alone (see `IoBufMut` below), and bytes that may
        // not be initialised are all that is claimed.
        let bytes = unsafe { slice::from_raw_parts_mut(self.address().cast(), length) };
        let count = fill(bytes)?.min(length);
        // SAFETY: `fill` says that it has initialised them.
        unsafe { self.set_init(count) };
        Ok(count)
    }

    fn address(&self) -> *mut u8 {
        // SAFETY: `done <= length` and `start + length <= span <= capacity`, so the result
        // stays within (or one past) the allocation that `buffer` keeps alive.
        unsafe { self.buffer.pointer().as_ptr().add(self.start + self.done) }
    }
}

// SAFETY: the allocation does not move and lives as long as the piece's reference to its buffer;
// `length - done` bytes from the address lie within it, and the first `initialised - done` of
// them are initialised.
unsafe impl IoBuf for Piece {
    fn stable_ptr(&self) -> *const u8 {
        self.address()
    }

    fn bytes_init(&self) -> usize {
        self.initialised - self.done
    }

    fn bytes_total(&self) -> usize {
        self.length - self.done
    }
}

// SAFETY: as above. The range belongs to this piece alone: pieces are disjoint, and the split
// gives no access to the bytes while a piece lives; so writes through the pointer do
// not race.
unsafe impl IoBufMut for Piece {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.address()
    }

    unsafe fn set_init(&mut self, position: usize) {
        assert!(self.done + position <= self.length, "more than the piece was transferred");
        self.initialised = self.initialised.max(self.done + position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(piece: &mut Piece, byte: u8, count: usize) {
        // SAFETY: at most `bytes_total` bytes at the piece's own address are written.
        unsafe {
            assert!(count <= piece.bytes_total());
            piece.stable_mut_ptr().write_bytes(byte, count);
            piece.set_init(count);
        }
    }

    #[test]
    fn pieces_cover_the_span_and_join() {
        let mut split = Split::new(AlignedBuffer::with_capacity(5 * BLOCK_BYTES), 5 * BLOCK_BYTES);
        let mut pieces = Vec::new();
        while let Some(piece) = split.next_piece(2 * BLOCK_BYTES) {
            pieces.push(piece);
        }
        assert_eq!(pieces.iter().map(|(start, _)| *start).collect::<Vec<_>>(), [0, 8192, 16384]);
        for (start, mut piece) in pieces {
            let count = piece.bytes_total();
            let byte = u8::try_from(start / BLOCK_BYTES).expect("few blocks");
            fill(&mut piece, byte, count);
            assert_eq!(piece.advance(count), count);
            assert!(piece.is_done());
            split.give_back(piece);
        }
        let buffer = split.join().expect("all pieces are back");
        assert_eq!(buffer.len(), 5 * BLOCK_BYTES);
        assert_eq!([buffer[0], buffer[8191], buffer[8192], buffer[20479]], [0, 0, 2, 4]);
    }

    #[test]
    fn short_transfers_resume_at_a_block() {
        let mut split = Split::new(AlignedBuffer::with_capacity(2 * BLOCK_BYTES), 2 * BLOCK_BYTES);
        let (_, mut piece) = split.next_piece(usize::MAX).expect("one piece");
        fill(&mut piece, 1, 100);
        assert_eq!(piece.advance(100), 0);
        fill(&mut piece, 1, 5000);
        assert_eq!(piece.advance(5000), BLOCK_BYTES);
        assert_eq!(piece.bytes_total(), BLOCK_BYTES);
        split.give_back(piece);
        let buffer = split.join().expect("the piece is back");
        assert!(buffer.is_empty(), "a half-read buffer shows nothing");
    }

    #[test]
    fn a_piece_about_keeps_the_buffer() {
        let mut split = Split::new(AlignedBuffer::zeroed(BLOCK_BYTES), BLOCK_BYTES);
        let piece = split.next_piece(BLOCK_BYTES);
        assert!(split.join().is_none());
        drop(piece);
    }
}
