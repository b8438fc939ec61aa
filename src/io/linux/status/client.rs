//! `Client`: one connection to a status socket. It never blocks, and takes bounded memory.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

/// The longest request, with the end of its line.
pub(super) const REQUEST_BYTES_MAX: usize = 4096;

const TOO_LONG: &str =
    r#"{"error":{"kind":"too_long","message":"a request is a line of up to 4095 bytes"}}"#;

const BUSY: &str = r#"{"error":{"kind":"busy","message":"too many clients: ask again later"}}"#;

const FAILED: &str =
    r#"{"error":{"kind":"failed","message":"the cache has ended, or failed to answer"}}"#;

pub(super) struct Client {
    stream: OwnedFd,
    /// Read, and not answered yet.
    request: Vec<u8>,
    /// The last answer, of which the first bytes are `sent`.
    answer: Vec<u8>,
    sent: usize,
    /// When the connection ends, unless a request is answered before.
    deadline: Instant,
    patience: Duration,
    /// It ends behind this answer.
    is_last: bool,
}

impl Drop for Client {
    /// A forked child may have a copy of the descriptor.
    fn drop(&mut self) {
        let _ = shutdown(&self.stream, Shutdown::Both);
    }
}

/// What came of a transfer.
enum Moved {
    Some,
    /// It would have to wait.
    None,
    /// The connection is over.
    Over,
}

impl Client {
    pub(super) fn new(stream: OwnedFd, patience: Duration) -> Self {
        Self {
            stream,
            request: Vec::with_capacity(REQUEST_BYTES_MAX),
            answer: Vec::new(),
            sent: 0,
            deadline: Instant::now() + patience,
            patience,
            is_last: false,
        }
    }

    /// Says that there is no place for a client.
    pub(super) fn refuse(stream: OwnedFd) {
        let mut client = Self::new(stream, Duration::ZERO);
        client.set_answer(BUSY.to_owned());
        // A new connection has room for a line.
        let _ = client.write();
    }

    /// Goes on as far as that needs no waiting, up to one answer. False: the connection is over.
    pub(super) fn serve(&mut self, answer: impl FnOnce(&str) -> Option<String>) -> bool {
        let mut answer = Some(answer);
        // Bounded: by an answer and a request, and by what the kernel takes without waiting.
        loop {
            let moved = if self.is_answering() {
                self.write()
            } else if self.is_last {
                return false;
            } else if let Some(end) = self.line_end() {
                let Some(answer) = answer.take() else { return true };
                self.answer_line(end, answer);
                Moved::Some
            } else if self.request.len() == REQUEST_BYTES_MAX {
                self.set_answer(TOO_LONG.to_owned());
                self.is_last = true;
                Moved::Some
            } else {
                self.read()
            };
            match moved {
                Moved::Some => {}
                Moved::None => return Instant::now() < self.deadline,
                Moved::Over => return false,
            }
        }
    }

    fn answer_line(&mut self, end: usize, answer: impl FnOnce(&str) -> Option<String>) {
        let line = String::from_utf8_lossy(&self.request[..end]).into_owned();
        self.request.drain(..=end);
        match answer(line.trim()) {
            Some(answer) => self.set_answer(answer),
            None => {
                self.set_answer(FAILED.to_owned());
                self.is_last = true;
            }
        }
    }

    fn set_answer(&mut self, answer: String) {
        self.answer = answer.into_bytes();
        self.answer.push(b'\n');
        // It is kept until the next one.
        self.answer.shrink_to_fit();
        self.sent = 0;
    }

    fn is_answering(&self) -> bool {
        self.sent < self.answer.len()
    }

    fn line_end(&self) -> Option<usize> {
        // Bounded: by the longest request.
        self.request.iter().position(|&byte| byte == b'\n')
    }

    fn write(&mut self) -> Moved {
        // Not by `write`, which would kill a process that has not refused the signal.
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let sent = send(&self.stream, &self.answer[self.sent..], flags);
        let moved = moved(sent, &mut self.sent);
        if !self.is_answering() {
            // Not kept for the next one, which may be shorter.
            self.answer = Vec::new();
            self.sent = 0;
            self.deadline = Instant::now() + self.patience;
        }
        moved
    }

    fn read(&mut self) -> Moved {
        let mut length = self.request.len();
        self.request.resize(REQUEST_BYTES_MAX, 0);
        let read = recv(&self.stream, &mut self.request[length..], RecvFlags::DONTWAIT);
        let moved = moved(read.map(|(bytes, _)| bytes), &mut length);
        self.request.truncate(length);
        moved
    }

    /// How to wait for it.
    pub(super) fn polled(&self) -> PollFd<'_> {
        let awaited = if self.is_answering() { PollFlags::OUT } else { PollFlags::IN };
        PollFd::new(&self.stream, awaited)
    }

    /// When it is to be looked at again at the latest.
    pub(super) fn due(&self) -> Instant {
        let has_request = !self.is_answering() && self.line_end().is_some();
        if has_request { Instant::now() } else { self.deadline }
    }

    pub(super) fn bytes(&self) -> usize {
        self.request.capacity() + self.answer.capacity()
    }
}

/// Adds what was transferred to a position.
fn moved(transferred: Result<usize, Errno>, position: &mut usize) -> Moved {
    match transferred {
        Ok(0) => Moved::Over,
        Ok(bytes) => {
            *position += bytes;
            Moved::Some
        }
        Err(Errno::AGAIN) => Moved::None,
        Err(Errno::INTR) => Moved::Some,
        Err(_) => Moved::Over,
    }
}
