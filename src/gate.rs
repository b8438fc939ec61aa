//! `Gate`: whether what governed namespaces hold may be answered. `Gates`: those of all namespaces.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::boot_clock::BootClock;
use crate::clock::nanos;

/// Never open, and open for good.
const CLOSED: u64 = 0;
const FOR_GOOD: u64 = u64::MAX;

/// Whether gets of the namespaces that it governs may be answered: for a cache whose entries are
/// only right as long as something else says so, such as a stream of invalidations from other
/// machines that has been read to its end.
///
/// It is closed at first, so that a cache that has just been opened answers nothing that it has
/// missed an invalidation of. Clones are one gate. Which namespaces it governs is configured, by
/// [`NamespaceConfigBuilder::gate`](crate::NamespaceConfigBuilder::gate); namespaces without a gate
/// pay nothing for it.
///
/// **What holds.** A get asks the gate once it has begun, and before it checks that what it has
/// found is in force. So a get that begins while the gate is closed answers only as the
/// [`WhileClosed`] of its namespace says, and one that finds the gate open sees all that had
/// returned before the call that opened it. A future begins with its first poll. One that began
/// while the gate was open may return later than that: a get that reads from disk, or waits for a
/// fetch, takes its time.
///
/// With a lease this is: take the time before asking whether anything is missing, and if nothing
/// is, open the gate until that time plus the lease. Then no get that begins later than a lease
/// after an invalidation answers anything older. The machine may sleep and the process be stopped
/// meanwhile: the clock goes on.
///
/// Puts and fetches go on while it is closed, and so do invalidations. A fetching call that began
/// while it was closed is given what it has fetched, or what another caller has since then; the
/// value of a fetch that began before is not shared with it. Touches, listings and statistics do
/// not ask the gate.
///
/// ```
/// # futures::executor::block_on(async {
/// use std::time::Duration;
/// use tamis::{BlobCache, BlobCacheConfig, BootClock, Gate, WhileClosed};
///
/// // Gate::new() in a service.
/// let clock = BootClock::manual(Duration::from_secs(60));
/// let gate = Gate::with_clock(clock.clone());
/// let config = BlobCacheConfig::builder()
///     .namespace("pages", |pages| pages.gate(&gate, WhileClosed::Miss))
///     .build()?;
/// let cache = BlobCache::open(config).await?;
/// cache.put("pages", "/index", "<h1>Tamis</h1>").await?;
/// assert!(cache.get("pages", "/index").await.is_none());
///
/// let asked = gate.now();
/// // Nothing is missing.
/// gate.open_until(asked + Duration::from_secs(5));
/// assert!(cache.get("pages", "/index").await.is_some());
///
/// clock.advance(Duration::from_secs(5));
/// assert!(cache.get("pages", "/index").await.is_none());
/// # Ok::<(), tamis::CacheError>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Default)]
pub struct Gate(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Nanoseconds since boot.
    open_until: AtomicU64,
    clock: BootClock,
}

/// What gets of a governed namespace answer while its [`Gate`] is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum WhileClosed {
    /// Nothing: a get is a miss, a fetching method fetches, and
    /// [`exists`](crate::BlobCache::exists) says absent. This is the default.
    #[default]
    Miss,
    /// Live entries, as stale ones: [`is_stale`](crate::BlobCacheHit::is_stale) is true for each,
    /// also for one that is fresh otherwise or has no stale window, and
    /// [`stale_window_remaining`](crate::BlobCacheHit::stale_window_remaining) is the rest of its
    /// life. So `get_or_fetch` fetches, and answers the entry if that fails; `get_or_refresh`
    /// answers the entry at once, with a refresh.
    Stale,
    /// As while it is open.
    Answer,
}

impl Gate {
    /// A gate that is closed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with another source of time.
    #[must_use]
    pub fn with_clock(clock: BootClock) -> Self {
        Self(Arc::new(Shared { open_until: AtomicU64::new(CLOSED), clock }))
    }

