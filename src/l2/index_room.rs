//! Room in the index: who wants it tells the writer, and waits as for room in the log.
//!
//! The index has a budget, and what is in it leaves with its segment only. So at the budget the
//! oldest segments are reclaimed, also while others are unused. The segment that is being written
//! cannot be, nor can the one in which positions are dealt; both are sealed before they have taken
//! much of the budget, so that there is always something else to reclaim.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::log::{Log, Standing};

/// The part of the budget that one segment may take before it is sealed early.
pub(super) const INDEX_SHARE: usize = 8;

impl Log {
    /// The index has no room for so many bytes, or soon will have none: the writer sees to it.
    pub(crate) fn want_index_room(&self, bytes: usize) {
        if self.index_wanted.fetch_max(bytes.max(1), Ordering::AcqRel) == 0 {
            self.writer.wake();
        }
    }

    /// Whether a segment is in use that can be reclaimed, now or once it has been sealed on file.
    pub(crate) fn can_make_index_room(&self) -> bool {
        let head = self.head_segment();
        let mut state = self.state.lock();
        if state.standing != Standing::Running {
            return false;
        }
        if head < self.geometry.segment_of(state.last()) {
            return true;
        }
        // Written by an open with a larger budget, it may hold all that there is room for.
        let is_sealed = state.directory.index_bytes() >= self.index_share;
        is_sealed && self.seal_segment(&mut state)
    }

    /// There may be room that was not there: whoever waits tries again.
    pub(crate) async fn room_came(self: &Arc<Self>) {
        {
            let _state = self.state.lock();
            self.turns.fetch_add(1, Ordering::Release);
        }
        self.call_all().await;
    }
}
