//! The pump: carries out a queue of requests on one thread, beside the tasks of its runner.
//!
//! One task takes requests from the queue and polls all transfers itself, so a burst of completions
//! or requests costs one wakeup. Its invariants:
//!
//! - Operations in flight stay within a limit. Other requests wait in the queue.
//! - One sync at a time: callers that ask meanwhile share the next one.
//! - It ends only when the queue is closed, empty and all transfers are done, unless it panics.
//! - While operations are in flight the thread wakes up every [`FLUSH_INTERVAL`], because a ring
//!   that could not submit them tells nobody. An idle thread sleeps until it has work.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::{self, Either, LocalBoxFuture};
use futures::stream::{FuturesUnordered, Stream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep};

use super::device::Device;
use super::request::Request;
use super::task_server::TaskRunnerServer;
use super::transfer::{DEPTH, serve, width};
use super::turns::FLUSH_INTERVAL;
use crate::batch::BATCH_ENTRIES;
use crate::io::contained::message;
use crate::io::reply::Reply;
use crate::meter;
use crate::telemetry::tell;

/// How a thread serves its device.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    /// The most operations in flight; at least [`DEPTH`].
    pub(super) limit: usize,
    /// Tasks that yield give the device turns (see [`turns`](super::turns)).
    pub(super) takes_turns: bool,
}

/// The root of a disk's thread: serves requests, and the task runner, until both are closed and
/// drained. An error means that operations may be in flight. Must be polled within a `LocalSet`.
pub(super) async fn run<D: Device + 'static>(
    device: impl FnOnce() -> D + 'static,
    requests: mpsc::UnboundedReceiver<Request>,
    mut runner: TaskRunnerServer,
    manner: Manner,
) -> Result<(), tokio::task::JoinError> {
    let (stop, stopped) = oneshot::channel();
    // A task rather than the root: waking it from this thread then costs no system call.
    let pump = tokio::task::spawn_local(async move {
        let device = device();
        Pump::new(&device, requests, stopped, manner.limit).run().await;
    });
    let serving = runner.serve(manner.takes_turns).boxed_local();
    let pump_error = match future::select(pump, serving).await {
        Either::Left((Ok(()), serving)) => {
            // All senders of requests are dropped; those of the task runner may not be.
            serving.await;
            return Ok(());
        }
        Either::Left((Err(error), _)) => error,
        Either::Right(((), pump)) => {
            drop(stop);
            return pump.await;
        }
    };
    runner.abandon().await;
    Err(pump_error)
}

/// Takes requests while there is room, and polls all transfers.
struct Pump<'device, D> {
    device: &'device D,
    requests: mpsc::UnboundedReceiver<Request>,
    /// Whether more requests may come.
    open: bool,
    /// Resolves, either way, when no more requests are accepted.
    stopped: Option<oneshot::Receiver<()>>,
    /// The transfers in flight; each yields its width, and whether it was a sync.
    transfers: FuturesUnordered<LocalBoxFuture<'device, (usize, bool)>>,
    is_syncing: bool,
    /// Callers that wait for a sync that has not begun.
    unsynced: Vec<Reply<io::Result<()>>>,
    /// The sum of their widths; at most `limit`.
    operations: usize,
    limit: usize,
    /// Polled only while operations are in flight.
    flush: Pin<Box<Sleep>>,
}

impl<'device, D: Device> Pump<'device, D> {
    fn new(
        device: &'device D,
        requests: mpsc::UnboundedReceiver<Request>,
        stopped: oneshot::Receiver<()>,
        limit: usize,
    ) -> Self {
        Self {
            device,
            requests,
            open: true,
            stopped: Some(stopped),
            transfers: FuturesUnordered::new(),
            is_syncing: false,
            unsynced: Vec::new(),
            operations: 0,
            limit,
            flush: Box::pin(tokio::time::sleep(FLUSH_INTERVAL)),
        }
    }

    /// Serves until no more requests may come and all transfers are done.
    async fn run(mut self) {
        // The budget of the runtime would cut bursts into slices of 128.
        tokio::task::unconstrained(poll_fn(move |context| self.poll(context))).await;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.stopped.as_mut().is_some_and(|stopped| stopped.poll_unpin(context).is_ready()) {
            self.stopped = None;
            self.requests.close();
        }
        let mut budget = BATCH_ENTRIES;
        // Bounded: by the requests that may be under way.
        loop {
            // Bounded: by the requests that may be under way.
            while let Poll::Ready(Some((width, was_sync))) =
                Pin::new(&mut self.transfers).poll_next(context)
            {
                self.operations -= width;
                self.is_syncing &= !was_sync;
            }
            if !self.take(&mut budget, context) {
                break;
            }
        }
        if !self.open && self.transfers.is_empty() && self.unsynced.is_empty() {
            return Poll::Ready(());
        }
        if budget == 0 {
            // More requests may wait; completions come first.
            context.waker().wake_by_ref();
        }
        // Bounded: by the requests that may be under way.
        while !self.transfers.is_empty() && self.flush.poll_unpin(context).is_ready() {
            self.flush.as_mut().reset(Instant::now() + FLUSH_INTERVAL);
        }
        Poll::Pending
    }

    /// Takes the requests that there is room for, within a budget; returns whether it took any.
    fn take(&mut self, budget: &mut usize, context: &mut Context<'_>) -> bool {
        let mut taken = self.begin_sync();
        // Bounded: by the budget of a turn.
        while self.open && self.has_room() && *budget > 0 {
            match self.requests.poll_recv(context) {
                // Bounded: by the callers of one sync.
                Poll::Ready(Some(Request::Sync { replies })) => self.unsynced.extend(replies),
                Poll::Ready(Some(request)) => taken |= self.begin(request),
                Poll::Ready(None) => self.open = false,
                Poll::Pending => break,
            }
            *budget -= 1;
        }
        taken | self.begin_sync()
    }

    fn has_room(&self) -> bool {
        self.operations + DEPTH <= self.limit
    }

    /// Begins the next sync, if a caller waits for one and none is in flight.
    fn begin_sync(&mut self) -> bool {
        if self.is_syncing || self.unsynced.is_empty() || !self.has_room() {
            return false;
        }
        let replies = mem::take(&mut self.unsynced);
        self.begin(Request::Sync { replies })
    }

    /// Begins a transfer; returns whether there is one.
    fn begin(&mut self, request: Request) -> bool {
        #[cfg(test)]
        assert!(!matches!(request, Request::Panic), "asked to panic");
        meter::entries(1);
        if request.is_abandoned() {
            return false;
        }
        let (device, width) = (self.device, width(&request));
        let is_sync = matches!(request, Request::Sync { .. });
        self.operations += width;
        self.is_syncing |= is_sync;
        let transfer = async move {
            if let Err(panic) = AssertUnwindSafe(serve(device, request)).catch_unwind().await {
                tell!(error, "io", cause = message(&*panic), "a transfer panicked");
            }
            (width, is_sync)
        };
        self.transfers.push(Box::pin(transfer));
        true
    }
}
