//! `Manner`: how a call is polled. Some calls are put aside after a few polls, for long or forever,
//! without being dropped; some have misbehaving wakers.

use std::cell::Cell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};

use futures::future::BoxFuture;
use rand::RngExt;
use rand::rngs::StdRng;

use super::call::FullKey;
use crate::batch::yield_now;
use crate::cache::BlobCache;
use crate::engine::Engine;

#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) nap: Option<Nap>,
    mischief: Option<Mischief>,
}

/// When a call is put aside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nap {
    /// After that many polls.
    after: u32,
    /// Until that many other calls have begun; forever if None.
    pub(super) calls: Option<u32>,
}

/// The side effect of a waker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mischief {
    Panics,
    /// Calls the cache.
    Reenters(FullKey),
    /// Drops another call in progress.
    Drops(FullKey),
}

impl Manner {
    pub(super) const PLAIN: Self = Self { nap: None, mischief: None };

    pub(super) fn draw(random: &mut StdRng, full_key: FullKey) -> Self {
        let naps = random.random_bool(0.1);
        let (after, calls) = (random.random_range(1..6), random.random_range(10..80));
        let nap = Nap { after, calls: random.random_bool(0.5).then_some(calls) };
        let mischief = match random.random_range(0..20) {
            0 => Some(Mischief::Panics),
            1 | 2 => Some(Mischief::Reenters(full_key)),
            3 => Some(Mischief::Drops(full_key)),
            _ => None,
        };
        Self { nap: naps.then_some(nap), mischief }
    }
}

pub(super) enum Polled<T> {
    Ended(T),
    Asleep(BoxFuture<'static, T>, Nap),
}

/// Polls a call in its manner.
pub(super) async fn polled<T: 'static>(
    future: BoxFuture<'static, T>,
    nap: Option<Nap>,
) -> Polled<T> {
    let Some(nap) = nap else { return Polled::Ended(future.await) };
    let (mut future, mut polls) = (Some(future), nap.after);
    poll_fn(|context| {
        let Some(running) = &mut future else { return Poll::Pending };
        if let Poll::Ready(ended) = running.as_mut().poll(context) {
            return Poll::Ready(Polled::Ended(ended));
        }
        polls -= 1;
        match future.take_if(|_| polls == 0) {
            Some(asleep) => Poll::Ready(Polled::Asleep(asleep, nap)),
            None => Poll::Pending,
        }
    })
    .await
}

/// `None` after that many polls; the future is dropped then.
pub(super) async fn patient<T>(
    future: impl Future<Output = T> + Send,
    mut polls: u32,
) -> Option<T> {
    let mut future = Some(Box::pin(future));
    poll_fn(|context| {
        let Some(running) = &mut future else { return Poll::Ready(None) };
        match Pin::as_mut(running).poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polls == 0 => {
                future = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                polls -= 1;
                Poll::Pending
            }
        }
    })
    .await
}

#[derive(Debug, Default)]
pub(super) struct Deeds {
    pub(super) panics: AtomicU64,
    pub(super) reentries: AtomicU64,
    pub(super) drops: AtomicU64,
    /// A waker was called under a lock that it might have wanted.
    is_locked: AtomicBool,
}

impl Deeds {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.is_locked.load(Ordering::Relaxed) {
            Err("a waker is called under a lock of the cache".to_owned())
        } else {
            Ok(())
        }
    }
}

