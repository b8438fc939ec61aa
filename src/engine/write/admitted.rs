//! `Admitted`: a put within the limits, and why the disk does not take it.

use std::sync::Arc;

use bytes::Bytes;

use crate::counters::Event;
use crate::disk_admission::Newcomer;
use crate::engine::write::versions::{Known, PutVersion};
use crate::entry::{Entry, Extras, Mark};
use crate::key::HashedKey;
use crate::l1::Room;
use crate::modes::L1Admission;
use crate::namespace::Generation;
use crate::policy::Lifetime;

/// A put within the limits.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) life: Lifetime,
    /// None while an entry has them.
    pub(super) extras: Option<Box<Extras>>,
    pub(super) kind: (u8, L1Admission),
    pub(super) is_absent: bool,
    /// Its charge, and that of the entry it replaces.
    pub(super) room: Room,
    pub(super) is_wanted: bool,
    /// Memory takes it if the disk does not.
    pub(super) is_held_alone: bool,
    pub(super) version: PutVersion,
    pub(super) known: Option<Known>,
    pub(super) newcomer: Newcomer,
}

impl Admitted {
    pub(super) fn twin(&self) -> Self {
        let extras = self.extras.as_ref().and_then(|extras| extras.twin(&self.life));
        Self { extras, ..*self }
    }

    /// The entry, which takes the extras.
    pub(super) fn entry(
        &mut self,
        generation: &Arc<Generation>,
        key: HashedKey<'_>,
        value: Bytes,
    ) -> Entry {
        let extras = self.extras.take();
        let mut entry = Entry::new(Arc::clone(generation), key, &self.life, self.kind, extras);
        (entry.value, entry.charge) = (value, self.room.bytes);
        if self.is_absent {
            entry.mark(Mark::Absent);
        }
        entry
    }
}

/// Why the disk does not take a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskRefusal {
    NotAdmitted,
    /// The quota of its namespace.
    Full,
    OverRate,
}

impl DiskRefusal {
    pub(super) fn first(is_full: bool, newcomer: Newcomer, is_over_rate: bool) -> Option<Self> {
        let not_admitted = (!newcomer.is_taken).then_some(Self::NotAdmitted);
        not_admitted
            .or_else(|| is_full.then_some(Self::Full))
            .or_else(|| is_over_rate.then_some(Self::OverRate))
    }

    pub(super) fn event(self) -> Event {
        match self {
            Self::NotAdmitted => Event::L2NotAdmitted,
            Self::Full => Event::L2Full,
            Self::OverRate => Event::L2OverRate,
        }
    }
}
