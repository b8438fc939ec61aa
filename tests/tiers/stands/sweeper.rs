//! Stands for `src/sweeper.rs`: nothing is swept unless a caller does, and alarms go off at any
//! moment.

use std::sync::Weak;
use std::time::Duration;

pub(crate) trait Sweep: Send + Sync {
    fn sweep(&self) -> Option<Duration>;
}

#[derive(Debug)]
pub(crate) struct Registration;

impl Registration {
    pub(crate) fn new(_sweep: &Weak<dyn Sweep>) -> Self {
        Self
    }

    pub(crate) fn schedule(&self, _delay: Duration) {}
}

pub(crate) type AlarmId = ();

pub(crate) fn after(_delay: Duration, alarm: Box<dyn FnOnce() + Send>) -> Option<AlarmId> {
    drop(shuttle::future::spawn(async move { alarm() }));
    None
}

pub(crate) fn cancel((): AlarmId) {}
