//! `SizeQuery`: what budgets a cache needs for so many entries, by the formulas that the cache
//! counts with itself.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::config::BlobCacheConfig;
use crate::engine::INDEX_CROWDED_SHARE;
use crate::entry::{Entry, Extras};
use crate::footprint::{POSTING_BYTES, SLOT_BYTES};
use crate::key::LabelHash;
use crate::l2::{OUTLINES_SHARE, RecordShape};
use crate::label_texts::LabelTexts;
use crate::policy::Lifetime;

/// The log needs one segment that it writes, and one that is free.
const SEGMENTS_BESIDE: u64 = 2;

/// A configuration has at least so many.
const SEGMENTS_MIN: u64 = 4;

/// The number of segments of the default size, and of the file, depend on each other.
const ROUNDS: usize = 64;

/// Entries that a cache is to hold, all of them alike. Lengths are means, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizeQuery {
    /// How many, in either tier together.
    pub entries: u64,
    /// Of a key.
    pub key_bytes: usize,
    /// Of a value in memory.
    pub value_bytes: usize,
    /// Of a value on disk: less, if it is compressed.
    pub stored_bytes: usize,
    /// Tags and dependencies of an entry.
    pub labels: usize,
    /// Of one of these.
    pub label_bytes: usize,
    /// Percent of the entries that memory is to hold as well.
    pub l1_share_pct: u32,
    /// Whether they have a ttl.
    pub has_ttl: bool,
}

/// The budgets for a [`SizeQuery`], in bytes. The disk holds all entries once: for overwrites and
/// expired ones, which take room until their segment is reused, add as much as there is of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SizeEstimate {
    /// What one entry counts against `l1_bytes_max`.
    pub l1_entry_bytes: u64,
    /// For the share that memory holds.
    pub l1_bytes_max: u64,
    /// What one entry takes of the file: its record, frame and directory, and its share of the
    /// unused rest of a segment.
    pub l2_entry_bytes: u64,
    /// Whole segments.
    pub l2_bytes_max: u64,
    /// The default for that size, or one that is large enough for the values.
    pub l2_segment_bytes: u32,
    /// The number of these.
    pub l2_segments: u64,
    /// What one entry takes of the index.
    pub index_entry_bytes: u64,
    /// With the part that the cache keeps free, and the outlines of segments.
    pub l2_index_bytes_max: u64,
    /// The default for that size of the file.
    pub default_index_bytes_max: u64,
}

impl SizeQuery {
    /// The budgets. None if no store takes such records, or so many.
    #[must_use]
    pub fn estimate(&self) -> Option<SizeEstimate> {
        let l1_entry_bytes = self.l1_entry_bytes() as u64;
        let held = self.entries.checked_mul(self.l1_share_pct.into())?.div_ceil(100);
        let (segment_bytes, segments) = self.segments()?;
        let l2_bytes_max = segments.checked_mul(segment_bytes.into())?;
        let index_entry_bytes = (SLOT_BYTES + self.labels * POSTING_BYTES) as u64;
        let index = self.entries.checked_mul(index_entry_bytes)?;
        // The rest is for outlines, and free.
        let parts = (INDEX_CROWDED_SHARE * OUTLINES_SHARE) as u64;
        let rest = (INDEX_CROWDED_SHARE + OUTLINES_SHARE) as u64;
        let (count, of) = self.shape()?.fit_in(segment_bytes)?;
        Some(SizeEstimate {
            l1_entry_bytes,
            l1_bytes_max: held.checked_mul(l1_entry_bytes)?,
            l2_entry_bytes: (of * u64::from(segment_bytes)).div_ceil(count),
            l2_bytes_max,
            l2_segment_bytes: segment_bytes,
            l2_segments: segments,
            index_entry_bytes,
            l2_index_bytes_max: index.checked_mul(parts)?.div_ceil(parts - rest),
            default_index_bytes_max: BlobCacheConfig::default_index_bytes(l2_bytes_max) as u64,
        })
    }

    fn labels(&self) -> Vec<String> {
        vec!["x".repeat(self.label_bytes); self.labels]
    }

