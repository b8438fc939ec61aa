//! `Blocked`: why a mutation that takes effect in one section has to be tried again.

use crate::engine::acknowledge::Acknowledgement;
use crate::engine::disk_tier::NoRoom;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocked {
    NoRoom,
    TooMany,
    Closed,
}

/// The outcome of a mutation in force, and what it waits for before it returns.
pub(crate) type Attempt<T> = Result<(T, Acknowledgement), Blocked>;

impl From<NoRoom> for Blocked {
    fn from(NoRoom: NoRoom) -> Self {
        Self::NoRoom
    }
}
