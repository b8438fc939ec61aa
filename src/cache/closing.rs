//! Stores of this process that are being closed, so that whoever opens one of them again waits for
//! that instead of finding it locked.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::io::{Termination, UringDisk};

/// The files that are being given back.
static CLOSING: Mutex<Vec<(PathBuf, Termination)>> = Mutex::new(Vec::new());

/// Begins to give the file of a store back, and notes that it is under way.
pub(super) fn note(file: &UringDisk) -> Termination {
    let termination = file.close();
    let path = file.facts().path.clone();
    let mut closing = CLOSING.lock();
    // Bounded: by the stores of one process.
    closing.retain(|(_, termination)| !termination.is_over());
    closing.push((path, termination.clone()));
    termination
}

/// Resolves once no store in the directory is being closed any more.
pub(super) async fn over(directory: &Path) {
    // Bounded: by the stores of one process.
    let under_way: Vec<Termination> = CLOSING
        .lock()
        .iter()
        .filter(|(path, _)| path.parent().is_some_and(|parent| is_same(parent, directory)))
        .map(|(_, termination)| termination.clone())
        .collect();
    // Bounded: by the stores of one process.
    for termination in under_way {
        termination.wait().await;
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}
