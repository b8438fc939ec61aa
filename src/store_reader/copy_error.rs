//! `StoreCopyError`: why a store was not copied.

use std::path::PathBuf;

use thiserror::Error;

use super::error::StoreReadError;
use super::facts::NextOpen;
use crate::error::CacheError;

/// Why a store was not copied. It is as it was; a copy that was begun is refused by every open.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StoreCopyError {
    /// The store cannot be read.
    #[error(transparent)]
    Source(#[from] StoreReadError),
    /// An open of the store would serve nothing, and so must a copy of it.
    #[error("the next open of {} begins empty, so there is nothing to copy", path.display())]
    Empty {
        /// The store's file.
        path: PathBuf,
        /// Why.
        next_open: NextOpen,
    },
    /// Its owner has not sealed a segment yet, or no segment has kept its header.
    #[error("{} has no sealed segment that could be copied", path.display())]
    Nothing {
        /// The store's file.
        path: PathBuf,
    },
    /// Its owner overwrites or moves the segments faster than they can be copied.
    #[error(
        "{} is changed faster than it can be copied: try again, or have its owner back it up",
        path.display()
    )]
    Moving {
        /// The store's file.
        path: PathBuf,
    },
    /// The copy cannot be written: [`L2Locked`](CacheError::L2Locked) if the directory is in use,
    /// [`L2Unavailable`](CacheError::L2Unavailable) if it has a store, which is not changed,
    /// [`L2Full`](CacheError::L2Full) without room, or [`L2Io`](CacheError::L2Io).
    #[error(transparent)]
    Target(CacheError),
}
