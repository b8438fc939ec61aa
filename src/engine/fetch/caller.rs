//! `CallerFetch`: a caller's fetch as its driver sees it. `FetchOnce`: one that is called at most
//! once.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::put::BlobCachePut;
use crate::wake::discard;

/// All of it is foreign code.
pub(crate) trait CallerFetch<E> {
    fn is_called(&self) -> bool;

    /// Once. It may panic.
    fn call(&mut self);

    /// After it was called. It may panic, and is not polled again then.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<BlobCachePut, E>>;

    /// Drops it, called or not. Its panic is contained.
    fn end(&mut self);
}

/// One that a task may run.
pub(crate) type SpawnableFetch<E> = Box<dyn CallerFetch<E> + Send>;

impl<C: CallerFetch<E> + ?Sized, E> CallerFetch<E> for Box<C> {
    fn is_called(&self) -> bool {
        (**self).is_called()
    }

    fn call(&mut self) {
        (**self).call();
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<BlobCachePut, E>> {
        (**self).poll(context)
    }

    fn end(&mut self) {
        (**self).end();
    }
}

/// A fetch that is not called yet: a closure, or a type whose name the type of a future can have.
pub(crate) trait Begin<Fut> {
    fn begin(self) -> Fut;
}

impl<F: FnOnce() -> Fut, Fut> Begin<Fut> for F {
    fn begin(self) -> Fut {
        self()
    }
}

pub(crate) struct FetchOnce<F, Fut>(State<F, Fut>);

enum State<F, Fut> {
    NotCalled(F),
    Called(Pin<Box<Fut>>),
    Over,
}

impl<F: Begin<Fut>, Fut> FetchOnce<F, Fut> {
    pub(crate) fn new(fetch: F) -> Self {
        Self(State::NotCalled(fetch))
    }

    pub(crate) fn spawnable<E>(fetch: F) -> SpawnableFetch<E>
    where
        F: Send + 'static,
        Fut: Future<Output = Result<BlobCachePut, E>> + Send + 'static,
    {
        Box::new(Self::new(fetch))
    }
}

impl<F, Fut, E> CallerFetch<E> for FetchOnce<F, Fut>
where
    F: Begin<Fut>,
    Fut: Future<Output = Result<BlobCachePut, E>>,
{
    fn is_called(&self) -> bool {
        !matches!(self.0, State::NotCalled(_))
    }

    fn call(&mut self) {
        let State::NotCalled(fetch) = mem::replace(&mut self.0, State::Over) else {
            unreachable!("a call leads once")
        };
        self.0 = State::Called(Box::pin(fetch.begin()));
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<BlobCachePut, E>> {
        let State::Called(fetching) = &mut self.0 else { unreachable!("it is not called") };
        fetching.as_mut().poll(context)
    }

    fn end(&mut self) {
        discard(mem::replace(&mut self.0, State::Over));
    }
}

impl<F, Fut> Drop for FetchOnce<F, Fut> {
    fn drop(&mut self) {
        discard(mem::replace(&mut self.0, State::Over));
    }
}
