//! Stands for `src/io/buffer.rs`: buffers that are numbers, which are live until they are dropped.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::ptr::{NonNull, without_provenance_mut};

thread_local! {
    /// The last number, and for each live buffer the bytes that were written to it.
    static LIVE: RefCell<(usize, BTreeMap<usize, usize>)> = RefCell::default();
}

#[derive(Debug)]
pub(crate) struct AlignedBuffer {
    number: usize,
    length: usize,
}

#[derive(Debug, Default)]
pub(crate) struct BufferPool;

impl BufferPool {
    pub(crate) fn buffer(&self, _bytes: usize) -> io::Result<AlignedBuffer> {
        let number = LIVE.with_borrow_mut(|(last, live)| {
            *last += 1;
            live.insert(*last, 0);
            *last
        });
        Ok(AlignedBuffer { number, length: 0 })
    }
}

impl AlignedBuffer {
    pub(crate) fn pointer(&self) -> NonNull<u8> {
        NonNull::new(without_provenance_mut(self.number)).expect("numbers begin at one")
    }

    pub(crate) fn assume_length(&mut self, length: usize) {
        let written = LIVE.with_borrow(|(_, live)| live.get(&self.number).copied());
        assert_eq!(written, Some(length), "bytes are read that the device has not written");
        self.length = length;
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        LIVE.with_borrow_mut(|(_, live)| live.remove(&self.number));
    }
}

/// Forgets the buffers of the schedule before.
pub(crate) fn begin() {
    LIVE.with_borrow_mut(|(_, live)| live.clear());
}

/// Writes `count` bytes to a buffer.
pub(crate) fn write(number: usize, count: usize) {
    let is_live = LIVE.with_borrow_mut(|(_, live)| live.get_mut(&number).map(|it| *it = count));
    assert!(is_live.is_some(), "the device writes to a buffer that is free");
}
