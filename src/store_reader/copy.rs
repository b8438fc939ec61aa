//! Copies a store into another directory.

use std::path::Path;
use std::sync::Arc;

use super::copy_error::StoreCopyError;
use super::error::{StoreReadError, not_read};
use super::facts::{NextOpen, StoreFacts, StoreState};
use crate::backup_report::BackupReport;
use crate::blocking::block_on;
use crate::engine::{no_room, open_target, target_failed, target_options};
use crate::io::ReadDisk;
use crate::l2::{CopyError, CopyProgress, FoundStore};

/// What a [copy](super::StoreReader::copy_to) does with segments that have lost their headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CopyDamage {
    /// It is refused: [`Damaged`](StoreReadError::Damaged).
    #[default]
    Refuse,
    /// It leaves them out, and all older ones, as an open of the store does.
    Drop,
}

/// One copy.
pub(super) struct Copying<'a> {
    pub(super) store: &'a FoundStore,
    pub(super) facts: &'a StoreFacts,
    pub(super) damage: CopyDamage,
}

impl Copying<'_> {
    pub(super) fn run(
        &self,
        directory: &Path,
        tell: CopyProgress<'_>,
    ) -> Result<BackupReport, StoreCopyError> {
        self.check_copyable()?;
        block_on(async {
            let opened = open_target(directory, target_options(directory)).await;
            let file = opened.map_err(StoreCopyError::Target)?;
            let copied = self.store.copy_to(Arc::new(file.clone()), tell).await;
            file.close().wait().await;
            let copied = copied.map_err(|error| self.not_copied(error, &file.facts().path))?;
            Ok(BackupReport::new(copied.segments, copied.bytes, copied.shared_bytes))
        })
    }

    fn check_copyable(&self) -> Result<(), StoreCopyError> {
        let path = || self.facts.path.clone();
        // A copy counts as closed, so it must have nothing that an open would not serve. What a
        // store of the mode `Cold` has is whole, as long as no boot lies between.
        let next = self.facts.next_open;
        let is_lost = next == NextOpen::EmptyCold
            && self.facts.state != StoreState::Clean
            && self.store.facts().boot_id != ReadDisk::boot_id();
        if is_lost || !matches!(next, NextOpen::Warm | NextOpen::EmptyCold) {
            return Err(StoreCopyError::Empty { path: path(), next_open: next });
        }
        let failed = |error| not_read(error, &self.facts.path);
        let lost = block_on(self.store.lost_segment()).map_err(failed)?;
        if let Some(number) = lost.filter(|_| self.damage == CopyDamage::Refuse) {
            let reason = format!("segment {} has lost its header", number.0);
            return Err(StoreReadError::Damaged { path: path(), reason }.into());
        }
        if block_on(self.store.is_copyable()).map_err(failed)? {
            return Ok(());
        }
        // Its owner may have overwritten all that there was before it was read.
        match block_on(self.store.has_moved()).map_err(failed)? {
            true => Err(StoreCopyError::Moving { path: path() }),
            false => Err(StoreCopyError::Nothing { path: path() }),
        }
    }

    fn not_copied(&self, error: CopyError, target: &Path) -> StoreCopyError {
        let path = self.facts.path.clone();
        match error {
            CopyError::Target(source) => StoreCopyError::Target(target_failed(target, source)),
            CopyError::NoRoom { needed_bytes, available_bytes } => {
                StoreCopyError::Target(no_room(target, needed_bytes, available_bytes))
            }
            CopyError::Source(source) => {
                let context = format!("could not read {}", path.display());
                StoreReadError::Io { context, source: source.into() }.into()
            }
            CopyError::Outrun | CopyError::Off => StoreCopyError::Moving { path },
        }
    }
}