/// Makes a call's waker misbehave. None if the call itself invoked it and so has panicked.
pub(super) fn with_waker<T: 'static>(
    future: BoxFuture<'static, T>,
    (number, manner): (u32, Manner),
    cache: &BlobCache,
    deeds: &Arc<Deeds>,
) -> BoxFuture<'static, Option<T>> {
    let Some(mischief) = manner.mischief else {
        return Box::pin(async { Some(future.await) });
    };
    let mut dropped = match mischief {
        Mischief::Drops(full_key) => Some((cache.clone(), full_key)),
        _ => None,
    };
    let victim = Arc::default();
    let (cache, deeds) = (Arc::downgrade(&cache.engine), Arc::clone(deeds));
    let mut future = Some(future);
    Box::pin(poll_fn(move |context| {
        let Some(running) = &mut future else { return Poll::Pending };
        if let Some((cache, full_key)) = dropped.take() {
            *hold(&victim) = Some(begun(cache, full_key));
        }
        let waker = Waker::from(Arc::new(Hostile {
            executor: context.waker().clone(),
            number,
            mischief,
            cache: Weak::clone(&cache),
            victim: Arc::clone(&victim),
            deeds: Arc::clone(&deeds),
        }));
        let mut context = Context::from_waker(&waker);
        let thrown = match catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(&mut context))) {
            Ok(polled) => return polled.map(Some),
            Err(thrown) => thrown,
        };
        if thrown.downcast_ref() != Some(&panic_of(number)) {
            resume_unwind(thrown);
        }
        future = None;
        Poll::Ready(None)
    }))
}

type Victim = Mutex<Option<BoxFuture<'static, ()>>>;

fn hold(victim: &Victim) -> MutexGuard<'_, Option<BoxFuture<'static, ()>>> {
    victim.lock().unwrap_or_else(PoisonError::into_inner)
}

fn begun(cache: BlobCache, full_key: FullKey) -> BoxFuture<'static, ()> {
    let mut get: BoxFuture<'static, ()> = Box::pin(async move {
        cache.get(full_key.namespace(), full_key.name()).await;
    });
    match get.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(()) => Box::pin(async {}),
        Poll::Pending => get,
    }
}

/// The report of a panic that was not contained in its own call.
fn panic_of(number: u32) -> String {
    format!("the panic of the waker of call {number} is not contained")
}

struct Hostile {
    executor: Waker,
    number: u32,
    mischief: Mischief,
    cache: Weak<Engine>,
    victim: Arc<Victim>,
    deeds: Arc<Deeds>,
}

thread_local! {
    /// One level of nesting suffices.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

impl Wake for Hostile {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.executor.wake_by_ref();
        let count = |of: &AtomicU64| of.fetch_add(1, Ordering::Relaxed);
        match self.mischief {
            Mischief::Panics => {
                count(&self.deeds.panics);
                // Like a panic, but prints nothing.
                resume_unwind(Box::new(panic_of(self.number)));
            }
            Mischief::Reenters(full_key) => self.reenter(full_key),
            Mischief::Drops(_) => {
                let victim = hold(&self.victim).take();
                if victim.is_some() && !self.notes_lock() {
                    count(&self.deeds.drops);
                    drop(victim);
                }
            }
        }
    }
}

impl Hostile {
    fn reenter(&self, full_key: FullKey) {
        if self.notes_lock() || DEPTH.get() > 1 {
            return;
        }
        let Some(engine) = self.cache.upgrade() else { return };
        DEPTH.set(DEPTH.get() + 1);
        self.deeds.reentries.fetch_add(1, Ordering::Relaxed);
        let cache = BlobCache { engine };
        let _ = cache.stats();
        let _ = cache.exists(full_key.namespace(), full_key.name());
        drop(begun(cache, full_key));
        DEPTH.set(DEPTH.get() - 1);
    }

    /// Whether it is called under a lock: then a call would deadlock.
    fn notes_lock(&self) -> bool {
        let Some(engine) = self.cache.upgrade() else { return false };
        let is_log_locked = engine.parts.disk.l2().is_some_and(|l2| l2.log.is_locked());
        let is_locked = is_log_locked || engine.parts.commit_lock.is_busy();
        self.deeds.is_locked.fetch_or(is_locked, Ordering::Relaxed);
        is_locked
    }
}

/// Takes so many polls more.
pub(super) async fn yields(count: u32) {
    for _ in 0..count {
        yield_now().await;
    }
}
