//! `DataFile`: the one preallocated file of a store, locked and open for direct transfers.
//!
//! - A file under its final name is whole: it is created under a temporary name, preallocated,
//!   synced, renamed, and its directory synced. A temporary file that a crash has left is created
//!   again.
//! - The owner holds `flock` on the file's own open description. Every duplicate of the
//!   descriptor and every request in the kernel shares that description, so a successor
//!   cannot open the store before the last of them is done, not even after a kill.
//! - The lock is taken before the rename and checked against the path after it, so no
//!   owner holds the lock of a file that has lost its name.
//!
//! Everything here blocks; it is called from a ring's thread before the ring runs.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use rustix::io::Errno;

use super::limits::check_file_bytes;
use super::resize::{available, in_pieces};
use crate::io::buffer::BLOCK_BYTES;
use crate::io::error::DiskError;
use crate::io::mark::FileMark;
use crate::io::options::FileFacts;

/// The data file's name within its directory.
pub(super) const DATA_NAME: &str = "data";
/// The data file's name until it is whole.
const TEMPORARY_NAME: &str = "data.new";
/// How long opening waits for a lock that another owner holds.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// How often opening retries after a race with another process that creates or deletes the file.
const RACES_MAX: usize = 16;

/// An open, locked data file.
pub(super) struct DataFile {
    pub(super) file: File,
    pub(super) facts: FileFacts,
}

impl DataFile {
    /// Opens the data file in `directory`, or creates it with `bytes` (whole blocks), of which
    /// `first` are the first, in blocks that a direct transfer takes.
    ///
    /// # Errors
    ///
    /// `Locked`, `NoSpace`, `Unavailable` under a limit on the size of files, or `Io`.
    pub(super) fn open(
        directory: &Path,
        bytes: u64,
        direct: bool,
        first: &[u8],
    ) -> Result<Self, DiskError> {
        make_directory(directory)
            .map_err(|error| DiskError::io("create directory", directory, error))?;
        // Bounded: by a constant.
        for _ in 0..RACES_MAX {
            let opened = match Self::open_existing(directory, bytes, direct)? {
                Some(opened) => Some(opened),
                None => Self::create(directory, bytes, direct, first)?,
            };
            if let Some(opened) = opened {
                return Ok(opened);
            }
        }
        Err(DiskError::Locked { path: directory.join(DATA_NAME) })
    }

    /// `None` if there is none, or it has lost its name meanwhile.
    fn open_existing(
        directory: &Path,
        bytes: u64,
        direct: bool,
    ) -> Result<Option<Self>, DiskError> {
        let path = directory.join(DATA_NAME);
        let opened = open_description(&path, direct, &owning(false));
        let (file, direct) = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DiskError::io("open", &path, error)),
            Ok(opened) => opened,
        };
        let locked = Locked::take(&file, &path)?;
        if !is_at(&file, &path)? {
            return Ok(None);
        }
        let metadata = file.metadata().map_err(|error| DiskError::io("inspect", &path, error))?;
        let length = metadata.len() / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        // What lies behind the segments is cut off, and not written to.
        check_file_bytes(length.min(bytes))?;
        let preallocated = metadata.blocks().saturating_mul(512) >= length;
        let facts = FileFacts {
            path,
            length,
            created: false,
            direct,
            preallocated,
            marked_void: FileMark::new(directory).is_left()?,
            passing: passing(&file),
        };
        locked.keep();
        Ok(Some(Self { file, facts }))
    }

    /// `None` if another process has renamed or removed the temporary file meanwhile.
    fn create(
        directory: &Path,
        bytes: u64,
        direct: bool,
        first: &[u8],
    ) -> Result<Option<Self>, DiskError> {
        check_file_bytes(bytes)?;
        let temporary = directory.join(TEMPORARY_NAME);
        let path = directory.join(DATA_NAME);
        let (file, direct) = open_description(&temporary, direct, &owning(true))
            .map_err(|error| DiskError::io("create", &temporary, error))?;
        let locked = Locked::take(&file, &path)?;
        // Under the lock: its last owner may have given the file its final name.
        if !is_at(&file, &temporary)? {
            return Ok(None);
        }
        let preallocated = match allocate(&file, &path, bytes) {
            Ok(preallocated) => preallocated,
            Err(error) => {
                // Frees the space allocated so far; if that fails too, the next opening reuses it.
                let _ = fs::remove_file(&temporary);
                return Err(error);
            }
        };
        file.write_all_at(first, 0).map_err(|error| DiskError::io("write", &temporary, error))?;
        file.sync_all().map_err(|error| DiskError::io("sync", &temporary, error))?;
        fs::rename(&temporary, &path).map_err(|error| DiskError::io("rename", &path, error))?;
        File::open(directory)
            .and_then(|opened| opened.sync_all())
            .map_err(|error| DiskError::io("sync directory", directory, error))?;
        let facts = FileFacts {
            path,
            length: bytes,
            created: true,
            direct,
            preallocated,
            marked_void: FileMark::new(directory).is_left()?,
            passing: passing(&file),
        };
        locked.keep();
        Ok(Some(Self { file, facts }))
    }
}

