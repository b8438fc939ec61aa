//! `ReplayedRenewals`: the deadlines that touches have given to records that are yet to be read.

use std::collections::{BTreeMap, BTreeSet};

use super::format::Position;
use super::listed_record::ListedRecord;
use super::renewal::Renewal;
use crate::clock::Timestamp;
use crate::footprint::tree_entry;
use crate::key::KeyHash;
use crate::policy::Lifetime;

/// Bytes of a renewal with its place in the map.
pub(super) const RENEWAL_BYTES: usize = tree_entry(size_of::<(Position, Renewed)>());

/// Bytes of the position of a record whose deadlines are forgotten.
const FORGOTTEN_BYTES: usize = tree_entry(size_of::<Position>());

/// A record that was touched, with its life since then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RenewedRecord {
    pub(crate) hash: KeyHash,
    pub(crate) position: Position,
    pub(crate) life: Lifetime,
    /// The position of the touch.
    pub(crate) touched_at: Position,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Renewed {
    life: Lifetime,
    touched_at: Position,
    shortened: bool,
}

/// What a record finds that was touched.
#[derive(Clone, Copy, Debug)]
pub(super) enum Touched {
    Renewed(Renewed),
    /// A deadline was made earlier, and there was no room for it.
    Forgotten,
}

/// By the position of the record.
///
/// Deadlines are kept up to a number. From the first touch beyond it on, none of an older touch
/// counts, of whatever record: an older touch of a record must not count once a newer one is
/// forgotten. Then a record has its own deadlines, or is gone if a touch had made one earlier.
#[derive(Debug, Default)]
pub(super) struct ReplayedRenewals {
    renewed: BTreeMap<Position, Renewed>,
    forgotten: BTreeSet<Position>,
    is_full: bool,
}

impl ReplayedRenewals {
    pub(super) fn is_empty(&self) -> bool {
        self.renewed.is_empty() && self.forgotten.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.renewed.len() * RENEWAL_BYTES + self.forgotten.len() * FORGOTTEN_BYTES
    }

    /// How many bytes more the next one may take at most, if deadlines are kept up to a number.
    pub(super) fn cost_max(&self, shortened: bool, renewed_max: usize) -> usize {
        match self.is_full || self.renewed.len() >= renewed_max {
            true if shortened => FORGOTTEN_BYTES,
            true => 0,
            false => RENEWAL_BYTES,
        }
    }

    /// The first one of a record counts: it is the newest.
    pub(super) fn insert(
        &mut self,
        renewal: &Renewal<'_>,
        touched_at: Position,
        renewed_max: usize,
    ) {
        let Renewal { position, life, shortened, .. } = *renewal;
        if self.renewed.contains_key(&position) {
            return;
        }
        self.is_full |= self.renewed.len() >= renewed_max;
        if !self.is_full {
            self.renewed.insert(position, Renewed { life, touched_at, shortened });
        } else if shortened {
            self.forgotten.insert(position);
        }
    }

    /// That of a record, which is read once.
    pub(super) fn take(&mut self, position: Position) -> Option<Touched> {
        let renewed = self.renewed.remove(&position).map(Touched::Renewed);
        renewed.or_else(|| self.forgotten.remove(&position).then_some(Touched::Forgotten))
    }

    /// Frees one. False if there was none.
    pub(super) fn pop(&mut self) -> bool {
        self.renewed.pop_first().is_some() || self.forgotten.pop_first().is_some()
    }
}

impl Touched {
    /// The record as if its deadlines had been forgotten: it has its own, or is gone.
    pub(super) fn forget(&self, record: &mut ListedRecord, now: Timestamp) {
        if !matches!(self, Self::Renewed(Renewed { shortened: false, .. })) {
            record.set_life(&Lifetime::GONE, now);
            record.shortened = true;
        }
    }
}

impl Renewed {
    /// The record with these deadlines.
    pub(super) fn apply(&self, record: &mut ListedRecord, now: Timestamp) {
        record.set_life(&self.life, now);
        record.shortened = self.shortened;
    }

    pub(super) fn of(&self, record: &ListedRecord, position: Position) -> RenewedRecord {
        let Self { life, touched_at, .. } = *self;
        RenewedRecord { hash: record.hash, position, life, touched_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l2::format::GenerationNumber;

    fn renewal(position: u64, ttl: u64, shortened: bool) -> Renewal<'static> {
        let generation = GenerationNumber(1);
        let life = Lifetime { expires: Timestamp(ttl), ..Lifetime::GONE };
        let namespace = crate::l2::blob::NamedGeneration { name: "a", generation };
        Renewal { namespace, hash: 1, position: Position::new(position).unwrap(), life, shortened }
    }

    #[test]
    fn no_older_touch_counts_once_a_newer_one_is_forgotten() {
        let (first, second) = (Position::new(1 << 12).unwrap(), Position::new(2 << 12).unwrap());
        let touched_at = Position::new(9 << 12).unwrap();
        for shortened in [false, true] {
            let mut renewals = ReplayedRenewals::default();
            renewals.insert(&renewal(1 << 12, 5, false), touched_at, 1);
            // The newer one of the second record is beyond the number, and so is the older one,
            // although there is room by then.
            assert!(renewals.cost_max(true, 1) < RENEWAL_BYTES);
            renewals.insert(&renewal(2 << 12, 50, shortened), touched_at, 1);
            assert!(matches!(renewals.take(first), Some(Touched::Renewed(_))));
            renewals.insert(&renewal(2 << 12, 100, false), touched_at, 1);
            let is_gone = matches!(renewals.take(second), Some(Touched::Forgotten));
            assert_eq!(is_gone, shortened);
            assert!(renewals.is_empty() && renewals.bytes() == 0);
        }
    }
}
