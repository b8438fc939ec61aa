//! `DiskError`: why a disk could not be opened.
//!
//! Only opening has typed errors; requests answer with `std::io::Error`, because the layer above
//! treats all of these alike.

use std::io;
use std::path::{Path, PathBuf};

/// `EMFILE` and `ENFILE`, on every Unix.
const OUT_OF_DESCRIPTORS: [i32; 2] = [24, 23];

/// Why a disk could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DiskError {
    /// The kernel refused a resource that a store needs.
    #[error("not available: {reason}")]
    Unavailable {
        /// Names the cause and the remedy.
        reason: String,
    },
    /// The kernel refused io_uring. Threads may do its work.
    #[error("not available: {reason}")]
    NoRing {
        /// Names the cause and the remedy.
        reason: String,
    },
    /// Another owner, or its last requests, still hold the data file.
    #[error("{} is in use by another owner", path.display())]
    Locked {
        /// The data file.
        path: PathBuf,
    },
    /// The file system cannot hold the data file.
    #[error(
        "{} needs {needed_bytes} more bytes, {available_bytes} are available",
        path.display()
    )]
    NoSpace {
        /// The data file.
        path: PathBuf,
        /// The bytes still to be allocated.
        needed_bytes: u64,
        /// The bytes that the file system has available.
        available_bytes: u64,
    },
    /// Any other error of the operating system.
    #[error("could not {action} {}", path.display())]
    Io {
        /// The action that failed, as a verb.
        action: &'static str,
        /// The path of the action.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// Why a file cannot become longer; within an error of the kind `StorageFull`.
#[derive(Debug, thiserror::Error)]
#[error("{needed_bytes} more bytes are needed, {available_bytes} are available")]
pub(crate) struct NoRoom {
    /// The bytes still to be allocated.
    pub(crate) needed_bytes: u64,
    /// The bytes that the file system has available.
    pub(crate) available_bytes: u64,
}

impl DiskError {
    /// Wraps an error of the operating system about `path`.
    pub(super) fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        if is_out_of_descriptors(&source) {
            return Self::out_of_descriptors(&source);
        }
        Self::Io { action, path: path.to_owned(), source }
    }

    pub(super) fn out_of_descriptors(error: &io::Error) -> Self {
        Self::Unavailable {
            reason: format!(
                "too few descriptors are left; raise nofile (ulimit -n, LimitNOFILE=) ({error})"
            ),
        }
    }

    /// Adds the directory of the store if the error does not name a path.
    pub(super) fn at(self, directory: &Path) -> Self {
        match self {
            Self::Unavailable { reason } => {
                Self::Unavailable { reason: format!("{}: {reason}", directory.display()) }
            }
            Self::NoRing { reason } => {
                Self::NoRing { reason: format!("{}: {reason}", directory.display()) }
            }
            other => other,
        }
    }
}

/// Whether the process or the machine has no descriptor left.
pub(super) fn is_out_of_descriptors(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|errno| OUT_OF_DESCRIPTORS.contains(&errno))
}
