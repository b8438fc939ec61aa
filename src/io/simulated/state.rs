//! The state of a simulated disk: its sectors, and the operations under way.
//!
//! `image` is what reads see. A sector in `unsynced` also has its last durable content and all
//! versions written since, each with the stamp of its arrival; a sync makes durable what has
//! arrived up to the stamp at which it began. Operations advance by steps; a complete one
//! leaves `operations`.

// A simulated disk fits memory, so its places fit usize.
#![allow(clippy::cast_possible_truncation)]

use std::collections::BTreeMap;
use std::io;
use std::task::Waker;

use super::super::RequestPin;
use super::super::buffer::AlignedBuffer;
use super::super::reply::Reply;
use super::super::simulation::Dice;
use super::fault::{Fault, FaultPlan, OperationKind};

/// The unit in which writes are kept, lost and torn, in bytes.
pub(super) const SECTOR_BYTES: usize = 512;

/// The front of the disk.
const FRONT_BYTES: u64 = 8192;

/// In place of the stamp of a change that a failed sync has dropped: no sync covers it.
const DROPPED: u64 = u64::MAX;

pub(super) struct DiskState {
    pub(super) dice: Dice,
    pub(super) plan: FaultPlan,
    /// Requests that wait for the device to answer again.
    pub(super) held: Vec<Waker>,
    pub(super) countdowns: Vec<Countdown>,
    /// The bytes that reads see.
    pub(super) image: Vec<u8>,
    /// Sectors with contents that are not durable.
    pub(super) unsynced: BTreeMap<u64, Unsynced>,
    /// A change of the length that is not durable.
    pub(super) resized: Option<Resized>,
    /// Counts changes of sectors, to tell what a sync covers.
    pub(super) stamp: u64,
    pub(super) operations: BTreeMap<u64, Operation>,
    pub(super) next_operation: u64,
    /// The number of writes begun to the front of the disk, where its user keeps its own state.
    pub(super) front_writes: u64,
    /// Set by a crash or kill: the process that holds this disk has ended.
    pub(super) dead: bool,
}

/// A sector's durable content, and the later writes to it, oldest first.
pub(super) struct Unsynced {
    pub(super) durable: [u8; SECTOR_BYTES],
    pub(super) versions: Vec<(u64, [u8; SECTOR_BYTES])>,
}

/// What a disk has after a power loss that undoes a change of its length.
pub(super) struct Resized {
    /// Of the last change.
    stamp: u64,
    /// The part that no change has touched, and the bytes behind it.
    pub(super) kept: usize,
    pub(super) behind: Vec<u8>,
}

pub(super) struct Countdown {
    pub(super) kind: OperationKind,
    /// The number of requests of the kind that succeed first.
    pub(super) after: u64,
    pub(super) fault: Fault,
    pub(super) lasting: bool,
}

pub(super) struct Operation {
    /// Steps until it completes.
    pub(super) steps: u32,
    pub(super) fault: Option<Fault>,
    pub(super) work: Work,
    pub(super) reply: Reply<Answer>,
    /// Held until the operation is done.
    pub(super) pin: Option<RequestPin>,
}

/// The outcome of a step of an operation.
pub(super) enum Step {
    Pending,
    /// It was done before, or died with its disk.
    Gone,
    Done(Box<Done>),
}

/// An operation that is done. Once the lock is free, its pin is dropped and then it is answered.
pub(super) struct Done {
    pub(super) answer: Answer,
    pub(super) reply: Reply<Answer>,
    pub(super) pin: Option<RequestPin>,
}

pub(super) enum Work {
    Read {
        offset: u64,
        length: usize,
    },
    /// `pending` are the sectors of the buffer that have not arrived.
    Write {
        offset: u64,
        buffer: AlignedBuffer,
        pending: Vec<usize>,
    },
    Sync {
        covers: u64,
        lost: bool,
    },
    Resize {
        length: usize,
    },
}

/// The answer to any request; the buffer is empty if there is none.
pub(super) type Answer = (io::Result<()>, AlignedBuffer);