fn owning(create: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    // Applies to a created file; an existing one keeps its rights.
    options.read(true).write(true).create(create).mode(0o600);
    options
}

/// Makes a directory and those above it, durably.
fn make_directory(directory: &Path) -> io::Result<()> {
    let missing = directory.ancestors().take_while(|it| !it.as_os_str().is_empty() && !it.exists());
    // Bounded: by the length of a path.
    let missing: Vec<&Path> = missing.collect();
    fs::create_dir_all(directory)?;
    // Bounded: by the length of a path.
    for made in missing {
        let above = made.parent().filter(|above| !above.as_os_str().is_empty());
        File::open(above.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// Opens `path` for direct transfers if wanted and possible, else buffered; returns which.
pub(super) fn open_description(
    path: &Path,
    direct: bool,
    options: &OpenOptions,
) -> io::Result<(File, bool)> {
    if direct {
        let flags = i32::from_le_bytes(OFlags::DIRECT.bits().to_le_bytes());
        match options.clone().custom_flags(flags).open(path) {
            Ok(file) if takes_blocks(&file) => return Ok((file, true)),
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok((options.open(path)?, false))
}

/// Whether blocks are aligned enough for direct transfers; true if the kernel cannot tell.
fn takes_blocks(file: &File) -> bool {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    let Ok(facts) = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else {
        return true;
    };
    if facts.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        return true;
    }
    let fits = |align: u32| align > 0 && (BLOCK_BYTES % (align as usize) == 0);
    fits(facts.stx_dio_mem_align) && fits(facts.stx_dio_offset_align)
}

/// The lock of a file that may be refused still: it is unlocked then, and not only closed, since a
/// child that was forked meanwhile has a copy of the descriptor.
struct Locked<'a>(Option<&'a File>);

impl<'a> Locked<'a> {
    fn take(file: &'a File, path: &Path) -> Result<Self, DiskError> {
        lock(file, path)?;
        Ok(Self(Some(file)))
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.0 {
            let _ = rustix::fs::flock(file, FlockOperation::Unlock);
        }
    }
}

/// Takes the lock, with a little patience: the kernel releases the lock of a killed owner a moment
/// after the process, when the last of its requests has ended.
fn lock(file: &File, path: &Path) -> Result<(), DiskError> {
    let start = Instant::now();
    // Bounded: by the patience.
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if start.elapsed() < LOCK_PATIENCE => {
                thread::sleep(LOCK_PATIENCE / 100);
            }
            Err(Errno::WOULDBLOCK) => return Err(DiskError::Locked { path: path.to_owned() }),
            Err(error) => return Err(DiskError::io("lock", path, error)),
        }
    }
}

/// Whether `path` still names this file.
fn is_at(file: &File, path: &Path) -> Result<bool, DiskError> {
    let ours = file.metadata().map_err(|error| DiskError::io("inspect", path, error))?;
    match fs::metadata(path) {
        Ok(named) => Ok((ours.dev(), ours.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DiskError::io("inspect", path, error)),
    }
}

/// Makes the file `bytes` zeroes; returns whether their space is reserved.
fn allocate(file: &File, path: &Path, bytes: u64) -> Result<bool, DiskError> {
    file.set_len(0).map_err(|error| DiskError::io("empty", path, error))?;
    // Checked first: before `fallocate` fails, it takes all the space that there is.
    let available_bytes = available(file);
    if available_bytes.is_some_and(|available| available < bytes) {
        return Err(no_space(path, bytes, available_bytes));
    }
    let allocated = in_pieces(0, bytes, |offset, piece| {
        rustix::fs::fallocate(file, FallocateFlags::empty(), offset, piece)
    });
    match allocated {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            file.set_len(bytes).map_err(|error| DiskError::io("extend", path, error))?;
            Ok(false)
        }
        Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => {
            // Free what was allocated before the failure, so that it counts as available.
            let _ = file.set_len(0);
            Err(no_space(path, bytes, available(file)))
        }
        Err(error) => Err(DiskError::io("preallocate", path, error)),
    }
}

/// The kind of file system, if it is in memory.
fn passing(file: &File) -> Option<&'static str> {
    match u64::try_from(rustix::fs::fstatfs(file).ok()?.f_type).ok()? {
        0x0102_1994 => Some("tmpfs"),
        0x8584_58f6 => Some("ramfs"),
        _ => None,
    }
}

