//! The lock of a store, for a moment and without opening the store.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::io::Held;
use crate::io::error::DiskError;

/// How long it sleeps before it asks again.
const PAUSE: Duration = Duration::from_millis(1);

/// Asks for the lock of the store, for so long while another owner has it. Blocks. All that hold it
/// in this way share it.
///
/// # Errors
///
/// `Io`: nobody knows whether the store has an owner.
pub(crate) fn hold(directory: &Path, patience: Duration) -> Result<Held, DiskError> {
    // Not to wait for the other end, should it be a pipe.
    let flags = i32::from_le_bytes(OFlags::NONBLOCK.bits().to_le_bytes());
    let path = directory.join("data");
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
        Ok(file) => file,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound => Ok(Held::NoStore),
                io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory => {
                    Ok(Held::NotAsked)
                }
                _ => Err(DiskError::io("open", &path, error)),
            };
        }
    };
    let metadata = file.metadata().map_err(|error| DiskError::io("inspect", &path, error))?;
    if !metadata.is_file() {
        return Ok(Held::NotAsked);
    }
    let start = Instant::now();
    // Bounded: by the patience.
    loop {
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => return Ok(Held::Locked(Box::new(StoreLock(file)))),
            Err(Errno::WOULDBLOCK) if start.elapsed() < patience => thread::sleep(PAUSE),
            Err(Errno::WOULDBLOCK) => return Ok(Held::InUse),
            Err(error) => return Err(DiskError::io("lock", &path, error)),
        }
    }
}

/// Whether there is no store, nor will be. Never: another file system may be mounted there.
pub(crate) fn is_surely_empty(_: &Path) -> bool {
    false
}

/// Unlocks when it is dropped. To close the file is not enough: a child that was forked meanwhile
/// has a copy of the descriptor.
struct StoreLock(File);

impl Drop for StoreLock {
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_descriptor_keeps_nothing_locked() {
        let folder = tempfile::tempdir().expect("directory");
        let path = folder.path().join("data");
        let lock = StoreLock(File::create(&path).expect("created"));
        flock(&lock.0, FlockOperation::NonBlockingLockShared).expect("free");
        // As in a forked child.
        let copy = lock.0.try_clone().expect("a copy");
        let owner = File::open(&path).expect("opened");
        flock(&owner, FlockOperation::NonBlockingLockExclusive).expect_err("locked");
        drop(lock);
        flock(&owner, FlockOperation::NonBlockingLockExclusive).expect("unlocked");
        drop(copy);
    }
}
