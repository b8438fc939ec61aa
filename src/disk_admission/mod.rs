//! `DiskAdmission`: which new values the disk takes.
//!
//! While it has room it takes all of them. Once records in use must leave for new ones, it takes
//! either all, or only those whose key it has lost or refused lately (`ghosts`): most keys of a
//! scan never come again, and would push out those that do. Which of the two is better depends on
//! the requests; a simulation of both on a sample of the keys tells (`trial`).
//!
//! Nothing here decides about correctness: a value that is refused is one that the disk forgets.

mod ghosts;
mod miniature;
mod trial;

use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use self::ghosts::Ghosts;
use self::trial::{Trial, scaled};
use crate::disposal::Freeing;
use crate::key::KeyHash;

/// Ghosts take this share of the index budget at most.
const GHOSTS_SHARE: usize = 8;

/// A smaller budget has no room for a trial, and the disk takes everything.
const BUDGET_MIN: usize = 1 << 20;

/// The disk is full if a reclaimed segment had at least one live record of so many that had to go.
const LOST_SHARE: usize = 8;

/// It has room again once one of so many records has left.
const ROOM_SHARE: usize = 8;

/// What the sizes of values on disk are learnt from counts half after so many bytes.
const SIZES_BYTES: u64 = 1 << 30;

pub(crate) use self::ghosts::Forgotten;

pub(crate) struct DiskAdmission {
    /// None: it takes everything.
    adaptive: Option<Adaptive>,
}

struct Adaptive {
    /// Puts only read it.
    ghosts: RwLock<Ghosts>,
    trial: Mutex<Trial>,
    /// That of the trial.
    sample: AtomicU64,
    takes_known_only: AtomicBool,
    /// The live records on disk when it was last found to be full; zero if it was not.
    full_at: AtomicUsize,
    /// Live records that the segment that is being reclaimed has lost.
    lost: AtomicUsize,
    refused_bytes: AtomicU64,
    /// Bytes of values that were taken, and of their records.
    taken: AtomicU64,
    recorded: AtomicU64,
    ghosts_bytes: AtomicUsize,
    trial_bytes: AtomicUsize,
    freeing: Arc<Freeing>,
}

/// About one put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Newcomer {
    /// The disk has lost or refused its key lately.
    pub(crate) is_known: bool,
    /// The disk should take it.
    pub(crate) is_taken: bool,
    /// Of its key and value.
    pub(crate) bytes: usize,
}

/// How much of the index budget is used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IndexUse {
    pub(crate) records: usize,
    pub(crate) bytes_free: usize,
}

impl Newcomer {
    pub(crate) fn taken(bytes: usize) -> Self {
        Self { is_known: false, is_taken: true, bytes }
    }

    /// The same, but taken if `is_needed`.
    pub(crate) fn or_taken(self, is_needed: impl FnOnce() -> bool) -> Self {
        Self { is_taken: self.is_taken || is_needed(), ..self }
    }
}

impl DiskAdmission {
    /// `index_bytes_max`: the budget that its memory counts against.
    pub(crate) fn new(
        is_adaptive: bool,
        disk_bytes: u64,
        index_bytes_max: usize,
        percent_max: u32,
        freeing: &Arc<Freeing>,
    ) -> Self {
        let is_adaptive = is_adaptive && index_bytes_max >= BUDGET_MIN;
        let trial = Trial::new(disk_bytes, percent_max);
        let adaptive = is_adaptive.then(|| Adaptive {
            ghosts: RwLock::new(Ghosts::new(index_bytes_max / GHOSTS_SHARE)),
            sample: trial.sample().into(),
            trial: Mutex::new(trial),
            takes_known_only: false.into(),
            full_at: 0.into(),
            lost: 0.into(),
            refused_bytes: 0.into(),
            taken: 0.into(),
            recorded: 0.into(),
            ghosts_bytes: 0.into(),
            trial_bytes: 0.into(),
            freeing: Arc::clone(freeing),
        });
        Self { adaptive }
    }

    /// Memory of the ghosts and the trial.
    pub(crate) fn bytes(&self) -> usize {
        self.adaptive.as_ref().map_or(0, |it| {
            it.ghosts_bytes.load(Ordering::Relaxed) + it.trial_bytes.load(Ordering::Relaxed)
        })
    }

    /// The same, with what the trial may take later.
    pub(crate) fn bytes_reserved(&self) -> usize {
        let ghosts = |it: &Adaptive| it.ghosts_bytes.load(Ordering::Relaxed);
        self.adaptive.as_ref().map_or(0, |it| ghosts(it) + trial::MEMORY_BYTES_MAX)
    }

    /// Judges a value of so many bytes that is put. `live` counts the live records on disk.
    pub(crate) fn judge(
        &self,
        hash: KeyHash,
        bytes: usize,
        live: impl FnOnce() -> usize,
    ) -> Newcomer {
        let Some(adaptive) = &self.adaptive else { return Newcomer::taken(bytes) };
        adaptive.access(hash, bytes);
        let is_known = adaptive.ghosts.read().contains(hash);
        let takes_known_only = adaptive.takes_known_only.load(Ordering::Relaxed);
        let is_taken = is_known || !takes_known_only || !adaptive.is_full(live);
        Newcomer { is_known, is_taken, bytes }
    }

