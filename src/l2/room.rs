//! `RoomQueue`: callers that wait for room in the log.
//!
//! A put asks for room before it copies anything, and holds nothing while it waits. Callers are
//! woken in the order in which they came, only as many as there is room for; each appends in the
//! poll that its wakeup leads to. A caller that finds the room gone keeps its place. A caller that
//! is woken and not polled loses it (see [`WaitQueue`]), so that no caller delays the others.
//!
//! The lock of the queue comes before the lock of the log's state.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::log_state::LogState;
use crate::batch::BATCH_ENTRIES;
use crate::meter;
use crate::queue::{Ticket, TicketState, WaitQueue};
use crate::timer::{PATIENCE, Timer};
use crate::wake::{discard, wake};

pub(super) struct RoomQueue {
    timer: Timer,
    log: Arc<Mutex<LogState>>,
    state: Mutex<RoomState>,
}

#[derive(Default)]
struct RoomState {
    queue: WaitQueue,
    tick: u64,
    is_ticking: bool,
    /// The next alarm continues this tick.
    goes_on: bool,
}

/// A caller's ticket, and the log's count of room events when it was let through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoomTicket {
    ticket: Ticket,
    event: u64,
}

impl RoomQueue {
    pub(super) fn new(timer: Timer, log: Arc<Mutex<LogState>>) -> Self {
        Self { timer, log, state: Mutex::default() }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.state.lock().queue.len()
    }

    pub(super) fn enter(
        queue: &Arc<Self>,
        bytes: usize,
        refused: Option<RoomTicket>,
    ) -> impl Future<Output = RoomTicket> + Send {
        Waiting { room: queue, bytes, refused, ticket: None }
    }

    /// Lets a caller through that comes to an empty queue, if there may be room for it.
    fn pass(&self, bytes: usize) -> Option<RoomTicket> {
        let mut state = self.state.lock();
        if !state.queue.is_empty() {
            return None;
        }
        let log = self.log.lock();
        let passes = !log.is_running() || log.has_room(0, bytes);
        passes.then(|| RoomTicket { ticket: state.queue.ticket(), event: log.room_events() })
    }

    /// Wakes the callers that there may be room for, at most a batch. True: there are more.
    pub(super) fn wake_batch(self: &Arc<Self>) -> bool {
        self.wake_some(self.state.lock())
    }

    fn has_room(&self, kept: usize, bytes: usize) -> bool {
        self.log.lock().has_room(kept, bytes)
    }

    fn wake_some(self: &Arc<Self>, mut state: MutexGuard<'_, RoomState>) -> bool {
        let (mut called, tick) = (Vec::new(), state.tick);
        while called.len() < BATCH_ENTRIES {
            let kept = state.queue.kept();
            let waker = state.queue.call(tick, |bytes| self.has_room(kept, bytes));
            let Some(waker) = waker else { break };
            meter::entries(1);
            called.push(waker);
        }
        let is_more = called.len() == BATCH_ENTRIES;
        let begins = !state.queue.is_empty() && !state.is_ticking;
        state.is_ticking |= begins;
        let delay = if state.goes_on { Duration::ZERO } else { PATIENCE };
        drop(state);
        called.into_iter().for_each(wake);
        if begins {
            let room = Arc::downgrade(self);
            let tick = move || room.upgrade().into_iter().for_each(|room| room.tick());
            self.timer.after(delay, Box::new(tick));
        }
        is_more
    }

    fn tick(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.tick += u64::from(!state.goes_on);
        let tick = state.tick;
        state.goes_on = state.queue.revoke_calls(tick);
        state.is_ticking = false;
        self.wake_some(state);
    }
}

struct Waiting<'a> {
    room: &'a Arc<RoomQueue>,
    bytes: usize,
    refused: Option<RoomTicket>,
    /// From the first poll that found no room.
    ticket: Option<Ticket>,
}

impl Future for Waiting<'_> {
    type Output = RoomTicket;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<RoomTicket> {
        let room = self.room;
        if self.ticket.is_none() && self.refused.is_none() {
            if let Some(ticket) = room.pass(self.bytes) {
                return Poll::Ready(ticket);
            }
        }
        let waker = context.waker().clone();
        let mut state = room.state.lock();
        let found = match self.ticket {
            Some(ticket) => state.queue.poll(ticket, waker),
            None => TicketState::Missed(waker),
        };
        // Read before the question for room: room that comes later is another event.
        let (event, is_over) = {
            let log = room.log.lock();
            (log.room_events(), !log.is_running())
        };
        let (ticket, has_to_wait, waker) = match found {
            // Too many callers may have been woken, so another one may have taken the room.
            TicketState::Called(waker) => (self.ticket, !room.has_room(0, self.bytes), waker),
            TicketState::Waiting(before) => {
                drop(state);
                discard(before);
                return Poll::Pending;
            }
            TicketState::Missed(waker) => {
                let refused = self.refused.take();
                let is_refused = refused.is_some_and(|refused| refused.event == event);
                let ticket =
                    self.ticket.map(Ticket::retry).or(refused.map(|refused| refused.ticket));
                let kept = state.queue.kept();
                let is_behind = is_refused || state.queue.has_waiting();
                (ticket, is_behind || !room.has_room(kept, self.bytes), waker)
            }
        };
        let ticket = ticket.unwrap_or_else(|| state.queue.ticket());
        // If the log has ended, no wakeup would ever follow.
        if has_to_wait && !is_over {
            state.queue.enter(ticket, self.bytes, waker);
            self.ticket = Some(ticket);
            return Poll::Pending;
        }
        self.ticket = None;
        drop(state);
        discard(waker);
        Poll::Ready(RoomTicket { ticket, event })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.room.state.lock();
        let waker = state.queue.leave(ticket);
        self.room.wake_some(state);
        discard(waker);
    }
}