    fn shape(&self) -> Option<RecordShape> {
        Some(RecordShape {
            key_bytes: self.key_bytes,
            body_bytes: u32::try_from(self.stored_bytes).ok()?,
            tags: self.labels(),
            has_ttl: self.has_ttl,
        })
    }

    fn l1_entry_bytes(&self) -> usize {
        let labels = self.labels();
        let texts = LabelTexts::new(labels.iter().map(String::as_str), std::iter::empty());
        let hashes = vec![LabelHash(0); labels.len()].into();
        let life = Lifetime {
            written: Timestamp(0),
            expires: Timestamp::NEVER,
            stale_serve: 0,
            idle_ttl: u64::MAX,
        };
        let extras = Extras::new(BTreeMap::new(), (hashes, texts), None, &life);
        let (key, value) = (vec![0; self.key_bytes], vec![0; self.value_bytes]);
        Entry::footprint(&key, &value, extras.as_deref())
    }

    /// The size of a segment, and how many of them hold all entries.
    fn segments(&self) -> Option<(u32, u64)> {
        let shape = self.shape()?;
        let mut bytes = 0;
        // Bounded: by the rounds.
        for _ in 0..ROUNDS {
            let mut segment_bytes = BlobCacheConfig::default_segment_bytes(bytes);
            // Bounded: it doubles up to the longest.
            let (count, of) = loop {
                match shape.fit_in(segment_bytes) {
                    Some(fit) => break fit,
                    None => segment_bytes = segment_bytes.checked_mul(2)?,
                }
            };
            let filled = u128::from(self.entries) * u128::from(of);
            let filled = u64::try_from(filled.div_ceil(count.into())).ok()?;
            let segments = filled.checked_add(SEGMENTS_BESIDE)?.max(SEGMENTS_MIN);
            let needed = segments.checked_mul(segment_bytes.into())?;
            if needed <= bytes {
                // As many bytes as the size of the segments was chosen for.
                let segments = bytes.div_ceil(segment_bytes.into());
                let is_possible = segments <= BlobCacheConfig::SEGMENTS_MAX;
                return is_possible.then_some((segment_bytes, segments));
            }
            bytes = needed;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(entries: u64, value_bytes: usize) -> SizeQuery {
        SizeQuery {
            entries,
            key_bytes: 32,
            value_bytes,
            stored_bytes: value_bytes,
            labels: 0,
            label_bytes: 0,
            l1_share_pct: 10,
            has_ttl: true,
        }
    }

    #[test]
    fn a_store_of_the_estimated_size_is_a_little_larger_than_its_contents() {
        for value_bytes in [100, 1024, 65_536, 8 << 20] {
            let estimate = query(1_000_000, value_bytes).estimate().expect("possible");
            let contents = 1_000_000 * (32 + value_bytes as u64);
            let ratio = estimate.l2_bytes_max * 100 / contents;
            assert!((100..300).contains(&ratio), "{value_bytes}: {estimate:?}");
            assert_eq!(estimate.l2_bytes_max % u64::from(estimate.l2_segment_bytes), 0);
            assert!(estimate.l2_entry_bytes >= 32 + value_bytes as u64);
        }
    }

    #[test]
    fn labels_cost_memory_in_both_tiers() {
        let without = query(1000, 100).estimate().expect("possible");
        let with = SizeQuery { labels: 3, label_bytes: 20, ..query(1000, 100) };
        let with = with.estimate().expect("possible");
        assert_eq!(with.index_entry_bytes - without.index_entry_bytes, 3 * POSTING_BYTES as u64);
        assert!(with.l1_entry_bytes > without.l1_entry_bytes + 3 * POSTING_BYTES as u64);
        assert!(with.l2_entry_bytes >= without.l2_entry_bytes + 3 * 20);
    }

    #[test]
    fn what_no_store_takes_is_refused() {
        assert_eq!(query(1, 300 << 20).estimate(), None);
        assert_eq!(query(u64::MAX, 1000).estimate(), None);
        assert!(query(1, 0).estimate().is_some() && query(0, 100).estimate().is_some());
    }
}
