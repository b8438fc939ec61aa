//! A ring's thread: a queue of requests on a `tokio_uring` runtime.
//!
//! One task, the pump, takes requests from the queue and polls all transfers itself, so a burst of
//! completions or requests costs one wakeup. Its invariants:
//!
//! - Operations in flight stay below the submission queue's size, so submitting never has to
//!   flush, and the completion queue (twice the size) never overflows. Other requests wait in the
//!   queue.
//! - One sync at a time: callers that ask meanwhile share the next one.
//! - **The runtime is never left, nor dropped, with operations in flight**, because
//!   it would free buffers that the kernel still writes to. The pump ends only when the queue is
//!   closed, empty and all transfers are done. If it panics, the runtime is leaked with its
//!   buffers.
//! - Submissions are flushed when the thread parks, for which tasks that yield give turns. A flush
//!   that the kernel refuses for lack of memory is not reported, so while operations are in flight
//!   the thread wakes up every [`FLUSH_INTERVAL`] to park and flush again. An idle thread sleeps
//!   until it has work.

use std::future::poll_fn;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::{fs, io};

use futures::FutureExt;
use futures::future::{self, Either, LocalBoxFuture};
use futures::stream::{FuturesUnordered, Stream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep};
use tokio_uring::fs::File;

use super::error::DiskError;
use super::limits::{RING_DESCRIPTORS, check_descriptors};
use super::probe::{ENTRIES_MIN, RingSetup};
use super::reply::Reply;
use super::request::Request;
use super::task_runner::{TaskRunnerServer, message};
use super::transfer::{DEPTH, serve, width};
use super::turns::FLUSH_INTERVAL;
use crate::batch::BATCH_ENTRIES;
use crate::meter;
use crate::telemetry::tell;

// A request of any width must fit beside nothing else.
const _: () = assert!((ENTRIES_MIN as usize) > 2 * DEPTH);

/// A ring built on this thread, ready to run.
pub(super) struct Ring {
    runtime: tokio_uring::Runtime,
    entries: usize,
}

impl Ring {
    /// Builds the ring that `setup` found.
    ///
    /// # Errors
    ///
    /// `Unavailable` if descriptors have run out, or the kernel refuses the ring by now.
    pub(super) fn new(setup: RingSetup) -> Result<Self, DiskError> {
        let mut builder = tokio_uring::builder();
        builder.entries(setup.entries).uring_builder(&setup.builder());
        check_descriptors(RING_DESCRIPTORS + 1)?;
        // The runtime unwraps where it registers the ring for polling.
        let built = catch_unwind(AssertUnwindSafe(|| tokio_uring::Runtime::new(&builder)));
        match built {
            Ok(Ok(runtime)) => Ok(Self { runtime, entries: setup.entries as usize }),
            Ok(Err(error)) => Err(DiskError::Unavailable {
                reason: format!("the runtime of the ring could not be built ({error})"),
            }),
            Err(panic) => Err(DiskError::Unavailable {
                reason: format!(
                    "the runtime of the ring could not be built ({})",
                    message(&*panic)
                ),
            }),
        }
    }

    /// Serves requests, and the task runner, until both are closed and drained; then closes the
    /// file. False: it has broken down, and operations may be in flight for ever.
    pub(super) fn run(
        self,
        name: &str,
        file: fs::File,
        requests: mpsc::UnboundedReceiver<Request>,
        runner: TaskRunnerServer,
    ) -> bool {
        // Beside them there may be a turn.
        let limit = self.entries - 2;
        let ran = catch_unwind(AssertUnwindSafe(|| {
            self.runtime.block_on(run(file, requests, runner, limit))
        }));
        let cause = match &ran {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => message(&**panic).to_owned(),
        };
        tell!(error, "io", ring = name, cause, "a ring broke down; its memory and its file stay");
        // The kernel may still write to buffers of operations in flight. The runtime's driver owns
        // these and would free them when dropped, so it is leaked.
        mem::forget(self.runtime);
        false
    }
}

/// The root of a ring's thread. An error means that operations may be in flight.
async fn run(
    file: fs::File,
    requests: mpsc::UnboundedReceiver<Request>,
    mut runner: TaskRunnerServer,
    limit: usize,
) -> Result<(), tokio::task::JoinError> {
    let (stop, stopped) = oneshot::channel();
    // A task rather than the root: waking it from this thread then costs no system call.
    let pump = tokio_uring::spawn(async move {
        let file = File::from_std(file);
        Pump::new(&file, requests, stopped, limit).run().await;
    });
    let pump_error = match future::select(pump, runner.serve_on_ring().boxed_local()).await {
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
struct Pump<'file> {
    file: &'file File,
    requests: mpsc::UnboundedReceiver<Request>,
    /// Whether more requests may come.
    open: bool,
    /// Resolves, either way, when no more requests are accepted.
    stopped: Option<oneshot::Receiver<()>>,
    /// The transfers in flight; each yields its width, and whether it was a sync.
    transfers: FuturesUnordered<LocalBoxFuture<'file, (usize, bool)>>,
    is_syncing: bool,
    /// Callers that wait for a sync that has not begun.
    unsynced: Vec<Reply<io::Result<()>>>,
    /// The sum of their widths; at most `limit`.
    operations: usize,
    limit: usize,
    /// Polled only while operations are in flight.
    flush: Pin<Box<Sleep>>,
}

impl<'file> Pump<'file> {
    fn new(
        file: &'file File,
        requests: mpsc::UnboundedReceiver<Request>,
        stopped: oneshot::Receiver<()>,
        limit: usize,
    ) -> Self {
        Self {
            file,
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
        let (file, width) = (self.file, width(&request));
        let is_sync = matches!(request, Request::Sync { .. });
        self.operations += width;
        self.is_syncing |= is_sync;
        let transfer = async move {
            if let Err(panic) = AssertUnwindSafe(serve(file, request)).catch_unwind().await {
                tell!(error, "io", cause = message(&*panic), "a transfer panicked");
            }
            (width, is_sync)
        };
        self.transfers.push(Box::pin(transfer));
        true
    }
}
