//! Copies a store into another directory.

use std::path::Path;
use std::sync::Arc;

use super::StoreReader;
use super::copy_error::StoreCopyError;
use super::error::{StoreReadError, not_read};
use super::facts::{NextOpen, StoreState};
use crate::backup_report::BackupReport;
use crate::blocking::block_on;
use crate::engine::{no_room, open_target, target_failed, target_options};
use crate::io::ReadDisk;
use crate::l2::CopyError;

/// What a [copy](StoreReader::copy_to) does with segments that have lost their headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CopyDamage {
    /// It is refused: [`Damaged`](StoreReadError::Damaged).
    #[default]
    Refuse,
    /// It leaves them out, and all older ones, as an open of the store does.
    Drop,
}

impl StoreReader {
    /// Copies the store into another directory, which is made if it is missing. The copy is a store
    /// that was closed, as a [`backup`](crate::BlobCache::backup) makes it: open it with any
    /// `l2_bytes_max`, in the mode `Process` or `Power`. It ends with the last good frame of the
    /// log, or, if the store is looked at [live](super::StoreAccess::Live), with the last sealed
    /// segment; then entries may be missing in it, which reclaim was just moving.
    ///
    /// **The copy knows nothing of later changes**: flush what may have changed meanwhile once a
    /// cache has opened it.
    ///
    /// `tell` is called with the bytes that are done and all bytes. Both begin again if the owner
    /// of a live store has overwritten what was to be copied. Damage in the store is copied, but
    /// for segments without headers: [`verify`](Self::verify) it before. Memory: 4 MiB, and the
    /// tables of segments.
    ///
    /// The copy is refused by every open until it is whole and on its device. After an error, or
    /// the end of the process, it is left so, and replaced by the next copy to that directory.
    ///
    /// # Errors
    ///
    /// Each [`StoreCopyError`]. The store is as it was.
    pub fn copy_to(
        &self,
        directory: impl AsRef<Path>,
        damage: CopyDamage,
        tell: impl Fn(u64, u64) + Send + Sync,
    ) -> Result<BackupReport, StoreCopyError> {
        self.check_copyable(damage)?;
        block_on(async {
            let directory = directory.as_ref();
            let opened = open_target(directory, target_options(directory)).await;
            let file = opened.map_err(StoreCopyError::Target)?;
            let copied = self.store.copy_to(Arc::new(file.clone()), &tell).await;
            file.close().wait().await;
            let copied = copied.map_err(|error| self.not_copied(error, &file.facts().path))?;
            Ok(BackupReport::new(copied.segments, copied.bytes))
        })
    }

    fn check_copyable(&self, damage: CopyDamage) -> Result<(), StoreCopyError> {
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
        if let Some(number) = lost.filter(|_| damage == CopyDamage::Refuse) {
            let reason = format!("segment {} has lost its header", number.0);
            return Err(StoreReadError::Damaged { path: path(), reason }.into());
        }
        match block_on(self.store.is_copyable()).map_err(failed)? {
            true => Ok(()),
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
