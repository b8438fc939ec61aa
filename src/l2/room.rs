//! Waiting for room in the log.
//!
//! A put asks before it copies anything, and holds nothing while it waits. Those who wait are
//! called in the order in which they came, no more of them than there is room for; each appends in
//! the poll in which it comes. One that finds the room gone keeps its place. One that is called and
//! not polled loses it (see [`Queue`]), so that a caller who sleeps holds up nobody.
//!
//! The lock of the queue comes before that of the log's state.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::log::Log;
use crate::batch::{BATCH_ENTRIES, yield_now};
use crate::limiter::PATIENCE;
use crate::queue::{Queue, Ticket, TicketState};
use crate::timer::Timer;
use crate::wake::{discard, wake};

pub(super) struct RoomQueue {
    timer: Timer,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: Queue,
    tick: u64,
    is_ticking: bool,
    /// What goes off next is the rest of this tick.
    goes_on: bool,
}

/// A place among those who want room, and the turn of the log at which it was called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    ticket: Ticket,
    turn: u64,
}

impl RoomQueue {
    pub(super) fn new(timer: Timer) -> Self {
        Self { timer, state: Mutex::default() }
    }
}

impl Log {
    /// Resolves when there may be room for `bytes`, at once if nobody waits for it and there is.
    /// `refused`: where the log has refused them, for want of room, since it resolved. Resolves
    /// when the log has ended as well.
    pub(crate) async fn room(self: &Arc<Self>, bytes: usize, refused: Option<Place>) -> Place {
        Waiting { log: self, bytes, refused, ticket: None }.await
    }

    /// Room may have come: calls those who wait for it, a step of them at most. True where more of
    /// them are to be called.
    pub(super) fn call(self: &Arc<Self>) -> bool {
        self.call_some(self.room.state.lock())
    }

    /// The same until all have been called that there is room for.
    pub(super) async fn call_all(self: &Arc<Self>) {
        // Bounded: a step in each turn, then a pause.
        while self.call() {
            yield_now().await;
        }
    }

    fn call_some(self: &Arc<Self>, mut state: MutexGuard<'_, State>) -> bool {
        let (mut called, tick) = (Vec::new(), state.tick);
        while called.len() < BATCH_ENTRIES {
            let kept = state.queue.kept();
            let waker = state.queue.call(tick, |bytes| self.has_room(kept, bytes));
            let Some(waker) = waker else { break };
            crate::meter::entries(1);
            called.push(waker);
        }
        let is_more = called.len() == BATCH_ENTRIES;
        let begins = !state.queue.is_empty() && !state.is_ticking;
        state.is_ticking |= begins;
        let delay = if state.goes_on { Duration::ZERO } else { PATIENCE };
        drop(state);
        called.into_iter().for_each(wake);
        if begins {
            let log = Arc::downgrade(self);
            let tick = move || log.upgrade().into_iter().for_each(|log| log.tick());
            self.room.timer.after(delay, Box::new(tick));
        }
        is_more
    }

    fn tick(self: &Arc<Self>) {
        let mut state = self.room.state.lock();
        state.tick += u64::from(!state.goes_on);
        let tick = state.tick;
        state.goes_on = state.queue.revoke_calls(tick);
        state.is_ticking = false;
        self.call_some(state);
    }
}

struct Waiting<'a> {
    log: &'a Arc<Log>,
    bytes: usize,
    refused: Option<Place>,
    /// Its place, from the poll on in which there was no room.
    ticket: Option<Ticket>,
}

impl Future for Waiting<'_> {
    type Output = Place;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Place> {
        let waker = context.waker().clone();
        let log = self.log;
        let mut state = log.room.state.lock();
        let found = match self.ticket {
            Some(ticket) => state.queue.poll(ticket, waker),
            None => TicketState::Missed(waker),
        };
        // Asked first: what comes from here on is another turn.
        let turn = log.turn();
        let is_over = log.is_over();
        let (ticket, has_to_wait, waker) = match found {
            // So many have been called that somebody else has taken what there was.
            TicketState::Called(waker) => (self.ticket, !log.has_room(0, self.bytes), waker),
            TicketState::Waiting(before) => {
                drop(state);
                discard(before);
                return Poll::Pending;
            }
            TicketState::Missed(waker) => {
                let refused = self.refused.take();
                let is_refused = refused.is_some_and(|place| place.turn == turn);
                let ticket = self.ticket.map(Ticket::retry).or(refused.map(|place| place.ticket));
                let kept = state.queue.kept();
                let is_behind = is_refused || state.queue.has_waiting();
                (ticket, is_behind || !log.has_room(kept, self.bytes), waker)
            }
        };
        let ticket = ticket.unwrap_or_else(|| state.queue.ticket());
        // Where the log has ended, nobody would ever call.
        if has_to_wait && !is_over {
            state.queue.enter(ticket, self.bytes, waker);
            self.ticket = Some(ticket);
            return Poll::Pending;
        }
        self.ticket = None;
        drop(state);
        discard(waker);
        Poll::Ready(Place { ticket, turn })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.log.room.state.lock();
        let waker = state.queue.leave(ticket);
        self.log.call_some(state);
        discard(waker);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::super::checksum::ChecksumKey;
    use super::super::directory::DirectoryBuilder;
    use super::super::format::{
        BLOCK_BYTES, Geometry, OpenCount, Position, SegmentNumber, StoreId,
    };
    use super::super::log::LogStart;
    use super::*;

    fn log() -> Arc<Log> {
        let geometry = Geometry::new(1 << 20, 16).expect("a geometry");
        Arc::new(Log::new(LogStart {
            geometry,
            key: ChecksumKey::new(StoreId([7; 16])),
            open_count: OpenCount(1),
            tail: Position::new(BLOCK_BYTES as u64).expect("a position"),
            directory: DirectoryBuilder::new(SegmentNumber(0), geometry),
            newest: SegmentNumber(0),
            head: SegmentNumber(0),
            index_share: 1 << 20,
            timer: Timer::Process,
        }))
    }

    #[test]
    fn who_was_refused_before_the_log_ended_goes_on_and_so_do_all_behind() {
        for is_closed in [false, true] {
            let log = log();
            let refused = log.room(10, None).now_or_never().expect("there is room");
            if is_closed {
                log.close();
            } else {
                log.turn_off();
            }
            assert!(log.room(10, Some(refused)).now_or_never().is_some());
            assert!(log.room(10, None).now_or_never().is_some());
        }
    }
}