fn no_space(path: &Path, needed_bytes: u64, available_bytes: Option<u64>) -> DiskError {
    let available_bytes = available_bytes.unwrap_or(0);
    DiskError::NoSpace { path: path.to_owned(), needed_bytes, available_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 1 << 20;

    #[test]
    fn is_created_once_and_found_again() {
        let directory = tempfile::tempdir().expect("directory");
        let nested = directory.path().join("a/b");
        let first = DataFile::open(&nested, BYTES, true, &[]).expect("created");
        assert!(first.facts.created && first.facts.preallocated);
        assert_eq!(first.facts.length, BYTES);
        assert!(!nested.join(TEMPORARY_NAME).exists());
        drop(first);
        let second = DataFile::open(&nested, 2 * BYTES, true, &[]).expect("opened");
        assert!(!second.facts.created && second.facts.preallocated);
        assert_eq!(second.facts.length, BYTES, "an existing file keeps its length");
    }

    #[test]
    fn has_one_owner_until_the_last_duplicate_is_closed() {
        let directory = tempfile::tempdir().expect("directory");
        let first = DataFile::open(directory.path(), BYTES, true, &[]).expect("created");
        let duplicate = first.file.try_clone().expect("duplicate");
        drop(first);
        let refused = DataFile::open(directory.path(), BYTES, true, &[]);
        assert!(matches!(refused, Err(DiskError::Locked { .. })));
        drop(duplicate);
        assert!(DataFile::open(directory.path(), BYTES, true, &[]).is_ok());
    }

    #[test]
    fn a_half_created_file_is_created_again() {
        let directory = tempfile::tempdir().expect("directory");
        fs::write(directory.path().join(TEMPORARY_NAME), b"left by a crash").expect("write");
        let opened = DataFile::open(directory.path(), BYTES, false, &[]).expect("created");
        assert!(opened.facts.created && !opened.facts.direct);
        let content = fs::read(&opened.facts.path).expect("read");
        assert_eq!(content.len() as u64, BYTES);
        assert!(content.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_creation_in_progress_is_locked() {
        let directory = tempfile::tempdir().expect("directory");
        let temporary = File::create(directory.path().join(TEMPORARY_NAME)).expect("create");
        lock(&temporary, directory.path()).expect("lock");
        let refused = DataFile::open(directory.path(), BYTES, true, &[]);
        assert!(matches!(refused, Err(DiskError::Locked { .. })));
    }

    #[test]
    fn says_how_much_space_is_missing() {
        let directory = tempfile::tempdir().expect("directory");
        let bytes = 1 << 43;
        match DataFile::open(directory.path(), bytes, true, &[]) {
            Err(DiskError::NoSpace { needed_bytes, available_bytes, .. }) => {
                assert_eq!(needed_bytes, bytes);
                assert!(available_bytes > 0 && available_bytes < bytes);
            }
            other => panic!("8 TiB were granted: {:?}", other.map(|opened| opened.facts)),
        }
        assert_eq!(fs::read_dir(directory.path()).expect("list").count(), 0);
    }

    #[test]
    fn a_file_that_does_not_fit_takes_no_space_from_others_meanwhile() {
        let directory = tempfile::tempdir().expect("directory");
        let probe = File::open(directory.path()).expect("open");
        let before = available(&probe).expect("known");
        let refusals = thread::spawn({
            let path = directory.path().to_owned();
            move || {
                (0..3).all(|_| {
                    let refused = DataFile::open(&path, 1 << 43, true, &[]);
                    matches!(refused, Err(DiskError::NoSpace { .. }))
                })
            }
        });
        let mut least = before;
        while !refusals.is_finished() {
            least = least.min(available(&probe).expect("known"));
        }
        assert!(refusals.join().expect("joined"));
        assert!(least > before / 2, "{least} of {before} bytes were left");
    }

    #[test]
    fn a_file_system_in_memory_is_told() {
        let folder = tempfile::tempdir_in("/dev/shm").expect("directory");
        let made = DataFile::open(folder.path(), BYTES, true, &[]).expect("a file");
        assert_eq!(made.facts.passing, Some("tmpfs"));
        drop(made);
        let found = DataFile::open(folder.path(), BYTES, true, &[]).expect("a file");
        assert_eq!(found.facts.passing, Some("tmpfs"));
    }
}
