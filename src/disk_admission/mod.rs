//! `DiskAdmission`: which new values the disk takes.
//!
//! *Adaptive*: while it has room it takes all of them. Once records in use must leave for new ones,
//! it takes either all, or only those whose key it has lost or refused lately (`ghosts`): most keys
//! of a scan never come again, and would push out those that do. Which of the two is better depends
//! on the requests; a simulation of both on a sample of the keys tells (`trial`).
//!
//! *On second sight*: only those whose key it has lost or refused lately, whether it has room or
//! not. It saves writes, and with them the flash.
//!
//! Beside the policy there may be a limit of the bytes written in a second (`bucket`).
//!
//! Nothing here decides about correctness: a value that is refused is one that the disk forgets.

mod bucket;
mod ghosts;
mod miniature;
mod remembered;
mod trial;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use self::bucket::Bucket;
use self::remembered::Remembered;
use self::trial::{Trial, scaled};
use crate::clock::Clock;
use crate::disposal::Freeing;
use crate::key::KeyHash;
use crate::modes::L2Admission;
use crate::write_rate::WriteRate;

/// Ghosts take this share of the index budget at most.
const GHOSTS_SHARE: usize = 8;

/// A smaller budget has no room for a trial, and the disk takes everything.
const BUDGET_MIN: usize = 1 << 20;

/// The disk is full if a reclaimed segment had at least one live record of so many that had to go.
const LOST_SHARE: usize = 8;

/// It has room again once one of so many records has left.
const ROOM_SHARE: usize = 8;

/// On second sight, keys are remembered as if the disk had so many records at least: it has none
/// until some key comes again.
const SIGHT_RECORDS_MIN: usize = 1 << 17;

/// What the sizes of values on disk are learnt from counts half after so many bytes.
const SIZES_BYTES: u64 = 1 << 30;

pub(crate) use self::ghosts::Forgotten;
pub(crate) use self::remembered::IndexUse;

pub(crate) struct DiskAdmission {
    policy: Policy,
    /// None: no limit.
    bucket: Option<Mutex<Bucket>>,
    clock: Clock,
}

enum Policy {
    /// It takes everything.
    Always,
    Adaptive(Box<Adaptive>),
    OnSecondSight(Remembered),
}

struct Adaptive {
    known: Remembered,
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
    trial_bytes: AtomicUsize,
}

/// What the configuration says of a disk tier.
pub(crate) struct Settings {
    pub(crate) policy: L2Admission,
    pub(crate) disk_bytes: u64,
    /// The budget that its memory counts against.
    pub(crate) index_bytes_max: usize,
    pub(crate) write_amplification_pct_max: u32,
    pub(crate) rate: Option<WriteRate>,
    pub(crate) clock: Clock,
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
    /// `settings`: None without a disk tier.
    pub(crate) fn new(settings: Option<Settings>, freeing: &Arc<Freeing>) -> Self {
        let Some(settings) = settings else {
            return Self { policy: Policy::Always, bucket: None, clock: Clock::default() };
        };
        let policy = Policy::new(&settings, freeing);
        let Settings { rate, clock, .. } = settings;
        let now = clock.timestamp();
        let bucket = rate.map(|rate| Mutex::new(Bucket::new(rate, now)));
        Self { policy, bucket, clock }
    }

    /// Memory of the ghosts and the trial.
    pub(crate) fn bytes(&self) -> usize {
        let trial = |it: &Adaptive| it.trial_bytes.load(Ordering::Relaxed);
        self.known().map_or(0, Remembered::bytes) + self.adaptive().map_or(0, trial)
    }

    /// The same, with what the trial may take later.
    pub(crate) fn bytes_reserved(&self) -> usize {
        let trial = self.adaptive().map_or(0, |_| trial::MEMORY_BYTES_MAX);
        self.known().map_or(0, Remembered::bytes) + trial
    }

    /// Judges a value of so many bytes that is put. `live` counts the live records on disk.
    pub(crate) fn judge(
        &self,
        hash: KeyHash,
        bytes: usize,
        live: impl FnOnce() -> usize,
    ) -> Newcomer {
        let is_known = self.known().is_some_and(|known| known.contains(hash));
        let is_taken = match &self.policy {
            Policy::Always => true,
            Policy::OnSecondSight(_) => is_known,
            Policy::Adaptive(adaptive) => {
                adaptive.access(hash, bytes);
                let takes_known_only = adaptive.takes_known_only.load(Ordering::Relaxed);
                is_known || !takes_known_only || !adaptive.is_full(live)
            }
        };
        Newcomer { is_known, is_taken, bytes }
    }

    /// Whether the write rate leaves nothing for a new key. `written` counts the bytes written
    /// since the cache was opened, and those that wait.
    pub(crate) fn is_over_rate(&self, written: impl FnOnce() -> u64) -> bool {
        let Some(bucket) = &self.bucket else { return false };
        let (now, written) = (self.clock.timestamp(), written());
        !bucket.lock().has_bytes(now, written)
    }

    /// A value was found on disk.
    pub(crate) fn found(&self, hash: KeyHash, bytes: usize) {
        if let Some(adaptive) = self.adaptive() {
            adaptive.access(hash, bytes);
        }
    }

