//! Stores of this process that are being closed. Opening one of them again waits for its close
//! instead of finding it locked.

use std::path::{Path, PathBuf};
use std::process;

use parking_lot::Mutex;

use super::termination::Termination;

/// The files that are being closed.
static CLOSING: Mutex<Vec<Closing>> = Mutex::new(Vec::new());

#[derive(Clone)]
struct Closing {
    /// The process whose threads end. A process that is forked meanwhile would wait for ever.
    process: u32,
    path: PathBuf,
    termination: Termination,
}

/// Notes that a file is being closed.
pub(super) fn note(path: &Path, termination: Termination) {
    let mut closing = CLOSING.lock();
    // Bounded: by the stores of one process.
    closing.retain(|noted| !noted.termination.is_over());
    // Bounded: by the stores of one process.
    if !closing.iter().any(|noted| noted.termination.is(&termination)) {
        closing.push(Closing { process: process::id(), path: path.to_owned(), termination });
    }
}

/// Blocks until no store in the directory is being closed.
pub(super) fn wait(directory: &Path) {
    let noted = CLOSING.lock().clone();
    let is_there = |path: &Path| path.parent().is_some_and(|parent| is_same(parent, directory));
    // Bounded: by the stores of one process.
    for Closing { process, path, termination } in noted {
        if process == process::id() && is_there(&path) {
            termination.wait_blocking();
        }
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use super::super::termination::Alive;
    use super::*;

    #[test]
    fn a_close_here_is_awaited_and_a_forked_copy_is_not() {
        let folder = tempfile::tempdir().expect("directory");
        let path = folder.path().join("data");
        let (_alive, termination) = Alive::new();
        CLOSING.lock().push(Closing { process: 0, path: path.clone(), termination });
        wait(folder.path());
        let (alive, termination) = Alive::new();
        note(&path, termination.clone());
        note(&path, termination);
        let (sender, waited) = channel();
        let directory = folder.path().to_owned();
        let waiting = thread::spawn(move || {
            wait(&directory);
            sender.send(()).expect("the test listens");
        });
        assert!(waited.recv_timeout(Duration::from_millis(50)).is_err(), "it has not ended");
        drop(alive);
        waited.recv().expect("it has ended");
        waiting.join().expect("joined");
        CLOSING.lock().retain(|noted| noted.path != path);
    }
}
