//! `FileDisk`: the disk on a real file, through several rings, or through pools of threads.
//!
//! Callers submit point reads by themselves, to rings ([`PointReads`]) or to a [`Pool`]. Long ones,
//! and those that these do not take or complete, go to a thread with a pump of its own
//! (`tamis-read`). Writes, syncs, background reads and the runner share another one
//! (`tamis-append`), so a long write or sync never delays a read. The first poll of a call submits
//! its request, or puts it into the queue of a thread; from then on it is carried out by itself.
//!
//! The threads end, and the file is closed and unlocked, once [`FileDisk::close`] is called or
//! the last handle is dropped, and all tasks of the runner and all requests have ended.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use tokio::sync::mpsc;

use super::boot::boot_id;
use super::closing;
use super::file::DataFile;
use super::limits::no_thread;
use super::origin::Origin;
use super::point::PointReads;
use super::pool::Pool;
use super::request::{Read, Request};
use super::resize::Room;
use super::server::Server;
use super::servers::{Servers, Work};
use super::status::{StatusSocket, tell_refused};
use super::task_server::TaskRunnerHandle;
use super::termination::{Alive, Termination, WhileAlive};
use crate::io::buffer::AlignedBuffer;
use crate::io::error::DiskError;
use crate::io::options::{DiskEngine, DiskOptions, FileFacts};
use crate::io::reply::{Reply, exchange};
use crate::io::task_runner::TaskRunner;
use crate::io::{Disk, LentBlocks, ReadRequest, StatusAnswers, Urgency, check_span};

/// A disk on a real file. Clones share it.
#[derive(Clone)]
pub(crate) struct FileDisk {
    shared: Arc<Shared>,
}

struct Shared {
    facts: FileFacts,
    length: AtomicU64,
    boot_id: [u8; 16],
    /// The process that has the threads; a forked child has none.
    origin: Origin,
    point_reads: Points,
    /// Why there are no rings.
    refusal: Option<String>,
    reads: mpsc::UnboundedSender<Request>,
    appends: mpsc::UnboundedSender<Request>,
    read_runner: TaskRunnerHandle,
    append_runner: TaskRunnerHandle,
    alive: WhileAlive,
    /// Set before a close looks for the status socket; looked at once there is one.
    is_closing: AtomicBool,
    status: OnceLock<StatusSocket>,
    termination: Termination,
}

/// Where callers submit point reads.
enum Points {
    Rings(PointReads),
    Threads(Arc<Pool>),
}

impl Points {
    fn submit(&self, read: Read) -> Result<(), Read> {
        match self {
            Self::Rings(rings) => rings.submit(read),
            Self::Threads(pool) => pool.submit(read),
        }
    }

    fn close(&self) {
        match self {
            Self::Rings(rings) => rings.close(),
            Self::Threads(pool) => pool.close_points(),
        }
    }
}

impl FileDisk {
    /// Opens the data file, or creates it, and starts the threads.
    ///
    /// All blocking work is done on the new threads. If the future is dropped half-way, the opening
    /// ends by itself and closes what it has opened.
    ///
    /// # Errors
    ///
    /// [`DiskError`]; the file is not touched if what is to transfer it is not available.
    pub(crate) async fn open(options: DiskOptions) -> Result<Self, DiskError> {
        let path = options.directory.clone();
        if options.bytes % crate::io::BLOCK_BYTES as u64 != 0 || options.bytes == 0 {
            let error = io::Error::from(io::ErrorKind::InvalidInput);
            return Err(DiskError::io("create, at that length,", &path, error));
        }
        let (ready, opened) = exchange();
        thread::Builder::new()
            .name("tamis-append".into())
            .spawn(move || append_thread(&options, ready))
            .map_err(|error| no_thread(&error).at(&path))?;
        let broken =
            || Err(DiskError::io("open", &path, io::Error::other("the opening thread broke down")));
        opened.await.unwrap_or_else(broken).map_err(|error| error.at(&path))
    }

    /// Facts about the data file.
    pub(crate) fn facts(&self) -> &FileFacts {
        &self.shared.facts
    }

