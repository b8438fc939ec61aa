//! `Timer`: delayed callbacks that need no caller to be polled.
//!
//! If a caller holds what another one waits for and is no longer polled, the waiting one must be
//! helped. No caller's future can do that, since it might not be polled either. An alarm runs on a
//! thread of this library, with panics contained, and must be short: it changes a few words and
//! wakes.

use std::sync::Arc;
use std::time::Duration;

use crate::io::TaskRunner;
use crate::sweeper::{self, AlarmId};
use crate::wake::contained;

/// How long others wait for the poll of a caller or task that was woken: their alarm goes off
/// after it, or after twice that at most.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);

/// Runs when the time has come, without a lock held.
pub(crate) type Alarm = Box<dyn FnOnce() + Send>;

/// A source of delays. Clones are equivalent.
#[derive(Clone)]
pub(crate) enum Timer {
    /// The thread that all caches of the process share.
    Process,
    /// The task runner of a disk: simulated disks simulate time as well.
    TaskRunner(Arc<dyn TaskRunner>),
}

/// The alarm does not go off once this is dropped; one of a simulated disk goes off, unheard.
#[derive(Debug)]
#[must_use = "dropped, it cancels the alarm"]
pub(crate) struct AlarmGuard(Option<AlarmId>);

impl Drop for AlarmGuard {
    fn drop(&mut self) {
        // Bounded: one.
        self.0.take().into_iter().for_each(sweeper::cancel);
    }
}

impl Timer {
    /// Calls `alarm` once, after `delay` or a little later.
    pub(crate) fn after(&self, delay: Duration, alarm: Alarm) {
        self.set(delay, alarm);
    }

    /// The same, unless the guard is dropped before.
    pub(crate) fn cancellable(&self, delay: Duration, alarm: Alarm) -> AlarmGuard {
        AlarmGuard(self.set(delay, alarm))
    }

    fn set(&self, delay: Duration, alarm: Alarm) -> Option<AlarmId> {
        match self {
            Self::Process => sweeper::after(delay, alarm),
            Self::TaskRunner(runner) => {
                let sleeping = runner.sleep(delay);
                let waiting = async move {
                    sleeping.await;
                    contained(alarm);
                };
                // Refused once the runner is closed; then there is nothing left to wait for.
                drop(runner.spawn("alarm", Box::pin(waiting)));
                None
            }
        }
    }
}

impl std::fmt::Debug for Timer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Process => "Process",
            Self::TaskRunner(_) => "TaskRunner",
        })
    }
}
