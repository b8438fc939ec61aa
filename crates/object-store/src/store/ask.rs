//! `Ask`: what the inner store is asked for when nothing is known of an object.
//!
//! Ranges are widened to whole blocks. What is asked for is at most what one request may have, and
//! begins where the caller's range does, so that the answer serves its caller first.

use std::ops::Range;

use super::object::Object;
use super::object_store::{GetOptions, GetRange};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The meta alone.
    Head,
    /// A part that begins with a block, or with a piece of one that is then left out.
    Part(GetRange),
    /// The whole object: an object without bytes has no range.
    Whole,
}

impl Ask {
    /// For a get with these options.
    pub(crate) fn of(options: &GetOptions, block: u64, most: u64) -> Self {
        match &options.range {
            _ if options.head => Self::Head,
            None => Self::Whole,
            Some(range) => Self::of_range(range, block, most),
        }
    }

    pub(crate) fn of_range(range: &GetRange, block: u64, most: u64) -> Self {
        let (start, end) = match range {
            GetRange::Bounded(range) => (range.start, range.end),
            GetRange::Offset(start) => (*start, u64::MAX),
            // The last bytes of an object with a block before them have all blocks that they are
            // in, wherever its end is.
            GetRange::Suffix(bytes) => {
                let bytes = bytes.saturating_add(block);
                let fits = bytes <= most.max(2 * block);
                return if fits { Self::Part(GetRange::Suffix(bytes)) } else { Self::Head };
            }
        };
        let start = start / block * block;
        let most = most.max(block) / block * block;
        let end = end.div_ceil(block).saturating_mul(block).min(start.saturating_add(most));
        if start < end { Self::Part(GetRange::Bounded(start..end)) } else { Self::Head }
    }

    /// The most bytes that the answer may have.
    pub(crate) fn bytes_max(&self) -> u64 {
        match self {
            Self::Head => 0,
            Self::Part(GetRange::Bounded(range)) => range.end - range.start,
            Self::Part(GetRange::Suffix(bytes)) => *bytes,
            Self::Part(GetRange::Offset(_)) | Self::Whole => u64::MAX,
        }
    }

    /// The range to ask the inner store for.
    pub(crate) fn range(&self) -> Option<GetRange> {
        match self {
            Self::Head | Self::Whole => None,
            Self::Part(range) => Some(range.clone()),
        }
    }

    /// The blocks of an object that it is about.
    pub(crate) fn blocks_of(&self, object: &Object) -> Range<u64> {
        let range = match self {
            Self::Head => return 0..0,
            Self::Whole => 0..object.size,
            Self::Part(range) => range.as_range(object.size).unwrap_or(0..0),
        };
        object.blocks_of(&range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_widened_to_blocks_within_one_request() {
        let ask = |range: GetRange| Ask::of_range(&range, 10, 50);
        let part = |range: Range<u64>| Ask::Part(GetRange::Bounded(range));
        assert_eq!(ask((7..8).into()), part(0..10));
        assert_eq!(ask((9..11).into()), part(0..20));
        assert_eq!(ask((10..20).into()), part(10..20));
        assert_eq!(ask((25..1000).into()), part(20..70));
        assert_eq!(ask(GetRange::Offset(25)), part(20..70));
        assert_eq!(ask(GetRange::Suffix(8)), Ask::Part(GetRange::Suffix(18)));
        assert_eq!(ask(GetRange::Suffix(41)), Ask::Head);
        assert_eq!(ask(GetRange::Suffix(u64::MAX)), Ask::Head);
        assert_eq!(ask(GetRange::Offset(u64::MAX)), part(u64::MAX / 10 * 10..u64::MAX));
        assert_eq!(ask((u64::MAX - 1..u64::MAX).into()), part(u64::MAX / 10 * 10..u64::MAX));
        assert_eq!(Ask::of(&GetOptions::new().with_head(true), 10, 50), Ask::Head);
        assert_eq!(Ask::of(&GetOptions::new(), 10, 50), Ask::Whole);
        // A request that is smaller than two blocks still has room for the end of an object.
        assert_eq!(Ask::of_range(&GetRange::Suffix(8), 10, 10), Ask::Part(GetRange::Suffix(18)));
    }
}
