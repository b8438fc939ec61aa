//! The disk boundary: the only way from the cache to its file, and the only home of unsafe code.
//!
//! Two traits are all that the layers above see:
//!
//! - [`Disk`]: aligned reads and writes of one file, and `fdatasync`.
//! - [`TaskRunner`]: a thread on which the long-lived background futures run, with a timer.
//!
//! Each has two twins. [`FileDisk`], in `linux`, drives a real file. `SimulatedDisk` with
//! `Simulation` lies about durability, order and success, from a seed.
//!
//! What every `Disk` promises:
//!
//! 1. A future does nothing until polled, runs on any executor, never blocks a poll on the device
//!    and may be dropped at any await.
//! 2. The first poll submits the request. From then on it is carried out, whether or not a future
//!    is polled; an abandoned read may be skipped.
//! 3. A submitted request owns its buffer and its pin until the device is done with it, even if the
//!    future is dropped.
//! 4. A read yields exactly the requested bytes, or an error; a write is whole, or an error.
//! 5. Calls of callers' wakers are contained: a waker that panics or calls the cache again harms
//!    neither the request nor the ring.
//!
//! The callers above bound how many requests wait; a waiting request is small.
//!
//! Without the feature `disk`, and on other systems than Linux, there is no real file: `absent`
//! stands for it.
//!
//! This folder imports only the lowest layers of the crate: `wake`, `waiters`, `batch`, `meter`,
//! `thread_number`, `blocking`.

#![deny(unsafe_op_in_unsafe_fn)]
#![deny(clippy::undocumented_unsafe_blocks)]
#![deny(missing_docs)]

#[cfg(not(all(feature = "disk", target_os = "linux")))]
mod absent;
mod buffer;
#[cfg(all(feature = "disk", target_os = "linux"))]
mod contained;
mod error;
mod late;
#[cfg(all(feature = "disk", target_os = "linux"))]
mod linux;
mod mark;
mod options;
#[cfg(all(any(test, feature = "cli"), feature = "disk", target_os = "linux"))]
mod overlay;
#[cfg(all(feature = "disk", target_os = "linux"))]
mod reply;
#[cfg(any(test, feature = "simulation"))]
mod simulated;
#[cfg(any(test, feature = "simulation"))]
mod simulation;
mod status;
mod task_runner;

use std::any::Any;
use std::io;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};

#[cfg(not(all(feature = "disk", target_os = "linux")))]
pub(crate) use absent::{FileDisk, Termination, together};
#[cfg(not(all(feature = "disk", target_os = "linux")))]
pub(crate) use absent::{hold, is_surely_empty};
pub(crate) use buffer::{AlignedBuffer, BLOCK_BYTES};
pub(crate) use error::{DiskError, NoRoom};
pub(crate) use late::LateDisk;
#[cfg(all(feature = "disk", target_os = "linux"))]
pub(crate) use linux::{FileDisk, Termination, together};
#[cfg(all(any(test, feature = "cli"), feature = "disk", target_os = "linux"))]
pub(crate) use linux::{ReadDisk, StatusConnection, is_socket_left, owner_of};
#[cfg(all(feature = "disk", target_os = "linux"))]
pub(crate) use linux::{hold, is_surely_empty};
pub(crate) use mark::{FileMark, MarkLeft, MarkRequest, VoidMark};
pub(crate) use options::{DiskEngine, DiskOptions};
#[cfg(all(any(test, feature = "cli"), feature = "disk", target_os = "linux"))]
pub(crate) use overlay::{NoTasks, OverlayDisk};
#[cfg(test)]
pub(crate) use simulated::End;
#[cfg(any(test, feature = "simulation"))]
pub(crate) use simulated::{Fault, OperationKind, SimulatedDisk};
#[cfg(test)]
pub(crate) use simulation::Longest;
#[cfg(any(test, feature = "simulation"))]
pub(crate) use simulation::Simulation;
pub(crate) use status::StatusAnswers;
#[cfg(test)]
pub(crate) use task_runner::TaskEnd;
#[cfg(test)]
pub(crate) use task_runner::TaskOutcome;
pub(crate) use task_runner::TaskRunner;

/// The longest read or write, in bytes.
pub(crate) const REQUEST_BYTES_MAX: usize = 1 << 30;

/// Kept alive by a read until the device is done with it, such as a claim on a segment.
pub(crate) type RequestPin = Arc<dyn Any + Send + Sync>;

/// What came of asking for the lock of a store.
#[cfg_attr(
    not(all(feature = "disk", target_os = "linux")),
    allow(dead_code, reason = "a store that no cache can open is not asked for its lock")
)]
pub(crate) enum Held {
    /// It is held until this is dropped. Others may hold it in the same way.
    Locked(Box<dyn Any + Send>),
    /// There is no store.
    NoStore,
    /// This process may not ask, or it is no file.
    NotAsked,
    /// Another owner has it.
    InUse,
}

/// Blocks that a disk lends to others of its kind.
pub(crate) type LentBlocks = Arc<dyn Any + Send + Sync>;

