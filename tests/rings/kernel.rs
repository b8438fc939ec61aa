//! Stands for the kernel and for the crate `io_uring`: rings whose device completes what was
//! submitted in any order, at any time.
//!
//! It panics if it had to write to a buffer that is free, and if a ring is freed while a read is
//! in flight.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::Mutex;

use crate::io::buffer;
use crate::io::linux::point::bell;

thread_local! {
    /// The rings of this schedule.
    static RINGS: RefCell<Vec<Arc<Mutex<Queues>>>> = RefCell::default();
}

#[derive(Default)]
struct Queues {
    pushed: VecDeque<Entry>,
    in_flight: Vec<Entry>,
    completed: VecDeque<Completion>,
    bell: Option<RawFd>,
}

#[derive(Clone, Copy)]
pub(crate) struct Entry {
    buffer: usize,
    length: u32,
    data: u64,
}

pub(crate) struct Completion {
    data: u64,
    result: i32,
}

impl Completion {
    pub(crate) fn user_data(&self) -> u64 {
        self.data
    }

    pub(crate) fn result(&self) -> i32 {
        self.result
    }
}

pub(crate) struct IoUring(Arc<Mutex<Queues>>);

pub(crate) struct Builder;

pub(crate) struct Submitter<'a>(&'a IoUring);

pub(crate) struct Submission<'a>(&'a IoUring);

pub(crate) struct Completed<'a>(&'a IoUring);

impl IoUring {
    pub(crate) fn builder() -> Builder {
        Builder
    }

    pub(crate) fn submitter(&self) -> Submitter<'_> {
        Submitter(self)
    }

    pub(crate) fn submission_shared(&self) -> Submission<'_> {
        Submission(self)
    }

    pub(crate) fn completion_shared(&self) -> Completed<'_> {
        Completed(self)
    }
}

impl Drop for IoUring {
    fn drop(&mut self) {
        let queues = self.0.lock().expect("no thread panics");
        let is_idle = queues.pushed.is_empty() && queues.in_flight.is_empty();
        assert!(is_idle || std::thread::panicking(), "a ring is freed with reads in flight");
    }
}

impl Builder {
    pub(crate) fn build(&self, _entries: u32) -> io::Result<IoUring> {
        let queues = Arc::<Mutex<Queues>>::default();
        RINGS.with_borrow_mut(|rings| rings.push(Arc::clone(&queues)));
        Ok(IoUring(queues))
    }
}

impl Submitter<'_> {
    pub(crate) fn register_eventfd(&self, descriptor: RawFd) -> io::Result<()> {
        self.0.0.lock().expect("no thread panics").bell = Some(descriptor);
        Ok(())
    }

    pub(crate) fn register_files(&self, _files: &[RawFd]) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn unregister_files(&self) -> io::Result<()> {
        Ok(())
    }

    /// Takes the entries, or sometimes none, as the kernel does when it lacks memory.
    pub(crate) fn submit(&self) -> io::Result<usize> {
        if thread_rng().gen_range(0..8) == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut queues = self.0.0.lock().expect("no thread panics");
        let taken: Vec<_> = queues.pushed.drain(..).collect();
        queues.in_flight.extend(&taken);
        Ok(taken.len())
    }
}

impl Submission<'_> {
    /// Fails if the queue is full.
    pub(crate) fn push(&mut self, entry: &Entry) -> Result<(), ()> {
        let mut queues = self.0.0.lock().expect("no thread panics");
        if queues.pushed.len() >= 2 {
            return Err(());
        }
        queues.pushed.push_back(*entry);
        Ok(())
    }
}

impl Completed<'_> {
    pub(crate) fn next(&mut self) -> Option<Completion> {
        self.0.0.lock().expect("no thread panics").completed.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.0.lock().expect("no thread panics").completed.is_empty()
    }
}

pub(crate) mod types {
    pub(crate) struct Fixed(pub(crate) u32);
}

pub(crate) mod opcode {
    use super::{Entry, types};

    pub(crate) struct Read(Entry);

    impl Read {
        pub(crate) fn new(_file: types::Fixed, buffer: *mut u8, length: u32) -> Self {
            Self(Entry { buffer: buffer.addr(), length, data: 0 })
        }

        pub(crate) fn offset(self, _offset: u64) -> Self {
            self
        }

        pub(crate) fn build(self) -> Entry {
            self.0
        }
    }

    impl Entry {
        pub(crate) fn user_data(self, data: u64) -> Self {
            Self { data, ..self }
        }
    }
}

/// Forgets the rings of the schedule before.
pub(crate) fn begin() {
    RINGS.with_borrow_mut(Vec::clear);
}

/// Completes a read, if one is in flight: often whole, sometimes short or with an error.
pub(crate) fn work() {
    let rings = RINGS.with_borrow(Clone::clone);
    let Some(ring) = rings.get(thread_rng().gen_range(0..rings.len().max(1))) else { return };
    let bell = {
        let mut queues = ring.lock().expect("no thread panics");
        if queues.in_flight.is_empty() {
            return;
        }
        let chosen = thread_rng().gen_range(0..queues.in_flight.len());
        let entry = queues.in_flight.swap_remove(chosen);
        let result = match thread_rng().gen_range(0..8) {
            0 => -5,
            1 => 0,
            2 => 2048,
            _ => i32::try_from(entry.length).expect("short reads"),
        };
        buffer::write(entry.buffer, usize::try_from(result).unwrap_or(0));
        queues.completed.push_back(Completion { data: entry.data, result });
        queues.bell
    };
    bell.into_iter().for_each(bell::ring);
}

/// Whether the device has reads to complete.
pub(crate) fn is_busy() -> bool {
    let rings = RINGS.with_borrow(Clone::clone);
    rings.iter().any(|ring| {
        let queues = ring.lock().expect("no thread panics");
        !queues.in_flight.is_empty()
    })
}
