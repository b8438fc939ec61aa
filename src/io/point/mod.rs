//! Point reads: the reads that callers wait for, submitted by the callers themselves.
//!
//! The first poll of a read submits it to a [`SharedRing`], without another thread. There are as
//! many rings as cores, and a thread prefers one of them, so threads seldom share. The completion
//! is taken by the ring's [reaper], a task in the runtime of a caller, and the [watch] on the
//! disk's thread takes what no reaper takes in time. What a ring has no room for, and what ends
//! short or with an error, is carried out by the disk's thread, which has a ring of its own.

mod bell;
mod reaper;
mod shared_ring;
mod trust;
mod watch;

use std::fs::File;
use std::io;
use std::sync::Arc;

use futures::FutureExt;
use parking_lot::RwLock;
use tokio::runtime::{Handle, Id};
use tokio::sync::mpsc::UnboundedSender;

use self::bell::Bell;
use self::reaper::{Appointment, Place};
use self::shared_ring::{Progress, SharedRing};
use self::trust::Trust;
use self::watch::Watch;
use super::request::{Read, Request};
use super::task_runner::{TaskRunner, TaskRunnerHandle};
use super::transfer::PIECE_BYTES;
use crate::meter;
use crate::thread_number::thread_number;
use crate::wake::discard;

/// Reads in flight on one ring.
const RING_ENTRIES: u16 = 256;

/// Submits point reads. Dropping it closes the rings.
pub(super) struct PointReads {
    rings: Arc<[Arc<PointRing>]>,
    watch: Arc<Watch>,
    trust: Arc<Trust>,
    /// The disk's thread.
    thread: TaskRunnerHandle,
}

/// A ring, and who reaps it.
struct PointRing {
    /// None once it is closed and nothing is in flight.
    ring: RwLock<Option<SharedRing>>,
    appointment: Appointment,
    trust: Arc<Trust>,
    /// The queue of the disk's thread.
    queue: UnboundedSender<Request>,
}

impl PointReads {
    /// So many rings for reads of `file`, or as many as the kernel grants; the watch begins on
    /// `thread`. What the rings do not take is to be put into `queue`.
    pub(super) fn new(
        file: &File,
        count: usize,
        thread: TaskRunnerHandle,
        queue: &UnboundedSender<Request>,
    ) -> Self {
        let trust = Arc::<Trust>::default();
        let ring = |ring| {
            let (trust, queue) = (Arc::clone(&trust), queue.clone());
            Arc::new(PointRing {
                ring: RwLock::new(Some(ring)),
                appointment: Appointment::default(),
                trust,
                queue,
            })
        };
        let granted = (0..count).map_while(|_| {
            let granted = SharedRing::new(file, RING_ENTRIES);
            let refused = |error: &io::Error| {
                log::info!("a ring for reads is refused, other rings do its work: {error}");
            };
            granted.inspect_err(refused).ok()
        });
        // Bounded: by their number in the options.
        let rings: Arc<[_]> = granted.map(ring).collect();
        let watch = Arc::<Watch>::default();
        let task = watch::watch(Arc::clone(&rings), Arc::clone(&watch));
        drop(thread.spawn("watch over reads", task.boxed()));
        Self { rings, watch, trust, thread }
    }

    /// Submits a read, or returns it.
    pub(super) fn submit(&self, mut read: Read) -> Result<(), Read> {
        if read.length > PIECE_BYTES || self.rings.is_empty() {
            return Err(read);
        }
        let first = thread_number();
        // Bounded: by a constant.
        for turn in 0..self.rings.len().min(2) {
            let ring = &self.rings[(first + turn) % self.rings.len()];
            match ring.submit(read) {
                Ok(()) => {
                    self.appoint(ring);
                    self.watch.call();
                    return Ok(());
                }
                Err(refused) => read = refused,
            }
        }
        Err(read)
    }

    /// Makes the runtime of this caller reap the ring.
    fn appoint(&self, ring: &Arc<PointRing>) {
        let runtime = Handle::try_current().ok().filter(|runtime| self.trust.trusts(runtime.id()));
        let place = runtime.as_ref().map_or(Place::Thread, |runtime| Place::Runtime(runtime.id()));
        let Some(term) = ring.appointment.appoint(place) else { return };
        let reaper = reaper::reap(Arc::clone(ring), term);
        match runtime {
            Some(runtime) => drop(runtime.spawn(reaper)),
            None => drop(self.thread.spawn("reaper", reaper.boxed())),
        }
    }

    /// Refuses reads from now on. Those in flight run to their ends; then the rings are freed.
    pub(super) fn close(&self) {
        // Bounded: by the rings.
        self.rings.iter().for_each(|ring| ring.close());
        self.watch.close();
    }
}

impl Drop for PointReads {
    fn drop(&mut self) {
        self.close();
    }
}

impl PointRing {
    fn submit(&self, read: Read) -> Result<(), Read> {
        // The ring is freed only when no more reads are accepted.
        match self.ring.try_read().as_deref() {
            Some(Some(ring)) => ring.submit(read),
            _ => Err(read),
        }
    }

    /// Takes a completion and answers its caller; false if there is none.
    fn reap(&self) -> bool {
        let completed = self.ring.read().as_ref().and_then(SharedRing::reap);
        let Some((in_flight, result)) = completed else { return false };
        meter::entries(1);
        match in_flight.outcome(result) {
            (read, Some(buffer)) => {
                discard(read.pin);
                read.reply.send(Ok(buffer));
            }
            // The thread knows about short transfers, retries and errors.
            (read, None) => drop(self.queue.send(Request::Read(read))),
        }
        true
    }

    /// Takes all completions, because the reaper is late.
    fn relieve(&self) {
        if let Some(late) = self.appointment.relieve() {
            self.trust.withdraw(late);
        }
        // Bounded: by the reads in flight.
        while self.reap() {}
    }

    fn close(&self) {
        if let Some(ring) = self.ring.read().as_ref() {
            ring.close();
            ring.bell().ring();
        }
    }

    /// Frees the ring if nothing is in flight.
    fn free(&self) -> bool {
        let mut ring = self.ring.write();
        if ring.as_ref().is_some_and(|ring| ring.progress().in_flight > 0) {
            return false;
        }
        *ring = None;
        true
    }

    fn progress(&self) -> Progress {
        self.ring.read().as_ref().map(SharedRing::progress).unwrap_or_default()
    }

    fn flush(&self) {
        if let Some(ring) = self.ring.read().as_ref() {
            ring.flush();
        }
    }

    /// The bell of the ring, for another reaper. None if it is closed or descriptors have run out.
    fn bell(&self) -> Option<Bell> {
        self.ring.read().as_ref()?.bell().duplicate().ok()
    }

    fn is_closed(&self) -> bool {
        self.ring.read().as_ref().is_none_or(SharedRing::is_closed)
    }

    /// Never appoints a reaper in that runtime again.
    fn exclude(&self, runtime: Id) {
        self.trust.exclude(runtime);
    }
}
