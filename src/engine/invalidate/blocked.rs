//! `Blocked`: why a mutation that takes effect in one section has to be tried again.

use crate::engine::acknowledge::Acknowledgement;
use crate::engine::disk_tier::NoRoom;

/// Why a mutation has not taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// The log has no room yet.
    NoRoom,
    /// Too many invalidations are pending.
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
