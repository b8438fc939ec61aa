//! `Failures`: what keeps a key from being fetched again too soon.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::commit_lock::CommitLock;
use crate::engine::fetch::held::{Found, HeldErrors};
use crate::engine::fetch::outcome::Failure;
use crate::engine::fetch::rests::Rests;
use crate::engine::fetch::watch::WatchGuard;
use crate::engine::parts::Parts;
use crate::failpoint::{Failpoint, failpoint};
use crate::flight::Destination;
use crate::key::{HashedKey, KeyHash, NamespaceSeed};

pub(crate) struct Failures {
    commit_lock: Arc<CommitLock>,
    clock: Clock,
    rests: Arc<Rests>,
    /// The keys that a caller tries to refresh ahead.
    attempts: Rests,
    held: Arc<HeldErrors>,
}

impl Failures {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            commit_lock: Arc::clone(&parts.commit_lock),
            clock: parts.clock.clone(),
            rests: Arc::clone(&parts.rests),
            attempts: Rests::new(),
            held: Arc::clone(&parts.held_errors),
        }
    }

    /// A refresh has brought nothing: the key is not refreshed for a while.
    pub(crate) fn rest(&self, hash: KeyHash) {
        self.rests.begin(hash, self.clock.timestamp());
    }

    pub(crate) fn is_resting(&self, hash: KeyHash) -> bool {
        self.rests.is_resting(hash, self.clock.timestamp())
    }

    /// Whether a refresh ahead would be refused, as far as that is told without looking for one:
    /// each hit in the last share of its time asks this.
    pub(crate) fn is_attempted(&self, hash: KeyHash, now: Timestamp) -> bool {
        self.attempts.is_resting(hash, now) || self.rests.is_resting(hash, now)
    }

    /// A caller tries to refresh a key ahead: others need not, for a while.
    pub(crate) fn begin_attempt(&self, hash: KeyHash) {
        self.attempts.begin(hash, self.clock.timestamp());
    }

    pub(crate) fn end_attempt(&self, hash: KeyHash) {
        self.attempts.end(hash);
    }

    pub(crate) fn hold(
        &self,
        of: Destination<'_>,
        failure: (Failure, usize),
        watch: WatchGuard,
        retry_after: Duration,
    ) {
        self.held.hold(of, failure, watch, (self.clock.timestamp(), retry_after));
    }

    /// The error that is held for a key, unless the key has changed since.
    pub(crate) fn held(
        &self,
        of: Destination<'_>,
        (seed, key): (NamespaceSeed, HashedKey<'_>),
        retry_after: Duration,
    ) -> Option<Found> {
        let found = self.held.find(of, self.clock.timestamp(), retry_after)?;
        // Calls that are held off come in thousands: most do not take the commit lock.
        if self.commit_lock.read_point().moment == found.at {
            return Some(found);
        }
        let mut section = self.commit_lock.section();
        let marks = section.watermarks();
        let has_changed = marks.mutated_since(found.at, (seed, key.bytes), key.hash, &[]);
        drop(section);
        if has_changed && !failpoint(Failpoint::HeldOverChange) {
            self.held.forget(of.id, found);
            return None;
        }
        Some(found)
    }

    pub(crate) fn forget(&self, of: Destination<'_>) {
        self.held.forget_key(of);
    }
}
