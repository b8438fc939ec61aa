//! `Server`: what the thread of a status socket does.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::client::Client;
use super::listener::Listener;
use crate::io::StatusAnswers;
use crate::wake::contained;

/// Connections that are taken in one turn, those that are refused included.
const TAKEN_AT_ONCE: usize = 16;

/// Clients at one time.
const CLIENTS_MAX: usize = 16;

#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Clients at one time.
    pub(super) clients: usize,
    /// How long one may take from one answer to the next.
    pub(super) patience: Duration,
    /// How long no client is accepted if there is no descriptor for it.
    pub(super) pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let (patience, pause) = (Duration::from_secs(30), Duration::from_secs(1));
        Self { clients: CLIENTS_MAX, patience, pause }
    }
}

pub(super) struct Server {
    listener: Arc<Listener>,
    answers: Weak<dyn StatusAnswers>,
    limits: Limits,
    clients: Vec<Client>,
    /// Until when none is accepted.
    paused_until: Option<Instant>,
    /// Memory of all clients.
    bytes: Arc<AtomicUsize>,
}

impl Server {
    pub(super) fn new(
        listener: Arc<Listener>,
        answers: Weak<dyn StatusAnswers>,
        bytes: Arc<AtomicUsize>,
        limits: Limits,
    ) -> Self {
        let clients = Vec::with_capacity(limits.clients);
        Self { listener, answers, limits, clients, paused_until: None, bytes }
    }

    /// Serves until the listener is closed.
    ///
    /// # Errors
    ///
    /// The kernel refuses to wait.
    pub(super) fn run(mut self) -> io::Result<()> {
        // Bounded: a wait in each turn, or an answer to a client.
        while self.wait()? {
            self.accept();
            self.serve();
        }
        Ok(())
    }

    /// Waits until there is something to do. False: the listener is closed.
    fn wait(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        self.paused_until = self.paused_until.filter(|until| *until > now);
        let listened = if self.paused_until.is_none() { PollFlags::IN } else { PollFlags::empty() };
        let mut polled = vec![PollFd::new(&*self.listener, listened)];
        // Bounded: by the most clients.
        polled.extend(self.clients.iter().map(Client::polled));
        let dues = self.clients.iter().map(Client::due).chain(self.paused_until);
        let left = dues.min().map(|due| due.saturating_duration_since(now));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let over = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        Ok(!polled[0].revents().intersects(over))
    }

    fn accept(&mut self) {
        if self.paused_until.is_some() {
            return;
        }
        // Bounded: by a constant.
        for _ in 0..TAKEN_AT_ONCE {
            match self.listener.accept() {
                Ok(stream) if self.clients.len() < self.limits.clients => {
                    self.clients.push(Client::new(stream, self.limits.patience));
                }
                Ok(stream) => Client::refuse(stream),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => {
                    // Too few descriptors, mostly: the client stays in the queue, and would be
                    // found there at once, for ever.
                    self.paused_until = Some(Instant::now() + self.limits.pause);
                    return;
                }
            }
        }
    }

    fn serve(&mut self) {
        let answers = &self.answers;
        // The last reference to what answers may be dropped in there.
        let answer = |request: &str| {
            contained(|| answers.upgrade().map(|answers| answers.answer(request))).flatten()
        };
        // Bounded: by the most clients.
        self.clients.retain_mut(|client| client.serve(answer));
        // Bounded: by the most clients.
        let bytes = self.clients.iter().map(Client::bytes).sum();
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.bytes.store(0, Ordering::Relaxed);
    }
}
