//! `InputError`: why a trace, or another list, could not be read.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

#[derive(Debug, Error)]
pub(crate) enum InputError {
    #[error("{}: {source}", path.display())]
    Unopened { path: PathBuf, source: io::Error },
    /// Reading failed after that many lines: a damaged zstd frame, or the device.
    #[error("{}:{line}: cannot read on: {source}", path.display())]
    Unreadable { path: PathBuf, line: u64, source: io::Error },
    /// The same for records. The offset is that of the uncompressed bytes.
    #[error("{}: offset {offset}: cannot read on: {source}", path.display())]
    UnreadableRecord { path: PathBuf, offset: u64, source: io::Error },
    #[error("{}:{line}: {reason}: \"{text}\"", path.display())]
    Malformed { path: PathBuf, line: u64, reason: &'static str, text: String },
    #[error("{}: offset {offset}: {reason}", path.display())]
    MalformedRecord { path: PathBuf, offset: u64, reason: &'static str },
    #[error(
        "{}: neither lines of text nor records of oracleGeneral; --format reads it as what it is",
        path.display()
    )]
    Unrecognized { path: PathBuf },
    #[error("{}: holds nothing to read", path.display())]
    Empty { path: PathBuf },
}

impl InputError {
    pub(crate) fn unopened(path: &Path, source: io::Error) -> Self {
        Self::Unopened { path: path.to_owned(), source }
    }
}
