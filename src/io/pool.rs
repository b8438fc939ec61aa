//! `Pool`: threads that read, write and sync by plain calls, where there is no ring.
//!
//! Each thread carries out one operation at a time, so a pool has as many threads as operations are
//! useful at once. An operation is a point read, which a caller submits by itself, or belongs to a
//! transfer of the [pump](super::pump). Invariants:
//!
//! - An operation owns its buffer, its pin and its reply until the call has returned, whatever
//!   becomes of the futures.
//! - Foreign code (wakers, pins) runs without the lock, and contained.
//! - The queue is bounded: point reads by [`POINTS_MAX`], the rest by the limit of the pump.
//! - Threads without work sleep. They end once the pump has ended, no point reads are accepted and
//!   the queue is empty; then the file is closed.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc::UnboundedSender;

use super::buffer::{AlignedBuffer, BufferPool};
use super::device::{Device, Transferred};
use super::error::DiskError;
use super::limits::no_thread;
use super::piece::{Piece, Split};
use super::reply::{Reply, exchange};
use super::request::{Read, Request};
use super::resize::resize;
use super::termination::Alive;
use super::transfer::PIECE_BYTES;
use crate::telemetry::tell;
use crate::wake::{contained, discard};

/// The most point reads that wait in the queue. Further ones wait in that of the pump.
const POINTS_MAX: usize = 1024;

/// One call of the kernel.
enum Operation {
    Point(Read),
    Read { piece: Piece, offset: u64, reply: Reply<Transferred> },
    Write { piece: Piece, offset: u64, reply: Reply<Transferred> },
    Sync { reply: Reply<io::Result<()>> },
}

/// What the threads work on.
struct Target {
    file: File,
    /// Where point reads go that end short or with an error.
    rest: Option<UnboundedSender<Request>>,
}

/// Threads, and the operations that wait for them.
pub(super) struct Pool {
    state: Mutex<State>,
    /// Rung for one thread when there is an operation, for all when no more may come.
    wanted: Condvar,
    buffers: Arc<BufferPool>,
}

struct State {
    operations: VecDeque<Operation>,
    /// Those of them that are point reads.
    points: usize,
    takes_points: bool,
    has_pump: bool,
    /// None before the file is open, and after the end.
    target: Option<Arc<Target>>,
}

/// The right to give a pool operations, but point reads. Dropping it ends the pool, once the queue
/// is empty.
pub(super) struct PoolUser(Arc<Pool>);

impl PoolUser {
    /// Starts `count` threads. They take point reads as well if `takes_points`.
    ///
    /// # Errors
    ///
    /// `Unavailable` if one of them cannot be started; the others end.
    pub(super) fn start(
        name: &str,
        count: usize,
        takes_points: bool,
        alive: &Alive,
    ) -> Result<Self, DiskError> {
        let (operations, target) = (VecDeque::new(), None);
        let state = State { operations, points: 0, takes_points, has_pump: true, target };
        let (state, wanted) = (Mutex::new(state), Condvar::new());
        let user = Self(Arc::new(Pool { state, wanted, buffers: Arc::default() }));
        // Bounded: by the number of threads.
        for _ in 0..count {
            let (pool, alive) = (Arc::clone(&user.0), alive.clone());
            let work = move || {
                pool.work();
                drop(pool);
                // Last of all, when the file is closed.
                drop(alive);
            };
            let started = thread::Builder::new().name(name.into()).spawn(work);
            started.map_err(|error| no_thread(&error))?;
        }
        Ok(user)
    }

    /// For the point reads of callers.
    pub(super) fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.0)
    }
}

impl Drop for PoolUser {
    fn drop(&mut self) {
        self.0.state.lock().has_pump = false;
        self.0.close_points();
    }
}

impl Pool {
    /// Gives the threads their file, before anything else. Point reads that end short or with an
    /// error go into `rest`.
    pub(super) fn begin(&self, file: File, rest: Option<UnboundedSender<Request>>) {
        self.state.lock().target = Some(Arc::new(Target { file, rest }));
    }

    /// Submits a point read, or returns it.
    pub(super) fn submit(&self, read: Read) -> Result<(), Read> {
        let mut state = self.state.lock();
        if read.length > PIECE_BYTES || !state.takes_points || state.points == POINTS_MAX {
            return Err(read);
        }
        state.points += 1;
        state.operations.push_back(Operation::Point(read));
        drop(state);
        self.wanted.notify_one();
        Ok(())
    }

    /// Refuses point reads from now on. Those in the queue are carried out.
    pub(super) fn close_points(&self) {
        self.state.lock().takes_points = false;
        self.wanted.notify_all();
    }

