//! `Queue`: callers who wait for bytes of a budget, in the order in which they came.
//!
//! Nothing is given to a waiter, since it may not be polled again. It is *called* when there are
//! bytes for it, which are kept for it from then on, and takes them in its next poll. A waiter that
//! was called two ticks ago and has not come loses its place and what was kept for it: those behind
//! it go on, and it begins anew when it is polled at last. Where many sleep, twice as many are
//! called after each tick at which some have not come, whatever there is for them, so that those
//! behind them wait for a few ticks and not for all of them: who comes and finds nothing left goes
//! back to its place.
//!
//! The owner holds its lock around every call, clones wakers before it takes the lock, and wakes
//! and drops them after it.

use std::collections::BTreeMap;
use std::task::Waker;

use crate::flaw::{Flaw, planted};

/// Ticks that a waiter has from its call on.
const TICKS: u64 = 2;

/// Places that are given up at one tick, under the owner's lock.
const GIVEN_UP_MAX: usize = 256;

/// Some ten thousand times as many.
const DOUBLINGS_MAX: u32 = 13;

#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// By their numbers, which grow.
    waiting: BTreeMap<u64, Waiter>,
    /// Those that were called, in the order of their calls.
    called: BTreeMap<u64, Called>,
    next: u64,
    /// Bytes that are kept for those that were called.
    kept: usize,
    /// How many times twice as many are called as there is room for.
    doublings: u32,
}

#[derive(Debug)]
struct Waiter {
    bytes: usize,
    waker: Waker,
}

#[derive(Debug)]
struct Called {
    bytes: usize,
    tick: u64,
}

/// What a waiter finds when it is polled.
#[derive(Debug)]
pub(crate) enum Turn {
    /// It was called, and has left: the bytes are its own to take, if they are there. Its waker is
    /// given back.
    Come(Waker),
    /// Not yet. The waker that it had before is to be dropped.
    Waiting(Waker),
    /// It had been called, and has not come in time. Its waker is given back.
    Lost(Waker),
}

impl Queue {
    /// Bytes that are kept for those that were called and may come.
    pub(crate) fn kept(&self) -> usize {
        self.kept >> self.doublings
    }

    /// Whether somebody waits to be called.
    pub(crate) fn is_waited(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether nobody is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.called.is_empty()
    }

    /// The number of a place behind all that have been given.
    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Takes the place of that number.
    pub(crate) fn enter(&mut self, number: u64, bytes: usize, waker: Waker) {
        self.waiting.insert(number, Waiter { bytes, waker });
    }

    /// What the waiter with that number finds, which goes on waiting with another waker.
    pub(crate) fn poll(&mut self, number: u64, waker: Waker) -> Turn {
        if let Some(called) = self.called.remove(&number) {
            self.kept -= called.bytes;
            self.settle();
            return Turn::Come(waker);
        }
        match self.waiting.get_mut(&number) {
            Some(waiter) => Turn::Waiting(std::mem::replace(&mut waiter.waker, waker)),
            None => Turn::Lost(waker),
        }
    }

    /// Gives a place up. Gives the waker, to be dropped.
    pub(crate) fn leave(&mut self, number: u64) -> Option<Waker> {
        if let Some(called) = self.called.remove(&number) {
            self.kept -= called.bytes;
        }
        let left = self.waiting.remove(&number).map(|waiter| waiter.waker);
        self.settle();
        left
    }

    /// With nobody there, nobody sleeps.
    fn settle(&mut self) {
        if self.is_empty() {
            self.doublings = 0;
        }
    }

    /// Calls the first who waits, if `fits` says so of its bytes. Gives its waker, to be woken.
    pub(crate) fn call(&mut self, tick: u64, fits: impl FnOnce(usize) -> bool) -> Option<Waker> {
        let first = self.waiting.first_entry().filter(|first| fits(first.get().bytes))?;
        let (number, Waiter { bytes, waker }) = first.remove_entry();
        self.called.insert(number, Called { bytes, tick });
        self.kept = self.kept.saturating_add(bytes);
        Some(waker)
    }

