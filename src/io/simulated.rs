//! `SimulatedDisk`: the lying twin of a disk, in memory, every lie drawn from a seed.
//!
//! How it lies:
//!
//! - A request takes a random number of steps, so requests overtake one another. A write
//!   arrives sector by sector, in random order; a read that overlaps it may see any mixture.
//! - A completed write is visible to reads at once, and durable only after a sync that began
//!   after it. [`SimulatedDisk::crash`] keeps, loses or tears every sector that was not.
//! - [`SimulatedDisk::kill`] keeps what completed, and a part of what was in flight.
//! - So is a change of the length: it is there after a crash, or not.
//! - A sync that fails has dropped what it covers: no later one makes that durable.
//! - Requests fail, syncs do nothing, reads come back with a flipped bit, as the plan says.
//!
//! Like a ring, it owns a request from the first poll until the request is done, with its buffer
//! and its pin, whichever future is polled. Within a [`super::Simulation`] each request is a task.
//! Elsewhere it advances whenever any request of the disk is polled, or by
//! [`SimulatedDisk::complete_all`].
//!
//! Two disks with the same seed under the same sequence of polls behave alike;
//! [`super::Simulation`] makes that sequence repeatable. No thread, clock or randomness of the
//! system is involved.

// A simulated disk fits memory, so its places fit usize.
#![allow(clippy::cast_possible_truncation)]

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::buffer::AlignedBuffer;
use super::reply::exchange;
use super::simulation::{Dice, run_beside};
use super::{Disk, LentBlocks, ReadRequest, RequestPin, check_span};
use crate::wake::discard;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};

mod fault;
#[cfg(test)]
mod outcomes;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use fault::{Fault, FaultPlan, OperationKind};
#[cfg(test)]
pub(crate) use outcomes::End;
use state::{Answer, Countdown, DiskState, Done, SECTOR_BYTES, Step, Work, dead};

/// A disk in memory that loses, reorders, fails and flips, from a seed. Clones share it.
#[derive(Clone)]
pub(crate) struct SimulatedDisk {
    state: Arc<Mutex<DiskState>>,
}

impl SimulatedDisk {
    /// A disk of `bytes` zeroes, all durable.
    pub(crate) fn new(seed: u64, bytes: u64) -> Self {
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        Self::with_image(Dice::new(seed), FaultPlan::default(), vec![0; length])
    }

