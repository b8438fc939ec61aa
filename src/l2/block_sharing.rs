//! `BlockSharing`: a copy takes blocks of the store's file as its own, if its file system can.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::io::{Disk, LentBlocks, ReadRequest};

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

    /// Finds out by sharing a block of the store with one of the disk at `offset`.
    pub(super) async fn try_out(
        &self,
        target: &dyn Disk,
        block: io::Result<ReadRequest>,
        offset: u64,
    ) -> bool {
        let works = self.share(target, block, offset).await;
        self.works.store(works, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        works
    }

    /// Shares a span of the store. False: it has to be copied.
    pub(super) async fn share(
        &self,
        target: &dyn Disk,
        span: io::Result<ReadRequest>,
        offset: u64,
    ) -> bool {
        let (Some(lent), Ok(span)) = (&self.lent, span) else { return false };
        if !self.works.load(Ordering::Relaxed) {
            return false;
        }
        let length = span.length as u64;
        if target.share(lent.clone(), span, offset).await.is_err() {
            self.works.store(false, Ordering::Relaxed);
            return false;
        }
        self.bytes.fetch_add(length, Ordering::Relaxed);
        true
    }

    /// The bytes that were shared.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
