//! `Server`: what serves the requests of one of a disk's two threads: a ring, or a pool of threads.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::pool::{PoolUser, PooledFile};
use super::probe::RingSetup;
use super::pump::{Manner, run};
use super::request::Request;
use super::ring::Ring;
use super::task_server::TaskRunnerServer;
use crate::io::contained::message;
use crate::io::error::DiskError;
use crate::telemetry::tell;

/// Built on the thread that it serves.
pub(super) enum Server {
    Ring(Ring),
    Pool(PoolServer),
}

/// A pump and tasks beside a pool.
pub(super) struct PoolServer {
    runtime: Runtime,
    user: PoolUser,
    limit: usize,
}

impl Server {
    /// The ring that `setup` found.
    ///
    /// # Errors
    ///
    /// `NoRing`, or `Unavailable` if descriptors have run out.
    pub(super) fn ring(setup: RingSetup) -> Result<Self, DiskError> {
        Ring::new(setup).map(Self::Ring)
    }

    /// A pool, with at most `limit` operations in flight.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the thread's runtime cannot be built.
    pub(super) fn pool(user: PoolUser, limit: usize) -> Result<Self, DiskError> {
        let failed = |error: io::Error| DiskError::Unavailable {
            reason: format!("the runtime of a thread could not be built ({error})"),
        };
        let runtime = Builder::new_current_thread().enable_time().build().map_err(failed)?;
        Ok(Self::Pool(PoolServer { runtime, user, limit }))
    }

    /// Serves requests, and the task runner, until both are closed and drained; then closes the
    /// file. False: it has broken down, and operations may be in flight for ever.
    pub(super) fn run(
        self,
        name: &str,
        file: File,
        requests: mpsc::UnboundedReceiver<Request>,
        runner: TaskRunnerServer,
    ) -> bool {
        match self {
            Self::Ring(ring) => ring.run(name, file, requests, runner),
            Self::Pool(server) => {
                server.run(name, file, requests, runner);
                true
            }
        }
    }
}

impl PoolServer {
    /// If the pump panics, its operations go on to their ends: the pool's threads own them, and
    /// hold the file's lock until then.
    fn run(
        self,
        name: &str,
        file: File,
        requests: mpsc::UnboundedReceiver<Request>,
        runner: TaskRunnerServer,
    ) {
        let Self { runtime, user, limit } = self;
        let manner = Manner { limit, takes_turns: false };
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let serving = run(|| PooledFile { file, user }, requests, runner, manner);
            LocalSet::new().block_on(&runtime, serving)
        }));
        let cause = match &ran {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => message(&**panic).to_owned(),
        };
        tell!(error, "io", thread = name, cause, "a thread of a disk broke down");
    }
}
