//! Events and spans for the subscriber of `tracing` that the user has installed.
//!
//! A subscriber is the user's code: it may panic, block, or call the cache again. So it is called
//! without locks, and its panics are contained. Spans surround futures of callers; tasks of the
//! cache tell events once what others wait for is done. A hit in memory passes nothing of this.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use tracing::Span;

use crate::wake::{contained, discard};

/// Tells an event of a level under the target `tamis::` and a topic. No lock may be held.
macro_rules! tell {
    ($level:ident, $topic:literal, $($event:tt)+) => {{
        let tell = || tracing::$level!(target: concat!("tamis::", $topic), $($event)+);
        let _: Option<()> = $crate::wake::contained(tell);
    }};
}

pub(crate) use tell;

/// A span that its creator may drop anywhere, and whose making may panic.
#[derive(Debug)]
pub(crate) struct Contained(Span);

impl Contained {
    pub(crate) fn new(make: impl FnOnce() -> Span) -> Self {
        Self(contained(make).unwrap_or_else(Span::none))
    }

    /// The span that this thread is in.
    pub(crate) fn current() -> Self {
        Self::new(Span::current)
    }

    /// Says what has caused it, unless it has begun inside of that.
    pub(crate) fn follow(&self, cause: &Self) {
        if !self.0.is_none() && cause.0.id() != Self::current().0.id() {
            contained(|| _ = self.0.follows_from(cause.0.id()));
        }
    }

    /// Runs something inside the span.
    pub(crate) fn within<R>(&self, run: impl FnOnce() -> R) -> R {
        if self.0.is_none() {
            return run();
        }
        self.0.with_subscriber(|(id, subscriber)| contained(|| subscriber.enter(id)));
        let _inside = Inside(&self.0);
        run()
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        discard(mem::replace(&mut self.0, Span::none()));
    }
}

/// Leaves the span, after a panic too.
struct Inside<'a>(&'a Span);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.with_subscriber(|(id, subscriber)| contained(|| subscriber.exit(id)));
    }
}

/// A future whose polls are inside a span. Its drop is not: it drops the future, then the span.
pub(crate) struct Spanned<F> {
    future: F,
    span: Contained,
}

impl<F: Future + Unpin> Future for Spanned<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { future, span } = &mut *self;
        span.within(|| Pin::new(future).poll(context))
    }
}

/// The same for a future that has to be boxed for it.
pub(crate) fn spanned<F: Future>(span: impl FnOnce() -> Span, future: F) -> Spanned<Pin<Box<F>>> {
    Spanned { future: Box::pin(future), span: Contained::new(span) }
}