    /// What transfers the file.
    pub(crate) fn engine(&self) -> DiskEngine {
        match self.shared.point_reads {
            Points::Rings(_) => DiskEngine::IoUring,
            Points::Threads(_) => DiskEngine::Threads,
        }
    }

    /// Why the kernel refused rings, if it was asked and did, and what would have to change.
    pub(crate) fn refusal(&self) -> Option<&str> {
        self.shared.refusal.as_deref()
    }

    /// The runner on the thread of the appends. It keeps that thread alive, not the other one.
    pub(crate) fn task_runner(&self) -> Arc<dyn TaskRunner> {
        Arc::new(self.shared.append_runner.clone())
    }

    /// The same on the thread for reads, for work that must not delay the appends.
    pub(crate) fn read_task_runner(&self) -> Arc<dyn TaskRunner> {
        Arc::new(self.shared.read_runner.clone())
    }

    /// Begins to close: refuses point reads and new tasks from now on. Running tasks and submitted
    /// requests run to their ends, and tasks can still write, sync and read in the background.
    /// [`Termination::wait`] resolves at the end. Opening the same store again waits for it.
    ///
    /// In a forked child it does nothing: there it has copies of locks that a thread may have held
    /// for ever.
    pub(crate) fn close(&self) -> Termination {
        if self.shared.is_foreign() {
            return self.termination();
        }
        self.shared.point_reads.close();
        self.shared.read_runner.close();
        self.shared.append_runner.close();
        self.shared.close_status();
        self.shared.note_closing();
        self.termination()
    }

    /// Opens a status socket beside the file, and answers its clients until the disk is closed.
    /// Resolves once they can connect, or cannot for good, which is logged; it needs no polls.
    pub(crate) fn serve_status(&self, answers: Weak<dyn StatusAnswers>) -> BoxFuture<'static, ()> {
        let shared = &self.shared;
        let Some(alive) = shared.alive.join().filter(|_| !shared.is_foreign()) else {
            return ready(()).boxed();
        };
        let directory = shared.facts.path.parent().unwrap_or(Path::new("."));
        match StatusSocket::start(directory, answers, alive) {
            Ok((socket, started)) => {
                // It may have been closed since.
                let _ = shared.status.set(socket);
                if shared.is_closing.load(Ordering::SeqCst) {
                    shared.close_status();
                }
                started.map(|_| ()).boxed()
            }
            Err(error) => {
                tell_refused(directory, &error);
                ready(()).boxed()
            }
        }
    }

    /// Memory of the clients of the status socket.
    pub(crate) fn status_bytes(&self) -> usize {
        self.shared.status.get().map_or(0, StatusSocket::bytes)
    }

    /// Identifies the current boot of the machine.
    pub(crate) fn boot_id(&self) -> [u8; 16] {
        self.shared.boot_id
    }

    /// Resolves once the threads have ended and the file is unlocked.
    pub(crate) fn termination(&self) -> Termination {
        self.shared.termination.clone()
    }

    /// Submits to a pump without the usual checks.
    #[cfg(test)]
    pub(super) fn queue(&self, urgency: Urgency) -> mpsc::UnboundedSender<Request> {
        self.shared.queue(urgency).clone()
    }

    /// Makes the disk behave as in a forked child, or normally again.
    #[cfg(test)]
    pub(crate) fn set_forked(&self, is_forked: bool) {
        self.shared.origin.set_here(!is_forked);
    }
}

impl Drop for Shared {
    /// The threads end by themselves, a moment later.
    fn drop(&mut self) {
        // A forked child has copies of locks that a thread may have held for ever.
        if !self.is_foreign() {
            self.point_reads.close();
            self.close_status();
        }
        self.note_closing();
    }
}

impl Shared {
    fn is_foreign(&self) -> bool {
        !self.origin.is_here()
    }

    fn note_closing(&self) {
        // A forked child would wait in vain.
        if !self.is_foreign() {
            closing::note(&self.facts.path, self.termination.clone());
        }
    }

    fn close_status(&self) {
        self.is_closing.store(true, Ordering::SeqCst);
        // Bounded: one.
        self.status.get().into_iter().for_each(StatusSocket::close);
    }

