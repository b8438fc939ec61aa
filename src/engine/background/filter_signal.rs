//! `FilterSignal`: wakes the rebuilding task when a filter has worn.

use crate::engine::background::wakeup::Wakeup;
use crate::namespace::Generation;

#[derive(Debug, Default)]
pub(crate) struct FilterSignal(Wakeup);

impl FilterSignal {
    pub(crate) fn check(&self, generation: &Generation) {
        self.notify_if(Self::is_worn(generation));
    }

    pub(crate) fn is_worn(generation: &Generation) -> bool {
        generation.synopsis().needs_rebuild()
    }

    /// To be called without a lock.
    pub(crate) fn notify_if(&self, is_worn: bool) {
        if is_worn {
            self.0.notify();
        }
    }

    pub(crate) fn wakeup(&self) -> &Wakeup {
        &self.0
    }
}