    /// A value was put and recorded.
    pub(crate) fn took(&self, bytes: usize, recorded: usize) {
        let Some(adaptive) = self.adaptive() else { return };
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
        if let Some(adaptive) = self.adaptive() {
            adaptive.refused_bytes.fetch_add(adaptive.record_bytes(bytes), Ordering::Relaxed);
        }
        self.remember(hash, index)
    }

    /// A live record has left to make room.
    #[must_use = "it is dropped without locks"]
    pub(crate) fn lost(
        &self,
        hash: KeyHash,
        index: impl FnOnce() -> IndexUse,
    ) -> Option<Forgotten> {
        if let Some(adaptive) = self.adaptive() {
            adaptive.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.remember(hash, index)
    }

    /// A value that was asked for has left memory, and the disk does not have it.
    #[must_use = "it is dropped without locks"]
    pub(crate) fn left_memory(
        &self,
        hash: KeyHash,
        index: impl FnOnce() -> IndexUse,
    ) -> Option<Forgotten> {
        self.remember(hash, index)
    }

    /// A segment of so many records has been reclaimed.
    pub(crate) fn reclaimed(&self, records: usize, live: usize) {
        if let Some(adaptive) = self.adaptive() {
            let lost = adaptive.lost.swap(0, Ordering::Relaxed);
            let is_full = lost > 0 && lost >= records / LOST_SHARE;
            adaptive.full_at.store(if is_full { live.max(1) } else { 0 }, Ordering::Relaxed);
        }
    }

    /// The disk has another size.
    pub(crate) fn resized(&self, disk_bytes: u64) {
        let Some(adaptive) = self.adaptive() else { return };
        let mut trial = adaptive.trial.lock();
        trial.resize(disk_bytes);
        adaptive.trial_bytes.store(trial.memory_bytes(), Ordering::Relaxed);
        drop(trial);
        // A larger disk has room again, and would not find out: it refuses what would fill it.
        adaptive.full_at.store(0, Ordering::Relaxed);
    }

    /// As if the disk were full, until the next segment is reclaimed.
    #[cfg(test)]
    pub(crate) fn pretend_full(&self) {
        if let Some(adaptive) = self.adaptive() {
            adaptive.full_at.store(1, Ordering::Relaxed);
        }
    }

    /// As if a trial had found that most values are never asked for again.
    #[cfg(test)]
    pub(crate) fn pretend_scans(&self) {
        if let Some(adaptive) = self.adaptive() {
            adaptive.takes_known_only.store(true, Ordering::Relaxed);
        }
    }

    /// Bytes of records that were not written since the last call, and may be written for others.
    pub(crate) fn take_refused_bytes(&self) -> u64 {
        self.adaptive().map_or(0, |it| it.refused_bytes.swap(0, Ordering::Relaxed))
    }

    fn adaptive(&self) -> Option<&Adaptive> {
        match &self.policy {
            Policy::Adaptive(adaptive) => Some(adaptive),
            Policy::Always | Policy::OnSecondSight(_) => None,
        }
    }

    fn known(&self) -> Option<&Remembered> {
        match &self.policy {
            Policy::Adaptive(adaptive) => Some(&adaptive.known),
            Policy::OnSecondSight(known) => Some(known),
            Policy::Always => None,
        }
    }

    fn remember(&self, hash: KeyHash, index: impl FnOnce() -> IndexUse) -> Option<Forgotten> {
        let known = self.known()?;
        let mut index = index();
        if matches!(self.policy, Policy::OnSecondSight(_)) {
            index.records = index.records.max(SIGHT_RECORDS_MIN);
        }
        known.remember(hash, index)
    }
}

impl Policy {
    fn new(settings: &Settings, freeing: &Arc<Freeing>) -> Self {
        let known = Remembered::new(settings.index_bytes_max / GHOSTS_SHARE, freeing);
        match settings.policy {
            L2Admission::Adaptive if settings.index_bytes_max >= BUDGET_MIN => {
                Self::Adaptive(Box::new(Adaptive::new(settings, known)))
            }
            L2Admission::Adaptive | L2Admission::Always => Self::Always,
            L2Admission::OnSecondSight => Self::OnSecondSight(known),
        }
    }
}

impl Adaptive {
    fn new(settings: &Settings, known: Remembered) -> Self {
        let trial = Trial::new(settings.disk_bytes, settings.write_amplification_pct_max);
        Self {
            known,
            sample: trial.sample().into(),
            trial: Mutex::new(trial),
            takes_known_only: false.into(),
            full_at: 0.into(),
            lost: 0.into(),
            refused_bytes: 0.into(),
            taken: 0.into(),
            recorded: 0.into(),
            trial_bytes: 0.into(),
        }
    }

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

    /// The bytes that a record of a value of so many bytes takes.
    fn record_bytes(&self, bytes: usize) -> u64 {
        let (taken, recorded) =
            (self.taken.load(Ordering::Relaxed), self.recorded.load(Ordering::Relaxed));
        if taken == 0 { bytes as u64 } else { scaled(bytes as u64, recorded, taken) }
    }
}