    fn queue(&self, urgency: Urgency) -> &mpsc::UnboundedSender<Request> {
        match urgency {
            Urgency::Point => &self.reads,
            Urgency::Background => &self.appends,
        }
    }

    /// Submits a read, or puts it into a queue.
    fn begin_read(&self, urgency: Urgency, read: Read) -> io::Result<()> {
        let rest = match urgency {
            Urgency::Point if !self.is_foreign() => self.point_reads.submit(read),
            _ => Err(read),
        };
        match rest {
            Ok(()) => Ok(()),
            Err(read) => self.hand_over(urgency, Request::Read(read)).map_err(|(error, _)| error),
        }
    }

    async fn resize(self: Arc<Self>, length: u64, room: Room) -> io::Result<()> {
        self.ask(Urgency::Background, |reply| Request::Resize { length, room, reply }).await?;
        self.length.store(length, Ordering::Release);
        Ok(())
    }

    /// Puts a request into a queue, and waits for its answer.
    async fn ask<T>(
        &self,
        urgency: Urgency,
        request: impl FnOnce(Reply<io::Result<T>>) -> Request,
    ) -> io::Result<T> {
        let (reply, answer) = exchange();
        self.hand_over(urgency, request(reply)).map_err(|(error, _)| error)?;
        answer.await.unwrap_or_else(|| Err(broken()))
    }

    /// Puts a request into a queue, or returns it with the reason for the refusal.
    fn hand_over(&self, urgency: Urgency, request: Request) -> Result<(), (io::Error, Request)> {
        if self.is_foreign() {
            let reason = "the disk belongs to the process that forked this one";
            return Err((io::Error::other(reason), request));
        }
        self.queue(urgency).send(request).map_err(|refused| (closed(), refused.0))
    }
}

impl Disk for FileDisk {
    fn length(&self) -> u64 {
        self.shared.length.load(Ordering::Acquire)
    }

    fn resize(&self, length: u64) -> BoxFuture<'static, io::Result<()>> {
        Arc::clone(&self.shared).resize(length, Room::Reserved).boxed()
    }

    fn resize_unreserved(&self, length: u64) -> BoxFuture<'static, io::Result<()>> {
        Arc::clone(&self.shared).resize(length, Room::Seen).boxed()
    }

    fn lend(&self) -> BoxFuture<'static, io::Result<LentBlocks>> {
        let shared = Arc::clone(&self.shared);
        async move {
            let lent = shared.ask(Urgency::Point, |reply| Request::Lend { reply }).await?;
            Ok(Arc::new(lent) as LentBlocks)
        }
        .boxed()
    }

    fn share(
        &self,
        blocks: LentBlocks,
        span: ReadRequest,
        offset: u64,
    ) -> BoxFuture<'static, io::Result<()>> {
        let shared = Arc::clone(&self.shared);
        async move {
            let source = blocks.downcast::<File>();
            let source = source.map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
            let request = |reply| Request::Share { source, span, offset, reply };
            shared.ask(Urgency::Background, request).await
        }
        .boxed()
    }

    fn is_foreign(&self) -> bool {
        self.shared.is_foreign()
    }

    fn read(&self, request: ReadRequest) -> BoxFuture<'static, io::Result<AlignedBuffer>> {
        let shared = Arc::clone(&self.shared);
        async move {
            let ReadRequest { offset, length, urgency, pin } = request;
            check_span(offset, length, shared.length.load(Ordering::Acquire))?;
            let (reply, answer) = exchange();
            shared.begin_read(urgency, Read { offset, length, pin, reply })?;
            // The disk may be closed while a caller sleeps.
            drop(shared);
            answer.await.unwrap_or_else(|| Err(broken()))
        }
        .boxed()
    }

    fn write(
        &self,
        offset: u64,
        buffer: AlignedBuffer,
    ) -> BoxFuture<'static, (io::Result<()>, AlignedBuffer)> {
        let shared = Arc::clone(&self.shared);
        async move {
            if let Err(error) =
                check_span(offset, buffer.len(), shared.length.load(Ordering::Acquire))
            {
                return (Err(error), buffer);
            }
            let (reply, answer) = exchange();
            let request = Request::Write { offset, buffer, reply };
            match shared.hand_over(Urgency::Background, request) {
                Ok(()) => {}
                Err((error, Request::Write { buffer, .. })) => return (Err(error), buffer),
                Err((error, _)) => return (Err(error), AlignedBuffer::default()),
            }
            answer.await.unwrap_or_else(|| (Err(broken()), AlignedBuffer::default()))
        }
        .boxed()
    }

    fn begun(&self) -> BoxFuture<'static, ()> {
        let shared = Arc::clone(&self.shared);
        async move {
            let (reply, answer) = exchange();
            if shared.hand_over(Urgency::Background, Request::Begun { reply }).is_ok() {
                drop(shared);
                answer.await;
            }
        }
        .boxed()
    }

    fn sync(&self) -> BoxFuture<'static, io::Result<()>> {
        let shared = Arc::clone(&self.shared);
        async move {
            let request = |reply| Request::Sync { replies: vec![reply] };
            shared.ask(Urgency::Background, request).await
        }
        .boxed()
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the disk is closed")
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the disk broke down under the request")
}

