//! `Queue`: callers who wait for bytes of a budget, in the order in which they came.
//!
//! Nothing is given to a waiter, since it may not be polled again. It is *called* when there are
//! bytes for it, which are kept for it from then on, and takes them in its next poll. A waiter that
//! was called two ticks ago and has not come loses what was kept for it: those behind it go on.
//! When it is polled at last it has its old place again, and twice the time, so that one that is
//! polled seldom has its turn too. Where many sleep, twice as many are called after each tick at
//! which some have not come, whatever there is for them, so that those behind them wait for a few
//! ticks and not for all of them: who comes and finds nothing left goes back to its place.
//!
//! The owner holds its lock around every call, clones wakers before it takes the lock, and wakes
//! and drops them after it.

use std::collections::{BTreeMap, BTreeSet};
use std::task::Waker;

use crate::failpoint::{Failpoint, failpoint};

/// Ticks in which a waiter that was called, or work that was woken, has to be polled.
pub(crate) const TICKS: u64 = 2;

/// The most that it ever has: an hour of tenths of a second.
pub(crate) const TICKS_MAX: u64 = 36_000;

/// Places that are given up at one tick, under the owner's lock.
const GIVEN_UP_MAX: usize = 256;

/// Some ten thousand times as many.
const DOUBLINGS_MAX: u32 = 13;

#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// By their numbers, which grow.
    waiting: BTreeMap<u64, Waiter>,
    /// Those that were called, by their numbers.
    called: BTreeMap<u64, Called>,
    /// The ticks by which they have to come.
    deadlines: BTreeSet<(u64, u64)>,
    next: u64,
    /// Bytes that are kept for those that were called.
    kept: usize,
    /// How many times twice as many are called as there is room for.
    doublings: u32,
    /// The last tick at which that has changed.
    judged: u64,
    /// The last tick at which somebody had not come.
    missed: u64,
}

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    number: u64,
    /// How many ticks it has to come, once it is called.
    ticks: u64,
}

impl Ticket {
    /// The same place for one that has not come in time.
    pub(crate) fn again(self) -> Self {
        Self { ticks: (2 * self.ticks).min(TICKS_MAX), ..self }
    }
}

#[derive(Debug)]
struct Waiter {
    bytes: usize,
    ticks: u64,
    waker: Waker,
}

#[derive(Debug)]
struct Called {
    bytes: usize,
    deadline: u64,
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

    /// A place behind all that have been given.
    pub(crate) fn ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket { number: self.next, ticks: TICKS }
    }

    /// Takes a place.
    pub(crate) fn enter(&mut self, ticket: Ticket, bytes: usize, waker: Waker) {
        let Ticket { number, ticks } = ticket;
        self.waiting.insert(number, Waiter { bytes, ticks, waker });
    }

    /// What the waiter in a place finds, which goes on waiting with another waker.
    pub(crate) fn poll(&mut self, ticket: Ticket, waker: Waker) -> Turn {
        if self.take_called(ticket.number) {
            self.release_accounting();
            return Turn::Come(waker);
        }
        match self.waiting.get_mut(&ticket.number) {
            Some(waiter) => Turn::Waiting(std::mem::replace(&mut waiter.waker, waker)),
            None => Turn::Lost(waker),
        }
    }

    /// Gives a place up. Gives the waker, to be dropped.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> Option<Waker> {
        self.take_called(ticket.number);
        let left = self.waiting.remove(&ticket.number).map(|waiter| waiter.waker);
        self.release_accounting();
        left
    }

    fn take_called(&mut self, number: u64) -> bool {
        let Some(called) = self.called.remove(&number) else { return false };
        self.deadlines.remove(&(called.deadline, number));
        self.kept -= called.bytes;
        true
    }

    /// With nobody there, nobody sleeps.
    fn release_accounting(&mut self) {
        if self.is_empty() {
            self.doublings = 0;
        }
    }

    /// Calls the first who waits, if `fits` says so of its bytes. Gives its waker, to be woken.
    pub(crate) fn call(&mut self, tick: u64, fits: impl FnOnce(usize) -> bool) -> Option<Waker> {
        let first = self.waiting.first_entry().filter(|first| fits(first.get().bytes))?;
        let (number, Waiter { bytes, ticks, waker }) = first.remove_entry();
        let deadline = tick + ticks;
        self.called.insert(number, Called { bytes, deadline });
        self.deadlines.insert((deadline, number));
        self.kept = self.kept.saturating_add(bytes);
        Some(waker)
    }

    /// Takes away the places of those who have not come in time, up to a few hundred. True where
    /// there may be more.
    pub(crate) fn give_up(&mut self, tick: u64) -> bool {
        if failpoint(Failpoint::PermitKeptBySleeper) {
            return false;
        }
        let mut given_up = 0;
        while given_up < GIVEN_UP_MAX {
            let Some(&(_, number)) = self.deadlines.first().filter(|(at, _)| *at <= tick) else {
                break;
            };
            self.take_called(number);
            crate::meter::entries(1);
            given_up += 1;
        }
        if given_up > 0 {
            self.missed = tick;
        }
        if self.judged != tick {
            self.judged = tick;
            self.doublings = match given_up {
                // Those who are called next have to be given the time to come.
                0 if self.missed + TICKS >= tick => self.doublings,
                0 => self.doublings.saturating_sub(1),
                _ => (self.doublings + 1).min(DOUBLINGS_MAX),
            };
        }
        self.release_accounting();
        given_up == GIVEN_UP_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(queue: &mut Queue, bytes: usize) -> Ticket {
        let ticket = queue.ticket();
        queue.enter(ticket, bytes, Waker::noop().clone());
        ticket
    }

    fn has_come(queue: &mut Queue, ticket: Ticket) -> bool {
        matches!(queue.poll(ticket, Waker::noop().clone()), Turn::Come(_))
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
    fn who_has_not_come_has_its_place_again_and_twice_the_time() {
        let mut queue = Queue::default();
        let mut seldom = enter(&mut queue, 1);
        for tick in (0..).step_by(8) {
            assert!(tick < 100, "it is never there in time");
            let behind = enter(&mut queue, 1);
            assert!(queue.call(tick, |_| true).is_some(), "it is the first");
            // It is polled after eight ticks.
            (tick..=tick + 7).for_each(|tick| _ = queue.give_up(tick));
            queue.leave(behind);
            if has_come(&mut queue, seldom) {
                break;
            }
            seldom = seldom.again();
            queue.enter(seldom, 1, Waker::noop().clone());
        }
        assert_eq!((queue.kept(), queue.deadlines.len()), (0, 0));
    }

    #[test]
    fn no_more_are_called_than_there_is_room_for_when_the_sleepers_have_gone() {
        let mut queue = Queue::default();
        let waiting = [(); 3].map(|()| enter(&mut queue, 1));
        for tick in (0..60).step_by(3) {
            enter(&mut queue, 1);
            assert!(queue.call(tick, |_| true).is_some());
            (tick..tick + 3).for_each(|tick| _ = queue.give_up(tick));
        }
        (60..90).for_each(|tick| _ = queue.give_up(tick));
        assert_eq!(queue.doublings, 0);
        waiting.into_iter().for_each(|ticket| drop(queue.leave(ticket)));
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
