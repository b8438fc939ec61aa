//! `Waiters`: callers that wait for an event or for a position to be reached.
//!
//! Nothing is granted: a woken waiter checks again when it is polled, and waits on if there is
//! nothing for it. So a waiter that is never polled delays no other. Change the state before
//! waking.
//!
//! Wakers are foreign code: they are called with panics contained and no lock held, at most
//! [`BATCH_ENTRIES`] before the waking task yields.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::ops::Bound;
use std::task::{Poll, Waker};

use parking_lot::Mutex;

use crate::batch::{BATCH_ENTRIES, yield_now};
use crate::meter;
use crate::wake::{discard, wake};

/// Waiting callers, ordered by the target that each waits for.
#[derive(Debug)]
pub(crate) struct Waiters<P = ()>(Mutex<Waiting<P>>);

#[derive(Debug)]
struct Waiting<P> {
    wakers: BTreeMap<(P, u64), Waker>,
    last: u64,
}

impl<P> Default for Waiters<P> {
    fn default() -> Self {
        Self(Mutex::new(Waiting { wakers: BTreeMap::new(), last: 0 }))
    }
}

impl<P: Ord + Copy> Waiters<P> {
    /// Resolves once `asked`, called in each poll, returns a value. Woken when `target` is reached.
    pub(crate) async fn until<T>(&self, target: P, mut asked: impl FnMut() -> Option<T>) -> T {
        if let Some(answer) = asked() {
            return answer;
        }
        let mut wait = Wait { waiters: self, target, number: None };
        poll_fn(|context| {
            // Registered first, so that a change after the check wakes.
            wait.note(context.waker());
            asked().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Wakes callers that wait for `target` or an earlier one.
    pub(crate) async fn wake_up_to(&self, target: P) {
        let mut walk = Walk::new(self, Some(target));
        // Bounded: one batch per iteration, then a yield.
        while walk.step() {
            yield_now().await;
        }
    }

    pub(crate) async fn wake_all(&self) {
        let mut walk = Walk::new(self, None);
        // Bounded: one batch per iteration, then a yield.
        while walk.step() {
            yield_now().await;
        }
    }

    /// Wakes all without yielding: for code that cannot await, or if only few can wait.
    pub(crate) fn wake_all_at_once(&self) {
        let mut walk = Walk::new(self, None);
        // Bounded: by the waiting callers, which are few or the tier has ended.
        while walk.step() {}
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().wakers.len()
    }
}

struct Walk<'a, P> {
    waiters: &'a Waiters<P>,
    /// The last target reached; None for all.
    end: Option<P>,
    /// The last number issued; later arrivals are skipped.
    last: u64,
    after: Option<(P, u64)>,
}

impl<'a, P: Ord + Copy> Walk<'a, P> {
    fn new(waiters: &'a Waiters<P>, end: Option<P>) -> Self {
        Self { waiters, end, last: waiters.0.lock().last, after: None }
    }

    /// Wakes the next batch. False if there are no more.
    fn step(&mut self) -> bool {
        let from = self.after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut waiting = self.waiters.0.lock();
        let reached = |&(target, _): &(P, u64)| self.end.is_none_or(|end| target <= end);
        let ahead = waiting.wakers.range((from, Bound::Unbounded)).map(|(key, _)| *key);
        let keys: Vec<_> = ahead.take_while(reached).take(BATCH_ENTRIES).collect();
        let is_known = |(_, number): &&(P, u64)| *number <= self.last;
        let woken = keys.iter().filter(is_known).filter_map(|key| waiting.wakers.remove(key));
        let woken: Vec<_> = woken.collect();
        drop(waiting);
        meter::entries(keys.len());
        // Bounded: one.
        woken.into_iter().for_each(wake);
        self.after = keys.last().copied();
        keys.len() == BATCH_ENTRIES
    }
}

/// A registered wait, until it is dropped.
struct Wait<'a, P: Ord + Copy> {
    waiters: &'a Waiters<P>,
    target: P,
    number: Option<u64>,
}

impl<P: Ord + Copy> Wait<'_, P> {
    fn note(&mut self, waker: &Waker) {
        let fresh = waker.clone();
        let mut waiting = self.waiters.0.lock();
        let number = self.number.filter(|&number| {
            // A wake removes it.
            waiting.wakers.contains_key(&(self.target, number))
        });
        let number = number.unwrap_or_else(|| {
            waiting.last += 1;
            waiting.last
        });
        self.number = Some(number);
        let worn = waiting.wakers.insert((self.target, number), fresh);
        drop(waiting);
        discard(worn);
    }
}

