//! How the log comes on: what its writer says has been done, and those who wait for that.
//!
//! What has come is changed under the lock, and those who wait for it are called when that is free
//! again: step by step, or, where the writer has failed, at once. Values that callers have put are
//! dropped outside of it, too.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::format::{Position, SegmentNumber};
use super::log::{Log, Standing, State};
use super::unit::{Job, Off, Unit};
use crate::batch::{BATCH_ENTRIES, yield_now};
use crate::disposal::Remains;
use crate::failpoint::{Failpoint, failpoint};
use crate::meter;
use crate::wake::discard;

impl Log {
    /// Whether somebody holds its lock.
    #[cfg(test)]
    pub(crate) fn is_locked(&self) -> bool {
        self.state.is_locked()
    }

    /// Resolves once everything before `end` is on file.
    pub(crate) async fn written(&self, end: Position) -> Result<(), Off> {
        {
            let mut state = self.state.lock();
            if let Some(answer) = state.is_written(end) {
                return answer;
            }
            state.urgent |= state.open.is_some();
        }
        self.writer.wake();
        self.waiters.until(end, || self.state.lock().is_written(end)).await
    }

    /// Resolves once the writer has finished what [`Log::close`] left it to do.
    pub(crate) async fn closed(&self) -> Result<(), Off> {
        let asked = || match self.state.lock().standing {
            Standing::Closed => Some(Ok(())),
            Standing::Off => Some(Err(Off)),
            Standing::Running | Standing::Closing => None,
        };
        self.closers.until((), asked).await
    }

    /// The writer has failed: nothing is taken any more. Those who wait have still to be told.
    pub(crate) fn turn_off(&self) {
        let mut state = self.state.lock();
        state.standing = Standing::Off;
        self.turns.fetch_add(1, Ordering::Release);
        let (jobs, open) = (std::mem::take(&mut state.jobs), state.open.take());
        state.waiting_bytes = 0;
        drop(state);
        let units = jobs.into_iter().filter_map(|job| match job {
            Job::Frame(unit) => Arc::into_inner(unit),
            Job::Seal(_) | Job::Close { .. } | Job::Fail => None,
        });
        let records = units.flat_map(|unit| unit.records);
        let records = records.chain(open.into_iter().flat_map(|unit| unit.records));
        drop(Remains::new(records.map(|record| {
            discard(record);
            1
        })));
    }

    /// Tells all who wait that the log has ended.
    pub(crate) async fn tell_all(self: &Arc<Self>) {
        self.waiters.wake_all().await;
        self.call_all().await;
        self.closers.wake_all().await;
    }

    /// The same for a writer that has gone, and cannot wait.
    pub(crate) fn tell_all_at_once(self: &Arc<Self>) {
        self.waiters.wake_all_at_once();
        // Bounded: by those who wait, when the tier has ended.
        while self.call() {}
        self.closers.wake_all_at_once();
    }

    /// The first job is done, and on file.
    pub(crate) async fn done(self: &Arc<Self>) {
        let (written, job) = {
            let mut state = self.state.lock();
            let job = state.jobs.pop_front();
            match &job {
                Some(Job::Frame(unit)) => {
                    state.written = unit.end;
                    state.acknowledged = state.acknowledged.max(unit.end);
                    let freed = unit.record_bytes();
                    state.waiting_bytes = state.waiting_bytes.saturating_sub(freed);
                }
                Some(Job::Close { .. }) => state.standing = Standing::Closed,
                Some(Job::Seal(_) | Job::Fail) | None => {}
            }
            self.turns.fetch_add(1, Ordering::Release);
            (state.written, job)
        };
        if failpoint(Failpoint::WokenUnderLock) {
            let _held = self.state.lock();
            self.waiters.wake_all_at_once();
        }
        self.waiters.wake_up_to(written).await;
        self.call_all().await;
        if let Some(Job::Close { .. }) = job {
            self.closers.wake_all().await;
        }
        if let Some(Job::Frame(unit)) = job {
            let_go(unit).await;
        }
    }

    /// Segment `newest` is ready to be written to.
    pub(crate) async fn announce(self: &Arc<Self>, newest: SegmentNumber) {
        {
            let mut state = self.state.lock();
            state.newest = state.newest.max(newest);
        }
        self.room_came().await;
    }

    /// The log is closing: those who wait for room will find none.
    pub(crate) async fn refuse_room(self: &Arc<Self>) {
        self.call_all().await;
    }
}

impl State {
    /// Whether everything before `end` is on file; None where that may still come.
    fn is_written(&self, end: Position) -> Option<Result<(), Off>> {
        match self.standing {
            _ if self.acknowledged >= end => Some(Ok(())),
            Standing::Off => Some(Err(Off)),
            _ => None,
        }
    }
}

/// Drops the records of a unit step by step: their values may be what callers have put.
async fn let_go(unit: Arc<Unit>) {
    let Some(unit) = Arc::into_inner(unit) else { return };
    let mut records = unit.records.into_iter();
    while records.len() > 0 {
        records.by_ref().take(BATCH_ENTRIES).for_each(|record| {
            meter::entries(1);
            discard(record);
        });
        yield_now().await;
    }
}
