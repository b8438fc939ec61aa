//! `VoidMark`: a file beside the data file which says that the store must begin empty.
//!
//! A cache that could not open its store cannot void it there either. So it leaves this mark before
//! its first mutation returns, and the next open, which holds the lock by then, heeds and removes
//! it. A mark is about what lies in the store now: while another cache has the store, none is left.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::error::DiskError;
use super::{Held, hold, is_surely_empty};

/// The name of the mark within the directory of the data file.
const MARK_NAME: &str = "void";

/// What came of an attempt to leave a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MarkLeft {
    /// It is there, and survives a power loss.
    Durably,
    /// Another owner has the store, so there is none.
    InUse,
}

/// Told what came of it.
pub(crate) type MarkDone = Box<dyn FnOnce(Result<MarkLeft, DiskError>) + Send>;

/// An attempt to leave a mark.
pub(crate) struct MarkRequest {
    /// Another owner of the store is waited for so long.
    pub(crate) patience: Duration,
    /// Asked under the lock of the store, before the mark is made: whoever has had the store
    /// meanwhile may have been the one who asks for it. If not, the answer is `InUse`.
    pub(crate) is_wanted: Box<dyn Fn() -> bool + Send>,
    pub(crate) done: MarkDone,
}

/// Leaves and removes the mark of one store.
pub(crate) trait VoidMark: Send + Sync + 'static {
    /// Leaves the mark on a thread of its own, and calls `done` there. Nobody has to wait for it.
    fn leave(&self, request: MarkRequest);

    /// Removes the mark, if there is one. Blocks. It may come back with a power loss.
    fn remove(&self) -> io::Result<()>;
}

/// The mark in a directory.
#[derive(Clone, Debug)]
pub(crate) struct FileMark {
    directory: PathBuf,
}

impl FileMark {
    /// Of the store in `directory`.
    pub(crate) fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(MARK_NAME)
    }

    /// Whether it is there.
    ///
    /// # Errors
    ///
    /// `Io`: that cannot be told.
    pub(crate) fn is_left(&self) -> Result<bool, DiskError> {
        let path = self.path();
        match fs::symlink_metadata(&path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(DiskError::io("inspect", &path, error)),
        }
    }

    fn leave_here(
        &self,
        patience: Duration,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<MarkLeft, DiskError> {
        let directory = &self.directory;
        if is_surely_empty(directory) {
            return Ok(MarkLeft::Durably);
        }
        fs::create_dir_all(directory)
            .map_err(|error| DiskError::io("create directory", directory, error))?;
        // Until the mark is there: no open of another process misses it.
        let (_lock, is_there) = match hold(directory, patience)? {
            Held::InUse => return Ok(MarkLeft::InUse),
            Held::Locked(lock) => (Some(lock), true),
            Held::NotAsked => (None, true),
            Held::NoStore => (None, false),
        };
        if !is_wanted() {
            return Ok(MarkLeft::InUse);
        }
        let is_made = self.make()?;
        if !is_there && matches!(hold(directory, patience)?, Held::InUse) {
            // Made since, by an owner that may have looked for a mark before it was there.
            if is_made {
                self.remove().map_err(|error| DiskError::io("remove", &self.path(), error))?;
            }
            return Ok(MarkLeft::InUse);
        }
        Ok(MarkLeft::Durably)
    }

    /// Makes it, durably. False if it was there.
    fn make(&self) -> Result<bool, DiskError> {
        let (path, directory) = (self.path(), &self.directory);
        let mut options = OpenOptions::new();
        options.write(true);
        let (made, is_made) = match options.clone().create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // With `create`: it may have been removed in between.
                (options.create(true).truncate(false).open(&path), false)
            }
            made => (made, true),
        };
        let synced = made.and_then(|file| file.sync_all());
        synced.map_err(|error| DiskError::io("create", &path, error))?;
        sync_directory(directory)
            .map_err(|error| DiskError::io("sync directory", directory, error))?;
        Ok(is_made)
    }
}

impl VoidMark for FileMark {
    fn leave(&self, MarkRequest { patience, is_wanted, done }: MarkRequest) {
        let (mark, done) = (self.clone(), Promise(Some(done)));
        // Refused, it is dropped with what it was given.
        let _ = thread::Builder::new().name("tamis-mark".into()).spawn(move || {
            done.keep(mark.leave_here(patience, &*is_wanted));
        });
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_file(self.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| sync_directory(&self.directory)),
        }
    }
}

/// Calls back even if there is no thread.
struct Promise(Option<MarkDone>);

