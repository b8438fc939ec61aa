//! `RecoveryError`: why a store cannot be opened.

use std::io;

use super::format::Geometry;
use super::superblock::SuperblockError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoveryError {
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    #[error("the store has {} segments of {} bytes", found.segment_count(), found.segment_bytes())]
    Geometry { found: Geometry },
    /// The file is shorter than the superblocks.
    #[error("the file has {length} bytes, too few for the superblocks")]
    Short { length: u64 },
    /// The file is shorter than its superblock says.
    #[error("the file has {length} bytes, but its superblock says {expected}")]
    CutOff { length: u64, expected: u64 },
    #[error(transparent)]
    Io(#[from] io::Error),
}
