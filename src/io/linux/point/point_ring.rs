//! `PointRing`: a ring for point reads, and who reaps it.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::runtime::Id;
use tokio::sync::mpsc::UnboundedSender;

use super::super::request::{Read, Request};
use super::appointment::{Appointment, Place};
use super::bell::Bell;
use super::shared_ring::{Progress, SharedRing};
use super::trust::Trust;
use crate::meter;
use crate::wake::discard;

/// A ring, and who reaps it.
pub(super) struct PointRing {
    /// None once it is closed and nothing is in flight.
    ring: RwLock<Option<SharedRing>>,
    appointment: Appointment,
    trust: Arc<Trust>,
    /// The queue of the disk's thread.
    queue: UnboundedSender<Request>,
}

impl PointRing {
    /// What the ring cannot complete goes into `queue`.
    pub(super) fn new(
        ring: SharedRing,
        trust: Arc<Trust>,
        queue: UnboundedSender<Request>,
    ) -> Self {
        let ring = RwLock::new(Some(ring));
        Self { ring, appointment: Appointment::default(), trust, queue }
    }

    /// Appoints the reaper in `place`; true if there is none yet.
    pub(super) fn appoint(&self, place: Place) -> bool {
        self.appointment.appoint(place)
    }

    /// Notes that the reaper in `place` is at work. False if another one is in office: then it has
    /// ended, as far as appointments go.
    pub(super) fn serve(&self, place: Place) -> bool {
        self.appointment.serve(place)
    }

    /// Notes that the reaper in `place` has ended by itself. Its runtime is not asked for a while:
    /// it may have been shut down.
    pub(super) fn resign(&self, place: Place) {
        if let Some(runtime) = self.appointment.resign(place) {
            self.trust.withdraw(runtime);
        }
    }

    pub(super) fn submit(&self, read: Read, is_held: bool) -> Result<(), Read> {
        // The ring is freed only when no more reads are accepted.
        match self.ring.try_read().as_deref() {
            Some(Some(ring)) => ring.submit(read, is_held),
            _ => Err(read),
        }
    }

    /// Takes a completion and answers its caller; false if there is none.
    pub(super) fn reap(&self) -> bool {
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
    pub(super) fn relieve(&self) {
        if let Some(late) = self.appointment.relieve() {
            self.trust.withdraw(late);
        }
        // Bounded: by the reads in flight.
        while self.reap() {}
    }

    /// Refuses reads from now on.
    pub(super) fn close(&self) {
        if let Some(ring) = self.ring.read().as_ref() {
            ring.close();
            ring.bell().ring();
        }
    }

    /// Closes the ring and answers the reads in flight, because nobody is going to take their
    /// completions.
    pub(super) fn abandon(&self) {
        self.close();
        // Bounded: by the reads in flight.
        while self.reap() {}
        let abandoned = self.ring.read().as_ref().map(SharedRing::abandon);
        // Bounded: by the entries of one ring.
        for (reply, pin) in abandoned.into_iter().flatten() {
            discard(pin);
            drop(reply);
        }
    }

    /// Frees the ring if nothing is in flight. It does not wait for a caller within the kernel.
    pub(super) fn free(&self) -> bool {
        let Some(mut ring) = self.ring.try_write() else { return false };
        if ring.as_ref().is_some_and(|ring| ring.progress().in_flight > 0) {
            return false;
        }
        *ring = None;
        true
    }

    pub(super) fn progress(&self) -> Progress {
        self.ring.read().as_ref().map(SharedRing::progress).unwrap_or_default()
    }

    pub(super) fn flush(&self) {
        if let Some(ring) = self.ring.read().as_ref() {
            ring.flush();
        }
    }

    /// The bell of the ring, for another reaper. None if it is closed or descriptors have run out.
    pub(super) fn bell(&self) -> Option<Bell> {
        self.ring.read().as_ref()?.bell().duplicate().ok()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.ring.read().as_ref().is_none_or(SharedRing::is_closed)
    }

    /// Never appoints a reaper in that runtime again.
    pub(super) fn exclude(&self, runtime: Id) {
        self.trust.exclude(runtime);
    }
}
