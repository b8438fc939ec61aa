//! `Positions`: where callers stand in something outside of the cache, each saved behind the
//! mutations that were in force before.
//!
//! Memory has the last one of each name, and so has each segment of the log. The record of one is
//! appended in a section, as those of mutations are, so on file it has all of them before it.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::batch::yield_now;
use crate::commit_lock::CommitLock;
use crate::engine::acknowledge::{Acknowledgement, Acknowledger};
use crate::engine::disk_tier::{DiskTier, NoRoom};
use crate::engine::parts::Parts;
use crate::error::CacheError;
use crate::l2::{
    Change, POSITION_BYTES_MAX, POSITION_NAME_BYTES_MAX, POSITIONS_MAX, Record, SavedPosition,
    SavedPositions,
};

pub(crate) struct Positions {
    commit_lock: Arc<CommitLock>,
    disk: Arc<DiskTier>,
    acknowledger: Arc<Acknowledger>,
    positions: Arc<Mutex<SavedPositions>>,
}

impl Positions {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            commit_lock: parts.commit_lock.clone(),
            disk: parts.disk.clone(),
            acknowledger: parts.acknowledger.clone(),
            positions: parts.positions.clone(),
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<Bytes> {
        self.positions.lock().get(name)
    }

    pub(crate) async fn save(&self, name: &str, bytes: &[u8]) -> Result<(), CacheError> {
        let limits = [(name.len(), POSITION_NAME_BYTES_MAX), (bytes.len(), POSITION_BYTES_MAX)];
        // Bounded: two.
        if let Some((size, max)) = limits.into_iter().find(|(size, max)| size > max) {
            return Err(CacheError::PositionTooLarge { size, max });
        }
        self.disk.check_ours()?;
        let (position, mut ticket) = (SavedPosition { name, bytes }, None);
        // Bounded: a wait in each turn.
        let saved = loop {
            match self.try_save(position) {
                Ok(saved) => break saved?,
                Err(NoRoom) => match self.disk.l2() {
                    Some(l2) => ticket = Some(l2.log.room(0, ticket).await),
                    None => yield_now().await,
                },
            }
        };
        self.acknowledger.acknowledge(saved).await
    }

    fn try_save(
        &self,
        position: SavedPosition<'_>,
    ) -> Result<Result<Acknowledgement, CacheError>, NoRoom> {
        let section = self.commit_lock.section();
        if section.is_closed() {
            return Ok(Err(CacheError::Closed));
        }
        let mut positions = self.positions.lock();
        if !positions.has_room_for(position.name) {
            return Ok(Err(CacheError::TooManyPositions { max: POSITIONS_MAX }));
        }
        let record = Record::SavedPosition(position);
        let recorded = self.disk.record(&record, &Change::SavedPosition(position))?;
        positions.set(position);
        let end = recorded.map(|assigned| assigned.end);
        Ok(Ok(Acknowledgement::over(self.disk.l2().is_some(), end)))
    }
}