    fn with_image(dice: Dice, plan: FaultPlan, image: Vec<u8>) -> Self {
        let state = DiskState {
            dice,
            plan,
            held: Vec::new(),
            countdowns: Vec::new(),
            image,
            unsynced: BTreeMap::new(),
            resized: None,
            stamp: 0,
            operations: BTreeMap::new(),
            next_operation: 0,
            front_writes: 0,
            dead: false,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Changes what goes wrong by chance, from the next request on.
    pub(crate) fn plan(&self, change: impl FnOnce(&mut FaultPlan)) {
        let mut state = self.state();
        change(&mut state.plan);
        let held = if state.plan.holds_all { Vec::new() } else { std::mem::take(&mut state.held) };
        drop(state);
        held.into_iter().for_each(Waker::wake);
    }

    /// Fails the request of `kind` after the next `after` ones, and all later ones too if
    /// `lasting`.
    pub(crate) fn fail(&self, kind: OperationKind, after: u64, fault: Fault, lasting: bool) {
        self.state().countdowns.push(Countdown { kind, after, fault, lasting });
    }

    /// Ends all failures that were ordered with [`SimulatedDisk::fail`].
    pub(crate) fn heal(&self) {
        self.state().countdowns.clear();
    }

    /// Flips one bit on the disk, durably.
    ///
    /// # Panics
    ///
    /// When `offset` is beyond the disk.
    #[cfg(test)]
    pub(crate) fn flip_bit(&self, offset: u64, bit: u8) {
        let mut byte = self.snapshot(offset, 1);
        byte[0] ^= 1 << (bit % 8);
        self.overwrite(offset, &byte);
    }

    /// Overwrites bytes on the disk, durably.
    ///
    /// # Panics
    ///
    /// When the range is beyond the disk.
    pub(crate) fn overwrite(&self, offset: u64, bytes: &[u8]) {
        let mut state = self.state();
        let start = offset as usize;
        state.image[start..start + bytes.len()].copy_from_slice(bytes);
        if state.unsynced.is_empty() {
            return;
        }
        for (place, &byte) in (start..).zip(bytes) {
            if let Some(sector) = state.unsynced.get_mut(&((place / SECTOR_BYTES) as u64)) {
                sector.durable[place % SECTOR_BYTES] = byte;
                for (_, version) in &mut sector.versions {
                    version[place % SECTOR_BYTES] = byte;
                }
            }
        }
    }

    /// The bytes that reads see now.
    ///
    /// # Panics
    ///
    /// When the range is beyond the disk.
    pub(crate) fn snapshot(&self, offset: u64, length: usize) -> Vec<u8> {
        let start = offset as usize;
        self.state().image[start..start + length].to_vec()
    }

    /// The number of requests begun, and of writes to the first 8 KiB.
    #[cfg(test)]
    pub(crate) fn begun(&self) -> (u64, u64) {
        let state = self.state();
        (state.next_operation, state.front_writes)
    }

    /// The requests that are not done, including those of dropped futures.
    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> usize {
        self.state().operations.len()
    }

    /// Completes all requests, whether or not a caller waits for them.
    pub(crate) fn complete_all(&self) {
        while let Some(id) = self.first() {
            self.step(id);
        }
    }

    /// The disk as the next process finds it after a power loss. This one is dead from now on.
    ///
    /// Every sector that was not durable has its durable content or that of any write since, and
    /// may be torn between two of them.
    pub(crate) fn crash(&self) -> Self {
        // Operations without an answer are dropped when the lock is free.
        let _ended;
        let mut state = self.state();
        _ended = state.arrive_in_part();
        state.lose_resizing();
        let mut image = std::mem::take(&mut state.image);
        let unsynced = std::mem::take(&mut state.unsynced);
        for (sector, contents) in unsynced {
            let kept = contents.after_power_loss(&mut state.dice);
            let start = sector as usize * SECTOR_BYTES;
            image[start..start + SECTOR_BYTES].copy_from_slice(&kept);
        }
        Self::succeed(&mut state, image)
    }

    /// The disk as the next process finds it after this one was killed. This one is dead from now
    /// on.
    ///
    /// All completed writes are there, those in flight in part; undurable writes stay undurable.
    pub(crate) fn kill(&self) -> Self {
        let _ended;
        let mut state = self.state();
        _ended = state.arrive_in_part();
        let image = std::mem::take(&mut state.image);
        let unsynced = std::mem::take(&mut state.unsynced);
        let (resized, stamp) = (state.resized.take(), state.stamp);
        let next = Self::succeed(&mut state, image);
        let mut next_state = next.state();
        next_state.unsynced = unsynced;
        next_state.resized = resized;
        next_state.stamp = stamp;
        drop(next_state);
        next
    }

    /// The disk that the next process finds, with `image` and the same plan.
    fn succeed(state: &mut DiskState, image: Vec<u8>) -> Self {
        let dice = Dice::new(state.dice.next());
        Self::with_image(dice, state.plan.clone(), image)
    }

    fn state(&self) -> MutexGuard<'_, DiskState> {
        // A panic under the lock was a test's own; the state is still useful.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest request that is not done.
    fn first(&self) -> Option<u64> {
        self.state().operations.first_key_value().map(|(id, _)| *id)
    }

    /// Advances a request by one step, and answers it when it is done. True: it is done.
    fn step(&self, id: u64) -> bool {
        let stepped = self.state().step(id);
        match stepped {
            Step::Pending => false,
            Step::Gone => true,
            Step::Done(done) => {
                let Done { answer, reply, pin } = *done;
                discard(pin);
                reply.send(answer);
                true
            }
        }
    }

    /// Whether the device does not answer; then it wakes the request when it does again.
    fn is_held(&self, context: &Context<'_>) -> bool {
        let mut state = self.state();
        if state.plan.holds_all {
            state.held.push(context.waker().clone());
        }
        state.plan.holds_all
    }

    /// Submits `work`, and waits for the answer.
    async fn perform(self, kind: OperationKind, work: Work, pin: Option<RequestPin>) -> Answer {
        let (reply, mut answer) = exchange();
        let begun = self.state().begin(kind, work, pin, reply);
        let id = match begun {
            Ok(id) => id,
            Err(work) => return (Err(dead()), work.into_buffer()),
        };
        let gone = || (Err(dead()), AlignedBuffer::default());
        let device = self.clone();
        let carried_out = poll_fn(move |context| {
            // So that time passes meanwhile.
            if device.is_held(context) {
                return Poll::Pending;
            }
            if device.step(id) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        });
        if run_beside(carried_out.boxed()) {
            return answer.await.unwrap_or_else(gone);
        }
        poll_fn(|context| {
            if let Some(other) = self.first().filter(|&other| other != id) {
                self.step(other);
            }
            self.step(id);
            let polled = answer.poll_unpin(context);
            if polled.is_pending() {
                context.waker().wake_by_ref();
            }
            polled
        })
        .await
        .unwrap_or_else(gone)
    }
}

impl Disk for SimulatedDisk {
    fn length(&self) -> u64 {
        self.state().image.len() as u64
    }

    fn resize(&self, length: u64) -> BoxFuture<'static, io::Result<()>> {
        let disk = self.clone();
        async move {
            let work = Work::Resize { length: length as usize };
            disk.perform(OperationKind::Resize, work, None).await.0
        }
        .boxed()
    }

    fn lend(&self) -> BoxFuture<'static, io::Result<LentBlocks>> {
        ready(Ok(Arc::new(self.clone()) as LentBlocks)).boxed()
    }