    /// A value was found on disk.
    pub(crate) fn found(&self, hash: KeyHash, bytes: usize) {
        if let Some(adaptive) = &self.adaptive {
            adaptive.access(hash, bytes);
        }
    }

    /// A value was put and recorded.
    pub(crate) fn took(&self, bytes: usize, recorded: usize) {
        let Some(adaptive) = &self.adaptive else { return };
        let Adaptive { taken, recorded: all_recorded, .. } = adaptive;
        // A lost update is another estimate.
        if taken.fetch_add(bytes as u64, Ordering::Relaxed) > SIZES_BYTES {
            taken.store(taken.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
            all_recorded.store(all_recorded.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
        }
        all_recorded.fetch_add(recorded as u64, Ordering::Relaxed);
    }

    /// A value was put and not recorded.
    #[must_use = "it is dropped without locks"]
    pub(crate) fn refused(
        &self,
        hash: KeyHash,
        bytes: usize,
        index: impl FnOnce() -> IndexUse,
    ) -> Option<Forgotten> {
        let adaptive = self.adaptive.as_ref()?;
        adaptive.refused_bytes.fetch_add(adaptive.record_bytes(bytes), Ordering::Relaxed);
        adaptive.remember(hash, index())
    }

    /// A live record has left to make room.
    #[must_use = "it is dropped without locks"]
    pub(crate) fn lost(
        &self,
        hash: KeyHash,
        index: impl FnOnce() -> IndexUse,
    ) -> Option<Forgotten> {
        let adaptive = self.adaptive.as_ref()?;
        adaptive.lost.fetch_add(1, Ordering::Relaxed);
        adaptive.remember(hash, index())
    }

    /// A value that was asked for has left memory, and the disk does not have it.
    #[must_use = "it is dropped without locks"]
    pub(crate) fn left_memory(
        &self,
        hash: KeyHash,
        index: impl FnOnce() -> IndexUse,
    ) -> Option<Forgotten> {
        self.adaptive.as_ref()?.remember(hash, index())
    }

    /// A segment of so many records has been reclaimed.
    pub(crate) fn reclaimed(&self, records: usize, live: usize) {
        if let Some(adaptive) = &self.adaptive {
            let lost = adaptive.lost.swap(0, Ordering::Relaxed);
            let is_full = lost > 0 && lost >= records / LOST_SHARE;
            adaptive.full_at.store(if is_full { live.max(1) } else { 0 }, Ordering::Relaxed);
        }
    }

    /// As if the disk were full, until the next segment is reclaimed.
    #[cfg(test)]
    pub(crate) fn pretend_full(&self) {
        if let Some(adaptive) = &self.adaptive {
            adaptive.full_at.store(1, Ordering::Relaxed);
        }
    }

    /// As if a trial had found that most values are never asked for again.
    #[cfg(test)]
    pub(crate) fn pretend_scans(&self) {
        if let Some(adaptive) = &self.adaptive {
            adaptive.takes_known_only.store(true, Ordering::Relaxed);
        }
    }

    /// Bytes of records that were not written since the last call.
    pub(crate) fn take_refused_bytes(&self) -> u64 {
        self.adaptive.as_ref().map_or(0, |it| it.refused_bytes.swap(0, Ordering::Relaxed))
    }
}

impl Adaptive {
    fn is_full(&self, live: impl FnOnce() -> usize) -> bool {
        let full_at = self.full_at.load(Ordering::Relaxed);
        full_at > 0 && live() >= full_at - full_at / ROOM_SHARE
    }

    fn access(&self, hash: KeyHash, bytes: usize) {
        if hash.0 >> 32 >= self.sample.load(Ordering::Relaxed) {
            return;
        }
        let bytes = self.record_bytes(bytes);
        // A sample may miss one more.
        let Some(mut trial) = self.trial.try_lock() else { return };
        if let Some(takes_known_only) = trial.access(hash, bytes) {
            self.takes_known_only.store(takes_known_only, Ordering::Relaxed);
        }
        self.sample.store(trial.sample(), Ordering::Relaxed);
        self.trial_bytes.store(trial.memory_bytes(), Ordering::Relaxed);
    }

    fn remember(&self, hash: KeyHash, index: IndexUse) -> Option<Forgotten> {
        let mut ghosts = self.ghosts.write();
        let oldest = ghosts.insert(hash, index.records, index.bytes_free);
        // Its bytes count on, without a gap.
        let unfreed = oldest.as_ref().map(|oldest| self.freeing.count(oldest.bytes()));
        self.ghosts_bytes.store(ghosts.bytes(), Ordering::Relaxed);
        drop(ghosts);
        let (oldest, unfreed) = oldest.zip(unfreed)?;
        Some(Forgotten::new(iter::once(oldest), unfreed))
    }

    /// The bytes that a record of a value of so many bytes takes.
    fn record_bytes(&self, bytes: usize) -> u64 {
        let (taken, recorded) =
            (self.taken.load(Ordering::Relaxed), self.recorded.load(Ordering::Relaxed));
        if taken == 0 { bytes as u64 } else { scaled(bytes as u64, recorded, taken) }
    }
}

impl Drop for Adaptive {
    fn drop(&mut self) {
        let ghosts = self.ghosts.get_mut();
        let unfreed = self.freeing.count(ghosts.bytes());
        drop(Forgotten::new(ghosts.take(), unfreed));
    }
}
