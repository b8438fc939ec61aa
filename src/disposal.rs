//! Freeing what is large without holding up the caller that lets go of it.
//!
//! A structure of a million entries takes half a second to free. So it is taken apart as an
//! iterator, of which each item frees a piece and says how many entries that was, and the pieces
//! are freed a step at a time: by a task of the cache, or by a thread of the process that lives
//! while there is something to be freed. Where no thread can be had, the caller frees in place.

use std::collections::VecDeque;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;

use crate::batch::BATCH_ENTRIES;
use crate::meter;
use crate::wake::contained;

/// What is left to be freed. Dropped before all of it has been, it leaves the rest to the thread.
pub(crate) struct Remains(Option<Pieces>);

/// Bytes of memory that have been let go of and are not free yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Freeing(Arc<AtomicUsize>);

/// They count until this is dropped.
pub(crate) struct Counted {
    freeing: Freeing,
    bytes: usize,
}

type Pieces = Box<dyn Iterator<Item = usize> + Send>;

static QUEUE: Mutex<Queue> =
    Mutex::new(Queue { waiting: VecDeque::new(), is_running: false, process: 0 });

struct Queue {
    waiting: VecDeque<Pieces>,
    is_running: bool,
    /// The process that the thread runs in: a fork takes the queue along, but not the thread.
    process: u32,
}

impl Remains {
    /// Each item of `pieces` frees one of them, and says how many entries it was.
    pub(crate) fn new(pieces: impl Iterator<Item = usize> + Send + 'static) -> Self {
        Self(Some(Box::new(pieces)))
    }

    /// Frees a step's worth. False once nothing is left.
    pub(crate) fn free_some(&mut self) -> bool {
        let is_left = self.0.as_mut().is_some_and(free_some);
        if !is_left {
            self.0 = None;
        }
        is_left
    }
}

impl Freeing {
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    #[must_use]
    pub(crate) fn count(&self, bytes: usize) -> Counted {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Counted { freeing: self.clone(), bytes }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.freeing.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        // Bounded: one.
        self.0.take().into_iter().for_each(free);
    }
}

/// Leaves it to the thread, and returns at once. To be called while no lock is held.
fn free(pieces: Pieces) {
    let mut queue = QUEUE.lock();
    queue.waiting.push_back(pieces);
    let process = process::id();
    if queue.is_running && queue.process == process {
        return;
    }
    let thread = thread::Builder::new().name("tamis-disposal".to_owned());
    queue.is_running = thread.spawn(run).is_ok();
    queue.process = process;
    if !queue.is_running {
        let pieces = queue.waiting.pop_back();
        drop(queue);
        // Bounded: one.
        pieces.into_iter().for_each(free_all);
    }
}

fn run() {
    // Bounded: on a thread of its own.
    loop {
        let mut queue = QUEUE.lock();
        let Some(pieces) = queue.waiting.pop_front() else {
            queue.is_running = false;
            return;
        };
        drop(queue);
        free_all(pieces);
    }
}

fn free_all(mut pieces: Pieces) {
    contained(move || {
        // Bounded: on a thread of its own.
        while free_some(&mut pieces) {
            thread::yield_now();
        }
    });
}

fn free_some(pieces: &mut Pieces) -> bool {
    let mut freed = 0;
    while freed < BATCH_ENTRIES {
        let Some(entries) = pieces.next() else { return false };
        meter::entries(entries);
        freed += entries.max(1);
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::meter::measured;

    #[test]
    fn goes_in_steps_and_what_is_dropped_midway_is_freed_by_the_thread() {
        let (sender, freed) = mpsc::channel();
        let mut remains = Remains::new((0..1000).map(move |number| {
            sender.send((number, thread::current().id())).unwrap();
            1
        }));
        let (is_left, work) = measured(|| remains.free_some());
        assert!(is_left && work.entries == BATCH_ENTRIES);
        let ((), work) = measured(|| drop(remains));
        assert_eq!(work.entries, 0);
        let here = thread::current().id();
        for (number, (freed, thread)) in freed.iter().enumerate() {
            assert_eq!((freed, thread == here), (number, number < BATCH_ENTRIES));
        }
    }

    #[test]
    fn a_piece_that_panics_keeps_nothing_else_from_being_freed() {
        drop(Remains::new([1].into_iter().map(|_| panic!("as planned"))));
        let (sender, freed) = mpsc::channel();
        drop(Remains::new((0..10).map(move |number| {
            sender.send(number).unwrap();
            1
        })));
        assert_eq!(freed.iter().count(), 10);
    }
}
