//! `Outlines`: the outlines of sealed segments, as far as memory has room for them. Others are read
//! when they are needed.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::format::{OpenRange, SegmentNumber};
use super::outline::Outline;
use super::segment_file::SegmentFile;

/// They may take one part in this many of the index budget.
pub(crate) const SHARE: usize = 32;

#[derive(Debug)]
pub(crate) struct Outlines {
    bytes_max: usize,
    bytes: AtomicUsize,
    kept: Mutex<BTreeMap<SegmentNumber, Arc<Outline>>>,
}

impl Outlines {
    pub(super) fn new(index_bytes_max: usize) -> Self {
        let (bytes, kept) = (AtomicUsize::new(0), Mutex::default());
        Self { bytes_max: index_bytes_max / SHARE, bytes, kept }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn get(&self, segment: SegmentNumber) -> Option<Arc<Outline>> {
        self.kept.lock().get(&segment).cloned()
    }

    /// The outline of a segment, read if it is not kept. None without a good one.
    pub(super) async fn find(
        &self,
        segment: SegmentNumber,
        file: &SegmentFile,
        opens: OpenRange,
    ) -> io::Result<Option<Arc<Outline>>> {
        match self.get(segment) {
            Some(outline) => Ok(Some(outline)),
            None => Ok(file.read_outline(segment, opens).await?.map(Arc::new)),
        }
    }

    /// Keeps an outline if there is room. `fits` is asked whether the index has so many bytes, too.
    /// False if there is not.
    pub(super) fn keep(&self, outline: Outline, fits: impl FnOnce(usize) -> bool) -> bool {
        let bytes = outline.memory_bytes();
        if self.bytes() + bytes > self.bytes_max || !fits(bytes) {
            return false;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let before = self.kept.lock().insert(outline.footer.segment, Arc::new(outline));
        self.release(before);
        true
    }

    /// The segment has left the log.
    pub(super) fn forget(&self, segment: SegmentNumber) {
        let before = self.kept.lock().remove(&segment);
        self.release(before);
    }

    fn release(&self, outline: Option<Arc<Outline>>) {
        let bytes = outline.map_or(0, |outline| outline.memory_bytes());
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
