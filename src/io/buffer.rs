//! `AlignedBuffer`: a heap buffer fit for O_DIRECT.
//!
//! Invariants: the allocation starts at a multiple of [`BLOCK_BYTES`] and its capacity is one;
//! `length <= capacity`; the first `length` bytes are initialised; the allocation is owned by
//! exactly one buffer and freed with it. A capacity of zero owns no allocation.

// Unsafe here: an aligned allocation has no safe owner in std.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

/// The unit of offsets, lengths and addresses on the disk, in bytes.
pub(crate) const BLOCK_BYTES: usize = 4096;

const _: () = assert!(BLOCK_BYTES.is_power_of_two());

/// The largest buffer that a pool keeps.
const POOLED_BYTES_MAX: usize = 64 << 10;

/// The most bytes that a pool keeps.
const SPARE_BYTES_MAX: usize = 1 << 20;

/// A growable-in-place byte buffer, aligned to [`BLOCK_BYTES`], that never reallocates.
///
/// It dereferences to its initialised bytes. [`AlignedBuffer::into_bytes`] turns it into
/// [`Bytes`] without a copy, so that a value can be a slice of what was read.
pub(crate) struct AlignedBuffer {
    pointer: NonNull<u8>,
    capacity: usize,
    length: usize,
    /// Takes the allocation when the buffer is dropped. Weak, so that a buffer in use keeps no
    /// spare ones when the pool's owner is gone.
    pool: Option<Weak<BufferPool>>,
}

/// Allocations of up to [`POOLED_BYTES_MAX`] that are used again: small reads come and go by the
/// thousands, often on different threads, where an allocator would contend.
#[derive(Debug, Default)]
pub(super) struct BufferPool {
    spare: Mutex<Spare>,
}

/// By the number of blocks, less one. Their buffers have no pool.
#[derive(Debug, Default)]
struct Spare {
    buffers: [Vec<AlignedBuffer>; POOLED_BYTES_MAX / BLOCK_BYTES],
    bytes: usize,
}

