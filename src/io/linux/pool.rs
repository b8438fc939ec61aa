//! `Pool`: threads that read, write and sync by plain calls, where there is no ring.
//!
//! Each thread carries out one operation at a time, so a pool has as many threads as operations are
//! useful at once. An operation is a point read, which a caller submits by itself, or belongs to a
//! transfer of the [pump](super::pump). Invariants:
//!
//! - An operation owns its buffer, its pin and its reply until the call has returned, whatever
//!   becomes of the futures.
//! - Foreign code (wakers, pins) runs without the lock, and contained.
//! - Callers never wait for the lock of the queues. If it is taken, their reads go to the pump.
//! - Writes and syncs go before background reads. What the pump of the point reads asks for goes
//!   before these; its limit leaves half of the threads to them. So neither kind starves.
//! - The queues are bounded: point reads by the permits of callers for their memory, the rest by
//!   the limit of the pump.
//! - While a point read is under way the pump goes on, which completes it if it ends short.
//! - Threads without work sleep. They end once the pump has ended, no point reads are accepted and
//!   the queues are empty; then the file is closed.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc::UnboundedSender;

use super::device::{Device, Transferred};
use super::limits::no_thread;
use super::piece::{Piece, Split};
use super::request::{Read, Request};
use super::resize::{Room, resize};
use super::share::share;
use super::termination::Alive;
use crate::batch::BATCH_BYTES;
use crate::io::buffer::{AlignedBuffer, BufferPool};
use crate::io::error::DiskError;
use crate::io::reply::{Answer, Reply, exchange};
use crate::monitor::{Monitor, MonitorGuard};
use crate::telemetry::tell;
use crate::wake::{contained, discard};

/// Room for so many waiting reads is there from the start, so the queue hardly ever grows under its
/// lock.
const QUEUE_ENTRIES: usize = 1024;

/// Tries to take the lock before the caller goes elsewhere.
const TRIES: usize = 64;

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
    /// Wakes one thread when there is an operation, all when no more may come.
    state: Monitor<State>,
    buffers: Arc<BufferPool>,
    /// Whether callers submit point reads; else reads are background work.
    is_for_points: bool,
}

struct State {
    first: VecDeque<Operation>,
    /// For threads that find nothing in `first`.
    later: VecDeque<Operation>,
    /// Point reads that wait or are under way.
    points: usize,
    takes_points: bool,
    /// Dropped when no point read is under way and none may come.
    until_drained: Option<Reply<()>>,
    has_pump: bool,
    /// None before the file is open, and after the end.
    target: Option<Arc<Target>>,
}

/// The right to give a pool operations, but point reads. Dropping it ends the pool, once the queue
/// is empty. If they had no file, its threads have ended by then.
pub(super) struct PoolUser {
    pool: Arc<Pool>,
    threads: Vec<JoinHandle<()>>,
}

impl PoolUser {
    /// Starts `count` threads. They take point reads as well if `is_for_points`.
    ///
    /// # Errors
    ///
    /// `Unavailable` if one of them cannot be started; the others have ended.
    pub(super) fn start(
        name: &str,
        count: usize,
        is_for_points: bool,
        alive: &Alive,
    ) -> Result<Self, DiskError> {
        let state = State {
            first: VecDeque::new(),
            later: VecDeque::with_capacity(if is_for_points { QUEUE_ENTRIES } else { 0 }),
            points: 0,
            takes_points: is_for_points,
            until_drained: None,
            has_pump: true,
            target: None,
        };
        let state = Monitor::new(state);
        let pool = Pool { state, buffers: Arc::default(), is_for_points };
        let mut user = Self { pool: Arc::new(pool), threads: Vec::with_capacity(count) };
        // Bounded: by the number of threads.
        for _ in 0..count {
            let (pool, alive) = (Arc::clone(&user.pool), alive.clone());
            let work = move || {
                pool.work();
                drop(pool);
                // Last of all, when the file is closed.
                drop(alive);
            };
            let started = thread::Builder::new().name(name.into()).spawn(work);
            user.threads.push(started.map_err(|error| no_thread(&error))?);
        }
        Ok(user)
    }

    /// For the point reads of callers.
    pub(super) fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.pool)
    }
}

impl Drop for PoolUser {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        state.has_pump = false;
        let had_no_file = state.target.is_none();
        drop(state);
        self.pool.close_points();
        // Bounded: by the number of threads.
        for thread in self.threads.drain(..).filter(|_| had_no_file) {
            // They were idle, and nothing is left of an open that fails.
            let _ = thread.join();
        }
    }
}

