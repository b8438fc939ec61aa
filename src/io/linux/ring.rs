//! `Ring`: a thread's queue of requests on a `tokio_uring` runtime.
//!
//! - Operations in flight stay below the submission queue's size, so submitting never has to
//!   flush, and the completion queue (twice the size) never overflows.
//! - **The runtime is never left, nor dropped, with operations in flight**, because it would free
//!   buffers that the kernel still writes to. The pump ends only when all transfers are done. If it
//!   panics, the runtime is leaked with its buffers.
//! - Submissions are flushed when the thread parks, for which tasks that yield give turns. A flush
//!   that the kernel refuses for lack of memory is not reported; the pump wakes up to flush again.

use std::fs;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::mpsc;
use tokio_uring::fs::File;

use super::limits::{RING_DESCRIPTORS, check_descriptors};
use super::probe::{ENTRIES_MIN, RingSetup};
use super::pump::{Manner, run};
use super::request::Request;
use super::task_server::TaskRunnerServer;
use super::transfer::DEPTH;
use crate::io::contained::message;
use crate::io::error::{DiskError, is_out_of_descriptors};
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
    /// `Unavailable` if descriptors have run out, `NoRing` if the kernel refuses the ring by now.
    pub(super) fn new(setup: RingSetup) -> Result<Self, DiskError> {
        let mut builder = tokio_uring::builder();
        builder.entries(setup.entries).uring_builder(&setup.builder());
        check_descriptors(RING_DESCRIPTORS + 1)?;
        // The runtime unwraps where it registers the ring for polling.
        let built = catch_unwind(AssertUnwindSafe(|| tokio_uring::Runtime::new(&builder)));
        match built {
            Ok(Ok(runtime)) => Ok(Self { runtime, entries: setup.entries as usize }),
            Ok(Err(error)) if is_out_of_descriptors(&error) => {
                Err(DiskError::out_of_descriptors(&error))
            }
            Ok(Err(error)) => Err(DiskError::NoRing {
                reason: format!("the runtime of the ring could not be built ({error})"),
            }),
            Err(panic) => Err(DiskError::NoRing {
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
        let manner = Manner { limit: self.entries - 2, takes_turns: true };
        let ran = catch_unwind(AssertUnwindSafe(|| {
            self.runtime.block_on(run(|| File::from_std(file), requests, runner, manner))
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
