//! Stores of this process that are being closed, so that whoever opens one of them again waits for
//! that instead of finding it locked.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::termination::Termination;

/// The files that are being given back.
static CLOSING: Mutex<Vec<(PathBuf, Termination)>> = Mutex::new(Vec::new());

/// Notes that a file is being given back.
pub(super) fn note(path: &Path, termination: Termination) {
    let mut closing = CLOSING.lock();
    closing.retain(|(_, termination)| !termination.is_over());
    if !closing.iter().any(|(_, noted)| noted.is(&termination)) {
        closing.push((path.to_owned(), termination));
    }
}

/// Blocks until no store in the directory is being closed any more.
pub(super) fn wait(directory: &Path) {
    let noted = CLOSING.lock().clone();
    let is_there = |path: &Path| path.parent().is_some_and(|parent| is_same(parent, directory));
    for (_, termination) in noted.into_iter().filter(|(path, _)| is_there(path)) {
        termination.wait_blocking();
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}