impl<P: Ord + Copy> Drop for Wait<'_, P> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let worn = self.waiters.0.lock().wakers.remove(&(self.target, number));
        discard(worn);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

    use futures::FutureExt;

    use super::*;
    use crate::meter::measured;

    /// Counts its calls, and panics in each.
    #[derive(Default)]
    struct Hostile(AtomicUsize);

    impl Wake for Hostile {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
            panic!("as planned");
        }
    }

    fn poll_with<T>(future: Pin<&mut impl Future<Output = T>>, waker: &Arc<Hostile>) -> Poll<T> {
        future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(waker))))
    }

    #[test]
    fn waiters_are_woken_when_their_target_is_reached() {
        let (waiters, reached) = (Waiters::default(), AtomicUsize::new(0));
        let hostile = Arc::new(Hostile::default());
        let wait = |target| {
            let (waiters, reached) = (&waiters, &reached);
            let has_come = move || (reached.load(Ordering::Relaxed) >= target).then_some(target);
            Box::pin(waiters.until(target, has_come))
        };
        let mut waits: Vec<_> = (1..=10).map(wait).collect();
        for wait in &mut waits {
            assert!(poll_with(wait.as_mut(), &hostile).is_pending());
        }
        reached.store(4, Ordering::Relaxed);
        waiters.wake_up_to(4).now_or_never().expect("few");
        assert_eq!(hostile.0.load(Ordering::Relaxed), 4, "all of them, although each panics");
        for (target, wait) in (1..).zip(&mut waits) {
            assert_eq!(poll_with(wait.as_mut(), &hostile).is_ready(), target <= 4);
        }
        reached.store(10, Ordering::Relaxed);
        waiters.wake_all_at_once();
        assert_eq!(hostile.0.load(Ordering::Relaxed), 10);
        assert!(waits[4..].iter_mut().all(|wait| wait.as_mut().now_or_never().is_some()));
        drop(waits);
        assert_eq!(waiters.len(), 0);
    }

    #[test]
    fn a_spurious_wake_keeps_waiting_and_a_dropped_wait_leaves_nothing() {
        let waiters = Waiters::<()>::default();
        let hostile = Arc::new(Hostile::default());
        let mut asked = 0;
        let mut wait = Box::pin(waiters.until((), || {
            asked += 1;
            (asked == 4).then_some(())
        }));
        assert!(poll_with(wait.as_mut(), &hostile).is_pending());
        waiters.wake_all().now_or_never().expect("few");
        assert!(poll_with(wait.as_mut(), &hostile).is_pending());
        assert_eq!(waiters.len(), 1);
        waiters.wake_all().now_or_never().expect("few");
        assert_eq!(hostile.0.load(Ordering::Relaxed), 2);
        assert!(poll_with(wait.as_mut(), &hostile).is_ready());
        drop(wait);
        for _ in 0..1000 {
            let mut wait = Box::pin(waiters.until((), || None::<()>));
            assert!(poll_with(wait.as_mut(), &hostile).is_pending());
        }
        assert_eq!((waiters.len(), Arc::strong_count(&hostile)), (0, 1));
    }

    #[test]
    fn a_crowd_is_woken_in_batches_each_waiter_once() {
        let waiters = Waiters::<u64>::default();
        let hostile = Arc::new(Hostile::default());
        let never = |target| Box::pin(waiters.until(target % 7u64, || None::<()>));
        let mut waits: Vec<_> = (0..16_000).map(never).collect();
        for wait in &mut waits {
            assert!(poll_with(wait.as_mut(), &hostile).is_pending());
        }
        let mut waking = pin!(waiters.wake_all());
        let mut polls = 0;
        loop {
            let mut context = Context::from_waker(Waker::noop());
            let (done, work) = measured(|| waking.as_mut().poll(&mut context).is_ready());
            polls += 1;
            assert!(work.entries <= BATCH_ENTRIES);
            if done {
                break;
            }
            // Waits registered meanwhile are not woken by this walk.
            for wait in &mut waits[..500] {
                assert!(poll_with(wait.as_mut(), &hostile).is_pending());
            }
        }
        assert!(polls > 16_000 / BATCH_ENTRIES);
        assert_eq!(hostile.0.load(Ordering::Relaxed), 16_000);
        drop(waits);
        assert_eq!(waiters.len(), 0);
    }
}
