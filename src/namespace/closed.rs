//! A generation that ended because its cache was closed, as an image of the index needs it.

use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::Generation;
use crate::clock::Timestamp;
use crate::l2::{ClosedNamespace, Index, NamedGeneration};
use crate::labels::LabelIndex;

impl ClosedNamespace for Generation {
    fn named(&self) -> NamedGeneration<'_> {
        NamedGeneration { name: &self.name, generation: self.number }
    }

    fn index(&self) -> &Index {
        &self.index
    }

    fn postings(&self) -> MutexGuard<'_, LabelIndex> {
        self.labels.lock()
    }

    fn has_unrecorded(&self) -> bool {
        self.labels_above.load(Ordering::Relaxed) > 0
    }

    fn alive_until(&self) -> Timestamp {
        Timestamp(self.alive_until.load(Ordering::Relaxed))
    }

    fn l2_bytes_max(&self) -> Option<u64> {
        self.quota.and_then(|quota| quota.limits.l2_bytes_max)
    }
}
