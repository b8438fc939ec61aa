//! `Ledger`: everything that a cache counts or keeps for callers, and what holds its parts alive.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::engine::parts::Parts;
use crate::io::Simulation;

/// Far longer than the thread takes that frees what a cache leaves.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Not here: what is kept on purpose, each with a bound of its own. Spare buffers and contexts of
/// the compressor, the directory of the open segment, access times, and admission's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ledger(BTreeMap<&'static str, usize>);

impl Ledger {
    pub(super) fn of(engine: &Engine, simulation: &Simulation) -> Self {
        let Parts { copies, reads, promotions, flights, pending, budget, .. } = &engine.parts;
        let Parts { l1, namespaces, freeing, disk, commit_lock, .. } = &engine.parts;
        let totals = namespaces.totals();
        let (tasks, timers) = simulation.standing();
        let mut all = BTreeMap::from([
            ("bytes of copies", copies.bytes()),
            ("callers of copies", copies.callers()),
            ("bytes of reads", reads.bytes()),
            ("callers of reads", reads.callers()),
            ("promotions", promotions.depth()),
            ("bytes of promotions", promotions.bytes()),
            ("flights", flights.len()),
            ("fetch tasks", engine.parts.fetch_tasks.len()),
            ("watched keys", commit_lock.section().watermarks().watched()),
            ("pending invalidations", usize::from(pending.any_pending())),
            ("slots", budget.slots()),
            ("postings", budget.postings()),
            ("labels without a record", budget.labels_above()),
            ("bytes in memory", l1.bytes()),
            ("entries in memory", l1.all().len()),
            ("namespaces", namespaces.len()),
            ("entries", totals.entries),
            ("live entries", totals.live),
            ("bytes of the index", totals.index_bytes),
            ("bytes of synopses", totals.synopsis_bytes),
            ("unfreed bytes", freeing.bytes()),
            ("tasks", tasks),
            ("timers", timers),
        ]);
        if let Some(l2) = disk.l2() {
            let (callers, bytes) = (l2.log.waiting_callers(), l2.log.waiting_bytes());
            all.insert("callers of the log", callers);
            all.insert("unwritten bytes", bytes);
            all.insert("pinned reads", l2.pins_held() as usize);
            all.insert("bytes of the writer", l2.health().buffer_bytes());
        }
        Self(all)
    }

    /// The figures that differ, with both values.
    pub(super) fn differences(&self, other: &Self) -> Vec<(&'static str, usize, usize)> {
        let pairs = self.0.iter().map(|(name, here)| (*name, *here, other.0[name]));
        pairs.filter(|(_, here, there)| here != there).collect()
    }
}

/// What must be gone after the last handle.
pub(super) struct Remainder(Vec<(&'static str, Weak<dyn Any + Send + Sync>)>);

impl Remainder {
    pub(super) fn of(engine: &Arc<Engine>) -> Self {
        fn weak<T: Any + Send + Sync>(part: &Arc<T>) -> Weak<dyn Any + Send + Sync> {
            let part: Arc<dyn Any + Send + Sync> = Arc::<T>::clone(part);
            Arc::downgrade(&part)
        }
        let parts = &engine.parts;
        Self(vec![
            ("engine", weak(engine)),
            ("commit lock", weak(&parts.commit_lock)),
            ("namespaces", weak(&parts.namespaces)),
            ("pending invalidations", weak(&parts.pending)),
            ("entries", weak(&parts.l1)),
            ("copies", weak(&parts.copies)),
            ("reads", weak(&parts.reads)),
            ("codecs", weak(&parts.codecs)),
            ("flights", weak(&parts.flights)),
            ("promotions", weak(&parts.promotions)),
            ("disk tier", weak(&parts.disk)),
            ("budget", weak(&parts.budget)),
            ("deadlines", weak(&parts.deadlines)),
            ("freeing", weak(&parts.freeing)),
        ])
    }

    /// Waits for the thread that frees. What is still there then is held by something for good.
    pub(super) fn kept(&self) -> Vec<&'static str> {
        let end = Instant::now() + PATIENCE;
        // Bounded: by the patience.
        loop {
            let alive = self.0.iter().filter(|(_, part)| part.strong_count() > 0);
            let alive: Vec<_> = alive.map(|(name, _)| *name).collect();
            if alive.is_empty() || alive.contains(&"engine") || Instant::now() > end {
                return alive;
            }
            thread::yield_now();
        }
    }
}
