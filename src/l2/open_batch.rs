//! `OpenBatch`: the write batch that collects records until it is closed. `Abandoned`: what a log
//! that was turned off has not written.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::batch_records::BatchRecords;
use super::format::Position;
use super::frame::FrameBuilder;
use super::write_batch::Job;

pub(super) struct OpenBatch {
    pub(super) position: Position,
    pub(super) frame: FrameBuilder,
    pub(super) records: BatchRecords,
}

/// To be dropped without the log's lock.
pub(super) struct Abandoned {
    jobs: VecDeque<Job>,
    open: Option<OpenBatch>,
}

impl Abandoned {
    pub(super) fn new(jobs: VecDeque<Job>, open: Option<OpenBatch>) -> Self {
        Self { jobs, open }
    }

    /// The bodies of its records, which may be values of the callers.
    pub(super) fn into_bodies(self) -> impl Iterator<Item = Bytes> + Send {
        let batches = self.jobs.into_iter().filter_map(|job| match job {
            Job::Write(batch) => Arc::into_inner(batch),
            Job::Seal(_) | Job::Close { .. } | Job::Fail => None,
        });
        let closed = batches.flat_map(|batch| batch.records.into_bodies());
        closed.chain(self.open.into_iter().flat_map(|batch| batch.records.into_bodies()))
    }
}
