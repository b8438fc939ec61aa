//! `SharedRing`: a ring into which any thread submits reads, and from which any thread reaps
//! completions.
//!
//! Invariants:
//!
//! - The two queues are touched only under the lock of the slots. The kernel is entered without it.
//! - Each entry of the submission queue belongs to one occupied slot. The slot keeps the buffer and
//!   the pin until the completion has been taken, whatever becomes of the caller's future.
//! - There are no more slots than entries of the completion queue, so it never overflows.
//! - The ring is never freed, nor the buffers in its slots, while a read is in flight: the kernel
//!   would write to freed memory. Both are leaked instead.

// Unsafe here: the queues of a shared ring are unchecked, and the kernel writes through pointers.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::{IoUring, opcode, types};
use parking_lot::{Mutex, MutexGuard};

use super::super::request::Read;
use super::bell::Bell;
use crate::io::RequestPin;
use crate::io::buffer::{AlignedBuffer, BufferPool};
use crate::io::reply::{Reply, exchange};

/// Tries to take the lock before the caller goes elsewhere.
const TRIES: usize = 64;

pub(super) struct SharedRing {
    ring: ManuallyDrop<IoUring>,
    slots: Mutex<Slots>,
    /// Rung by the kernel at each completion.
    bell: Bell,
    buffers: Arc<BufferPool>,
}

/// A read whose buffer the kernel may write to.
pub(super) struct InFlight {
    pub(super) read: Read,
    pub(super) buffer: AlignedBuffer,
}

struct Slots {
    occupied: Box<[Option<InFlight>]>,
    free: Vec<u16>,
    /// No more reads are accepted.
    is_closed: bool,
    /// Completions taken so far.
    reaped: u64,
}

/// What the owner of a ring may want to know.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) in_flight: usize,
    /// Whether completions wait to be taken.
    pub(super) is_ready: bool,
    /// Completions taken so far.
    pub(super) reaped: u64,
}