    /// As a read of the other disk and a write: in no moment both.
    fn share(
        &self,
        blocks: LentBlocks,
        span: ReadRequest,
        offset: u64,
    ) -> BoxFuture<'static, io::Result<()>> {
        let disk = self.clone();
        async move {
            let source = blocks.downcast::<Self>().ok().filter(|_| disk.state().plan.shares);
            let source = source.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
            let shared = source.read(span.background()).await?;
            disk.write(offset, shared).await.0
        }
        .boxed()
    }

    fn read(&self, request: ReadRequest) -> BoxFuture<'static, io::Result<AlignedBuffer>> {
        let disk = self.clone();
        async move {
            let ReadRequest { offset, length, pin, .. } = request;
            check_span(offset, length, disk.length())?;
            let work = Work::Read { offset, length };
            let (result, buffer) = disk.perform(OperationKind::Read, work, pin).await;
            result.map(|()| buffer)
        }
        .boxed()
    }

    fn write(
        &self,
        offset: u64,
        buffer: AlignedBuffer,
    ) -> BoxFuture<'static, (io::Result<()>, AlignedBuffer)> {
        let disk = self.clone();
        async move {
            if let Err(error) = check_span(offset, buffer.len(), disk.length()) {
                return (Err(error), buffer);
            }
            let pending = (0..buffer.len() / SECTOR_BYTES).collect();
            let work = Work::Write { offset, buffer, pending };
            disk.perform(OperationKind::Write, work, None).await
        }
        .boxed()
    }

    fn begun(&self) -> BoxFuture<'static, ()> {
        std::future::ready(()).boxed()
    }

    fn sync(&self) -> BoxFuture<'static, io::Result<()>> {
        let disk = self.clone();
        async move {
            let work = Work::Sync { covers: 0, lost: false };
            disk.perform(OperationKind::Sync, work, None).await.0
        }
        .boxed()
    }
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        formatter
            .debug_struct("SimulatedDisk")
            .field("length", &state.image.len())
            .field("in_flight", &state.operations.len())
            .field("unsynced_sectors", &state.unsynced.len())
            .finish_non_exhaustive()
    }
}
