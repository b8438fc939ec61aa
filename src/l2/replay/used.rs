//! `Used`: what a replay has used of the index budget.

use crate::failpoint::{Failpoint, failpoint};
use crate::footprint::{POSTING_BYTES, SLOT_BYTES};

pub(super) struct Used {
    /// With shadowed ones among those collected, as the postings.
    pub(super) slots: usize,
    pub(super) postings: usize,
    /// Bytes of the working state beside slots and postings.
    pub(super) beside_bytes: usize,
    bytes_max: usize,
}

impl Used {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { slots: 0, postings: 0, beside_bytes: 0, bytes_max }
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots * SLOT_BYTES + self.postings * POSTING_BYTES + self.beside_bytes
    }

    pub(super) fn bytes_max(&self) -> usize {
        if failpoint(Failpoint::ReplayUnbounded) {
            return usize::MAX;
        }
        self.bytes_max
    }
}
