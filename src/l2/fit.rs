//! `Fit`: the size that a store has from an open on.
//!
//! A store with contents keeps the size of its segments, because positions are counted in them. So
//! only their number changes, and the configured size of segments is for stores that are empty.

use super::format::Geometry;
use super::opening::Opening;
use super::superblock::Superblock;

/// A store has at least so many segments, and at most.
const SEGMENTS_MIN: u64 = 4;
const SEGMENTS_MAX: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It keeps its newest segments, as many as fit.
    Kept(Geometry),
    /// It begins anew, with the configured size.
    Anew,
}

impl Fit {
    pub(super) fn new(superblock: &Superblock, opening: &Opening) -> Self {
        let segment = superblock.geometry.segment_bytes();
        let is_configured = segment == opening.geometry.segment_bytes();
        if superblock.is_blank() || !(is_configured || opening.is_warm(superblock)) {
            return Self::Anew;
        }
        if is_configured {
            return Self::Kept(opening.geometry);
        }
        let count = (opening.bytes_max / u64::from(segment)).min(SEGMENTS_MAX);
        let kept = u32::try_from(count).ok().and_then(|count| Geometry::new(segment, count));
        let is_possible = count >= SEGMENTS_MIN && u64::from(segment) >= opening.segment_bytes_min;
        kept.filter(|_| is_possible).map_or(Self::Anew, Self::Kept)
    }
}
