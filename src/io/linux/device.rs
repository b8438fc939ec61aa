//! `Device`: what transfers ask of a file, on a ring or on a pool of threads.
//!
//! The kernel carries out some requests of a ring (syncs, and transfers that would wait for the
//! file system) on threads that it adds to the process. If a limit refuses it such threads, it
//! cancels the request. Then the thread of the ring carries it out by a plain call, and waits.

// Unsafe here: a descriptor is borrowed.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use tokio_uring::fs::File;

use super::piece::Piece;
use super::resize::{Room, resize};
use super::share::share;

/// The number of bytes transferred, and the piece.
pub(super) type Transferred = (io::Result<usize>, Piece);

pub(super) trait Device {
    /// Reads into what is left of the piece.
    fn read(&self, piece: Piece, offset: u64) -> impl Future<Output = Transferred>;

    /// Writes what is left of the piece.
    fn write(&self, piece: Piece, offset: u64) -> impl Future<Output = Transferred>;

    fn sync(&self) -> impl Future<Output = io::Result<()>>;

    /// Resolves once what was asked for before is under way.
    fn begun(&self) -> impl Future<Output = ()>;

    /// Makes the file so long, on this thread.
    fn resize(&self, length: u64, room: Room) -> io::Result<()>;

    /// Another descriptor of the file.
    fn duplicate(&self) -> io::Result<fs::File>;

    /// Shares a span of another file, on this thread.
    fn share(&self, source: &fs::File, span: (u64, u64), offset: u64) -> io::Result<()>;

    /// Like `read`, on this thread.
    fn read_here(&self, piece: &mut Piece, offset: u64) -> io::Result<usize>;

    /// Like `write`, on this thread.
    fn write_here(&self, piece: &Piece, offset: u64) -> io::Result<usize>;

    /// Like `sync`, on this thread.
    fn sync_here(&self) -> io::Result<()>;
}

/// The descriptor of the file, for calls that the ring does not have.
fn borrowed(file: &File) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as the file, which is borrowed for as long.
    unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) }
}

/// Whether the kernel had no thread for the request.
pub(super) fn is_unattended(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::CANCELED.raw_os_error())
}

impl Device for File {
    async fn read(&self, piece: Piece, offset: u64) -> Transferred {
        self.read_at(piece, offset).await
    }

    async fn write(&self, piece: Piece, offset: u64) -> Transferred {
        self.write_at(piece, offset).submit().await
    }

    async fn sync(&self) -> io::Result<()> {
        self.sync_data().await
    }

    async fn begun(&self) {
        // The kernel takes it along with those before it, and completes it at once.
        let _ = tokio_uring::no_op().await;
    }

    fn resize(&self, length: u64, room: Room) -> io::Result<()> {
        resize(borrowed(self), length, room)
    }

    fn duplicate(&self) -> io::Result<fs::File> {
        Ok(borrowed(self).try_clone_to_owned()?.into())
    }

    fn share(&self, source: &fs::File, span: (u64, u64), offset: u64) -> io::Result<()> {
        share(borrowed(self), source, span, offset)
    }

    fn read_here(&self, piece: &mut Piece, offset: u64) -> io::Result<usize> {
        piece.fill(|bytes| {
            let (filled, _) = rustix::io::pread(borrowed(self), bytes, offset)?;
            Ok(filled.len())
        })
    }

    fn write_here(&self, piece: &Piece, offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwrite(borrowed(self), piece.rest(), offset)?)
    }

    fn sync_here(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(borrowed(self))?)
    }
}