/// The thread of the appends, which also opens the file and starts the other threads.
fn append_thread(options: &DiskOptions, ready: Reply<Result<FileDisk, DiskError>>) {
    closing::wait(&options.directory);
    let (alive, termination) = Alive::new();
    match start(options, &alive, termination) {
        Ok((disk, server, own)) => {
            // If no caller waits, the disk is dropped here, and the server ends at once.
            ready.send(Ok(disk));
            if !server.run("append", own.file, own.requests, own.runner) {
                alive.note_broken();
            }
        }
        Err(error) => {
            ready.send(Err(error));
        }
    }
    // Last of all, when the file is closed.
    drop(alive);
}

fn start(
    options: &DiskOptions,
    alive: &Alive,
    termination: Termination,
) -> Result<(FileDisk, Server, Work), DiskError> {
    // Everything that may be refused comes first, or a refused open would leave a file behind.
    let servers = Servers::start(options.engine, options.ring_entries.min(4096), alive)?;
    let data = DataFile::open(&options.directory, options.bytes, options.direct, &options.first)?;
    let duplicate = || {
        let file = data.file.try_clone();
        file.map_err(|error| DiskError::io("duplicate", &data.facts.path, error))
    };
    let (reads, read_requests) = mpsc::unbounded_channel();
    let (appends, append_requests) = mpsc::unbounded_channel();
    let (read_runner, read_server) = TaskRunnerHandle::new();
    let (append_runner, append_server) = TaskRunnerHandle::new();
    let read_work = Work { file: duplicate()?, requests: read_requests, runner: read_server };
    let append_work = Work { file: duplicate()?, requests: append_requests, runner: append_server };
    let point_reads = match servers.pools {
        Some(pools) => {
            let (append_file, read_file) = (duplicate()?, duplicate()?);
            pools.appends.begin(append_file, None);
            pools.reads.begin(read_file, Some(reads.clone()));
            // The pump goes on as long as this task, even after a close.
            let drained = pools.reads.points_drained().map(|_| ());
            drop(read_runner.spawn("watch over reads", drained.boxed()));
            Points::Threads(pools.reads)
        }
        None => {
            let (rings, runner) = (options.read_rings, read_runner.clone());
            Points::Rings(PointReads::new(&data.file, rings, runner, &reads))
        }
    };
    servers.read.begin(read_work);
    let facts = data.facts;
    alive.unlock_at_the_end(data.file);
    let shared = Shared {
        length: AtomicU64::new(facts.length),
        facts,
        boot_id: boot_id(),
        origin: Origin::new(),
        point_reads,
        refusal: servers.refusal,
        reads,
        appends,
        read_runner,
        append_runner,
        alive: alive.downgrade(),
        is_closing: AtomicBool::new(false),
        status: OnceLock::new(),
        termination,
    };
    Ok((FileDisk { shared: Arc::new(shared) }, servers.append, append_work))
}
