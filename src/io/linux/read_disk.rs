//! `ReadDisk`: the data file of a store that is only looked at. Nothing of it is ever written.
//!
//! It breaks the first promise of a `Disk`: its polls wait for the device. It is for tools that do
//! nothing else meanwhile, so it needs no thread.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::boot;
use super::file::{DATA_NAME, open_description};
use super::piece::{Piece, Split};
use crate::io::buffer::{AlignedBuffer, BLOCK_BYTES};
use crate::io::error::DiskError;
use crate::io::mark::FileMark;
use crate::io::{Disk, LentBlocks, ReadRequest};

/// A killed owner's lock is released a moment after its process.
const PATIENCE: Duration = Duration::from_secs(1);

const PAUSE: Duration = Duration::from_millis(10);

/// A data file that is open for reading.
pub(crate) struct ReadDisk {
    file: Arc<File>,
    path: PathBuf,
    marked_void: bool,
    is_locked: bool,
}

impl ReadDisk {
    /// Opens the data file in `directory`. If `is_exclusive`, no owner has it or gets it as long as
    /// this lives; other readers do, and so do processes that leave a void mark: what they say of
    /// the store must not be lost.
    ///
    /// # Errors
    ///
    /// `Locked`: an owner has it. `Io`: no such file, or no permission.
    pub(crate) fn open(directory: &Path, is_exclusive: bool) -> Result<Self, DiskError> {
        let path = directory.join(DATA_NAME);
        let metadata = fs::metadata(&path).map_err(|error| DiskError::io("open", &path, error))?;
        if !metadata.is_file() {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "it is no file");
            return Err(DiskError::io("open", &path, error));
        }
        let mut options = OpenOptions::new();
        options.read(true);
        let opened = open_description(&path, true, &options);
        let (file, _) = opened.map_err(|error| DiskError::io("open", &path, error))?;
        if is_exclusive {
            share_lock(&file, &path)?;
        }
        let mut disk =
            Self { file: Arc::new(file), path, marked_void: false, is_locked: is_exclusive };
        // Under the lock, as an owner looks for it.
        disk.marked_void = FileMark::new(directory).is_left()?;
        Ok(disk)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a mark beside it says that an owner would begin empty.
    pub(crate) fn is_marked_void(&self) -> bool {
        self.marked_void
    }

    /// Identifies the current boot of the machine.
    pub(crate) fn boot_id() -> [u8; 16] {
        boot::boot_id()
    }
}

impl Drop for ReadDisk {
    /// A forked child may have a copy of the descriptor.
    fn drop(&mut self) {
        if self.is_locked {
            let _ = flock(&self.file, FlockOperation::Unlock);
        }
    }
}

fn share_lock(file: &File, path: &Path) -> Result<(), DiskError> {
    let start = Instant::now();
    // Bounded: by the patience.
    loop {
        match flock(file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if start.elapsed() < PATIENCE => thread::sleep(PAUSE),
            Err(Errno::WOULDBLOCK) => return Err(DiskError::Locked { path: path.to_owned() }),
            Err(error) => return Err(DiskError::io("lock", path, error)),
        }
    }
}

impl Disk for ReadDisk {
    /// Its length now: an owner may change it.
    fn length(&self) -> u64 {
        let length = self.file.metadata().map_or(0, |metadata| metadata.len());
        length / BLOCK_BYTES as u64 * BLOCK_BYTES as u64
    }

    fn resize(&self, _: u64) -> BoxFuture<'static, io::Result<()>> {
        ready(Err(refused())).boxed()
    }

    fn lend(&self) -> BoxFuture<'static, io::Result<LentBlocks>> {
        ready(Ok(Arc::clone(&self.file) as LentBlocks)).boxed()
    }

    fn read(&self, request: ReadRequest) -> BoxFuture<'static, io::Result<AlignedBuffer>> {
        let file = Arc::clone(&self.file);
        async move { read(&file, request.offset, request.length) }.boxed()
    }

    fn write(
        &self,
        _: u64,
        buffer: AlignedBuffer,
    ) -> BoxFuture<'static, (io::Result<()>, AlignedBuffer)> {
        ready((Err(refused()), buffer)).boxed()
    }

    fn begun(&self) -> BoxFuture<'static, ()> {
        ready(()).boxed()
    }

    fn sync(&self) -> BoxFuture<'static, io::Result<()>> {
        ready(Err(refused())).boxed()
    }
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "the store is open for reading only")
}

fn read(file: &File, offset: u64, length: usize) -> io::Result<AlignedBuffer> {
    let mut split = Split::new(AlignedBuffer::try_with_capacity(length)?, length);
    // Bounded: one.
    while let Some((start, mut piece)) = split.next_piece(length) {
        fill(file, &mut piece, offset + start as u64)?;
        split.give_back(piece);
    }
    split.join().ok_or_else(|| io::Error::other("a buffer is in use"))
}

fn fill(file: &File, piece: &mut Piece, offset: u64) -> io::Result<()> {
    // Bounded: by the blocks of a request; only an interruption makes no progress.
    while !piece.is_done() {
        let from = offset + piece.done() as u64;
        let filled = piece.fill(|bytes| {
            let (filled, _) = rustix::io::pread(file, bytes, from)?;
            Ok(filled.len())
        });
        match filled {
            Ok(count) => {
                if piece.advance(count) == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