    /// The time of its clock, since boot.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.0.clock.now()
    }

    /// Opens it until its clock says `until`; in the past, this closes it. It replaces what held
    /// before, a later time too. A get that finds it open sees all that has returned before this is
    /// called.
    pub fn open_until(&self, until: Duration) {
        self.set(nanos(until));
    }

    /// Opens it for good, or until the next call.
    pub fn open(&self) {
        self.set(FOR_GOOD);
    }

    /// Closes it, for gets that begin from now on.
    pub fn close(&self) {
        self.set(CLOSED);
    }

    fn set(&self, until: u64) {
        // Release: who finds it open sees what was in force before.
        self.0.open_until.store(until, Ordering::Release);
    }

    /// Whether it is open now.
    #[must_use]
    #[inline]
    pub fn is_open(&self) -> bool {
        match self.0.open_until.load(Ordering::Acquire) {
            CLOSED => false,
            FOR_GOOD => true,
            // Read after that: a caller that was stopped in between finds it closed.
            until => self.0.clock.nanos() < until,
        }
    }
}

impl PartialEq for Gate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Gate {}

impl fmt::Debug for Gate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Gate").field("is_open", &self.is_open()).finish_non_exhaustive()
    }
}

/// A gate as one namespace has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Governed {
    pub(crate) gate: Gate,
    pub(crate) while_closed: WhileClosed,
}

/// How a live entry may be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answerable {
    AsItIs,
    AsStale,
    No,
}

impl Governed {
    /// Asked before an entry is found to be in force.
    #[inline]
    pub(crate) fn ask(&self) -> Answerable {
        match self.while_closed {
            WhileClosed::Answer => Answerable::AsItIs,
            _ if self.gate.is_open() => Answerable::AsItIs,
            WhileClosed::Stale => Answerable::AsStale,
            WhileClosed::Miss => Answerable::No,
        }
    }

    /// The time by its clock, unless it is open.
    pub(crate) fn closed_at(&self) -> Option<Duration> {
        (self.ask() != Answerable::AsItIs).then(|| self.gate.now())
    }
}

/// The gates of governed namespaces, in order of name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gates(Arc<[(Box<str>, Governed)]>);

impl Gates {
    /// In that order already.
    pub(crate) fn new(governed: impl Iterator<Item = (Box<str>, Governed)>) -> Self {
        // Bounded: by the namespaces of a configuration.
        Self(governed.collect())
    }

    pub(crate) fn of(&self, name: &str) -> Option<&Governed> {
        let at = self.0.binary_search_by(|(of, _)| (**of).cmp(name)).ok()?;
        Some(&self.0[at].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_with_its_last_nanosecond() {
        let clock = BootClock::manual(Duration::from_nanos(10));
        let gate = Gate::with_clock(clock.clone());
        assert!(!gate.is_open());
        gate.open_until(Duration::from_nanos(12));
        assert!(gate.is_open());
        clock.advance(Duration::from_nanos(1));
        assert!(gate.clone().is_open());
        clock.advance(Duration::from_nanos(1));
        assert!(!gate.is_open());
        gate.open_until(Duration::from_nanos(13));
        assert!(gate.is_open());
        gate.open_until(Duration::from_nanos(11));
        assert!(!gate.is_open(), "it replaces a later time");
        gate.open_until(Duration::MAX);
        clock.advance(Duration::MAX);
        assert!(gate.is_open());
        gate.close();
        assert!(!gate.is_open());
        gate.open();
        assert!(gate.is_open());
        gate.open_until(Duration::ZERO);
        assert!(!gate.is_open());
    }

    #[test]
    fn the_mode_of_the_namespace_counts_while_the_gate_is_closed() {
        let gate = Gate::new();
        let modes = [
            (WhileClosed::Miss, Answerable::No),
            (WhileClosed::Stale, Answerable::AsStale),
            (WhileClosed::Answer, Answerable::AsItIs),
        ];
        for (while_closed, closed) in modes {
            let governed = Governed { gate: gate.clone(), while_closed };
            gate.close();
            assert_eq!(governed.ask(), closed);
            assert_eq!(governed.closed_at().is_none(), closed == Answerable::AsItIs);
            gate.open();
            assert_eq!((governed.ask(), governed.closed_at()), (Answerable::AsItIs, None));
        }
    }
}