// SAFETY: the buffer owns its allocation alone, and bytes have no thread affinity.
unsafe impl Send for AlignedBuffer {}
// SAFETY: a shared reference gives only `&[u8]` of initialised bytes; no interior mutability.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// An empty buffer that holds at least `bytes`, rounded up to whole blocks.
    ///
    /// # Panics
    ///
    /// When the rounded size does not fit the address space; aborts when memory is exhausted.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        if bytes == 0 {
            return Self { pointer: NonNull::dangling(), capacity: 0, length: 0, pool: None };
        }
        let layout = Self::layout(bytes);
        // SAFETY: the layout's size is not zero, since `bytes` is not.
        let pointer = unsafe { alloc(layout) };
        let Some(pointer) = NonNull::new(pointer) else { handle_alloc_error(layout) };
        Self { pointer, capacity: layout.size(), length: 0, pool: None }
    }

    /// The same, where memory may be exhausted.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`.
    pub(super) fn try_with_capacity(bytes: usize) -> io::Result<Self> {
        let layout = Self::layout(bytes);
        if layout.size() == 0 {
            return Ok(Self::with_capacity(0));
        }
        // SAFETY: the layout's size is not zero.
        let pointer = NonNull::new(unsafe { alloc(layout) });
        let pointer = pointer.ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { pointer, capacity: layout.size(), length: 0, pool: None })
    }

    /// An empty buffer that holds at least `bytes`: the same allocation if it is large enough.
    pub(crate) fn emptied(mut self, bytes: usize) -> Self {
        if self.capacity < bytes {
            return Self::with_capacity(bytes);
        }
        self.length = 0;
        self
    }

    /// A buffer of `bytes` zeroes.
    #[cfg(test)]
    pub(crate) fn zeroed(bytes: usize) -> Self {
        let mut buffer = Self::with_capacity(bytes);
        buffer.append_zeroes(bytes);
        buffer
    }

    /// A buffer that holds a copy of `bytes`.
    pub(crate) fn copy_from_slice(bytes: &[u8]) -> Self {
        let mut buffer = Self::with_capacity(bytes.len());
        buffer.append(bytes);
        buffer
    }

    /// The bytes it can hold; a multiple of [`BLOCK_BYTES`].
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The bytes that can still be appended.
    pub(crate) fn remaining(&self) -> usize {
        self.capacity - self.length
    }

    /// Appends a copy of `bytes`.
    ///
    /// # Panics
    ///
    /// When they do not fit the capacity.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.remaining(), "append beyond the capacity of the buffer");
        // SAFETY: the target range lies within the allocation (assert above), which is ours
        // alone, so that it cannot overlap `bytes`; any byte pattern is valid.
        unsafe {
            let target = self.pointer.as_ptr().add(self.length);
            target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        self.length += bytes.len();
    }

    /// Appends `count` zero bytes.
    ///
    /// # Panics
    ///
    /// When they do not fit the capacity.
    pub(crate) fn append_zeroes(&mut self, count: usize) {
        assert!(count <= self.remaining(), "append beyond the capacity of the buffer");
        // SAFETY: the target range lies within the allocation (assert above), which is ours.
        unsafe { self.pointer.as_ptr().add(self.length).write_bytes(0, count) };
        self.length += count;
    }

    /// Fills the last block with zeroes, so that the length is a multiple of [`BLOCK_BYTES`].
    pub(crate) fn pad_to_block(&mut self) {
        self.append_zeroes(self.length.next_multiple_of(BLOCK_BYTES) - self.length);
    }

    /// The bytes as [`Bytes`], without a copy; slices of it keep the whole buffer alive.
    pub(crate) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// Where the allocation starts. Valid for `capacity` bytes while the buffer lives.
    pub(super) fn pointer(&self) -> NonNull<u8> {
        self.pointer
    }

    /// Declares the first `length` bytes initialised.
    ///
    /// # Safety
    ///
    /// They must be, and `length` must not exceed the capacity.
    pub(super) unsafe fn assume_length(&mut self, length: usize) {
        debug_assert!(length <= self.capacity);
        self.length = length;
    }

    fn layout(bytes: usize) -> Layout {
        let rounded = bytes.checked_next_multiple_of(BLOCK_BYTES);
        match rounded.map(|size| Layout::from_size_align(size, BLOCK_BYTES)) {
            Some(Ok(layout)) => layout,
            _ => panic!("buffer of {bytes} bytes does not fit the address space"),
        }
    }
}

impl BufferPool {
    /// An empty buffer that holds at least `bytes`, and comes back here when it is dropped.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`.
    pub(super) fn buffer(self: &Arc<Self>, bytes: usize) -> io::Result<AlignedBuffer> {
        let spare = place(bytes).and_then(|place| {
            let mut spare = self.spare.lock();
            let buffer = spare.buffers[place].pop()?;
            spare.bytes -= buffer.capacity;
            Some(buffer)
        });
        let mut buffer = match spare {
            Some(buffer) => buffer,
            None => AlignedBuffer::try_with_capacity(bytes)?,
        };
        buffer.pool = Some(Arc::downgrade(self));
        Ok(buffer)
    }

    /// Keeps an allocation, or returns it.
    fn keep(&self, buffer: AlignedBuffer) -> Option<AlignedBuffer> {
        let Some(place) = place(buffer.capacity) else { return Some(buffer) };
        let mut spare = self.spare.lock();
        if spare.bytes + buffer.capacity > SPARE_BYTES_MAX {
            return Some(buffer);
        }
        spare.bytes += buffer.capacity;
        spare.buffers[place].push(buffer);
        None
    }
}

/// The place of such a buffer among the spare ones.
fn place(bytes: usize) -> Option<usize> {
    (1..=POOLED_BYTES_MAX).contains(&bytes).then(|| bytes.div_ceil(BLOCK_BYTES) - 1)
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take().and_then(|pool| pool.upgrade()) {
            let (pointer, capacity) = (self.pointer, self.capacity);
            // From now on the allocation belongs to the new buffer.
            self.capacity = 0;
            let left = pool.keep(Self { pointer, capacity, length: 0, pool: None });
            drop(left);
        }
        if self.capacity > 0 {
            // SAFETY: `pointer` came from `alloc` with this layout (capacity is its rounded
            // size, and rounding again changes nothing), and is freed only here.
            unsafe { dealloc(self.pointer.as_ptr(), Self::layout(self.capacity)) };
        }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the first `length` bytes are initialised and live as long as `self`; a
        // dangling pointer is aligned and comes with length zero.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.length) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.length) }
    }
}

