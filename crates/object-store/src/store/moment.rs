//! `Moment`: when something happened, by the clock and in the order of one store.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// The moments of one store, in their order, which is finer than its clock.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The store, as long as it is open.
    pub(crate) store: u64,
    pub(crate) number: u64,
}

/// When something happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) time: SystemTime,
    pub(crate) order: Order,
}

impl Order {
    pub(crate) fn is_after(self, other: Self) -> bool {
        self.store == other.store && self.number > other.number
    }
}

impl Moment {
    pub(crate) fn is_after(self, other: Self) -> bool {
        self.order.is_after(other.order)
    }
}
