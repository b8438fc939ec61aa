//! `FilterSignal`: wakes the rebuilding task when a filter has worn.

use crate::engine::background::wakeup::Wakeup;
use crate::namespace::Generation;

#[derive(Debug, Default)]
pub(crate) struct FilterSignal(Wakeup);

impl FilterSignal {
    pub(crate) fn check(&self, generation: &Generation) {
        if generation.synopsis().needs_rebuild() {
            self.0.notify();
        }
    }

    pub(crate) fn wakeup(&self) -> &Wakeup {
        &self.0
    }
}
