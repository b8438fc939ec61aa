//! `PointReads`: submits point reads to the rings.

use std::fs::File;
use std::io;
use std::sync::Arc;

use futures::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;

use super::super::request::{Read, Request};
use super::super::task_server::TaskRunnerHandle;
use super::super::transfer::PIECE_BYTES;
use super::appointment::Place;
use super::point_ring::PointRing;
use super::reaper;
use super::shared_ring::SharedRing;
use super::together;
use super::trust::Trust;
use super::watch::{self, Watch};
use crate::io::task_runner::TaskRunner;
use crate::telemetry::tell;
use crate::thread_number::thread_number;

/// Reads in flight on one ring.
const RING_ENTRIES: u16 = 256;

/// Submits point reads.
pub(in crate::io) struct PointReads {
    rings: Arc<[Arc<PointRing>]>,
    watch: Arc<Watch>,
    trust: Arc<Trust>,
    /// The disk's thread.
    thread: TaskRunnerHandle,
}

impl PointReads {
    /// So many rings for reads of `file`, or as many as the kernel grants; the watch begins on
    /// `thread`. What the rings do not take is to be put into `queue`.
    pub(in crate::io) fn new(
        file: &File,
        count: usize,
        thread: TaskRunnerHandle,
        queue: &UnboundedSender<Request>,
    ) -> Self {
        let trust = Arc::<Trust>::default();
        let ring = |ring| Arc::new(PointRing::new(ring, Arc::clone(&trust), queue.clone()));
        let granted = (0..count).map_while(|_| {
            let granted = SharedRing::new(file, RING_ENTRIES);
            let refused = |error: &io::Error| {
                tell!(info, "io", %error, "a ring for reads is refused, other rings do its work");
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
    pub(in crate::io) fn submit(&self, mut read: Read) -> Result<(), Read> {
        if read.length > PIECE_BYTES || self.rings.is_empty() {
            return Err(read);
        }
        let (first, is_held) = (thread_number(), together::is_holding());
        // Bounded: by a constant.
        for turn in 0..self.rings.len().min(2) {
            let ring = &self.rings[(first + turn) % self.rings.len()];
            match ring.submit(read, is_held) {
                Ok(()) => {
                    if is_held {
                        together::hold(ring);
                    }
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
        if !ring.appoint(place) {
            return;
        }
        let reaper = reaper::reap(Arc::clone(ring), place);
        match runtime {
            Some(runtime) => drop(runtime.spawn(reaper)),
            None => drop(self.thread.spawn("reaper", reaper.boxed())),
        }
    }

    /// Refuses reads from now on. Those in flight run to their ends; then the rings are freed.
    pub(in crate::io) fn close(&self) {
        // Bounded: by the rings.
        self.rings.iter().for_each(|ring| ring.close());
        self.watch.close();
    }
}
