//! `Reply` and `Answer`: how a ring's thread answers a caller.
//!
//! The call of the caller's waker is contained and holds no lock, so a waker that panics or calls
//! the cache does not harm the ring. Each side notices when the other is dropped.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::wake::{discard, wake};

/// The answering side. Dropping it answers that there is no answer.
#[derive(Debug)]
pub(super) struct Reply<T>(Arc<Mutex<Exchange<T>>>);

/// Resolves with the answer. None: the other side was dropped without one.
#[derive(Debug)]
pub(super) struct Answer<T>(Arc<Mutex<Exchange<T>>>);

#[derive(Debug)]
enum Exchange<T> {
    /// There is no answer yet. The waker is that of the last poll.
    Open(Option<Waker>),
    Given(T),
    /// One of the two sides was dropped, or the answer was taken.
    Over,
}

/// The two sides of one exchange.
pub(super) fn exchange<T>() -> (Reply<T>, Answer<T>) {
    let exchange = Arc::new(Mutex::new(Exchange::Open(None)));
    (Reply(Arc::clone(&exchange)), Answer(exchange))
}

impl<T> Reply<T> {
    /// Whether no caller waits for the answer.
    pub(super) fn is_abandoned(&self) -> bool {
        matches!(*self.0.lock(), Exchange::Over)
    }

    /// Answers, unless the other side was dropped.
    pub(super) fn send(self, answer: T) {
        self.end(Some(answer));
    }

    fn end(&self, answer: Option<T>) {
        let mut exchange = self.0.lock();
        let Exchange::Open(waker) = &mut *exchange else { return };
        let waker = waker.take();
        *exchange = answer.map_or(Exchange::Over, Exchange::Given);
        drop(exchange);
        // Bounded: one.
        waker.into_iter().for_each(wake);
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.end(None);
    }
}

impl<T> Future for Answer<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        // Cloned before the lock is taken, because cloning runs the caller's code.
        let fresh = context.waker().clone();
        let mut exchange = self.0.lock();
        let worn = match &mut *exchange {
            Exchange::Open(waker) => waker.replace(fresh),
            other => {
                let ended = mem::replace(other, Exchange::Over);
                drop(exchange);
                discard(fresh);
                return Poll::Ready(match ended {
                    Exchange::Given(answer) => Some(answer),
                    Exchange::Open(_) | Exchange::Over => None,
                });
            }
        };
        drop(exchange);
        discard(worn);
        Poll::Pending
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        let ended = mem::replace(&mut *self.0.lock(), Exchange::Over);
        match ended {
            Exchange::Open(waker) => discard(waker),
            Exchange::Given(answer) => drop(answer),
            Exchange::Over => {}
        }
    }
}

#[cfg(not(modelled))]
#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use futures::FutureExt;

    use super::*;

    /// Panics when it is called, and when it is dropped.
    struct Hostile(AtomicUsize);

    impl Wake for Hostile {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
            panic!("as planned");
        }
    }

    impl Drop for Hostile {
        fn drop(&mut self) {
            panic!("as planned");
        }
    }

    fn poll_with<T>(answer: &mut Answer<T>, waker: &Arc<Hostile>) -> Poll<Option<T>> {
        answer.poll_unpin(&mut Context::from_waker(&Waker::from(Arc::clone(waker))))
    }

    #[test]
    fn an_answer_comes_through_though_the_waker_panics() {
        let hostile = Arc::new(Hostile(AtomicUsize::new(0)));
        let (reply, mut answer) = exchange();
        assert!(poll_with(&mut answer, &hostile).is_pending());
        reply.send(7);
        assert_eq!(hostile.0.load(Ordering::Relaxed), 1);
        assert_eq!(answer.now_or_never(), Some(Some(7)));
        let (reply, mut answer) = exchange::<u32>();
        assert!(poll_with(&mut answer, &hostile).is_pending());
        drop(reply);
        assert_eq!(hostile.0.load(Ordering::Relaxed), 2);
        assert_eq!(answer.now_or_never(), Some(None));
        mem::forget(hostile);
    }

    #[test]
    fn two_panicking_wakers_do_not_abort_an_unwind() {
        let unwound = std::panic::catch_unwind(|| {
            let exchanges = [exchange::<u32>(), exchange::<u32>()];
            let (replies, answers): (Vec<_>, Vec<_>) = exchanges.into_iter().unzip();
            let mut answers = answers;
            for answer in &mut answers {
                let hostile = Arc::new(Hostile(AtomicUsize::new(0)));
                assert!(poll_with(answer, &hostile).is_pending());
                mem::forget(hostile);
            }
            let _replies = replies;
            panic!("as planned");
        });
        assert_eq!(unwound.unwrap_err().downcast_ref::<&str>(), Some(&"as planned"));
    }

    #[test]
    fn each_side_notices_that_the_other_was_dropped() {
        let (reply, answer) = exchange::<u32>();
        assert!(!reply.is_abandoned());
        drop(answer);
        assert!(reply.is_abandoned());
        let held = Arc::new(());
        let (reply, answer) = exchange();
        reply.send(Arc::clone(&held));
        drop(answer);
        assert_eq!(Arc::strong_count(&held), 1, "an answer that nobody takes is dropped");
    }
}
