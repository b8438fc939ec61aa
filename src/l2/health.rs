//! `Health`: whether L2 is on, why not, and its metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// The metrics of L2. Updated by the writer and by disk reads, not by hits in memory.
#[derive(Debug, Default)]
pub(crate) struct DiskMetrics {
    pub(crate) reads: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) write_bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) corruptions: AtomicU64,
    pub(crate) io_errors: AtomicU64,
    pub(crate) reclaimed_segments: AtomicU64,
    pub(crate) reinserted: AtomicU64,
    pub(crate) reinserted_bytes: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct Health {
    reason: Mutex<Option<String>>,
    off: AtomicBool,
    /// The store is marked void on file: nothing in it may be served.
    voided: AtomicBool,
    failed_syncs: AtomicU64,
    pub(crate) metrics: DiskMetrics,
    /// Bytes of the buffers in which directories and segments are read or written.
    buffers: AtomicUsize,
}

/// Counts a buffer until this is dropped.
#[derive(Debug)]
#[must_use = "it is counted for as long as this lives"]
pub(crate) struct CountedBuffer<'a> {
    health: &'a Health,
    bytes: usize,
}

/// Counts buffers of a changing size until this is dropped.
pub(crate) struct CountedBuffers {
    health: Arc<Health>,
    bytes: usize,
}

impl CountedBuffers {
    pub(crate) fn none(health: Arc<Health>) -> Self {
        Self { health, bytes: 0 }
    }

    pub(crate) fn set(&mut self, bytes: usize) {
        self.health.buffers.fetch_add(bytes, Ordering::Relaxed);
        self.health.buffers.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for CountedBuffers {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Drop for CountedBuffer<'_> {
    fn drop(&mut self) {
        self.health.buffers.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Health {
    pub(crate) fn count_buffer(&self, bytes: usize) -> CountedBuffer<'_> {
        self.buffers.fetch_add(bytes, Ordering::Relaxed);
        CountedBuffer { health: self, bytes }
    }

    pub(crate) fn buffer_bytes(&self) -> usize {
        self.buffers.load(Ordering::Relaxed)
    }

    pub(crate) fn degrade(&self, reason: String) {
        self.reason.lock().get_or_insert(reason);
        self.off.store(true, Ordering::Release);
    }

    /// One load, because every miss in memory asks.
    pub(crate) fn is_off(&self) -> bool {
        self.off.load(Ordering::Acquire)
    }

    pub(crate) fn reason(&self) -> Option<String> {
        self.reason.lock().clone()
    }

    pub(crate) fn count_failed_sync(&self) {
        self.failed_syncs.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn failed_syncs(&self) -> u64 {
        self.failed_syncs.load(Ordering::Acquire)
    }

    pub(crate) fn set_voided(&self) {
        self.voided.store(true, Ordering::Release);
    }

    pub(crate) fn is_voided(&self) -> bool {
        self.voided.load(Ordering::Acquire)
    }
}

pub(crate) fn count(counter: &AtomicU64, number: usize) {
    counter.fetch_add(number as u64, Ordering::Relaxed);
}
