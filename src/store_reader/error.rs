//! `StoreReadError`: why a store cannot be looked at.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::error::IoError;
use crate::io::DiskError;
use crate::l2::{FORMAT_VERSION, RecoveryError, SuperblockError};

/// Why a store cannot be looked at. It is as it was.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StoreReadError {
    /// The directory has no store.
    #[error("there is no store in {}: no file `data`", directory.display())]
    NoStore {
        /// The directory that was looked at.
        directory: PathBuf,
    },
    /// The file is something else.
    #[error("{} is no store: {reason}", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// How that shows.
        reason: String,
    },
    /// Another version of the library has made the store.
    #[error(
        "{} has format {found}, and {supported} is supported: look at it with the tool of the \
         library that made it",
        path.display()
    )]
    Version {
        /// The store's file.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The version that this library knows.
        supported: u32,
    },
    /// A cache has the store open.
    #[error("{} is in use by {}", path.display(), owner_name(*.owner))]
    InUse {
        /// The store's file.
        path: PathBuf,
        /// The process that has it, if that is known.
        owner: Option<u32>,
    },
    /// The store as a whole is damaged: neither superblock is good, or the file is too short, or a
    /// [`backup`](crate::BlobCache::backup) into it was not finished.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The store's file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The operating system refuses to read the file.
    #[error("{context}: {source}")]
    Io {
        /// The action that failed, and its path.
        context: String,
        /// The operating system's error.
        source: IoError,
    },
}

fn owner_name(owner: Option<u32>) -> String {
    owner.map_or_else(|| "another process".to_owned(), |owner| format!("process {owner}"))
}

/// The file cannot be opened.
pub(super) fn not_opened(error: DiskError, directory: &Path, owner: Option<u32>) -> StoreReadError {
    match error {
        DiskError::Locked { path } => StoreReadError::InUse { path, owner },
        DiskError::Io { source, .. } if is_missing(&source) => {
            StoreReadError::NoStore { directory: directory.to_owned() }
        }
        DiskError::Io { path, source, .. } if source.kind() == io::ErrorKind::InvalidInput => {
            StoreReadError::NotAStore { path, reason: source.to_string() }
        }
        DiskError::Io { action, path, source } => {
            let context = format!("could not {action} {}", path.display());
            StoreReadError::Io { context, source: source.into() }
        }
        other => {
            let context = format!("could not open {}", directory.display());
            StoreReadError::Io { context, source: io::Error::other(other.to_string()).into() }
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The file was opened, and cannot be read as a store.
pub(super) fn not_read(error: RecoveryError, path: &Path) -> StoreReadError {
    let (path, reason) = (path.to_owned(), error.to_string());
    match error {
        RecoveryError::Superblock(SuperblockError::Version { found, supported }) => {
            StoreReadError::Version { path, found, supported }
        }
        RecoveryError::Superblock(SuperblockError::Blank) => {
            StoreReadError::NotAStore { path, reason }
        }
        RecoveryError::Superblock(error @ SuperblockError::Damaged(_)) if error.is_foreign() => {
            StoreReadError::NotAStore { path, reason }
        }
        RecoveryError::Short { .. } => StoreReadError::NotAStore { path, reason },
        RecoveryError::Superblock(SuperblockError::Damaged(_) | SuperblockError::Unfinished)
        | RecoveryError::CutOff { .. } => StoreReadError::Damaged { path, reason },
        RecoveryError::Grow { source, .. } | RecoveryError::Io(source) => {
            let context = format!("could not read {}", path.display());
            StoreReadError::Io { context, source: source.into() }
        }
    }
}

/// The version of the store format that this library reads.
pub(super) const SUPPORTED: u32 = FORMAT_VERSION;
