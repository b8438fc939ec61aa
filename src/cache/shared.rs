//! `Shared`: what all handles of one cache have in common, and what more than one verb needs.

use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{iter, mem};

use parking_lot::Mutex;

use crate::accesses::Accesses;
use crate::cache::agenda::Agenda;
use crate::cache::bell::Bell;
use crate::cache::budget::ACCESSES_SHARE;
use crate::cache::intake;
use crate::cache::promotions::Promotions;
use crate::cache::reads::Reads;
use crate::clock::{Clock, nanos};
use crate::codec::Codecs;
use crate::config::{BlobCacheConfig, NAMESPACE_BYTES_MAX, cores};
use crate::counters::{Counters, Event};
use crate::disposal::{Freeing, Remains};
use crate::entry::{Entry, Mark};
use crate::error::CacheError;
use crate::flight::Flights;
use crate::hit::BlobCacheHit;
use crate::invalidation::{Rule, Rules};
use crate::io::{Lane, UringDisk};
use crate::key::{KeyHash, KeyHasher, NamespaceRef};
use crate::l1::L1;
use crate::l2::{L2, Off};
use crate::limiter::Limiter;
use crate::moment::Moment;
use crate::namespace::{Ended, Namespace, Namespaces};
use crate::order::{Order, Section};
use crate::sequence::Sequence;
use crate::step::pause;
use crate::timer::Timer;

/// So many callers of different keys seldom meet at one lock.
const FLIGHT_TABLES: usize = 64;

pub(crate) struct Shared {
    pub(super) config: BlobCacheConfig,
    pub(super) hasher: KeyHasher,
    pub(super) clock: Clock,
    pub(super) counters: Counters,
    pub(super) order: Order,
    pub(super) namespaces: Namespaces,
    pub(super) rules: Rules,
    pub(super) l1: L1,
    /// For values that are copied and compressed in many polls.
    pub(super) intake: Limiter,
    pub(super) reads: Reads,
    pub(super) codecs: Codecs,
    /// What is being fetched, by the moment up to which a caller may have come to be given it.
    pub(super) flights: Arc<Flights<BlobCacheHit, Moment>>,
    pub(super) promotions: Arc<Promotions>,
    /// Rung when a synopsis is worn.
    pub(super) renewal: Arc<Bell>,
    /// Rung when expired records may be what a quota on disk is full of.
    pub(super) overdue: Arc<Bell>,
    pub(super) agenda: Agenda,
    pub(super) accesses: Accesses,
    pub(super) below: Option<Below>,
    /// Labels of entries that have no record: the budget of memory counts them.
    pub(super) labels_above: AtomicUsize,
    /// Indexes of namespaces that have been flushed.
    pub(super) freeing: Freeing,
    /// Slots of all indexes.
    pub(super) slots: AtomicUsize,
    /// The end of the last flush's record: puts wait for it.
    pub(super) flushed: AtomicU64,
    /// A flush has found the log ended, and is in force in this process only.
    pub(super) is_flush_unrecorded: AtomicBool,
    /// The end of the last record that shadows something on file: whoever finds nothing to do,
    /// thanks to it, waits for it too.
    pub(super) shadowed: AtomicU64,
    pub(super) recovered: Recovery,
    /// When it was last logged that fetched values find no place.
    pub(super) told: Mutex<Option<Instant>>,
}

/// The disk tier and what it runs on.
pub(super) struct Below {
    pub(super) l2: L2,
    pub(super) lane: Arc<dyn Lane>,
    /// None on a simulated disk.
    pub(super) file: Option<UringDisk>,
}

/// What was found on file at open.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    pub(super) records: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) nanos: AtomicU64,
}

