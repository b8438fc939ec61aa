//! `StatusSocket`: a Unix socket beside the data file, at which a thread answers other processes of
//! the same user: a line for a line.
//!
//! - The thread belongs to the disk as its other threads do: the file stays locked until it has
//!   ended. So it removes its own socket, and never that of a next owner.
//! - It only ever waits in `poll`. No client can hold up it or a close: what a client does not send
//!   or read in time ends with its connection. Its number of clients is bounded, and so is what it
//!   keeps for each.
//! - It keeps nothing of the cache alive.
//! - A forked child has no such thread, and neither serves nor removes the socket.

mod client;
#[cfg(any(test, feature = "cli"))]
mod connection;
mod listener;
mod server;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;

#[cfg(any(test, feature = "cli"))]
pub(crate) use self::connection::{StatusConnection, is_socket_left};
use self::listener::{Listener, NAME};
use self::server::{Limits, Server};
use super::termination::Alive;
use crate::io::StatusAnswers;
use crate::io::reply::{Answer, Reply, exchange};
use crate::telemetry::tell;

/// The socket of a disk. It is served until it is closed.
pub(super) struct StatusSocket {
    listener: Arc<Listener>,
    bytes: Arc<AtomicUsize>,
}

/// What the thread works with.
struct Serving {
    directory: PathBuf,
    listener: Arc<Listener>,
    answers: Weak<dyn StatusAnswers>,
    bytes: Arc<AtomicUsize>,
}

impl StatusSocket {
    /// Starts the thread. The answer comes once clients can connect, or cannot for good, which is
    /// logged.
    ///
    /// # Errors
    ///
    /// There is no descriptor or thread for it.
    pub(super) fn start(
        directory: &Path,
        answers: Weak<dyn StatusAnswers>,
        alive: Alive,
    ) -> io::Result<(Self, Answer<()>)> {
        let listener = Arc::new(Listener::new()?);
        let bytes = Arc::<AtomicUsize>::default();
        let directory = directory.to_owned();
        let socket = Self { listener: Arc::clone(&listener), bytes: Arc::clone(&bytes) };
        let (ready, started) = exchange();
        thread::Builder::new().name("tamis-status".into()).spawn(move || {
            serve(Serving { directory, listener, answers, bytes }, ready);
            // Last of all: from now on the file may have another owner.
            drop(alive);
        })?;
        Ok((socket, started))
    }

    /// Ends it, which does not wait for the thread.
    pub(super) fn close(&self) {
        self.listener.close();
    }

    /// Memory of requests and answers.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn serve(serving: Serving, ready: Reply<()>) {
    let Serving { directory, listener, answers, bytes } = serving;
    let path = directory.join(NAME);
    let bound = listener.bind(&directory);
    // The opening caller waits for no subscriber.
    ready.send(());
    let _bound = match bound {
        Ok(bound) => bound,
        Err(error) => return tell_missing(&path, &error),
    };
    tell!(info, "status", path = %path.display(), "the status socket is open");
    if let Err(error) = Server::new(listener, answers, bytes, Limits::default()).run() {
        tell!(warn, "status", path = %path.display(), %error, "the status socket broke down");
    }
}

/// Says that there is no socket.
fn tell_missing(path: &Path, error: &io::Error) {
    let path = path.display();
    tell!(warn, "status", %path, %error, "there is no status socket; the cache runs without it");
}

/// Says that there is none for a store in a directory.
pub(super) fn tell_refused(directory: &Path, error: &io::Error) {
    tell_missing(&directory.join(NAME), error);
}