impl AsRef<[u8]> for AlignedBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<AlignedBuffer> for Bytes {
    fn from(buffer: AlignedBuffer) -> Self {
        buffer.into_bytes()
    }
}

impl Default for AlignedBuffer {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AlignedBuffer")
            .field("length", &self.length)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_and_counts_exactly() {
        for bytes in [1, 100, 4095, 4096, 4097, 70_000, 3 << 20] {
            let mut buffer = AlignedBuffer::with_capacity(bytes);
            assert_eq!(buffer.pointer().as_ptr() as usize % BLOCK_BYTES, 0);
            assert_eq!(buffer.capacity(), bytes.next_multiple_of(BLOCK_BYTES));
            assert!(buffer.is_empty());
            buffer.append(&vec![7; bytes]);
            assert_eq!(buffer.len(), bytes);
            assert!(buffer.iter().all(|&byte| byte == 7));
            buffer.pad_to_block();
            assert_eq!(buffer.len(), buffer.capacity());
            assert!(buffer[bytes..].iter().all(|&byte| byte == 0));
            assert_eq!(buffer.remaining(), 0);
        }
    }

    #[test]
    fn empty_owns_nothing() {
        let mut buffer = AlignedBuffer::default();
        assert_eq!((buffer.len(), buffer.capacity()), (0, 0));
        buffer.append(&[]);
        buffer.pad_to_block();
        assert!(buffer.into_bytes().is_empty());
    }

    #[test]
    fn a_pool_gives_each_allocation_to_one_buffer_and_keeps_few() {
        let pool = Arc::<BufferPool>::default();
        let first = pool.buffer(5000).expect("memory");
        let place = first.pointer();
        assert_eq!((first.capacity(), first.len()), (8192, 0));
        let second = pool.buffer(5000).expect("memory");
        assert_ne!(second.pointer(), place);
        drop(first.into_bytes());
        let third = pool.buffer(8192).expect("memory");
        assert_eq!((third.pointer(), third.len()), (place, 0), "used again, and empty");
        assert_ne!(pool.buffer(4096).expect("memory").pointer(), place, "of another size");
        let crowd: Vec<_> = (0..1000).map(|_| pool.buffer(64 << 10).expect("memory")).collect();
        drop((crowd, second, third));
        drop(pool.buffer(1 << 20));
        let spare = pool.spare.lock();
        let kept = spare.buffers.iter().flatten().map(AlignedBuffer::capacity).sum::<usize>();
        assert_eq!(kept, spare.bytes);
        assert!(kept > SPARE_BYTES_MAX - (64 << 10) && kept <= SPARE_BYTES_MAX);
        drop(spare);
        let (used, left) = (pool.buffer(4096).expect("memory"), Arc::downgrade(&pool));
        drop(pool);
        assert!(left.upgrade().is_none(), "a buffer in use keeps no spare ones");
        drop(used);
    }

    #[test]
    #[should_panic(expected = "beyond the capacity")]
    fn refuses_to_overflow() {
        AlignedBuffer::with_capacity(1).append(&[0; 4097]);
    }

    #[test]
    fn bytes_share_the_allocation() {
        let buffer = AlignedBuffer::copy_from_slice(b"sieve of many holes");
        let start = buffer.as_ptr();
        let bytes = buffer.into_bytes();
        assert_eq!(bytes.as_ptr(), start);
        let slice = bytes.slice(9..13);
        drop(bytes);
        assert_eq!(&slice[..], b"many");
    }

    #[test]
    fn writes_through_the_slice_stay() {
        let mut buffer = AlignedBuffer::zeroed(BLOCK_BYTES);
        buffer[17] = 4;
        assert_eq!(buffer.iter().map(|&byte| u32::from(byte)).sum::<u32>(), 4);
        std::thread::spawn(move || assert_eq!(buffer[17], 4)).join().expect("thread");
    }
}
