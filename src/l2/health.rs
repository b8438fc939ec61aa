//! `Health`: whether L2 is on, why not, and its metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::latency::Histogram;

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
    pub(crate) restarts: AtomicU64,
    pub(crate) write_latency: Histogram,
    pub(crate) sync_latency: Histogram,
}

#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Of the last failure.
    reason: Mutex<Option<String>>,
    off: AtomicBool,
    /// The tier is off, and the store is marked void on file: nothing in it may be served.
    voided: AtomicBool,
    failed_syncs: AtomicU64,
    /// Of these, the ones before the log began anew.
    failed_before_restart: AtomicU64,
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

    /// Turns the tier off. The first reason counts.
    pub(crate) fn degrade(&self, reason: String) {
        let mut last = self.reason.lock();
        if !self.is_off() {
            *last = Some(reason);
            self.off.store(true, Ordering::Release);
        }
    }

    /// A tier that is off could not be turned on again, for this reason.
    pub(crate) fn stays_off(&self, reason: String) {
        let mut last = self.reason.lock();
        if self.is_off() {
            *last = Some(reason);
        }
    }

    /// The log goes on, in a store that has nothing of what was there before and was begun after so
    /// many syncs had failed. Called inside the commit section.
    pub(crate) fn restarted(&self, failed_before: u64) {
        let _reason = self.reason.lock();
        self.failed_before_restart.store(failed_before, Ordering::Release);
        self.metrics.restarts.fetch_add(1, Ordering::Release);
        self.voided.store(false, Ordering::Release);
        self.off.store(false, Ordering::Release);
    }

    pub(crate) fn restarts(&self) -> u64 {
        self.metrics.restarts.load(Ordering::Acquire)
    }

    /// One load, because every miss in memory asks.
    pub(crate) fn is_off(&self) -> bool {
        self.off.load(Ordering::Acquire)
    }

    /// Why the tier is off, if it is.
    pub(crate) fn reason(&self) -> Option<String> {
        let reason = self.reason.lock();
        reason.clone().filter(|_| self.is_off())
    }

    /// Why it was turned off last, if ever.
    pub(crate) fn last_reason(&self) -> Option<String> {
        self.reason.lock().clone()
    }

    pub(crate) fn count_failed_sync(&self) {
        self.failed_syncs.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn failed_syncs(&self) -> u64 {
        self.failed_syncs.load(Ordering::Acquire)
    }

    pub(crate) fn failed_before_restart(&self) -> u64 {
        self.failed_before_restart.load(Ordering::Acquire)
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
