//! The image of the index: what a clean close leaves behind the segments, so that the next open
//! need not read the directories. `docs/format.md`, section 9.
//!
//! It is a shortcut and never the truth. It counts only if it belongs to the very state that the
//! clean superblock names, and every byte of it is right; anything else is as if there were none.
//! The next open raises the open count before it changes anything, so an image is read once.
//!
//! `header` and `piece` know the bytes, `plan` cuts the index into chunks, `writing` and `reading`
//! do what their names say, `assembly` puts pieces together again.

mod assembly;
#[cfg(any(test, feature = "simulation"))]
pub(super) mod fuzz;
mod header;
mod piece;
mod plan;
mod reading;
mod writing;

use std::sync::Arc;

use parking_lot::MutexGuard;

use super::blob::NamedGeneration;
use super::format::SegmentNumber;
use super::index::Index;
use crate::clock::Timestamp;
use crate::labels::LabelIndex;

#[cfg(all(any(test, feature = "cli"), target_os = "linux"))]
pub(super) use self::reading::check;
pub(super) use self::reading::{Loaded, load};
pub(super) use self::writing::{ImageSettings, ImageWriter};

/// The index of a cache that has been closed.
pub(crate) trait ClosedIndex: Send + Sync {
    /// The oldest segment of the log at that time. Nothing before it has a slot.
    fn oldest_segment(&self) -> SegmentNumber;

    /// A batch of its namespaces. Returns where to continue; None at the end.
    fn namespaces_from(
        &self,
        from: usize,
        found: &mut Vec<Arc<dyn ClosedNamespace>>,
    ) -> Option<usize>;

    /// Frees it, in the background.
    fn free_contents(&self);
}

/// A namespace of it, which changes no more.
pub(crate) trait ClosedNamespace: Send + Sync {
    fn named(&self) -> NamedGeneration<'_>;

    fn index(&self) -> &Index;

    fn postings(&self) -> MutexGuard<'_, LabelIndex>;

    /// Whether there are postings of entries that have no record.
    fn has_unrecorded(&self) -> bool;

    fn alive_until(&self) -> Timestamp;

    /// The most bytes of its records, if they are limited.
    fn l2_bytes_max(&self) -> Option<u64>;
}
