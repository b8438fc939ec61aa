//! `Listener`: the socket that clients connect to, and its file.
//!
//! Nobody but its owner may connect at any moment: the file is made with the rights 0600, and while
//! it has its first name the socket does not listen yet. The path of a socket is at most 107 bytes
//! long, so one in a deeper directory is reached through a descriptor of that.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fchmod, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen,
    shutdown, socket_with,
};

/// The name of the socket within the directory of the data file.
pub(super) const NAME: &str = "status.sock";

/// Its name until it listens.
const TEMPORARY_NAME: &str = "status.new";

/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;

pub(super) struct Listener(OwnedFd);

impl Listener {
    pub(super) fn new() -> io::Result<Self> {
        let socket = unconnected()?;
        // A bind gives these rights to the file, less those that the umask forbids.
        fchmod(&socket, private())?;
        Ok(Self(socket))
    }

    /// Makes the file, in place of one that an earlier owner has left. The caller has the lock of
    /// the store.
    pub(super) fn bind(&self, directory: &Path) -> io::Result<Bound> {
        let folder = open_folder(directory)?;
        self.make_file(&folder, directory)?;
        match self.begin(&folder) {
            Ok(()) => Ok(Bound(folder)),
            Err(error) => {
                let _ = remove(&folder, TEMPORARY_NAME);
                Err(error.into())
            }
        }
    }

    /// Makes the file under its first name. Nobody can connect to it yet.
    pub(super) fn make_file(&self, folder: &OwnedFd, directory: &Path) -> io::Result<()> {
        remove(folder, TEMPORARY_NAME)?;
        Ok(bind(&self.0, &address(folder, directory, TEMPORARY_NAME)?)?)
    }

    fn begin(&self, folder: &OwnedFd) -> Result<(), Errno> {
        // Looked at and not set: somebody who may write to the directory could have another file
        // there by now.
        let made = statat(folder, TEMPORARY_NAME, AtFlags::SYMLINK_NOFOLLOW)?;
        if !private().contains(Mode::from_raw_mode(made.st_mode)) {
            return Err(Errno::PERM);
        }
        listen(&self.0, BACKLOG)?;
        renameat(folder, TEMPORARY_NAME, folder, NAME)
    }

    pub(super) fn accept(&self) -> Result<OwnedFd, Errno> {
        accept_with(&self.0, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
    }

    /// Refuses clients from now on, and wakes the thread that polls it. That holds for copies of
    /// the descriptor, too, such as that of a forked child.
    pub(super) fn close(&self) {
        let _ = shutdown(&self.0, Shutdown::Both);
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The file of a socket, which is removed when this is dropped.
#[must_use]
pub(super) struct Bound(OwnedFd);

impl Drop for Bound {
    fn drop(&mut self) {
        // Whether or not the directory has another name by now.
        let _ = remove(&self.0, NAME);
    }
}

fn private() -> Mode {
    Mode::RUSR | Mode::WUSR
}

/// A socket that never blocks.
pub(super) fn unconnected() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

pub(super) fn open_folder(directory: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, directory, flags, Mode::empty())?)
}

/// The address of a socket in `directory`, which `folder` is a descriptor of.
pub(super) fn address(
    folder: &OwnedFd,
    directory: &Path,
    name: &str,
) -> io::Result<SocketAddrUnix> {
    let address = match SocketAddrUnix::new(directory.join(name)) {
        Err(Errno::NAMETOOLONG) => {
            SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
        }
        address => address,
    };
    Ok(address?)
}

fn remove(folder: &OwnedFd, name: &str) -> io::Result<()> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
