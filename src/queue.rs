//! `WaitQueue`: callers waiting for bytes of a budget, in order of arrival.
//!
//! Bytes are never handed to a waiter directly, since it may not be polled again. It is *called*
//! when there are bytes for it; they are reserved from then on, and it takes them in its next poll.
//! A waiter that does not come within two ticks loses the reservation, and later waiters proceed.
//! When it is polled at last it regains its place, with twice the time, so that rarely polled
//! callers succeed too. If many sleep, each tick with a missed call doubles the number of waiters
//! called for the same bytes, so that those behind them wait for a few ticks and not for all of
//! them; one that comes and finds no bytes left returns to its place.
//!
//! The owner locks the queue around every call, clones wakers before it locks, and wakes and drops
//! them after it.

use std::collections::{BTreeMap, BTreeSet};
use std::task::Waker;

use crate::failpoint::{Failpoint, failpoint};

/// Ticks within which a called waiter, or woken work, must be polled.
pub(crate) const TICKS: u64 = 2;

/// The limit after doublings: an hour of tenths of a second.
pub(crate) const TICKS_MAX: u64 = 36_000;

/// Missed calls revoked at one tick, under the owner's lock.
const REVOKED_MAX: usize = 256;

/// Overcommits up to about ten thousand times.
const DOUBLINGS_MAX: u32 = 13;

#[derive(Debug, Default)]
pub(crate) struct WaitQueue {
    waiting: BTreeMap<u64, Waiter>,
    called: BTreeMap<u64, Called>,
    /// Deadlines of the called waiters, as ticks.
    deadlines: BTreeSet<(u64, u64)>,
    next: u64,
    /// Bytes reserved for called waiters.
    kept: usize,
    /// Reservations count as divided by two to this power.
    doublings: u32,
    /// The last tick at which `doublings` was adjusted.
    adjusted: u64,
    missed: u64,
}

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    number: u64,
    /// Ticks that it has to come once called.
    ticks: u64,
}

impl Ticket {
    /// The same place, with twice the time, after a missed call.
    pub(crate) fn retry(self) -> Self {
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

#[derive(Debug)]
pub(crate) enum TicketState {
    /// Called, and no longer in the queue: it may take the bytes, if they are there.
    Called(Waker),
    /// Not called yet. Returns the previous waker, to be dropped.
    Waiting(Waker),
    /// It was called and did not come in time. Returns its waker.
    Missed(Waker),
}

impl WaitQueue {
    pub(crate) fn kept(&self) -> usize {
        self.kept >> self.doublings
    }

    /// Whether any waiter is not called yet.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether there is no waiter, called or not.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.called.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.called.len()
    }

    /// A ticket behind all issued ones.
    pub(crate) fn ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket { number: self.next, ticks: TICKS }
    }

    pub(crate) fn enter(&mut self, ticket: Ticket, bytes: usize, waker: Waker) {
        let Ticket { number, ticks } = ticket;
        self.waiting.insert(number, Waiter { bytes, ticks, waker });
    }

    /// The state of a waiter; if it still waits, `waker` replaces its waker.
    pub(crate) fn poll(&mut self, ticket: Ticket, waker: Waker) -> TicketState {
        if self.take_called(ticket.number) {
            self.reset_if_empty();
            return TicketState::Called(waker);
        }
        match self.waiting.get_mut(&ticket.number) {
            Some(waiter) => TicketState::Waiting(std::mem::replace(&mut waiter.waker, waker)),
            None => TicketState::Missed(waker),
        }
    }

