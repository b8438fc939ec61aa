//! `Expiries`: since when the older entries of a namespace are stale.

use crate::clock::Timestamp;
use crate::sequence::Sequence;

/// More are merged.
const EXPIRIES_MAX: usize = 16;

/// Each says that all entries before a mutation are stale since a time.
#[derive(Debug, Default)]
pub(crate) struct Expiries(Vec<(Sequence, Timestamp)>);

impl Expiries {
    /// Of too many the two oldest are merged: what lies between them then counts as stale since the
    /// earlier time.
    pub(crate) fn add(&mut self, before: Sequence, since: Timestamp) {
        let place = self.0.partition_point(|(other, _)| *other < before);
        self.0.insert(place, (before, since));
        if self.0.len() > EXPIRIES_MAX {
            let (_, oldest) = self.0.remove(0);
            self.0[0].1 = self.0[0].1.min(oldest);
        }
    }

    /// Since when the entry of that mutation is stale, if it is.
    pub(crate) fn since(&self, sequence: Sequence) -> Option<Timestamp> {
        // Bounded: by the most that are kept.
        let covering = self.0.iter().filter(|(before, _)| sequence < *before);
        covering.map(|(_, since)| *since).min()
    }

    /// Whether any concerns a mutation from `first` on.
    pub(crate) fn concern(&self, first: Sequence) -> bool {
        self.0.last().is_some_and(|(before, _)| first < *before)
    }

    /// Forgets those that concern mutations before `first` only.
    pub(crate) fn forget_before(&mut self, first: Sequence) {
        // Bounded: by the most that are kept.
        self.0.retain(|(before, _)| first < *before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_time_counts_and_merging_never_makes_it_later() {
        let times = [7, 3, 9, 5, 5, 8, 1, 6];
        let all: Vec<_> = (1..60).map(|at| (at as u64 * 10, times[at % times.len()])).collect();
        for forwards in [true, false] {
            let mut expiries = Expiries::default();
            for number in 0..all.len() {
                let at = if forwards { number } else { all.len() - 1 - number };
                expiries.add(Sequence(all[at].0), Timestamp(all[at].1));
                let added = if forwards { &all[..=at] } else { &all[at..] };
                for sequence in 0..620 {
                    let since = expiries.since(Sequence(sequence));
                    let exact = added.iter().filter(|(before, _)| sequence < *before);
                    let exact = exact.map(|(_, since)| Timestamp(*since)).min();
                    assert_eq!(since.is_some(), exact.is_some());
                    assert!(since <= exact, "{sequence}: {since:?}, {exact:?}");
                }
            }
            assert_eq!(expiries.0.len(), EXPIRIES_MAX);
            assert!(expiries.concern(Sequence(589)) && !expiries.concern(Sequence(590)));
            expiries.forget_before(Sequence(580));
            assert_eq!(expiries.0.len(), 1);
        }
    }
}
