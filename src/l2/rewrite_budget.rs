//! `RewriteBudget`: bounds what reinsertion adds to the bytes written.
//!
//! A reclaimed segment earns a share of its records' bytes, and reinserted records spend it. So the
//! log writes at most so many percent of what callers put. What segments of dead records leave is
//! saved for those that are full of records in use, up to a bound: a segment that is kept whole
//! makes no room, and puts wait for the next one. An empty log begins with as much as may be saved:
//! its first segments may hold the records most in use, and it is written once before any leaves.
//! A log that is opened again begins with nothing, however often that is.
//!
//! What was put and not written pays for reinsertion, too, but of no segment for all of it: else a
//! log whose records are all in use would make no room as long as others are refused.

use super::format::Geometry;
use super::index::READS_MAX;

/// Segments whose bytes may be saved, if the file has eight times as many.
const SAVED_SEGMENTS: u64 = 4;

/// The least part of the file that may be saved.
const SAVED_SHARE: u64 = 8;

/// Refunds pay for reinsertion until it may take so many percent of a segment's bytes.
const REFUNDED_PERCENT: u64 = 75;

/// Classes of sizes, by powers of two.
const SIZES: usize = usize::BITS as usize + 1;

/// How a record is in use: how often it was hit since it was written, in either tier, as far as it
/// is known. Zero: memory holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage(u8);

const CLASSES: usize = (Usage::MAX as usize + 1) * SIZES;

impl Usage {
    /// Reads from disk, and hits in memory as one more.
    const MAX: u8 = READS_MAX + 1;

    pub(crate) fn new(hits: u8) -> Self {
        Self(hits.min(Self::MAX))
    }
}

fn saved_max(geometry: Geometry) -> u64 {
    let segment = u64::from(geometry.segment_bytes());
    (SAVED_SEGMENTS * segment).min(geometry.file_bytes() / SAVED_SHARE)
}

#[derive(Debug, Clone)]
pub(crate) struct RewriteBudget {
    /// Of what is written, in percent of what callers put.
    percent_max: u64,
    saved: u64,
    saved_max: u64,
    /// Not saved yet.
    refunded: u64,
}

impl RewriteBudget {
    pub(super) fn new(geometry: Geometry, percent_max: u32, is_empty: bool) -> Self {
        let saved_max = saved_max(geometry);
        let percent_max = u64::from(percent_max).max(100);
        let mut budget = Self { percent_max, saved: 0, saved_max, refunded: 0 };
        if is_empty {
            // Before any record leaves, more than half of the file has been written.
            let earned = budget.earned(geometry.file_bytes() / 2);
            budget.saved = earned.min(saved_max);
        }
        budget
    }

    /// The file has another size.
    pub(super) fn fit(&mut self, geometry: Geometry) {
        self.saved_max = saved_max(geometry);
        self.saved = self.saved.min(self.saved_max);
    }

    /// Records of so many bytes leave with their segment, unless they are reinserted.
    pub(super) fn earn(&mut self, bytes: usize) {
        let earned = self.earned(bytes as u64);
        // One segment may always spend what it earns.
        let most = self.saved_max.max(earned);
        self.saved = (self.saved + earned).min(most);
        let share = bytes as u64 * REFUNDED_PERCENT / 100;
        let drawn = self.refunded.min(share.saturating_sub(earned)).min(most - self.saved);
        self.refunded -= drawn;
        self.saved += drawn;
    }

    /// So many bytes were put and are not going to be written.
    pub(super) fn refund(&mut self, bytes: u64) {
        let refunded = bytes.saturating_mul(self.percent_max) / 100;
        self.refunded = self.refunded.saturating_add(refunded).min(self.saved_max);
    }

    fn earned(&self, written: u64) -> u64 {
        written * (self.percent_max - 100) / self.percent_max
    }

    pub(super) fn spend(&mut self, bytes: usize) {
        self.saved = self.saved.saturating_sub(bytes as u64);
    }

    pub(super) fn bytes_left(&self) -> usize {
        usize::try_from(self.saved).unwrap_or(usize::MAX)
    }
}

/// Records that are in use, counted by usage and size.
#[derive(Debug)]
pub(super) struct Candidates {
    bytes: [usize; CLASSES],
}

/// Which of them are reinserted: those most in use first, and of each usage the smallest, since a
/// record saves one miss, whatever its size.
#[derive(Debug)]
pub(super) struct Selection {
    /// All classes before it are selected, and none behind it.
    class: usize,
    /// For records of that class.
    class_left: usize,
    /// For all. Records may have come into use since they were counted.
    left: usize,
}

impl Candidates {
    pub(super) fn new() -> Self {
        Self { bytes: [0; CLASSES] }
    }

    pub(super) fn add(&mut self, usage: Usage, length: usize) {
        self.bytes[class(usage, length)] += length;
    }

    /// At most so many bytes of them.
    pub(super) fn select(&self, bytes_max: usize) -> Selection {
        let mut left = bytes_max;
        // Bounded: by the classes.
        for (class, &bytes) in self.bytes.iter().enumerate() {
            if bytes > left {
                return Selection { class, class_left: left, left: bytes_max };
            }
            left -= bytes;
        }
        Selection { class: CLASSES, class_left: 0, left: bytes_max - left }
    }
}

impl Selection {
    /// The most bytes that are still selected.
    pub(super) fn bytes(&self) -> usize {
        self.left
    }

    pub(super) fn includes(&self, usage: Usage, length: usize) -> bool {
        let class = class(usage, length);
        let is_selected = class < self.class || (class == self.class && length <= self.class_left);
        is_selected && length <= self.left
    }

