//! `ReadPins`: count the reads of each segment, so that none is reused under a read.
//!
//! A pin belongs to the request in the ring, not to the future that waits for it. A reader first
//! pins, then checks its slot again; reclaim first removes the slots, then waits for the pins. So
//! either the reader sees that its slot was removed, or reclaim sees the pin.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use futures::task::AtomicWaker;

use super::format::{Geometry, SegmentNumber};
use crate::failpoint::{Failpoint, failpoint};

#[derive(Debug)]
pub(crate) struct ReadPins {
    geometry: Geometry,
    /// By index of the segment in the file.
    counts: Box<[AtomicU32]>,
    reclaim: AtomicWaker,
}

/// Keeps a segment from being reused until it is dropped.
#[derive(Debug)]
pub(crate) struct ReadPin {
    pins: Arc<ReadPins>,
    index: usize,
}

impl ReadPins {
    pub(crate) fn new(geometry: Geometry) -> Self {
        // Bounded: by the segments, once at open.
        let counts = (0..geometry.segment_count()).map(|_| AtomicU32::new(0)).collect();
        Self { geometry, counts, reclaim: AtomicWaker::new() }
    }

    pub(crate) fn pin(self: &Arc<Self>, segment: SegmentNumber) -> ReadPin {
        let index = self.index(segment);
        self.counts[index].fetch_add(1, Ordering::SeqCst);
        ReadPin { pins: Arc::clone(self), index }
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> u32 {
        self.counts.iter().map(|count| count.load(Ordering::SeqCst)).sum()
    }

    /// Resolves once the segment has no pins. One caller at a time.
    pub(crate) async fn released(&self, segment: SegmentNumber) {
        let index = self.index(segment);
        poll_fn(|context| {
            self.reclaim.register(context.waker());
            match self.counts[index].load(Ordering::SeqCst) {
                0 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
    }

    fn index(&self, segment: SegmentNumber) -> usize {
        let index = segment.0 % u64::from(self.geometry.segment_count());
        usize::try_from(index).unwrap_or(0)
    }
}

impl Drop for ReadPin {
    fn drop(&mut self) {
        if failpoint(Failpoint::PinLost) {
            return;
        }
        if self.pins.counts[self.index].fetch_sub(1, Ordering::SeqCst) == 1 {
            self.pins.reclaim.wake();
        }
    }
}