impl DiskState {
    /// Accepts an operation and draws its fate; returns the work on a dead disk.
    pub(super) fn begin(
        &mut self,
        kind: OperationKind,
        mut work: Work,
        pin: Option<RequestPin>,
        reply: Reply<Answer>,
    ) -> Result<u64, Work> {
        if self.dead {
            return Err(work);
        }
        let drawn = self.dice.below(u64::from(self.plan.delay_polls_max) + 1) as u32;
        let steps = drawn.max(self.plan.delay_polls_min);
        let ordered = self.ordered_fault(kind);
        let drawn_fault = self.drawn_fault(kind);
        let chance = self.plan.sync_loss;
        if let Work::Sync { covers, lost } = &mut work {
            (*covers, *lost) = (self.stamp, self.dice.chance(chance));
        }
        let id = self.next_operation;
        self.next_operation += 1;
        if let Work::Write { offset: 0..FRONT_BYTES, .. } = work {
            self.front_writes += 1;
        }
        let fault = ordered.or(drawn_fault).or_else(|| self.lasting_fault(&work));
        let operation = Operation { steps, fault, work, reply, pin };
        self.operations.insert(id, operation);
        Ok(id)
    }

    fn ordered_fault(&mut self, kind: OperationKind) -> Option<Fault> {
        let mut fault = None;
        self.countdowns.retain_mut(|countdown| {
            if countdown.kind != kind {
                return true;
            }
            if countdown.after > 0 {
                countdown.after -= 1;
                return true;
            }
            fault = Some(countdown.fault);
            countdown.lasting
        });
        fault
    }

    fn lasting_fault(&self, work: &Work) -> Option<Fault> {
        let Work::Read { offset, length } = *work else { return None };
        let bad = &self.plan.unreadable;
        (offset < bad.end && bad.start < offset + length as u64).then_some(Fault::Io)
    }

    fn drawn_fault(&mut self, kind: OperationKind) -> Option<Fault> {
        let (failure, no_space) = match kind {
            OperationKind::Read => (self.plan.read_failure, 0.0),
            OperationKind::Write => (self.plan.write_failure, self.plan.write_no_space),
            OperationKind::Sync => (self.plan.sync_failure, 0.0),
            OperationKind::Resize => (self.plan.write_failure, self.plan.write_no_space),
        };
        let failed = self.dice.chance(failure).then_some(Fault::Io);
        failed.or(self.dice.chance(no_space).then_some(Fault::NoSpace))
    }

    /// Advances an operation by one step.
    pub(super) fn step(&mut self, id: u64) -> Step {
        let Some(mut operation) = self.operations.remove(&id) else { return Step::Gone };
        let is_held_read = self.plan.holds_reads && matches!(operation.work, Work::Read { .. });
        if is_held_read || self.plan.holds_all {
            self.operations.insert(id, operation);
            return Step::Pending;
        }
        if operation.steps == 0 {
            let Operation { fault, work, reply, pin, .. } = operation;
            let answer = self.complete(fault, work);
            return Step::Done(Box::new(Done { answer, reply, pin }));
        }
        operation.steps -= 1;
        if operation.fault != Some(Fault::NoSpace) {
            self.arrive_some(&mut operation.work);
        }
        self.operations.insert(id, operation);
        Step::Pending
    }

    fn complete(&mut self, fault: Option<Fault>, work: Work) -> Answer {
        #[cfg(test)]
        if let (Some(Fault::BitFlip), Work::Read { offset, length }) = (fault, &work) {
            let mut buffer = self.copy_out(*offset, *length);
            self.flip_a_bit(&mut buffer);
            return (Ok(()), buffer);
        }
        if let Some(fault) = fault {
            if let Work::Sync { covers, .. } = work {
                self.drop_unsynced(covers);
            }
            return (Err(fault.error()), work.into_buffer());
        }
        match work {
            Work::Read { offset, length } => (Ok(()), self.copy_out(offset, length)),
            Work::Write { offset, buffer, pending } => {
                for sector in pending {
                    self.arrive(offset, &buffer, sector);
                }
                (Ok(()), buffer)
            }
            Work::Sync { covers, lost } => {
                if !lost {
                    self.make_durable(covers);
                }
                (Ok(()), AlignedBuffer::default())
            }
            Work::Resize { length } => {
                self.resize(length);
                (Ok(()), AlignedBuffer::default())
            }
        }
    }

    fn resize(&mut self, length: usize) {
        self.stamp += 1;
        let kept = self.image.len().min(length);
        let resized = self.resized.get_or_insert_with(|| Resized {
            stamp: 0,
            kept: self.image.len(),
            behind: Vec::new(),
        });
        resized.stamp = self.stamp;
        if kept < resized.kept {
            let mut behind = self.image[kept..resized.kept].to_vec();
            behind.append(&mut resized.behind);
            (resized.kept, resized.behind) = (kept, behind);
        }
        self.image.resize(length, 0);
        self.unsynced.retain(|sector, _| (*sector as usize) < length / SECTOR_BYTES);
    }

