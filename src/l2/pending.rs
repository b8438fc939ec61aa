//! What waits to be written, as readers of the log find it in memory.

use super::format::{Position, SegmentNumber};
use super::log::Log;
use super::unit::{Job, Taken};

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
    pub(crate) fn directory_image(&self, segment: SegmentNumber) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let mut image = Vec::new();
        let sealing = state.jobs.iter().find_map(|job| match job {
            Job::Seal(seal) if seal.segment == segment => Some(seal),
            _ => None,
        });
        let encoded = match sealing {
            Some(seal) => seal.directory.encode(self.key, self.open_count, seal.end, &mut image),
            None if self.geometry.segment_of(state.last()) == segment => {
                state.directory.encode(self.key, self.open_count, state.last(), &mut image)
            }
            None => return None,
        };
        encoded.ok().map(|()| image)
    }
}
