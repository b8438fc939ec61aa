//! `BlockSharing`: a copy takes blocks of the store's file as its own, if its file system can.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::recovery_error::is_full;
use crate::io::{BLOCK_BYTES, Disk, LentBlocks, ReadRequest};

/// Of one copy.
pub(super) struct BlockSharing {
    lent: Option<LentBlocks>,
    /// Until something could not be shared.
    works: AtomicBool,
    bytes: AtomicU64,
}

impl BlockSharing {
    /// Of what a store's disk lends, if it does.
    pub(super) fn new(lent: io::Result<LentBlocks>) -> Self {
        let lent = lent.ok();
        let works = AtomicBool::new(lent.is_some());
        Self { lent, works, bytes: AtomicU64::new(0) }
    }

    /// Whether the store's disk lends its blocks.
    pub(super) fn has_blocks(&self) -> bool {
        self.lent.is_some()
    }

    /// Finds out by sharing the first block of the store's disk with one of another disk, at
    /// `offset`. Nothing is pinned: that disk may be one that does not answer.
    pub(super) async fn try_out(&self, target: &dyn Disk, offset: u64) -> bool {
        let block = ReadRequest::new(0, BLOCK_BYTES);
        let works = matches!(self.share(target, Ok(block), offset).await, Ok(true));
        self.works.store(works, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        works
    }

    /// Shares a span of the store's disk. False: it has to be copied. What can share is on the file
    /// system of the store, so a pin of the span waits for no other device.
    ///
    /// # Errors
    /// The file system has no room.
    pub(super) async fn share(
        &self,
        target: &dyn Disk,
        span: io::Result<ReadRequest>,
        offset: u64,
    ) -> io::Result<bool> {
        let (Some(lent), Ok(span)) = (&self.lent, span) else { return Ok(false) };
        if !self.works.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let length = span.length as u64;
        match target.share(lent.clone(), span, offset).await {
            Ok(()) => {
                self.bytes.fetch_add(length, Ordering::Relaxed);
                Ok(true)
            }
            Err(error) if is_full(&error) => Err(error),
            Err(_) => {
                self.works.store(false, Ordering::Relaxed);
                Ok(false)
            }
        }
    }

    /// The bytes that were shared.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
