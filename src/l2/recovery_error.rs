//! `RecoveryError`: why a store cannot be opened.

use std::io;

use super::superblock::SuperblockError;
use crate::io::NoRoom;

#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoveryError {
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// There is no room for a larger file.
    #[error("the file cannot become {needed} bytes longer: {source}")]
    Grow { needed: u64, source: io::Error },
    /// The file is shorter than the superblocks.
    #[error("the file has {length} bytes, too few for the superblocks")]
    Short { length: u64 },
    /// The file is shorter than its superblock says.
    #[error("the file has {length} bytes, but its superblock says {expected}")]
    CutOff { length: u64, expected: u64 },
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl RecoveryError {
    /// If there is no room for a larger file: the bytes that it needs, and those that there are.
    pub(crate) fn no_room(&self) -> Option<(u64, u64)> {
        let Self::Grow { needed, source } = self else { return None };
        let room = source.get_ref().and_then(|inner| inner.downcast_ref::<NoRoom>());
        match room {
            Some(NoRoom { needed_bytes, available_bytes }) => {
                Some((*needed_bytes, *available_bytes))
            }
            None if is_full(source) => Some((*needed, 0)),
            None => None,
        }
    }
}

/// Whether a file system has no room, for this process at least.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