    /// A power loss: the last changes of the length are there, or none.
    pub(super) fn lose_resizing(&mut self) {
        let Some(Resized { kept, behind, .. }) = self.resized.take() else { return };
        if self.dice.chance(0.5) {
            self.image.truncate(kept);
            self.image.extend(behind);
            self.unsynced.retain(|sector, _| (*sector as usize) < kept / SECTOR_BYTES);
        }
    }

    fn copy_out(&mut self, offset: u64, length: usize) -> AlignedBuffer {
        let start = offset as usize;
        let mut buffer = AlignedBuffer::copy_from_slice(&self.image[start..start + length]);
        if self.dice.chance(self.plan.read_bit_flip) {
            self.flip_a_bit(&mut buffer);
        }
        buffer
    }

    fn flip_a_bit(&mut self, buffer: &mut AlignedBuffer) {
        let place = self.dice.below(buffer.len() as u64) as usize;
        buffer[place] ^= 1 << self.dice.below(8);
    }

    /// Lets some sectors of a write arrive.
    fn arrive_some(&mut self, work: &mut Work) {
        let Work::Write { offset, buffer, pending } = work else { return };
        for _ in 0..self.dice.below(pending.len() as u64 + 1) {
            let chosen = self.dice.below(pending.len() as u64) as usize;
            let sector = pending.swap_remove(chosen);
            self.arrive(*offset, buffer, sector);
        }
    }

    /// Lets one sector of a write's buffer arrive.
    fn arrive(&mut self, offset: u64, buffer: &[u8], sector: usize) {
        let mut content = [0; SECTOR_BYTES];
        content.copy_from_slice(&buffer[sector * SECTOR_BYTES..][..SECTOR_BYTES]);
        let start = offset as usize + sector * SECTOR_BYTES;
        let seen = &mut self.image[start..start + SECTOR_BYTES];
        let mut durable = [0; SECTOR_BYTES];
        durable.copy_from_slice(seen);
        seen.copy_from_slice(&content);
        self.stamp += 1;
        let fresh = Unsynced { durable, versions: Vec::new() };
        let contents = self.unsynced.entry((start / SECTOR_BYTES) as u64).or_insert(fresh);
        contents.versions.push((self.stamp, content));
    }

    /// Makes durable the sectors that arrived up to the stamp `covers`, and the length.
    fn make_durable(&mut self, covers: u64) {
        self.resized.take_if(|resized| resized.stamp <= covers);
        self.unsynced.retain(|_, contents| {
            let covered = contents.versions.iter().rposition(|(stamp, _)| *stamp <= covers);
            if let Some(newest) = covered {
                contents.durable = contents.versions[newest].1;
                contents.versions.drain(..=newest);
            }
            !contents.versions.is_empty()
        });
    }

    /// A failed sync drops what it covers, as a kernel does: reads see it, and no later sync makes
    /// it durable, though that succeeds.
    fn drop_unsynced(&mut self, covers: u64) {
        for contents in self.unsynced.values_mut() {
            for (stamp, _) in contents.versions.iter_mut().filter(|(stamp, _)| *stamp <= covers) {
                *stamp = DROPPED;
            }
        }
    }

    /// Ends the process: settles the operations in flight and marks the state dead. Returns the
    /// operations, which are never answered, to be dropped when the lock is free.
    pub(super) fn arrive_in_part(&mut self) -> Vec<Operation> {
        let mut ended: Vec<_> = std::mem::take(&mut self.operations).into_values().collect();
        for operation in &mut ended {
            if operation.fault != Some(Fault::NoSpace) {
                self.arrive_some(&mut operation.work);
            }
        }
        self.dead = true;
        ended
    }
}

impl Unsynced {
    /// One of the sector's contents, or a tear between two of them.
    pub(super) fn after_power_loss(&self, dice: &mut Dice) -> [u8; SECTOR_BYTES] {
        let draw = |dice: &mut Dice| {
            let chosen = dice.below(self.versions.len() as u64 + 1) as usize;
            chosen.checked_sub(1).map_or(self.durable, |version| self.versions[version].1)
        };
        let mut kept = draw(dice);
        if dice.chance(0.125) {
            let other = draw(dice);
            let tear = dice.below(SECTOR_BYTES as u64) as usize;
            kept[tear..].copy_from_slice(&other[tear..]);
        }
        kept
    }
}

impl Work {
    pub(super) fn into_buffer(self) -> AlignedBuffer {
        match self {
            Self::Write { buffer, .. } => buffer,
            _ => AlignedBuffer::default(),
        }
    }
}

pub(super) fn dead() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the process of this disk is gone")
}