impl Pool {
    /// Gives the threads their file, before anything else. Point reads that end short or with an
    /// error go into `rest`.
    pub(super) fn begin(&self, file: File, rest: Option<UnboundedSender<Request>>) {
        self.state.lock().target = Some(Arc::new(Target { file, rest }));
    }

    /// Submits a point read, or returns it if it is long, another thread is holding the lock for
    /// long, or none are accepted any more.
    pub(super) fn submit(&self, read: Read) -> Result<(), Read> {
        if read.length > BATCH_BYTES {
            return Err(read);
        }
        let Some(mut state) = self.try_lock() else { return Err(read) };
        if !state.takes_points {
            return Err(read);
        }
        state.points += 1;
        state.later.push_back(Operation::Point(read));
        drop(state);
        self.state.wake_one();
        Ok(())
    }

    fn try_lock(&self) -> Option<MonitorGuard<'_, State>> {
        // Bounded: by the tries.
        for _ in 0..TRIES {
            if let Some(state) = self.state.try_lock() {
                return Some(state);
            }
            std::hint::spin_loop();
        }
        None
    }

    /// Refuses point reads from now on. Those in the queue are carried out.
    pub(super) fn close_points(&self) {
        let mut state = self.state.lock();
        state.takes_points = false;
        let drained = state.drained();
        drop(state);
        drop(drained);
        self.state.wake_all();
    }

    /// Resolves once no point read is under way and none may come. To be asked for once.
    pub(super) fn points_drained(&self) -> Answer<()> {
        let (reply, answer) = exchange();
        let mut state = self.state.lock();
        state.until_drained = Some(reply);
        let drained = state.drained();
        drop(state);
        drop(drained);
        answer
    }

    /// Has an operation carried out. None if a thread has panicked under it.
    async fn carry_out<T>(&self, operation: impl FnOnce(Reply<T>) -> Operation) -> Option<T> {
        let (reply, answer) = exchange();
        self.put_in(operation(reply));
        answer.await
    }

    fn put_in(&self, operation: Operation) {
        let is_urgent = self.is_for_points || !matches!(operation, Operation::Read { .. });
        let mut state = self.state.lock();
        let queue = if is_urgent { &mut state.first } else { &mut state.later };
        queue.push_back(operation);
        drop(state);
        self.state.wake_one();
    }

    /// The work of a thread, from its start to its end.
    fn work(&self) {
        let mut was_point = false;
        // Bounded: an operation in each turn.
        while let Some((operation, target)) = self.next(was_point) {
            was_point = matches!(operation, Operation::Point(_));
            if contained(|| self.serve(operation, &target)).is_none() {
                tell!(error, "io", "an operation of the disk panicked");
            }
        }
    }

    /// Waits for an operation, after one that was a point read or not. None: there are no more.
    fn next(&self, was_point: bool) -> Option<(Operation, Arc<Target>)> {
        let mut state = self.state.lock();
        state.points -= usize::from(was_point);
        let drained = state.drained();
        if drained.is_some() {
            (state, ()) = state.unlocked(|| drop(drained));
        }
        // Bounded: a wait in each turn.
        loop {
            let first = state.first.pop_front();
            if let Some(operation) = first.or_else(|| state.later.pop_front()) {
                return Some((operation, Arc::clone(state.target.as_ref()?)));
            }
            if !state.has_pump && !state.takes_points {
                let target = state.target.take();
                drop(state);
                drop(target);
                return None;
            }
            state = state.wait();
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

impl State {
    /// What to drop, without the lock, if no point read is under way and none may come.
    fn drained(&mut self) -> Option<Reply<()>> {
        if self.takes_points || self.points > 0 { None } else { self.until_drained.take() }
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
        Self::answered(self.user.pool.carry_out(operation).await)
    }

    async fn write(&self, piece: Piece, offset: u64) -> Transferred {
        let operation = |reply| Operation::Write { piece, offset, reply };
        Self::answered(self.user.pool.carry_out(operation).await)
    }

    async fn sync(&self) -> io::Result<()> {
        let done = self.user.pool.carry_out(|reply| Operation::Sync { reply }).await;
        done.unwrap_or_else(|| Err(io::Error::other("a thread of the disk panicked")))
    }

    /// They are in the queue.
    async fn begun(&self) {}

    fn resize(&self, length: u64, room: Room) -> io::Result<()> {
        resize(&self.file, length, room)
    }

    fn duplicate(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    fn share(&self, source: &File, span: (u64, u64), offset: u64) -> io::Result<()> {
        share(&self.file, source, span, offset)
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

#[cfg(test)]
mod tests;
