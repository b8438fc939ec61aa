//! `Failure`: why a command has not done its work, and the exit codes.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;
use tamis::{CacheError, StatusError, StoreCopyError, StoreReadError};

use super::driven::DriveError;
use super::traces::InputError;

/// Damage was found.
pub(super) const DAMAGED: u8 = 1;
/// The command line makes no sense. That of clap, too.
pub(super) const USAGE: u8 = 2;
/// The store or the trace cannot be read, or the copy or the plot not written.
pub(super) const REFUSED: u8 = 3;
/// A cache has the store open.
pub(super) const IN_USE: u8 = 4;
/// No cache has it open.
pub(super) const NO_OWNER: u8 = 5;
/// It was asked to stop: what a shell says of a program that SIGINT has ended.
const INTERRUPTED: u8 = 130;

pub(super) enum Failure {
    Store(StoreReadError),
    Copy(StoreCopyError),
    Status(StatusError),
    /// A cache that was watched has ended: its process, and what is there now.
    Ended(Option<u64>, StatusError),
    /// The cache does not answer a request.
    Answer {
        kind: String,
        message: String,
    },
    /// The output is closed: nobody wants the rest.
    Output(io::Error),
    Other {
        code: u8,
        kind: &'static str,
        message: String,
    },
}

impl From<StoreReadError> for Failure {
    fn from(error: StoreReadError) -> Self {
        Self::Store(error)
    }
}

impl From<StoreCopyError> for Failure {
    fn from(error: StoreCopyError) -> Self {
        Self::Copy(error)
    }
}

impl From<StatusError> for Failure {
    fn from(error: StatusError) -> Self {
        Self::Status(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<InputError> for Failure {
    fn from(error: InputError) -> Self {
        Self::refused("trace", error.to_string())
    }
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        Self::refused("cache", error.to_string())
    }
}

impl From<DriveError> for Failure {
    fn from(error: DriveError) -> Self {
        match error {
            DriveError::Cache(error) => error.into(),
            DriveError::Wrong { .. } => Self::refused("wrong_value", error.to_string()),
        }
    }
}

impl Failure {
    pub(super) fn refused(kind: &'static str, message: String) -> Self {
        Self::Other { code: REFUSED, kind, message }
    }

    /// Of a command line that clap has nothing against.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::Other { code: USAGE, kind: "usage", message: message.into() }
    }

    pub(super) fn interrupted() -> Self {
        // Whether what it had made could be removed is told apart from it.
        Self::Other { code: INTERRUPTED, kind: "interrupted", message: "interrupted".to_owned() }
    }

    /// The operating system did not let it do something to a path.
    pub(super) fn io(doing: &str, path: &Path, error: &io::Error) -> Self {
        Self::refused("io", format!("could not {doing} {}: {error}", path.display()))
    }

    /// Says it, and gives the exit code.
    pub(super) fn tell(&self, is_json: bool) -> ExitCode {
        let (code, kind, owner) = match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return ExitCode::SUCCESS;
            }
            Self::Output(_) => (REFUSED, "output", None),
            Self::Store(error) => of_store(error),
            Self::Copy(error) => of_copy(error),
            Self::Status(error) | Self::Ended(_, error) => of_status(error),
            Self::Answer { kind, .. } => (REFUSED, kind.as_str(), None),
            Self::Other { code, kind, .. } => (*code, *kind, None),
        };
        let message = self.message();
        if is_json {
            let error = json!({ "kind": kind, "message": message, "owner": owner });
            // There is nobody to tell if that fails.
            let _ = writeln!(io::stdout(), "{}", json!({ "error": error }));
        }
        eprintln!("tamis: {message}");
        ExitCode::from(code)
    }

    fn message(&self) -> String {
        match self {
            Self::Store(error @ StoreReadError::InUse { .. }) => {
                format!("{error}; --live shows it as of its last sealed segment")
            }
            Self::Store(error) => error.to_string(),
            Self::Copy(StoreCopyError::Source(error @ StoreReadError::InUse { .. })) => {
                format!("{error}: have it end before")
            }
            Self::Copy(error) => error.to_string(),
            Self::Status(error) => error.to_string(),
            Self::Ended(pid, error) => {
                let process =
                    pid.map_or_else(|| "the cache".to_owned(), |pid| format!("process {pid}"));
                format!("{process}, which was watched, has ended: {error}")
            }
            Self::Answer { message, .. } => message.clone(),
            Self::Output(error) => format!("could not write: {error}"),
            Self::Other { message, .. } => message.clone(),
        }
    }
}

/// The exit code, its name, and the process that is in the way.
type Told = (u8, &'static str, Option<u32>);

fn of_store(error: &StoreReadError) -> Told {
    match error {
        StoreReadError::NoStore { .. } => (REFUSED, "no_store", None),
        StoreReadError::NotAStore { .. } => (REFUSED, "not_a_store", None),
        StoreReadError::Version { .. } => (REFUSED, "version", None),
        StoreReadError::InUse { owner, .. } => (IN_USE, "in_use", *owner),
        StoreReadError::Damaged { .. } => (DAMAGED, "damaged", None),
        _ => (REFUSED, "io", None),
    }
}

fn of_status(error: &StatusError) -> Told {
    match error {
        StatusError::NoStore { .. } => (REFUSED, "no_store", None),
        StatusError::NoOwner { .. } => (NO_OWNER, "no_owner", None),
        StatusError::OwnerDead { .. } => (NO_OWNER, "owner_dead", None),
        StatusError::NoSocket { owner, .. } => (IN_USE, "no_socket", *owner),
        StatusError::Silent { owner, .. } => (REFUSED, "silent", *owner),
        _ => (REFUSED, "io", None),
    }
}

fn of_copy(error: &StoreCopyError) -> Told {
    match error {
        StoreCopyError::Source(error) => of_store(error),
        StoreCopyError::Empty { .. } => (REFUSED, "empty", None),
        StoreCopyError::Nothing { .. } => (REFUSED, "nothing_sealed", None),
        StoreCopyError::Moving { .. } => (REFUSED, "moving", None),
        StoreCopyError::Target(CacheError::L2Locked { .. }) => (IN_USE, "target_in_use", None),
        StoreCopyError::Target(CacheError::L2Unavailable { .. }) => {
            (REFUSED, "target_exists", None)
        }
        StoreCopyError::Target(CacheError::L2Full { .. }) => (REFUSED, "no_room", None),
        _ => (REFUSED, "io", None),
    }
}
