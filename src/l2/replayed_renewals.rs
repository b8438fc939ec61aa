//! `ReplayedRenewals`: the deadlines that touches have given to records that are yet to be read.

use std::collections::BTreeMap;

use super::format::Position;
use super::listed_record::ListedRecord;
use super::renewal::Renewal;
use crate::clock::Timestamp;
use crate::key::KeyHash;
use crate::policy::Lifetime;

/// Bytes of a renewal with its place in the map.
pub(super) const RENEWAL_BYTES: usize = 96;

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

/// By the position of the record.
#[derive(Debug, Default)]
pub(super) struct ReplayedRenewals(BTreeMap<Position, Renewed>);

impl ReplayedRenewals {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first one of a record counts: it is the newest. Gives the bytes that it takes.
    pub(super) fn insert(&mut self, renewal: &Renewal<'_>, touched_at: Position) -> usize {
        let before = self.0.len();
        let Renewal { life, shortened, .. } = *renewal;
        self.0.entry(renewal.position).or_insert(Renewed { life, touched_at, shortened });
        (self.0.len() - before) * RENEWAL_BYTES
    }

    /// That of a record, which is read once.
    pub(super) fn take(&mut self, position: Position) -> Option<Renewed> {
        self.0.remove(&position)
    }

    /// Frees one. False if there was none.
    pub(super) fn pop(&mut self) -> bool {
        self.0.pop_first().is_some()
    }
}

impl Renewed {
    /// The record with these deadlines.
    pub(super) fn apply(&self, record: &mut ListedRecord, now: Timestamp) {
        record.set_life(&self.life, now);
        record.shortened = self.shortened;
    }

    /// The record as if its deadlines had been forgotten: it has its own, or is gone.
    pub(super) fn forget(&self, record: &mut ListedRecord, now: Timestamp) {
        if self.shortened {
            record.set_life(&Lifetime::GONE, now);
            record.shortened = true;
        }
    }

    pub(super) fn of(&self, record: &ListedRecord, position: Position) -> RenewedRecord {
        let Self { life, touched_at, .. } = *self;
        RenewedRecord { hash: record.hash, position, life, touched_at }
    }
}
