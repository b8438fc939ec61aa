//! `segment_bytes`: how large segments are, for files of any size.
//!
//! The default has a 64th of the file, and at least 1 MiB, which is too much of a file of some MiB.
//! So it is a 64th here, too, and a 16th if that is what the largest object needs. Shared with
//! `examples/replay` and `crates/hit-ratio`.

/// A segment is about this share of the file.
const SEGMENTS: u64 = 64;

/// It is at most this share, whatever an object needs.
const SEGMENTS_MIN: u64 = 16;

const BLOCK_BYTES: u64 = 4096;

const SEGMENT_BYTES_MIN: u64 = 64 << 10;

const SEGMENT_BYTES_MAX: u64 = 256 << 20;

/// Bytes of a segment in a file of `l2_bytes`, whose largest object has `largest` bytes.
pub(crate) fn segment_bytes(l2_bytes: u64, largest: u64) -> u64 {
    let needed = largest.saturating_add(largest / 4).saturating_add(SEGMENT_BYTES_MIN);
    let least = needed.min(l2_bytes / SEGMENTS_MIN);
    let wanted = (l2_bytes / SEGMENTS).max(least) / BLOCK_BYTES * BLOCK_BYTES;
    wanted.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
}
