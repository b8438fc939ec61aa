//! `Servers`: the servers of a disk's two threads, and the threads beside them. Finds out which
//! kind the kernel allows.

use std::fs::File;
use std::sync::Arc;
use std::{io, thread};

use tokio::sync::mpsc;

use super::limits::{POOLS_DESCRIPTORS, RINGS_DESCRIPTORS, check_descriptors, no_thread};
use super::pool::{Pool, PoolUser};
use super::probe::RingSetup;
use super::request::Request;
use super::server::Server;
use super::task_server::TaskRunnerServer;
use super::termination::Alive;
use super::transfer::DEPTH;
use crate::io::error::DiskError;
use crate::io::options::DiskEngine;

/// Threads for point reads, and for pieces of long ones. A device answers several reads in little
/// more time than one, and each thread has one read in flight.
const READERS: usize = 16;

/// Operations in flight of reads that come through the pump. They go first, and leave half of the
/// threads to short ones.
const LONG_READS_MAX: usize = READERS / 2;

/// Threads for writes, syncs and background reads: the pieces of a frame, a sync, and the reads of
/// a reclaim beside them.
const WRITERS: usize = 8;

/// Operations of writes, syncs and background reads that have begun or wait for a thread: more than
/// the reads of a reclaim are, or writes would wait for these.
const BACKGROUND_MAX: usize = 256;

// A request of any width must fit beside nothing else.
const _: () = assert!(LONG_READS_MAX >= DEPTH && BACKGROUND_MAX > 2 * DEPTH);

/// What serves a disk.
pub(super) struct Servers {
    /// To be run on this thread.
    pub(super) append: Server,
    pub(super) read: ReadThread,
    /// None with rings.
    pub(super) pools: Option<Pools>,
    /// Why there are no rings, if they were asked for.
    pub(super) refusal: Option<String>,
}

pub(super) struct Pools {
    pub(super) reads: Arc<Pool>,
    pub(super) appends: Arc<Pool>,
}

/// What a thread serves.
pub(super) struct Work {
    pub(super) file: File,
    pub(super) requests: mpsc::UnboundedReceiver<Request>,
    pub(super) runner: TaskRunnerServer,
}

impl Servers {
    /// Starts everything but the server of this thread. With no engine, the rings if the kernel
    /// grants them.
    ///
    /// # Errors
    ///
    /// `NoRing` if there is none and only rings will do, or `Unavailable`.
    pub(super) fn start(
        engine: Option<DiskEngine>,
        ring_entries: u32,
        alive: &Alive,
    ) -> Result<Self, DiskError> {
        if engine == Some(DiskEngine::Threads) {
            return Self::with_pools(None, alive);
        }
        match Self::with_rings(ring_entries, alive) {
            Err(DiskError::NoRing { reason }) if engine.is_none() => {
                Self::with_pools(Some(reason), alive)
            }
            started => started,
        }
    }

    fn with_rings(entries: u32, alive: &Alive) -> Result<Self, DiskError> {
        // First of all: threads need fewer descriptors, where the kernel has no rings.
        let setup = RingSetup::probe(entries)?;
        check_descriptors(RINGS_DESCRIPTORS)?;
        let append = Server::ring(setup)?;
        let build = move || RingSetup::probe(entries).and_then(Server::ring);
        let read = ReadThread::start(alive.clone(), build)?;
        Ok(Self { append, read, pools: None, refusal: None })
    }

    fn with_pools(refusal: Option<String>, alive: &Alive) -> Result<Self, DiskError> {
        check_descriptors(POOLS_DESCRIPTORS)?;
        let appends = PoolUser::start("tamis-write", WRITERS, false, alive)?;
        let reads = PoolUser::start("tamis-point", READERS, true, alive)?;
        let pools = Pools { reads: reads.pool(), appends: appends.pool() };
        let append = Server::pool(appends, BACKGROUND_MAX)?;
        let read = ReadThread::start(alive.clone(), move || Server::pool(reads, LONG_READS_MAX))?;
        Ok(Self { append, read, pools: Some(pools), refusal })
    }
}

/// The thread for reads, which has its server and waits for its work. Without any it has ended when
/// this is dropped.
pub(super) struct ReadThread {
    work: Option<std::sync::mpsc::Sender<Work>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl ReadThread {
    fn start(
        alive: Alive,
        build: impl FnOnce() -> Result<Server, DiskError> + Send + 'static,
    ) -> Result<Self, DiskError> {
        let (ready, started) = std::sync::mpsc::channel();
        let (sender, work) = std::sync::mpsc::channel();
        let run = move || {
            let (server, error) = match build() {
                Ok(server) => (Some(server), None),
                Err(error) => (None, Some(error)),
            };
            let _ = ready.send(error);
            if let (Some(server), Ok(Work { file, requests, runner })) = (server, work.recv()) {
                if !server.run("read", file, requests, runner) {
                    alive.note_broken();
                }
            }
            drop(alive);
        };
        let thread = thread::Builder::new().name("tamis-read".into());
        let thread = thread.spawn(run).map_err(|error| no_thread(&error))?;
        let waiting = Self { work: Some(sender), thread: Some(thread) };
        match started.recv() {
            Ok(None) => Ok(waiting),
            Ok(Some(error)) => Err(error),
            Err(_) => {
                let broken = io::Error::other("the thread for reads broke down");
                Err(DiskError::Unavailable { reason: broken.to_string() })
            }
        }
    }

    /// Gives the thread its work.
    pub(super) fn begin(mut self, work: Work) {
        // If the thread has broken down, so have its queue and its runner.
        let _ = self.work.take().map(|sender| sender.send(work));
        self.thread = None;
    }
}

impl Drop for ReadThread {
    fn drop(&mut self) {
        self.work = None;
        // Its descriptors are closed once it has ended; if it has panicked, they are as well.
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}
