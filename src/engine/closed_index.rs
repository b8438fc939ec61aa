//! `ClosedCache`: the index of a cache that was closed, until an image of it is written.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::disposal::Unfreed;
use crate::engine::invalidate::flush::Flushes;
use crate::l2::{ClosedIndex, ClosedNamespace, SegmentNumber};
use crate::namespace::Ended;

pub(crate) struct ClosedCache {
    oldest: SegmentNumber,
    flushes: Arc<Flushes>,
    /// None once it is being freed.
    contents: Mutex<Option<(Ended, Unfreed)>>,
}

impl ClosedCache {
    pub(crate) fn new(
        oldest: SegmentNumber,
        flushes: &Arc<Flushes>,
        contents: (Ended, Unfreed),
    ) -> Self {
        Self { oldest, flushes: Arc::clone(flushes), contents: Mutex::new(Some(contents)) }
    }
}

impl ClosedIndex for ClosedCache {
    fn oldest_segment(&self) -> SegmentNumber {
        self.oldest
    }

    fn namespaces_from(
        &self,
        from: usize,
        found: &mut Vec<Arc<dyn ClosedNamespace>>,
    ) -> Option<usize> {
        let contents = self.contents.lock();
        let (mut generations, (ended, _)) = (Vec::new(), contents.as_ref()?);
        let next = ended.some(from, &mut generations);
        // Bounded: by a batch.
        found.extend(generations.into_iter().map(|it| -> Arc<dyn ClosedNamespace> { it }));
        next
    }

    fn free_contents(&self) {
        let contents = self.contents.lock().take();
        // Bounded: one.
        contents.into_iter().for_each(|(ended, unfreed)| self.flushes.free_all(ended, unfreed));
    }
}

impl Drop for ClosedCache {
    /// The log may end before it comes to that.
    fn drop(&mut self) {
        self.free_contents();
    }
}
