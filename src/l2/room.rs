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

use parking_lot::{Mutex, MutexGuard};

use super::log::Log;
use crate::limiter::PATIENCE;
use crate::queue::{Queue, Turn};
use crate::step::{STEP_ENTRIES, pause};
use crate::timer::Timer;
use crate::wake::{discard, wake};

pub(super) struct Room {
    timer: Timer,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: Queue,
    tick: u64,
    is_ticking: bool,
}

/// A place among those who want room, and the turn of the log at which it was called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    number: u64,
    turn: u64,
}

impl Room {
    pub(super) fn new(timer: Timer) -> Self {
        Self { timer, state: Mutex::default() }
    }
}

impl Log {
    /// Resolves when there may be room for `bytes`, at once if nobody waits for it and there is.
    /// `refused`: where the log has refused them, for want of room, since it resolved. Resolves
    /// when the log has ended as well.
    pub(crate) async fn room(self: &Arc<Self>, bytes: usize, refused: Option<Place>) -> Place {
        Waiting { log: self, bytes, refused, number: None }.await
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
            pause().await;
        }
    }

    fn call_some(self: &Arc<Self>, mut state: MutexGuard<'_, State>) -> bool {
        let (mut called, tick) = (Vec::new(), state.tick);
        while called.len() < STEP_ENTRIES {
            let kept = state.queue.kept();
            let waker = state.queue.call(tick, |bytes| self.has_room(kept, bytes));
            let Some(waker) = waker else { break };
            crate::meter::entries(1);
            called.push(waker);
        }
        let is_more = called.len() == STEP_ENTRIES;
        let begins = !state.queue.is_empty() && !state.is_ticking;
        state.is_ticking |= begins;
        drop(state);
        called.into_iter().for_each(wake);
        if begins {
            let log = Arc::downgrade(self);
            let tick = move || log.upgrade().into_iter().for_each(|log| log.tick());
            self.room.timer.after(PATIENCE, Box::new(tick));
        }
        is_more
    }

    fn tick(self: &Arc<Self>) {
        let mut state = self.room.state.lock();
        state.tick += 1;
        let tick = state.tick;
        state.queue.give_up(tick);
        state.is_ticking = false;
        self.call_some(state);
    }
}

struct Waiting<'a> {
    log: &'a Arc<Log>,
    bytes: usize,
    refused: Option<Place>,
    /// While it waits.
    number: Option<u64>,
}

impl Future for Waiting<'_> {
    type Output = Place;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Place> {
        let waker = context.waker().clone();
        let log = self.log;
        let mut state = log.room.state.lock();
        let found = match self.number {
            Some(number) => state.queue.poll(number, waker),
            None => Turn::Lost(waker),
        };
        // Asked first: what comes from here on is another turn.
        let turn = log.turn();
        let kept = state.queue.kept();
        let is_refused = self.refused.is_some_and(|place| place.turn == turn);
        let number = match found {
            Turn::Come(waker) => {
                drop(state);
                drop(waker);
                self.number.take().unwrap_or_default()
            }
            Turn::Waiting(before) => {
                drop(state);
                discard(before);
                return Poll::Pending;
            }
            Turn::Lost(waker) => {
                let refused = self.refused.take();
                let number = refused.map_or_else(|| state.queue.number(), |place| place.number);
                let has_to_wait = is_refused || state.queue.is_waited();
                if has_to_wait || !log.has_room(kept, self.bytes) {
                    state.queue.enter(number, self.bytes, waker);
                    self.number = Some(number);
                    return Poll::Pending;
                }
                drop(state);
                drop(waker);
                number
            }
        };
        Poll::Ready(Place { number, turn })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut state = self.log.room.state.lock();
        let waker = state.queue.leave(number);
        self.log.call_some(state);
        discard(waker);
    }
}