    /// Takes away the places of those who have not come in time, up to a few hundred. True where
    /// there may be more.
    pub(crate) fn give_up(&mut self, tick: u64) -> bool {
        if planted(Flaw::PermitKeptBySleeper) {
            return false;
        }
        let mut given_up = 0;
        while given_up < GIVEN_UP_MAX {
            let oldest = self.called.first_entry();
            let Some(oldest) = oldest.filter(|oldest| oldest.get().tick + TICKS <= tick) else {
                break;
            };
            self.kept -= oldest.remove().bytes;
            crate::meter::entries(1);
            given_up += 1;
        }
        if given_up > 0 {
            self.doublings = (self.doublings + 1).min(DOUBLINGS_MAX);
        }
        self.settle();
        given_up == GIVEN_UP_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(queue: &mut Queue, bytes: usize) -> u64 {
        let number = queue.number();
        queue.enter(number, bytes, Waker::noop().clone());
        number
    }

    fn has_come(queue: &mut Queue, number: u64) -> bool {
        matches!(queue.poll(number, Waker::noop().clone()), Turn::Come(_))
    }

    #[test]
    fn each_is_called_in_turn_and_takes_what_was_kept_for_it() {
        let mut queue = Queue::default();
        let numbers = [3, 5, 7].map(|bytes| enter(&mut queue, bytes));
        assert!(queue.call(0, |bytes| bytes < 4).is_some());
        assert!(queue.call(0, |bytes| bytes < 4).is_none(), "the next one is larger");
        assert_eq!(queue.kept(), 3);
        assert!(!has_come(&mut queue, numbers[1]));
        assert!(has_come(&mut queue, numbers[0]));
        assert!(queue.leave(numbers[1]).is_some());
        assert!(queue.call(0, |bytes| bytes == 7).is_some());
        assert!(queue.leave(numbers[2]).is_none(), "woken already");
        assert!(queue.is_empty() && queue.kept() == 0);
    }

    #[test]
    fn who_was_called_and_does_not_come_loses_its_place() {
        let mut queue = Queue::default();
        let (asleep, awake) = (enter(&mut queue, 3), enter(&mut queue, 4));
        assert!(queue.call(5, |_| true).is_some());
        assert!(!queue.give_up(6) && queue.kept() == 3);
        assert!(!queue.give_up(7) && queue.kept() == 0);
        assert!(queue.call(7, |_| true).is_some());
        assert!(has_come(&mut queue, awake));
        assert!(matches!(queue.poll(asleep, Waker::noop().clone()), Turn::Lost(_)));
    }

    #[test]
    fn where_many_sleep_more_and_more_are_called() {
        let mut queue = Queue::default();
        let numbers: Vec<_> = (0..1000).map(|_| enter(&mut queue, 1)).collect();
        let (mut tick, mut called) = (0, 0);
        while queue.is_waited() {
            // There is room for ten.
            while queue.kept() < 10 && queue.call(tick, |_| true).is_some() {
                called += 1;
            }
            tick += 1;
            while queue.give_up(tick) {}
        }
        assert!(called == 1000 && tick < 20, "{called} in {tick} ticks");
        numbers.into_iter().for_each(|number| drop(queue.leave(number)));
        assert_eq!((queue.kept(), queue.doublings), (0, 0));
    }

    #[test]
    fn places_are_given_up_in_steps() {
        let mut queue = Queue::default();
        for _ in 0..GIVEN_UP_MAX + 1 {
            enter(&mut queue, 1);
            assert!(queue.call(0, |_| true).is_some());
        }
        assert!(queue.give_up(TICKS) && !queue.give_up(TICKS));
        assert_eq!(queue.kept(), 0);
    }
}