    pub(super) fn take(&mut self, usage: Usage, length: usize) {
        self.left = self.left.saturating_sub(length);
        if class(usage, length) == self.class {
            self.class_left = self.class_left.saturating_sub(length);
        }
    }
}

fn class(usage: Usage, length: usize) -> usize {
    usize::from(Usage::MAX - usage.0) * SIZES + (usize::BITS - length.leading_zeros()) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(segments: u32) -> Geometry {
        Geometry::new(1 << 20, segments).unwrap()
    }

    #[test]
    fn what_is_written_keeps_to_its_percentage() {
        for (percent_max, segments) in [(100, 64), (110, 64), (133, 8), (200, 64), (400, 4)] {
            let geometry = geometry(segments);
            let mut budget = RewriteBudget::new(geometry, percent_max, true);
            // Half of the file has been written when the first segment leaves, or more.
            let (mut written, mut again) = (geometry.file_bytes() / 2, 0_u64);
            for number in 0..10_000_usize {
                let bytes = 1 + number * 7919 % (1 << 20);
                budget.earn(bytes);
                // Of some segments nothing is in use, of others everything.
                let wanted = if number / 13 % 3 == 0 { 0 } else { bytes };
                let spent = wanted.min(budget.bytes_left());
                budget.spend(spent);
                written += bytes as u64;
                again += spent as u64;
            }
            let put = written - again;
            let most = put * u64::from(percent_max) / 100;
            assert!(written <= most, "{percent_max}: {written} of {most}");
        }
    }

    #[test]
    fn what_is_saved_is_bounded_by_segments_and_by_the_file() {
        for (segments, most) in [(64, 4 << 20), (16, 2 << 20), (4, 512 << 10)] {
            let mut budget = RewriteBudget::new(geometry(segments), 133, false);
            (0..1000).for_each(|_| budget.earn(1 << 20));
            assert!(budget.bytes_left() >= most && budget.bytes_left() <= most + 8192);
        }
    }

    #[test]
    fn some_room_is_made_however_much_is_refunded() {
        for percent_max in [100, 130, 400] {
            let mut budget = RewriteBudget::new(geometry(64), percent_max, true);
            let (mut left, mut again) = (0, 0);
            for number in 0..1000_usize {
                let bytes = 1 + number * 7919 % (1 << 20);
                budget.refund(u64::MAX / 8);
                budget.earn(bytes);
                // All of them are in use.
                let spent = bytes.min(budget.bytes_left());
                budget.spend(spent);
                (left, again) = (left + bytes, again + spent);
            }
            let (least, most) = (left / 100 * 74, left / 100 * 75 + (4 << 20) + 100);
            assert!(again >= least && again <= most, "{percent_max}: {again} of {left}");
        }
    }

    #[test]
    fn refunds_are_spent_once_and_bounded_like_what_is_saved() {
        for (refunds, most) in [(1, 1 << 20), (4, 4 << 20), (9, 4 << 20)] {
            let mut budget = RewriteBudget::new(geometry(64), 100, true);
            (0..refunds).for_each(|_| budget.refund(1 << 20));
            let mut spent = 0;
            for _ in 0..20 {
                budget.earn(1 << 20);
                spent += budget.bytes_left();
                budget.spend(budget.bytes_left());
            }
            assert_eq!(spent, most, "{refunds}");
        }
    }

    #[test]
    fn the_smallest_records_are_selected() {
        let lengths = [100, 5000, 120, 70_000, 4500, 100_000];
        let mut candidates = Candidates::new();
        lengths.iter().for_each(|&length| candidates.add(Usage::new(1), length));
        candidates.add(Usage::new(0), 10);
        let selected = |budget| {
            let mut selection = candidates.select(budget);
            let mut selected = Vec::new();
            for length in lengths {
                if selection.includes(Usage::new(1), length) {
                    selection.take(Usage::new(1), length);
                    selected.push(length);
                }
            }
            if selection.includes(Usage::new(0), 10) {
                selected.push(10);
            }
            let total: usize = selected.iter().sum();
            assert!(total + selection.bytes() <= budget);
            selected
        };
        assert!(selected(0).is_empty());
        assert_eq!(selected(150), [100]);
        assert_eq!(selected(6000), [100, 5000, 120]);
        assert_eq!(selected(80_000), [100, 5000, 120, 70_000, 4500]);
        assert_eq!(selected(1 << 20)[..6], lengths);
        assert_eq!(selected(1 << 20)[6..], [10]);
    }

    #[test]
    fn records_that_are_hit_most_are_selected() {
        let mut candidates = Candidates::new();
        candidates.add(Usage::new(1), 100);
        candidates.add(Usage::new(2), 200_000);
        let selection = candidates.select(200_000);
        assert!(selection.includes(Usage::new(2), 200_000));
        assert!(!selection.includes(Usage::new(1), 100));
    }

    #[test]
    fn records_that_come_into_use_later_find_what_was_selected() {
        for budget in [0, 1000, 1 << 20] {
            let mut candidates = Candidates::new();
            (0..10).for_each(|_| candidates.add(Usage::new(1), 100));
            let mut selection = candidates.select(budget);
            let mut taken = 0;
            for length in [100, 3000, 7, 100, 100, 10].repeat(100) {
                for usage in [Usage::new(0), Usage::new(1)] {
                    if selection.includes(usage, length) {
                        selection.take(usage, length);
                        taken += length;
                    }
                }
            }
            assert!(taken <= budget.min(1000), "{taken} of {budget}");
        }
    }
}