    /// Leaves the queue. Returns the waker, to be dropped.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> Option<Waker> {
        self.take_called(ticket.number);
        let left = self.waiting.remove(&ticket.number).map(|waiter| waiter.waker);
        self.reset_if_empty();
        left
    }

    fn take_called(&mut self, number: u64) -> bool {
        let Some(called) = self.called.remove(&number) else { return false };
        self.deadlines.remove(&(called.deadline, number));
        self.kept -= called.bytes;
        true
    }

    fn reset_if_empty(&mut self) {
        if self.is_empty() {
            self.doublings = 0;
        }
    }

    /// Calls the first waiter if `fits` accepts its bytes. Returns its waker, to be woken.
    pub(crate) fn call(&mut self, tick: u64, fits: impl FnOnce(usize) -> bool) -> Option<Waker> {
        let first = self.waiting.first_entry().filter(|first| fits(first.get().bytes))?;
        let (number, Waiter { bytes, ticks, waker }) = first.remove_entry();
        let deadline = tick + ticks;
        self.called.insert(number, Called { bytes, deadline });
        self.deadlines.insert((deadline, number));
        self.kept = self.kept.saturating_add(bytes);
        Some(waker)
    }

    /// Revokes the calls of waiters that did not come in time. True if there may be more.
    pub(crate) fn revoke_calls(&mut self, tick: u64) -> bool {
        if failpoint(Failpoint::PermitKeptBySleeper) {
            return false;
        }
        let mut revoked = 0;
        while revoked < REVOKED_MAX {
            let Some(&(_, number)) = self.deadlines.first().filter(|(at, _)| *at <= tick) else {
                break;
            };
            self.take_called(number);
            crate::meter::entries(1);
            revoked += 1;
        }
        if revoked > 0 {
            self.missed = tick;
        }
        if self.adjusted != tick {
            self.adjusted = tick;
            self.doublings = match revoked {
                // Waiters called since then must have time to come.
                0 if self.missed + TICKS >= tick => self.doublings,
                0 => self.doublings.saturating_sub(1),
                _ => (self.doublings + 1).min(DOUBLINGS_MAX),
            };
        }
        self.reset_if_empty();
        revoked == REVOKED_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(queue: &mut WaitQueue, bytes: usize) -> Ticket {
        let ticket = queue.ticket();
        queue.enter(ticket, bytes, Waker::noop().clone());
        ticket
    }

    fn has_come(queue: &mut WaitQueue, ticket: Ticket) -> bool {
        matches!(queue.poll(ticket, Waker::noop().clone()), TicketState::Called(_))
    }

    #[test]
    fn waiters_are_called_in_order_with_reserved_bytes() {
        let mut queue = WaitQueue::default();
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
    fn a_missed_call_loses_its_reservation() {
        let mut queue = WaitQueue::default();
        let (asleep, awake) = (enter(&mut queue, 3), enter(&mut queue, 4));
        assert!(queue.call(5, |_| true).is_some());
        assert!(!queue.revoke_calls(6) && queue.kept() == 3);
        assert!(!queue.revoke_calls(7) && queue.kept() == 0);
        assert!(queue.call(7, |_| true).is_some());
        assert!(has_come(&mut queue, awake));
        assert!(matches!(queue.poll(asleep, Waker::noop().clone()), TicketState::Missed(_)));
    }

    #[test]
    fn missed_calls_overcommit_the_budget() {
        let mut queue = WaitQueue::default();
        let numbers: Vec<_> = (0..1000).map(|_| enter(&mut queue, 1)).collect();
        let (mut tick, mut called) = (0, 0);
        while queue.has_waiting() {
            // There is room for ten.
            while queue.kept() < 10 && queue.call(tick, |_| true).is_some() {
                called += 1;
            }
            tick += 1;
            while queue.revoke_calls(tick) {}
        }
        assert!(called == 1000 && tick < 20, "{called} in {tick} ticks");
        numbers.into_iter().for_each(|number| drop(queue.leave(number)));
        assert_eq!((queue.kept(), queue.doublings), (0, 0));
    }

    #[test]
    fn a_missed_waiter_regains_its_place_with_twice_the_time() {
        let mut queue = WaitQueue::default();
        let mut seldom = enter(&mut queue, 1);
        for tick in (0..).step_by(8) {
            assert!(tick < 100, "it never comes in time");
            let behind = enter(&mut queue, 1);
            assert!(queue.call(tick, |_| true).is_some(), "it is the first");
            // It is polled after eight ticks.
            (tick..=tick + 7).for_each(|tick| _ = queue.revoke_calls(tick));
            queue.leave(behind);
            if has_come(&mut queue, seldom) {
                break;
            }
            seldom = seldom.retry();
            queue.enter(seldom, 1, Waker::noop().clone());
        }
        assert_eq!((queue.kept(), queue.deadlines.len()), (0, 0));
    }

    #[test]
    fn overcommit_ends_when_the_sleepers_have_gone() {
        let mut queue = WaitQueue::default();
        let waiting = [(); 3].map(|()| enter(&mut queue, 1));
        for tick in (0..60).step_by(3) {
            enter(&mut queue, 1);
            assert!(queue.call(tick, |_| true).is_some());
            (tick..tick + 3).for_each(|tick| _ = queue.revoke_calls(tick));
        }
        (60..90).for_each(|tick| _ = queue.revoke_calls(tick));
        assert_eq!(queue.doublings, 0);
        waiting.into_iter().for_each(|ticket| drop(queue.leave(ticket)));
    }

    #[test]
    fn places_are_revoked_in_steps() {
        let mut queue = WaitQueue::default();
        for _ in 0..REVOKED_MAX + 1 {
            enter(&mut queue, 1);
            assert!(queue.call(0, |_| true).is_some());
        }
        assert!(queue.revoke_calls(TICKS) && !queue.revoke_calls(TICKS));
        assert_eq!(queue.kept(), 0);
    }
}