/// One file, read and written in blocks of [`BLOCK_BYTES`].
///
/// Offsets and lengths must be multiples of [`BLOCK_BYTES`] and lie within the disk, else the
/// answer is [`io::ErrorKind::InvalidInput`].
pub(crate) trait Disk: Send + Sync + 'static {
    /// The length of the disk, in bytes.
    fn length(&self) -> u64;

    /// Makes the disk `length` bytes long, a multiple of [`BLOCK_BYTES`]. What is added reads as
    /// zeroes. It lasts once a sync that begins later is done. Nothing behind the present end or
    /// the new one may be read or written meanwhile. If it fails, the disk has its old length.
    ///
    /// Without room the error is of the kind [`io::ErrorKind::StorageFull`]; a real disk's
    /// contains a [`NoRoom`].
    fn resize(&self, length: u64) -> BoxFuture<'static, io::Result<()>>;

    /// The same for a disk that gets [shared](Self::share) blocks: room is looked for, and not
    /// reserved.
    fn resize_unreserved(&self, length: u64) -> BoxFuture<'static, io::Result<()>> {
        self.resize(length)
    }

    /// What another disk needs to share blocks of this one. To be held for no longer than that: a
    /// file stays open as long.
    fn lend(&self) -> BoxFuture<'static, io::Result<LentBlocks>> {
        ready(Err(io::ErrorKind::Unsupported.into())).boxed()
    }

    /// Makes the blocks of a span of another disk those of this one as well, from `offset` on,
    /// without copying them. What either disk writes there later is its own again. It lasts once a
    /// sync that begins later is done.
    ///
    /// If it fails, the blocks have what they had, or what the other disk has.
    fn share(
        &self,
        _blocks: LentBlocks,
        _span: ReadRequest,
        _offset: u64,
    ) -> BoxFuture<'static, io::Result<()>> {
        ready(Err(io::ErrorKind::Unsupported.into())).boxed()
    }

    /// Reads a span: exactly `request.length` bytes, or an error.
    ///
    /// The first poll puts the request into the queue, with its pin; it is carried out whichever
    /// future is polled. Dropping the future abandons the answer: a request that still waits is
    /// skipped, one that has begun continues. The pin lives until the device is done, and is
    /// dropped before the future resolves.
    fn read(&self, request: ReadRequest) -> BoxFuture<'static, io::Result<AlignedBuffer>>;

    /// Writes the whole buffer, and returns it.
    ///
    /// Dropping the future before it resolves leaves open whether the bytes are on the disk.
    /// If the disk breaks down under the request, the returned buffer is empty.
    fn write(
        &self,
        offset: u64,
        buffer: AlignedBuffer,
    ) -> BoxFuture<'static, (io::Result<()>, AlignedBuffer)>;

    /// Resolves once the writes and background reads that were requested before are under way. On
    /// the task runner's thread they are not as long as a task works: its ring goes to the kernel
    /// when the thread has nothing else to do. For work that is to be done meanwhile.
    fn begun(&self) -> BoxFuture<'static, ()>;

    /// Makes every write that has completed before this call durable (`fdatasync`).
    fn sync(&self) -> BoxFuture<'static, io::Result<()>>;

    /// Whether this process was forked from the one that owns the disk. It carries out no requests
    /// here.
    fn is_foreign(&self) -> bool {
        false
    }
}

/// Which queue a read goes through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// A caller waits for it: never behind long writes and syncs.
    #[default]
    Point,
    /// Recovery, reclaim and scans: shares the ring of the appends.
    Background,
}

/// An aligned span to read, and a pin that must outlive the read.
#[derive(Clone)]
pub(crate) struct ReadRequest {
    /// Where the span starts, in bytes; a multiple of [`BLOCK_BYTES`].
    pub(crate) offset: u64,
    /// How long it is, in bytes; a positive multiple of [`BLOCK_BYTES`].
    pub(crate) length: usize,
    /// Which queue it goes through.
    pub(crate) urgency: Urgency,
    /// Dropped once the device is done with the request, not when the future is dropped.
    pub(crate) pin: Option<RequestPin>,
}

impl ReadRequest {
    /// A point read of `length` bytes at `offset`, with no pin.
    pub(crate) fn new(offset: u64, length: usize) -> Self {
        Self { offset, length, urgency: Urgency::Point, pin: None }
    }

    /// Uses the queue of the background work.
    pub(crate) fn background(mut self) -> Self {
        self.urgency = Urgency::Background;
        self
    }

    /// Keeps `pin` alive until the device is done with the request.
    pub(crate) fn pinned(mut self, pin: RequestPin) -> Self {
        self.pin = Some(pin);
        self
    }
}

/// Refuses spans that are empty, unaligned, too long or outside a disk of `disk_bytes`.
fn check_span(offset: u64, length: usize, disk_bytes: u64) -> io::Result<()> {
    let block = BLOCK_BYTES as u64;
    let aligned = (offset % block == 0) && (length % BLOCK_BYTES == 0);
    let sized = length > 0 && length <= REQUEST_BYTES_MAX;
    let end = offset.checked_add(length as u64);
    if aligned && sized && end.is_some_and(|end| end <= disk_bytes) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("span of {length} bytes at {offset} does not fit a disk of {disk_bytes} bytes"),
    ))
}
