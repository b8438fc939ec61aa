//! `Hostile`: wakers that panic, call the cache again, sleep, or panic when they are dropped.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use futures::future::BoxFuture;
use rand::RngExt;
use rand::rngs::StdRng;

use super::call::{self, SPACE};
use crate::cache::BlobCache;
use crate::engine::Engine;

/// The payload of all panics that a case makes on purpose.
pub(super) struct Planned;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mischief {
    None,
    Panics,
    Reenters,
    Sleeps,
    PanicsInDrop,
}

#[derive(Default)]
pub(super) struct Deeds {
    pub(super) panics: AtomicU64,
    pub(super) reentries: AtomicU64,
    pub(super) sleeps: AtomicU64,
    pub(super) drops: AtomicU64,
    /// Called, or dropped, while the cache held a lock.
    pub(super) locked: AtomicU64,
}

pub(super) struct Hostile {
    pub(super) executor: Waker,
    pub(super) mischief: Mischief,
    pub(super) cache: Weak<Engine>,
    pub(super) deeds: Arc<Deeds>,
}

thread_local! {
    static IS_REENTERED: Cell<bool> = const { Cell::new(false) };
}

impl Mischief {
    pub(super) fn draw(random: &mut StdRng) -> Self {
        match random.random_range(0..12) {
            0 | 1 => Self::Panics,
            2 | 3 => Self::Reenters,
            4 => Self::Sleeps,
            5 => Self::PanicsInDrop,
            _ => Self::None,
        }
    }
}

/// Panics, and prints nothing.
pub(super) fn throw() {
    if !thread::panicking() {
        resume_unwind(Box::new(Planned));
    }
}

impl Hostile {
    fn is_locked(&self) -> bool {
        let Some(engine) = self.cache.upgrade() else { return false };
        let is_log_locked = engine.parts.disk.l2().is_some_and(|l2| l2.log.is_locked());
        let is_locked = is_log_locked || engine.parts.commit_lock.is_busy();
        self.deeds.locked.fetch_add(u64::from(is_locked), Ordering::Relaxed);
        is_locked
    }

    fn reenter(&self) {
        if self.is_locked() || IS_REENTERED.replace(true) {
            return;
        }
        if let Some(engine) = self.cache.upgrade() {
            self.deeds.reentries.fetch_add(1, Ordering::Relaxed);
            let cache = BlobCache { engine };
            let _ = (cache.stats(), cache.exists(SPACE, "3"));
            let mut calls: Vec<BoxFuture<'_, ()>> = vec![
                Box::pin(async { drop(cache.get(SPACE, "3").await) }),
                Box::pin(async { drop(cache.put(SPACE, "4", "reentered").await) }),
                Box::pin(async { drop(cache.invalidate_key(SPACE, "5").await) }),
                Box::pin(async { drop(cache.get_or_fetch(SPACE, "6", call::plain_fetch()).await) }),
                Box::pin(async { drop(cache.sync().await) }),
            ];
            for call in &mut calls {
                let _ = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            }
        }
        IS_REENTERED.set(false);
    }
}

impl Wake for Hostile {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.executor.wake_by_ref();
        match self.mischief {
            Mischief::None | Mischief::PanicsInDrop => {}
            Mischief::Reenters => self.reenter(),
            Mischief::Sleeps => {
                self.is_locked();
                self.deeds.sleeps.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_micros(10));
            }
            Mischief::Panics => {
                self.is_locked();
                self.deeds.panics.fetch_add(1, Ordering::Relaxed);
                throw();
            }
        }
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        if self.mischief == Mischief::PanicsInDrop {
            self.is_locked();
            self.deeds.drops.fetch_add(1, Ordering::Relaxed);
            throw();
        }
    }
}
