//! What waits to be written, as readers of the log find it in memory.

use std::sync::Arc;

use super::directory::DirectoryBuilder;
use super::format::{Position, SegmentNumber};
use super::log::Log;
use super::unit::{Job, Seal, Taken};

impl Log {
    /// The record at a position that is not on file yet.
    pub(crate) fn pending(&self, position: Position) -> Option<Taken> {
        let state = self.state.lock();
        if position < state.written {
            return None;
        }
        let find = |records: &[Taken]| {
            let place = records.binary_search_by_key(&position, |taken| taken.position).ok()?;
            records.get(place).cloned()
        };
        let frames = state.jobs.iter().filter_map(|job| match job {
            Job::Frame(unit) => Some(unit),
            Job::Seal(_) | Job::Close { .. } | Job::Fail => None,
        });
        let closed = frames.filter(|unit| unit.end > position).find_map(|unit| find(&unit.records));
        closed.or_else(|| state.open.as_ref().and_then(|unit| find(&unit.records)))
    }

    /// The directory of a segment that is not sealed on file yet, as it stands.
    pub(crate) async fn directory_image(&self, segment: SegmentNumber) -> Option<Vec<u8>> {
        let (sealing, open, last) = self.directory_of(segment);
        // Encoded while the log goes on.
        let mut image = Vec::new();
        let (directory, end) = match (&sealing, &open) {
            (Some(seal), _) => (&seal.directory, seal.end),
            (None, Some(open)) => (open, last),
            (None, None) => return None,
        };
        let written = directory.write(self.key, self.open_count, end, &mut image).await;
        written.ok().map(|()| image)
    }

    fn directory_of(
        &self,
        segment: SegmentNumber,
    ) -> (Option<Arc<Seal>>, Option<DirectoryBuilder>, Position) {
        let state = self.state.lock();
        let sealing = state.jobs.iter().find_map(|job| match job {
            Job::Seal(seal) if seal.segment == segment => Some(Arc::clone(seal)),
            _ => None,
        });
        let last = state.last();
        let is_open = sealing.is_none() && self.geometry.segment_of(last) == segment;
        let open = is_open.then(|| state.directory.snapshot());
        (sealing, open, last)
    }
}
