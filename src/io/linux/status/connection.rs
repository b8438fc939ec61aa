//! `StatusConnection`: a client of a status socket, for the tool. It waits for so long at most.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, connect, recv, send};

use super::listener::{NAME, address, open_folder, unconnected};

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// How long it sleeps before it asks again for a place in the queue.
const PAUSE: Duration = Duration::from_millis(10);

pub(crate) struct StatusConnection {
    stream: OwnedFd,
    received: Vec<u8>,
}

impl StatusConnection {
    /// Connects to the socket of the store in `directory`.
    ///
    /// # Errors
    ///
    /// `NotFound` without a socket, `ConnectionRefused` if no process listens at it, `TimedOut` if
    /// one does and accepts nobody, and others of the operating system.
    pub(crate) fn open(directory: &Path, patience: Duration) -> io::Result<Self> {
        let folder = open_folder(directory)?;
        let stream = unconnected()?;
        let address = address(&folder, directory, NAME)?;
        let start = Instant::now();
        // Bounded: by the patience.
        loop {
            match connect(&stream, &address) {
                Ok(()) => return Ok(Self { stream, received: Vec::new() }),
                // Its queue is full.
                Err(Errno::AGAIN) if start.elapsed() < patience => thread::sleep(PAUSE),
                Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends a request, a line without its end, and gives the answer likewise.
    ///
    /// # Errors
    ///
    /// `TimedOut`, `UnexpectedEof` if the other side has ended, and others of the operating system.
    pub(crate) fn ask(&mut self, request: &str, patience: Duration) -> io::Result<String> {
        let end = Instant::now() + patience;
        let line = format!("{request}\n");
        let mut sent = 0;
        // Bounded: by the patience.
        while sent < line.len() {
            match send(&self.stream, &line.as_bytes()[sent..], SendFlags::NOSIGNAL) {
                Ok(bytes) => sent += bytes,
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, end)?,
                Err(Errno::INTR) => {}
                // It may have said why before it has ended.
                Err(Errno::PIPE) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.line(end)
    }

    fn line(&mut self, end: Instant) -> io::Result<String> {
        let mut piece = [0; 16 << 10];
        // Bounded: by the patience, and by the longest answer.
        loop {
            // Bounded: by the longest answer.
            if let Some(at) = self.received.iter().position(|&byte| byte == b'\n') {
                // Bounded: by the longest answer.
                let line = self.received.drain(..=at).take(at).collect();
                return String::from_utf8(line).map_err(io::Error::other);
            }
            if self.received.len() > ANSWER_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            match recv(&self.stream, &mut piece, RecvFlags::empty()) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((bytes, _)) => self.received.extend_from_slice(&piece[..bytes]),
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, end)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wait(&self, awaited: PollFlags, end: Instant) -> io::Result<()> {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&self.stream, awaited)], Some(&timeout)) {
            Ok(0) => Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether the file of a socket is there.
pub(crate) fn is_socket_left(directory: &Path) -> bool {
    fs::symlink_metadata(directory.join(NAME)).is_ok()
}
