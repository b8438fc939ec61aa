//! `Remains`: frees large structures without delaying the caller that drops them.
//! Freeing a million entries takes half a second. So a structure becomes an iterator: each item
//! frees a piece and returns its number of entries. A task of the cache, or a thread of the
//! process, frees the pieces in batches. If no thread can be spawned, the caller frees in place.

mod freeing;

use std::collections::VecDeque;
use std::mem;
use std::process;
use std::thread;

use parking_lot::Mutex;

pub(crate) use self::freeing::{Freeing, Unfreed};
use crate::batch::BATCH_ENTRIES;
use crate::meter;
use crate::wake::contained;

/// A structure being freed. If it is dropped early, the thread frees the rest.
pub(crate) struct Remains(Option<Pieces>);

type Pieces = Box<dyn Iterator<Item = usize> + Send>;

static QUEUE: Mutex<DisposalQueue> =
    Mutex::new(DisposalQueue { waiting: VecDeque::new(), is_running: false, process: 0 });

struct DisposalQueue {
    waiting: VecDeque<Pieces>,
    is_running: bool,
    /// The thread's process: a forked child inherits the queue but not the thread.
    process: u32,
}

impl Remains {
    /// Each item of `pieces` frees one piece and returns its number of entries.
    pub(crate) fn new(pieces: impl Iterator<Item = usize> + Send + 'static) -> Self {
        Self(Some(Box::new(pieces)))
    }

    /// What is left of it, leaving nothing; None if nothing is.
    fn take(&mut self) -> Option<Self> {
        self.0.take().map(|pieces| Self(Some(pieces)))
    }

    /// Frees one batch. False once nothing is left.
    pub(crate) fn free_some(&mut self) -> bool {
        let is_left = self.0.as_mut().is_some_and(free_some);
        if !is_left {
            self.0 = None;
        }
        is_left
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        // Bounded: one.
        self.0.take().into_iter().for_each(free);
    }
}

/// Hands the pieces to the thread. The caller must hold no lock.
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
            // Its capacity is that of the longest queue.
            let spare = mem::take(&mut queue.waiting);
            drop(queue);
            drop(spare);
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
    fn freeing_goes_in_batches_and_the_thread_frees_the_rest_after_a_drop() {
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
    fn a_panic_in_one_piece_does_not_stop_the_others() {
        drop(Remains::new([1].into_iter().map(|_| panic!("as planned"))));
        let (sender, freed) = mpsc::channel();
        drop(Remains::new((0..10).map(move |number| {
            sender.send(number).unwrap();
            1
        })));
        assert_eq!(freed.iter().count(), 10);
    }
}