impl Recovery {
    pub(super) fn set(&self, records: u64, dropped: u64, duration: Duration) {
        self.records.store(records, Ordering::Relaxed);
        self.dropped.store(dropped, Ordering::Relaxed);
        self.nanos.store(nanos(duration), Ordering::Relaxed);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(below) = &self.below {
            below.l2.log.close();
            self.promotions.close();
            self.renewal.close();
            self.overdue.close();
            if let Some(file) = &below.file {
                // Ends by itself, once the writer has.
                file.close();
            }
        }
        // The caller of a last drop does not wait for all that there is to be freed.
        let ended = self.flush_on_close();
        let l1 = mem::replace(&mut self.l1, L1::new(0, 1, iter::empty()));
        drop(Remains::new(ended.pieces().chain(l1.pieces())));
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn over(
        config: BlobCacheConfig,
        hasher: KeyHasher,
        below: Option<Below>,
        timer: &Timer,
    ) -> Self {
        let instance = RandomState::new().build_hasher().finish();
        // One place of sixteen bytes for each 2 KiB of budget, and a quarter of that for labels: a
        // hundredth of it. Fewer than some thousand would refuse fetches for each other's sake.
        let watermarks = (config.l1_bytes_max / 2048).clamp(1 << 12, 1 << 17).next_power_of_two();
        Self {
            hasher,
            clock: config.clock.clone(),
            counters: Counters::new(cores()),
            order: Order::new(instance, watermarks),
            namespaces: Namespaces::new(config.max_namespaces, config.quotas.clone()),
            rules: Rules::default(),
            l1: L1::new(config.l1_bytes_max, config.shard_count, config.quotas.in_memory()),
            codecs: Codecs::new(cores()),
            flights: Arc::new(Flights::new(FLIGHT_TABLES, timer.clone())),
            promotions: Arc::new(Promotions::new(config.promotion_queue_max, config.l1_bytes_max)),
            intake: intake::limiter(config.l1_bytes_max, below.is_some(), timer),
            renewal: Arc::default(),
            overdue: Arc::default(),
            agenda: Agenda::new(),
            accesses: Accesses::new(config.l2_index_bytes_max / ACCESSES_SHARE),
            reads: Reads::new(config.l2_read_bytes_max, timer),
            below,
            labels_above: AtomicUsize::new(0),
            freeing: Freeing::default(),
            slots: AtomicUsize::new(0),
            flushed: AtomicU64::new(0),
            is_flush_unrecorded: AtomicBool::new(false),
            shadowed: AtomicU64::new(0),
            recovered: Recovery::default(),
            told: Mutex::default(),
            config,
        }
    }

    /// Whether there is a disk tier that neither takes nor gives any more.
    pub(super) fn is_off(&self) -> bool {
        self.l2().is_some_and(|l2| l2.health().is_off())
    }

    /// Gives back the memory of a generation that has ended, which others may hold on to, in the
    /// background: that is work for each of its slots.
    pub(super) fn free(self: &Arc<Self>, generation: Arc<Namespace>) {
        let Some(below) = self.below.as_ref().filter(|_| !generation.index().is_empty()) else {
            return;
        };
        let shared = Arc::downgrade(self);
        let counted = self.freeing.count(generation.index().memory_bytes());
        let mut remains = Remains::new(Arc::clone(&generation).pieces());
        let freeing = async move {
            let _counted = counted;
            let mut cursor = Some(Default::default());
            // Bounded: a step in each turn, then a pause.
            while let Some((from, shared)) = cursor.zip(shared.upgrade()) {
                cursor = shared.release_some(&generation, from);
                drop(shared);
                pause().await;
            }
            // Bounded: a step in each turn, then a pause.
            while remains.free_some() {
                pause().await;
            }
        };
        drop(below.lane.spawn("freeing", Box::pin(freeing)));
    }

    /// The same of all generations at once, whose postings have gone with them.
    pub(super) fn free_all(&self, ended: Ended) {
        let counted = self.freeing.count(ended.index_bytes());
        let mut remains = Remains::new(ended.pieces());
        let Some(below) = &self.below else { return drop(remains) };
        let freeing = async move {
            let _counted = counted;
            // Bounded: a step in each turn, then a pause.
            while remains.free_some() {
                pause().await;
            }
        };
        drop(below.lane.spawn("freeing", Box::pin(freeing)));
    }

    /// The disk tier, if there is one, in whatever state.
    pub(super) fn l2(&self) -> Option<&L2> {
        self.below.as_ref().map(|below| &below.l2)
    }

    pub(super) fn check_open(&self) -> Result<(), CacheError> {
        if self.order.is_closed() { Err(CacheError::Closed) } else { self.check_ours() }
    }

    pub(super) fn check_namespace(&self, name: &str) -> Result<(), CacheError> {
        within(name.len(), NAMESPACE_BYTES_MAX, |size, max| CacheError::NamespaceTooLarge {
            size,
            max,
        })
    }

    pub(super) fn check_key(&self, key: &[u8]) -> Result<(), CacheError> {
        within(key.len(), self.config.key_bytes_max, |size, max| CacheError::KeyTooLarge {
            size,
            max,
        })
    }

    pub(super) fn check_labels<'a>(
        &self,
        labels: impl Iterator<Item = &'a str>,
    ) -> Result<(), CacheError> {
        // Bounded: by the labels of one call.
        let (labels, bytes) = labels.fold((0, 0), |(n, bytes), label| (n + 1, bytes + label.len()));
        let (max_labels, max_bytes) = (self.config.labels_max, self.config.label_bytes_max);
        if labels > max_labels || bytes > max_bytes {
            return Err(CacheError::LabelsTooLarge { labels, bytes, max_labels, max_bytes });
        }
        Ok(())
    }

