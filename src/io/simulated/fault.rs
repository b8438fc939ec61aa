//! `FaultPlan`: the faults of a simulated disk, by chance or by order.

use std::io;
use std::ops::Range;

use rustix::io::Errno;

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OperationKind {
    /// A read of either urgency.
    Read,
    /// A write.
    Write,
    /// A sync.
    Sync,
    /// A change of the length.
    Resize,
}

/// How a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The device failed (EIO). Of a write any part may have arrived.
    Io,
    /// The file system is full (ENOSPC). Of a write nothing arrived.
    NoSpace,
    /// The file would be too large (EFBIG). Of a write any part may have arrived.
    #[cfg(test)]
    TooLarge,
    /// A read answers with one bit flipped. Other requests fail as with [`Self::Io`].
    #[cfg(test)]
    BitFlip,
}

impl Fault {
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::Io => Errno::IO.into(),
            #[cfg(test)]
            Self::BitFlip => Errno::IO.into(),
            Self::NoSpace => Errno::NOSPC.into(),
            #[cfg(test)]
            Self::TooLarge => Errno::FBIG.into(),
        }
    }
}

/// Faults by chance. The chances are between 0 and 1, by default 0.
#[derive(Clone, Debug)]
pub(crate) struct FaultPlan {
    /// The most polls that a request takes beyond the first. Default 8.
    pub(crate) delay_polls_max: u32,
    /// The fewest. Default 0.
    pub(crate) delay_polls_min: u32,
    /// Reads wait until this is false again. Default false.
    pub(crate) holds_reads: bool,
    /// No request advances until this is false again: the device does not answer. Default false.
    pub(crate) holds_all: bool,
    /// It shares blocks of other disks. Default false.
    pub(crate) shares: bool,
    /// Reads of any of these bytes fail with EIO. Default none.
    pub(crate) unreadable: Range<u64>,
    /// The chance of a read to fail with EIO.
    pub(crate) read_failure: f64,
    /// The chance of a write to fail with EIO.
    pub(crate) write_failure: f64,
    /// The chance of a write to fail with ENOSPC.
    pub(crate) write_no_space: f64,
    /// The chance of a sync to fail with EIO; it then made nothing durable.
    pub(crate) sync_failure: f64,
    /// The chance of a sync to report success and do nothing.
    pub(crate) sync_loss: f64,
    /// The chance of a read to come back with one bit flipped; the disk itself is unharmed.
    pub(crate) read_bit_flip: f64,
}

impl Default for FaultPlan {
    fn default() -> Self {
        Self {
            delay_polls_max: 8,
            delay_polls_min: 0,
            holds_reads: false,
            holds_all: false,
            shares: false,
            unreadable: 0..0,
            read_failure: 0.0,
            write_failure: 0.0,
            write_no_space: 0.0,
            sync_failure: 0.0,
            sync_loss: 0.0,
            read_bit_flip: 0.0,
        }
    }
}
