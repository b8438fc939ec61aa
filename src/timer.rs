//! `Timer`: calls back after a time, whether or not anybody is polled meanwhile.
//!
//! Who waits for something that another caller holds has to be helped on when that caller is no
//! longer polled. No future of a caller can do that by itself, since it might be the next that is
//! not polled. An alarm runs on a thread of this library, contained, and has to be short: it
//! changes a few words and wakes.

use std::sync::Arc;
use std::time::Duration;

use crate::io::TaskRunner;
use crate::sweeper;
use crate::wake::contained;

/// What is done when the time has come. No lock is held then.
pub(crate) type Alarm = Box<dyn FnOnce() + Send>;

/// Where time comes from. Clones are the same.
#[derive(Clone)]
pub(crate) enum Timer {
    /// The one thread that all caches of the process share.
    Process,
    /// The lane of a disk: under a simulation its time is simulated, too.
    TaskRunner(Arc<dyn TaskRunner>),
}

impl Timer {
    /// Calls `alarm` once, after `delay` or a little later.
    pub(crate) fn after(&self, delay: Duration, alarm: Alarm) {
        match self {
            Self::Process => sweeper::after(delay, alarm),
            Self::TaskRunner(lane) => {
                let sleeping = lane.sleep(delay);
                let waiting = async move {
                    sleeping.await;
                    contained(alarm);
                };
                // Refused once the lane is closed, and then nothing is left to wait for.
                drop(lane.spawn("alarm", Box::pin(waiting)));
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