    /// The entry of a key that no invalidation stands behind, whatever its age.
    #[inline]
    pub(super) fn visible(
        &self,
        namespace: NamespaceRef<'_>,
        key: &[u8],
        hash: KeyHash,
    ) -> Option<Arc<Entry>> {
        // Whether it is held comes last: a rule that is no longer in force has removed all that it
        // covered. Asked before, an entry could be seen again after others had been told that it is
        // gone. All of it under the shard's lock, or an overwrite would look like a miss.
        self.l1.find(hash, |entry| {
            entry.is_of(namespace.name, key)
                && !(self.rules.any_in_force() && self.rules.covering(entry).is_some())
                && entry.is_held()
        })
    }

    /// Settles what hangs on an entry that this caller has taken out of L1, which `covering`
    /// covered while it was there.
    pub(super) fn settle(&self, entry: &Entry, covering: Option<&Rule>, section: &mut Section<'_>) {
        entry.namespace.shrink(entry.charge, section);
        if !entry.is(Mark::OnFile) {
            self.labels_above.fetch_sub(entry.labels().len(), Ordering::Relaxed);
        }
        // While its record is on disk, its labels must go on leading to it, though it be gone:
        // another open, with another clock, may see it otherwise. Where it has no record, the slot
        // is that of the tombstone which stands for it there.
        let (generation, sequence) = (&entry.namespace, entry.sequence());
        if !entry.is(Mark::OnFile) || !generation.has_slot(entry.hash, sequence) {
            section.labels().release(entry.hash, sequence);
        }
        if let Some(rule) = covering {
            let freshness = self.freshness(entry);
            if freshness.is_gone() {
                self.count_expired(freshness);
            } else {
                self.credit(rule);
            }
        }
    }

    /// Counts an entry that no rule has covered, and that was removed from memory by a mutation of
    /// its key, as `event`; unless it had ended.
    pub(super) fn count_removed(&self, entry: &Entry, event: Event) {
        // What was flushed has been counted then.
        if entry.namespace.has_ended() {
            return;
        }
        let freshness = self.freshness(entry);
        if freshness.is_gone() {
            self.count_expired(freshness);
        } else {
            self.counters.count(event);
        }
    }

    /// A rule had covered what this caller has removed, though it has not come to it itself.
    pub(super) fn credit(&self, rule: &Rule) {
        rule.count();
        self.counters.count(Event::Invalidation);
    }

    /// The rule that covers what only the disk holds of a key.
    pub(super) fn covering_on_disk(
        &self,
        generation: &Arc<Namespace>,
        (key, hash): (&[u8], KeyHash),
        only: Sequence,
        section: &mut Section<'_>,
    ) -> Option<Arc<Rule>> {
        if !self.rules.any_in_force() {
            return None;
        }
        let labels = section.labels().of(hash, only);
        self.rules.covering_all(generation, only, key, &labels)
    }

    /// Ends the order. False where it had been closed before.
    pub(super) fn end(self: &Arc<Self>) -> bool {
        let first = self.order.section().close();
        if first {
            if let Some(l2) = self.l2() {
                l2.log.close();
            }
            self.promotions.close();
            self.renewal.close();
            self.overdue.close();
            let ended = self.flush_on_close();
            self.rules.sweep_ended();
            self.free_all(ended);
            if let Some(file) = self.below.as_ref().and_then(|below| below.file.as_ref()) {
                // From here on it ends by itself, once the writer has, whatever is polled.
                file.close();
            }
        }
        first
    }

    /// Ends all generations, of a cache whose order has ended.
    fn flush_on_close(&self) -> Ended {
        let Ok(ended) = self.namespaces.flush_all(&self.order, |_| {
            self.slots.store(0, Ordering::Relaxed);
            Ok::<(), Infallible>(())
        });
        ended
    }

    /// Lets go of everything, and returns when the disk tier is on file and its lock is free.
    pub(super) async fn finish(&self) -> Result<(), CacheError> {
        self.check_ours()?;
        self.carry_out_all().await;
        let Some(below) = &self.below else { return Ok(()) };
        let closed = below.l2.log.closed().await;
        if let Some(file) = &below.file {
            file.close().wait().await;
        }
        closed.map_err(|Off| self.device_error())
    }
}

fn within(
    size: usize,
    max: usize,
    error: impl FnOnce(usize, usize) -> CacheError,
) -> Result<(), CacheError> {
    if size > max { Err(error(size, max)) } else { Ok(()) }
}
