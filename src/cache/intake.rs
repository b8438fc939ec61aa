//! `Intake`: how much puts may copy at one time.
//!
//! A put holds its caller's bytes and its own copy of them until it has taken effect. However many
//! puts are under way, the copies stay within a share of the budgets: the others wait for their
//! turn, in the order in which they came. A value that is larger than the share has it alone.
//!
//! Values that are copied in one step need no turn: a put that is not polled any more must not
//! hinder those who want to put something else meanwhile. They wait for the log instead, before
//! they copy anything, where it is behind.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::step::STEP_BYTES;

/// The part of the memory tier's budget that copies may take.
const L1_SHARE: usize = 8;

/// What they may take besides, on their way to the disk tier.
const L2_BYTES: usize = 16 << 20;

/// What one permit stands for: a number of permits is a `u32`, a number of bytes may be more.
const PERMIT_BYTES: usize = 1024;

#[derive(Debug)]
pub(super) struct Intake {
    turns: Semaphore,
    permits: u32,
    bytes: AtomicUsize,
}

/// A turn to copy, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    intake: &'a Intake,
    bytes: usize,
    _permit: Option<SemaphorePermit<'a>>,
}

impl Intake {
    pub(super) fn new(l1_bytes_max: usize, has_l2: bool) -> Self {
        let bytes = l1_bytes_max / L1_SHARE + if has_l2 { L2_BYTES } else { 0 };
        let permits = (bytes / PERMIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let turns = Semaphore::new(usize::try_from(permits).unwrap_or(Semaphore::MAX_PERMITS));
        Self { turns, permits, bytes: AtomicUsize::new(0) }
    }

    /// Waits until `bytes` may be copied.
    pub(super) async fn turn(&self, bytes: usize) -> Turn<'_> {
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let permit = match bytes {
            0..=STEP_BYTES => None,
            // It is never closed.
            _ => self.turns.acquire_many(permits.min(self.permits)).await.ok(),
        };
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Turn { intake: self, bytes, _permit: permit }
    }

    /// What is being copied, or waits to take effect.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.intake.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