    /// Has an operation carried out. None if a thread has panicked under it.
    async fn carry_out<T>(&self, operation: impl FnOnce(Reply<T>) -> Operation) -> Option<T> {
        let (reply, answer) = exchange();
        self.state.lock().operations.push_back(operation(reply));
        self.wanted.notify_one();
        answer.await
    }

    /// The work of a thread, from its start to its end.
    fn work(&self) {
        // Bounded: an operation in each turn.
        while let Some((operation, target)) = self.next() {
            if contained(|| self.serve(operation, &target)).is_none() {
                tell!(error, "io", "an operation of the disk panicked");
            }
        }
    }

    /// Waits for an operation. None: there are no more.
    fn next(&self) -> Option<(Operation, Arc<Target>)> {
        let mut state = self.state.lock();
        // Bounded: a wait in each turn.
        loop {
            if let Some(operation) = state.operations.pop_front() {
                state.points -= usize::from(matches!(operation, Operation::Point(_)));
                return Some((operation, Arc::clone(state.target.as_ref()?)));
            }
            if !state.has_pump && !state.takes_points {
                let target = state.target.take();
                drop(state);
                drop(target);
                return None;
            }
            self.wanted.wait(&mut state);
        }
    }

    fn serve(&self, operation: Operation, target: &Target) {
        match operation {
            Operation::Point(read) => self.serve_point(read, target),
            Operation::Read { mut piece, offset, reply } => {
                let result = fill(&target.file, &mut piece, offset);
                reply.send((result, piece));
            }
            Operation::Write { piece, offset, reply } => {
                let result = drain(&target.file, &piece, offset);
                reply.send((result, piece));
            }
            Operation::Sync { reply } => reply.send(sync(&target.file)),
        }
    }

    fn serve_point(&self, read: Read, target: &Target) {
        if read.reply.is_abandoned() {
            discard(read.pin);
            return;
        }
        match self.buffers.buffer(read.length) {
            Ok(buffer) => match read_whole(&target.file, buffer, &read) {
                Some(buffer) => {
                    discard(read.pin);
                    read.reply.send(Ok(buffer));
                }
                // The pump knows about short transfers, retries and errors.
                None => drop(target.rest.as_ref().map(|rest| rest.send(Request::Read(read)))),
            },
            Err(error) => {
                discard(read.pin);
                read.reply.send(Err(error));
            }
        }
    }
}

/// The whole span of a read, by one call.
fn read_whole(file: &File, buffer: AlignedBuffer, read: &Read) -> Option<AlignedBuffer> {
    let mut split = Split::new(buffer, read.length);
    let (_, mut piece) = split.next_piece(read.length)?;
    let count = fill(file, &mut piece, read.offset).ok()?;
    piece.advance(count);
    split.give_back(piece);
    split.join().filter(|buffer| buffer.len() == read.length)
}

fn fill(file: &File, piece: &mut Piece, offset: u64) -> io::Result<usize> {
    piece.fill(|bytes| {
        let (filled, _) = rustix::io::pread(file, bytes, offset)?;
        Ok(filled.len())
    })
}

fn drain(file: &File, piece: &Piece, offset: u64) -> io::Result<usize> {
    Ok(rustix::io::pwrite(file, piece.rest(), offset)?)
}

fn sync(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fdatasync(file)?)
}

/// A file whose operations are carried out by a pool.
pub(super) struct PooledFile {
    /// For what is carried out on the thread of the pump.
    pub(super) file: File,
    pub(super) user: PoolUser,
}

impl PooledFile {
    /// The answer of a transfer. Without one the transfer ends, and its caller hears of it.
    fn answered(answer: Option<Transferred>) -> Transferred {
        answer.expect("a thread answers each operation")
    }
}

impl Device for PooledFile {
    async fn read(&self, piece: Piece, offset: u64) -> Transferred {
        let operation = |reply| Operation::Read { piece, offset, reply };
        Self::answered(self.user.0.carry_out(operation).await)
    }

    async fn write(&self, piece: Piece, offset: u64) -> Transferred {
        let operation = |reply| Operation::Write { piece, offset, reply };
        Self::answered(self.user.0.carry_out(operation).await)
    }

    async fn sync(&self) -> io::Result<()> {
        let done = self.user.0.carry_out(|reply| Operation::Sync { reply }).await;
        done.unwrap_or_else(|| Err(io::Error::other("a thread of the disk panicked")))
    }

    /// They are in the queue.
    async fn begun(&self) {}

    fn resize(&self, length: u64) -> io::Result<()> {
        resize(&self.file, length)
    }

    fn read_here(&self, piece: &mut Piece, offset: u64) -> io::Result<usize> {
        fill(&self.file, piece, offset)
    }

    fn write_here(&self, piece: &Piece, offset: u64) -> io::Result<usize> {
        drain(&self.file, piece, offset)
    }

    fn sync_here(&self) -> io::Result<()> {
        sync(&self.file)
    }
}