impl Promise {
    fn keep(mut self, left: Result<MarkLeft, DiskError>) {
        if let Some(done) = self.0.take() {
            done(left);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let none = || DiskError::Unavailable { reason: "no thread could be started".to_owned() };
        // Bounded: one.
        self.0.take().into_iter().for_each(|done| done(Err(none())));
    }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::channel;

    use super::*;
    use crate::blocking::block_on;

    const PATIENCE: Duration = Duration::from_secs(1);

    fn left(mark: &FileMark) -> Result<MarkLeft, DiskError> {
        left_if(mark, || true)
    }

    fn left_if(
        mark: &FileMark,
        is_wanted: impl Fn() -> bool + Send + 'static,
    ) -> Result<MarkLeft, DiskError> {
        let (sender, told) = channel();
        let done = Box::new(move |left| sender.send(left).expect("the test listens"));
        mark.leave(MarkRequest { patience: PATIENCE, is_wanted: Box::new(is_wanted), done });
        told.recv().expect("told")
    }

    /// Such as one that was to be left before the cache that asked for it had the store itself.
    #[test]
    fn a_mark_that_is_not_wanted_any_more_is_not_left() {
        let folder = tempfile::tempdir().expect("directory");
        let options = super::super::DiskOptions::new(folder.path(), 1 << 20);
        let owner = block_on(super::super::FileDisk::open(options)).expect("a file");
        let (mark, is_wanted) = (FileMark::new(folder.path()), Arc::new(AtomicBool::new(true)));
        let (asked, wanted) = (mark.clone(), Arc::clone(&is_wanted));
        let leaving =
            thread::spawn(move || left_if(&asked, move || wanted.load(Ordering::Relaxed)));
        thread::sleep(PATIENCE / 5);
        is_wanted.store(false, Ordering::Relaxed);
        block_on(owner.close().wait());
        drop(owner);
        assert_eq!(leaving.join().expect("joined").expect("known"), MarkLeft::InUse);
        assert!(!mark.is_left().expect("known"));
    }

    #[test]
    fn a_mark_is_left_once_and_removed_again() {
        let folder = tempfile::tempdir().expect("directory");
        let mark = FileMark::new(folder.path().join("a/b"));
        assert!(!mark.is_left().expect("known"));
        mark.remove().expect("there is none");
        for _ in 0..2 {
            assert_eq!(left(&mark).expect("left"), MarkLeft::Durably);
            assert!(mark.is_left().expect("known"));
        }
        mark.remove().expect("removed");
        assert!(!mark.is_left().expect("known"));
    }

    #[test]
    fn a_store_that_has_an_owner_gets_no_mark() {
        let folder = tempfile::tempdir().expect("directory");
        let mark = FileMark::new(folder.path());
        let options = super::super::DiskOptions::new(folder.path(), 1 << 20);
        let owned = block_on(super::super::FileDisk::open(options)).expect("a file");
        assert_eq!(left(&mark).expect("known"), MarkLeft::InUse);
        assert!(!mark.is_left().expect("known"));
        block_on(owned.close().wait());
        drop(owned);
        assert_eq!(left(&mark).expect("left"), MarkLeft::Durably);
    }

    #[test]
    fn caches_that_mark_a_store_at_once_are_no_owners_of_it() {
        let folder = tempfile::tempdir().expect("directory");
        fs::write(folder.path().join("data"), "of some kind").expect("written");
        // One that has the lock, and has not made its mark yet.
        let first = hold(folder.path(), Duration::ZERO).expect("asked");
        let is_held = matches!(first, Held::Locked(_));
        assert!(cfg!(not(all(feature = "disk", target_os = "linux"))) || is_held);
        let mark = FileMark::new(folder.path());
        assert_eq!(left(&mark).expect("left"), MarkLeft::Durably);
        drop(first);
    }

    #[test]
    fn one_that_opens_the_store_for_a_moment_and_fails_is_no_owner_of_it() {
        let folder = tempfile::tempdir().expect("directory");
        let options = super::super::DiskOptions::new(folder.path(), 1 << 20);
        let opener = block_on(super::super::FileDisk::open(options)).expect("a file");
        let mark = FileMark::new(folder.path());
        let leaving = thread::spawn(move || left(&mark));
        thread::sleep(PATIENCE / 5);
        block_on(opener.close().wait());
        drop(opener);
        let outcome = leaving.join().expect("joined");
        assert_eq!(outcome.expect("left"), MarkLeft::Durably);
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().expect("directory");
        let file = folder.path().join("file");
        fs::write(&file, "no directory").expect("written");
        let refused = left(&FileMark::new(file.join("store"))).expect_err("no directory");
        assert!(refused.to_string().contains("file/store"), "{refused}");
    }
}