impl SharedRing {
    /// A ring for reads of `file`, with room for `entries` between two calls of the kernel.
    ///
    /// # Errors
    ///
    /// The kernel refuses the ring, its bell or the registration of the file.
    pub(super) fn new(file: &File, entries: u16) -> io::Result<Self> {
        // No flags: completions are posted at once, even if the thread that submitted is computing.
        // With cooperative task running, they would wait until it enters the kernel.
        let ring: IoUring = IoUring::builder().build(u32::from(entries))?;
        let bell = Bell::new()?;
        ring.submitter().register_eventfd(bell.descriptor())?;
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        // Bounded: by the entries of one ring.
        let occupied = (0..entries).map(|_| None).collect();
        // Bounded: by the entries of one ring.
        let free = (0..entries).rev().collect();
        let slots = Slots { occupied, free, is_closed: false, reaped: 0 };
        let (ring, slots) = (ManuallyDrop::new(ring), Mutex::new(slots));
        Ok(Self { ring, slots, bell, buffers: Arc::default() })
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Submits a read, or returns it if there is no room, no memory, or another thread is holding
    /// the lock for long. If it `is_held`, the kernel takes it at the next call only.
    pub(super) fn submit(&self, read: Read, is_held: bool) -> Result<(), Read> {
        let Ok(buffer) = self.buffers.buffer(read.length) else { return Err(read) };
        let Some(mut slots) = self.try_lock() else { return Err(read) };
        if slots.is_closed {
            return Err(read);
        }
        let Some(slot) = slots.free.pop() else { return Err(read) };
        let length = u32::try_from(read.length).unwrap_or(0);
        let entry = opcode::Read::new(types::Fixed(0), buffer.pointer().as_ptr(), length)
            .offset(read.offset)
            .build()
            .user_data(u64::from(slot));
        // SAFETY: this is the only view of the submission queue, since the slots are locked. The
        // entry's buffer has `length` bytes of capacity, does not move, and is kept by the slot
        // until the completion has been taken; no other code sees its bytes until then.
        let pushed = unsafe { self.ring.submission_shared().push(&entry) };
        if pushed.is_err() {
            // The kernel has refused all entries so far.
            slots.free.push(slot);
            return Err(read);
        }
        slots.occupied[usize::from(slot)] = Some(InFlight { read, buffer });
        drop(slots);
        if !is_held {
            self.flush();
        }
        Ok(())
    }

    /// Makes the kernel take all entries of the submission queue. What it refuses, for lack of
    /// memory, stays there until the next call.
    pub(super) fn flush(&self) {
        let _ = self.ring.submitter().submit();
    }

    /// Takes a completion, with its result in the kernel's form.
    pub(super) fn reap(&self) -> Option<(InFlight, i32)> {
        let mut slots = self.slots.lock();
        // SAFETY: this is the only view of the completion queue, since the slots are locked.
        let completion = unsafe { self.ring.completion_shared().next() }?;
        slots.reaped += 1;
        let slot = u16::try_from(completion.user_data()).ok()?;
        let in_flight = slots.occupied.get_mut(usize::from(slot))?.take()?;
        slots.free.push(slot);
        Some((in_flight, completion.result()))
    }

    /// Takes the replies and the pins of all reads in flight. The buffers stay.
    pub(super) fn abandon(&self) -> Vec<(Reply<io::Result<AlignedBuffer>>, Option<RequestPin>)> {
        let take = |in_flight: &mut InFlight| {
            let read = &mut in_flight.read;
            (mem::replace(&mut read.reply, exchange().0), read.pin.take())
        };
        // Bounded: by the entries of one ring.
        self.slots.lock().occupied.iter_mut().flatten().map(take).collect()
    }

    /// Refuses reads from now on.
    pub(super) fn close(&self) {
        self.slots.lock().is_closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.slots.lock().is_closed
    }

    /// Never waits for a thread that was preempted with the lock; then something is in flight.
    pub(super) fn progress(&self) -> Progress {
        let Some(slots) = self.try_lock() else {
            return Progress { in_flight: 1, is_ready: false, reaped: 0 };
        };
        // SAFETY: this is the only view of the completion queue, since the slots are locked.
        let is_ready = unsafe { !self.ring.completion_shared().is_empty() };
        Progress {
            in_flight: slots.occupied.len() - slots.free.len(),
            is_ready,
            reaped: slots.reaped,
        }
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, Slots>> {
        // Bounded: by the tries.
        for _ in 0..TRIES {
            if let Some(slots) = self.slots.try_lock() {
                return Some(slots);
            }
            std::hint::spin_loop();
        }
        None
    }
}

impl Drop for SharedRing {
    fn drop(&mut self) {
        let slots = self.slots.get_mut();
        if slots.free.len() < slots.occupied.len() {
            mem::forget(mem::take(&mut slots.occupied));
            return;
        }
        // The kernel frees a ring a while after it is closed, and would keep the file open so long.
        let _ = self.ring.submitter().unregister_files();
        // SAFETY: the ring is dropped once, here, and not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
    }
}

impl InFlight {
    /// The buffer, if all of it was read; else the read, to be carried out in another way.
    pub(super) fn outcome(self, result: i32) -> (Read, Option<AlignedBuffer>) {
        let Self { read, mut buffer } = self;
        if usize::try_from(result).is_ok_and(|count| count == read.length) {
            // SAFETY: the kernel has written that many bytes, which is the buffer's capacity.
            unsafe { buffer.assume_length(read.length) };
            return (read, Some(buffer));
        }
        (read, None)
    }
}

#[cfg(not(modelled))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::reply::exchange;

    #[test]
    fn a_thread_that_holds_the_lock_for_long_stops_neither_callers_nor_the_watch() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(4096).expect("a length");
        let ring = SharedRing::new(&file, 4).expect("a ring");
        let (reply, answer) = exchange();
        let read = Read { offset: 0, length: 4096, pin: None, reply };
        let held = ring.slots.lock();
        let Err(read) = ring.submit(read, false) else { panic!("submitted without the lock") };
        assert!(ring.progress().in_flight > 0, "it may be submitting");
        drop(held);
        assert_eq!(ring.progress().in_flight, 0);
        assert!(ring.submit(read, false).is_ok());
        let (in_flight, result) = loop {
            match ring.reap() {
                Some(reaped) => break reaped,
                None => std::thread::yield_now(),
            }
        };
        assert_eq!(result, 4096);
        let (read, buffer) = in_flight.outcome(result);
        assert!(buffer.is_some_and(|buffer| buffer.len() == 4096));
        ring.close();
        assert!(ring.submit(read, false).is_err(), "closed");
        drop(answer);
    }
}
