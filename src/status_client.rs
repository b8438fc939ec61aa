//! `StatusClient`: asks the status socket of a store, or tells why nobody answers there.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::error::IoError;
use crate::io::{DiskError, Held, StatusConnection, hold, is_socket_left, owner_of};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it waits for the lock of a store: the kernel frees that of a killed owner a moment
/// after its socket.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// A connection to the cache that has a store open, if its configuration has a
/// [status socket](crate::BlobCacheConfigBuilder::l2_status_socket). It blocks: this is for tools,
/// and not for the tasks of an executor.
///
/// ```no_run
/// use tamis::StatusClient;
///
/// let mut client = StatusClient::connect("/var/cache/pages")?;
/// println!("{}", client.ask("stats")?);
/// # Ok::<(), tamis::StatusError>(())
/// ```
pub struct StatusClient {
    directory: PathBuf,
    connection: StatusConnection,
}

/// Why a cache does not tell its status.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StatusError {
    /// The directory has no store.
    #[error("there is no store in {}: no file `data`", directory.display())]
    NoStore {
        /// The directory that was looked at.
        directory: PathBuf,
    },
    /// No cache has the store open.
    #[error("no cache has the store in {} open", directory.display())]
    NoOwner {
        /// The directory of the store.
        directory: PathBuf,
    },
    /// The process that had the store open has ended without closing it.
    #[error(
        "the process that had the store in {} open has ended without closing it: its socket is \
         left, and nobody answers there",
        directory.display()
    )]
    OwnerDead {
        /// The directory of the store.
        directory: PathBuf,
    },
    /// A cache has the store open, and does not tell its status.
    #[error(
        "{} has the store in {} open, and answers at no status socket: it needs \
         l2_status_socket(true) in its configuration, unless it is opening or closing the store \
         just now",
        owner_name(*.owner), directory.display()
    )]
    NoSocket {
        /// The directory of the store.
        directory: PathBuf,
        /// The process that has it, if that is known.
        owner: Option<u32>,
    },
    /// A process listens at the socket, and does not answer.
    #[error(
        "{} has the store in {} open, and has not answered for {} s: it is stopped, has no time, \
         or has ended and left a process that it has forked",
        owner_name(*.owner), directory.display(), PATIENCE.as_secs()
    )]
    Silent {
        /// The directory of the store.
        directory: PathBuf,
        /// The process that has it, if that is known.
        owner: Option<u32>,
    },
    /// The operating system refuses it. The socket is for the user of the owner alone, and root.
    #[error("could not ask the status socket in {}: {source}", directory.display())]
    Io {
        /// The directory of the store.
        directory: PathBuf,
        /// The operating system's error.
        source: IoError,
    },
}

impl StatusClient {
    /// Connects to the cache that has the store in a directory open.
    ///
    /// # Errors
    ///
    /// Each [`StatusError`]. If no process listens, the lock of the store is asked for up to a
    /// second, to tell whether it has an owner.
    pub fn connect(directory: impl AsRef<Path>) -> Result<Self, StatusError> {
        let directory = directory.as_ref().to_owned();
        match StatusConnection::open(&directory, PATIENCE) {
            Ok(connection) => Ok(Self { directory, connection }),
            Err(error) => Err(not_answered(&directory, error)),
        }
    }

    /// Sends a request, of one line, and gives the line of JSON that answers it:
    /// [`docs::operations`](crate::docs::operations) has both. An answer may be an error of the
    /// request. A connection that the cache has ended meanwhile, since it was silent for long, is
    /// made again.
    ///
    /// # Errors
    ///
    /// Each [`StatusError`], after which the connection is of no use.
    pub fn ask(&mut self, request: &str) -> Result<String, StatusError> {
        // Another line would be another request, whose answer the next call would be given.
        let request = request.lines().next().unwrap_or_default();
        let asked = match self.connection.ask(request, PATIENCE) {
            Err(error) if is_end(&error) => {
                *self = Self::connect(&self.directory)?;
                self.connection.ask(request, PATIENCE)
            }
            asked => asked,
        };
        asked.map_err(|error| not_answered(&self.directory, error))
    }
}

impl fmt::Debug for StatusClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("StatusClient");
        shown.field("directory", &self.directory).finish_non_exhaustive()
    }
}

fn owner_name(owner: Option<u32>) -> String {
    owner.map_or_else(|| "a process".to_owned(), |owner| format!("process {owner}"))
}

/// Whether the other side has ended the connection.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Finds out why nobody has answered.
fn not_answered(directory: &Path, error: io::Error) -> StatusError {
    use io::ErrorKind::{ConnectionRefused, NotADirectory, NotFound, TimedOut};
    let directory_of = || directory.to_owned();
    match error.kind() {
        NotADirectory => return StatusError::NoStore { directory: directory_of() },
        NotFound | ConnectionRefused => {}
        _ if is_end(&error) => {}
        TimedOut => {
            return StatusError::Silent { directory: directory_of(), owner: owner_of(directory) };
        }
        _ => return StatusError::Io { directory: directory_of(), source: error.into() },
    }
    // Not kept: it was asked for only to tell whether somebody has it.
    match hold(directory, LOCK_PATIENCE) {
        Ok(Held::NoStore) => StatusError::NoStore { directory: directory_of() },
        Ok(Held::Locked(_)) if is_socket_left(directory) => {
            StatusError::OwnerDead { directory: directory_of() }
        }
        Ok(Held::Locked(_)) => StatusError::NoOwner { directory: directory_of() },
        Ok(Held::InUse) => {
            StatusError::NoSocket { directory: directory_of(), owner: owner_of(directory) }
        }
        Ok(Held::NotAsked) => StatusError::Io { directory: directory_of(), source: error.into() },
        Err(error) => {
            StatusError::Io { directory: directory_of(), source: source_of(error).into() }
        }
    }
}

fn source_of(error: DiskError) -> io::Error {
    match error {
        DiskError::Io { source, .. } => source,
        other => io::Error::other(other.to_string()),
    }
}
