//! `Allowance`: how much room a record leaves to others.

use super::format::{BLOCK_BYTES, Geometry};

/// Bytes that may wait to be written before a put has to wait.
pub(super) const WAITING_BYTES_MAX: usize = 16 << 20;

/// Reinserted records may exceed that by this much or by one segment, whichever is less.
const REINSERTED_BYTES_MAX: usize = 4 << 20;

/// Reserved for records without a body, beyond those limits and at the end of each segment that
/// already holds a record: an invalidation must take effect at once. A segment reserves at most a
/// 64th of itself, or a block, which has room for dozens: what is reserved holds no values.
const RESERVE_BYTES: usize = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowance {
    /// A new record. One without a body may use what is reserved for those.
    New,
    /// A record that was on file before. The caller bounds how many there are.
    Reinserted,
}

impl Allowance {
    /// How many bytes may wait when such a record is appended.
    pub(super) fn waiting_bytes_max(self, has_body: bool, geometry: Geometry) -> usize {
        let reinserted = REINSERTED_BYTES_MAX.min(geometry.segment_bytes() as usize);
        let beyond = match self {
            Self::Reinserted => reinserted,
            // In addition to what reinserted records may have used.
            Self::New if !has_body => RESERVE_BYTES + reinserted,
            Self::New => 0,
        };
        WAITING_BYTES_MAX + beyond
    }

    /// What it leaves of a segment for records that are going to be reinserted.
    pub(super) fn left_for_reinserted(self, kept: usize) -> usize {
        match self {
            Self::Reinserted => 0,
            Self::New => kept,
        }
    }

    /// What a record with a body leaves of a segment for those without.
    pub(super) fn reserve_bytes(segment_bytes: usize) -> usize {
        RESERVE_BYTES.min((segment_bytes / 64).max(BLOCK_BYTES)).min(segment_bytes / 16)
    }
}
