//! `LabelInvalidations`: by tags or dependencies, in one namespace, several, or all, at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::commit_lock::{CommitLock, Section};
use crate::engine::acknowledge::{Acknowledgement, Acknowledger};
use crate::engine::admission::Admission;
use crate::engine::disk_tier::DiskTier;
use crate::engine::invalidate::attempt::Attempts;
use crate::engine::invalidate::blocked::{Attempt, Blocked};
use crate::engine::invalidate::cleanup::Cleanup;
use crate::engine::parts::Parts;
use crate::error::CacheError;
use crate::key::{KeyHasher, LabelHash, LabelKind, NamespaceSeed};
use crate::l2::{Change, Expiry, ExpiryScope, LabelHashes, Position, Record};
use crate::namespace::{Generation, Namespaces};
use crate::pending::{PendingInvalidation, PendingInvalidations};
use crate::scope::NamespaceScope;

/// A record has at most one label for so many bytes of a segment, so that it fits one.
const SEGMENT_SHARE: usize = 32;

/// A call over more pairs of a label and a namespace looks at them before it locks anything: to
/// hash them all takes longer than others may be kept waiting.
const PAIRS_MAX: usize = if cfg!(test) { 16 } else { 4096 };

pub(crate) struct LabelInvalidations {
    hasher: KeyHasher,
    commit_lock: Arc<CommitLock>,
    namespaces: Arc<Namespaces>,
    pending: Arc<PendingInvalidations>,
    acknowledger: Arc<Acknowledger>,
    disk: Arc<DiskTier>,
    admission: Admission,
    cleanup: Cleanup,
    attempts: Attempts,
}

/// The labels of a call.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    scope: NamespaceScope<'a>,
    kind: LabelKind,
    labels: &'a [&'a str],
    /// If entries with a stale window are only made stale.
    since: Option<Timestamp>,
}

/// The labels of a call that a namespace had at a look, after so many postings were ever added to
/// it. It holds the generation, or another one might take its address.
struct Look {
    generation: Arc<Generation>,
    added: u64,
    has: Vec<LabelHash>,
}

/// By the address of the generation.
type Looks = BTreeMap<usize, Look>;

/// Labels of a generation, by their hashes.
type Covered<'a> = (&'a Arc<Generation>, Vec<LabelHash>);

impl LabelInvalidations {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            hasher: parts.hasher.clone(),
            commit_lock: parts.commit_lock.clone(),
            namespaces: parts.namespaces.clone(),
            pending: parts.pending.clone(),
            acknowledger: parts.acknowledger.clone(),
            disk: parts.disk.clone(),
            admission: Admission::new(parts),
            cleanup: Cleanup::new(parts),
            attempts: Attempts::new(parts),
        }
    }

    pub(crate) async fn invalidate(
        &self,
        scope: NamespaceScope<'_>,
        kind: LabelKind,
        labels: &[&str],
        since: Option<Timestamp>,
    ) -> Result<usize, CacheError> {
        // Bounded: by the names of one call.
        for name in scope.names() {
            self.admission.check_namespace(name)?;
        }
        self.admission.check_labels(labels.iter().copied())?;
        let wanted = Wanted { scope, kind, labels, since };
        let (made, acknowledgement) = self
            .attempts
            .attempt(scope, || self.try_invalidate(wanted, &self.looks(wanted)))
            .await?;
        let mut removed = 0;
        // Bounded: by the namespaces that have the labels.
        for invalidation in made {
            removed += self.cleanup.finish_invalidation(&invalidation).await;
        }
        self.acknowledger.acknowledge(acknowledgement).await?;
        Ok(removed)
    }

    /// Looks at all pairs, if there are many, with a short section for each namespace.
    fn looks(&self, wanted: Wanted<'_>) -> Looks {
        let names = wanted.scope.names();
        let is_over_all = wanted.scope == NamespaceScope::All;
        let count = if is_over_all { self.namespaces.len() } else { names.len() };
        let mut looks = Looks::new();
        if count.saturating_mul(wanted.labels.len()) <= PAIRS_MAX {
            return looks;
        }
        // Bounded: by the names of one call.
        let mut found: Vec<_> = names.iter().filter_map(|it| self.namespaces.find(it)).collect();
        let mut next = is_over_all.then_some(0);
        // Bounded: by the namespaces in use.
        while let Some(from) = next {
            next = self.namespaces.some(from, &mut found);
        }
        // Bounded: likewise.
        for generation in found {
            let mut has = self.hashes(generation.name(), wanted);
            let mut section = self.commit_lock.section();
            let labels = generation.labels(&mut section);
            // Bounded: by the labels of one call.
            has.retain(|&label| labels.has(label));
            let added = labels.added();
            drop((labels, section));
            looks.insert(Arc::as_ptr(&generation).addr(), Look { generation, added, has });
        }
        looks
    }

    /// The hashes of the labels under the names that a call lists; or, if they are many, the names
    /// instead: then what was read before is refused for any label.
    fn named(&self, wanted: Wanted<'_>) -> (Vec<LabelHash>, Vec<NamespaceSeed>) {
        let names = wanted.scope.names();
        // Bounded: by the names of one call.
        if names.len().saturating_mul(wanted.labels.len()) <= PAIRS_MAX {
            // Bounded: by so many pairs.
            return (names.iter().flat_map(|name| self.hashes(name, wanted)).collect(), Vec::new());
        }
        // Bounded: likewise.
        (Vec::new(), names.iter().map(|name| self.hasher.namespace(name).seed).collect())
    }

    /// Gives an invalidation for each namespace in which an entry has any of the labels.
    fn try_invalidate(
        &self,
        wanted: Wanted<'_>,
        looks: &Looks,
    ) -> Attempt<Vec<Arc<PendingInvalidation>>> {
        let (named, seeds) = self.named(wanted);
        let look_at =
            |generation: &Arc<Generation>| match looks.get(&Arc::as_ptr(generation).addr()) {
                Some(look) => {
                    debug_assert!(Arc::ptr_eq(&look.generation, generation), "it is held");
                    (Some(look.added), look.has.clone())
                }
                None => (None, self.hashes(generation.name(), wanted)),
            };
        // While the table is locked, nothing can be put into a name that is not in use.
        self.namespaces.with_all(wanted.scope, |generations| {
            // Bounded: by the namespaces in use.
            let hashed: Vec<_> = generations.into_iter().map(|it| (it, look_at(it))).collect();
            let mut section = self.commit_lock.section();
            if section.is_closed() {
                return Err(Blocked::Closed);
            }
            // Of all that the call names: a namespace without the labels may owe that to a record
            // that is not on file yet.
            // Bounded: by the namespaces in use.
            let has_slots = hashed.iter().any(|(it, _)| !it.index().is_empty());
            let mut covered: Vec<Covered<'_>> = Vec::new();
            // Bounded: by the namespaces in use, and by the labels that they have.
            for (generation, (added, mut hashes)) in hashed {
                let labels = generation.labels(&mut section);
                if added.is_some_and(|added| added != labels.added()) {
                    hashes = self.hashes(generation.name(), wanted);
                }
                // Bounded: by the labels of one call.
                hashes.retain(|&label| labels.has(label));
                drop(labels);
                if !hashes.is_empty() {
                    covered.push((generation, hashes));
                }
            }
            let done = match covered.is_empty() {
                true => (Vec::new(), Acknowledgement::Nothing),
                false => self.put_in_force(covered, (wanted.since, has_slots), &mut section)?,
            };
            let moment = section.moment();
            // Bounded: by the labels of one call, in each namespace that it names.
            for label in named {
                section.watermarks().label_invalidated(label, moment);
            }
            // Bounded: by the names of one call.
            for seed in seeds {
                section.watermarks().namespace_flushed(seed, moment);
            }
            if wanted.scope == NamespaceScope::All {
                // Bounded: by the labels of one call, which have a limit.
                for label in wanted.labels {
                    section.watermarks().label_invalidated_everywhere(wanted.kind, label, moment);
                }
            }
            Ok(done)
        })
    }

    /// The labels of a call in a namespace, sorted, without duplicates.
    fn hashes(&self, name: &str, Wanted { kind, labels, .. }: Wanted<'_>) -> Vec<LabelHash> {
        let seed = self.hasher.namespace(name).seed;
        // Bounded: by the labels of one call.
        let hashes = labels.iter().map(|label| self.hasher.label(seed, kind, label));
        // Bounded: likewise.
        let mut hashes: Vec<LabelHash> = hashes.collect();
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }

    /// Some entry of each of these namespaces has each of these labels.
    fn put_in_force(
        &self,
        covered: Vec<Covered<'_>>,
        (since, has_slots): (Option<Timestamp>, bool),
        section: &mut Section<'_>,
    ) -> Attempt<Vec<Arc<PendingInvalidation>>> {
        if self.pending.is_full(covered.len()) {
            return Err(Blocked::TooMany);
        }
        // Bounded: by the labels of one call, in each namespace that it names.
        let all: Vec<u64> =
            covered.iter().flat_map(|(_, hashes)| hashes).map(|label| label.0).collect();
        let end = self.record(&all, since, section)?;
        let sequence = if end.is_some() { section.last_sequence() } else { section.sequence(None) };
        let made = self.pending.make_of_labels((sequence, since), covered);
        // Bounded: one.
        end.into_iter().for_each(|end| self.acknowledger.shadowed_until(end));
        Ok((made, Acknowledgement::over(has_slots, end)))
    }

    /// Appends the record: one, unless its labels would not fit a segment. Gives its end; None
    /// without a disk tier. If the log has room for a part of them only, those say too early what
    /// the next attempt will say again.
    fn record(
        &self,
        labels: &[u64],
        since: Option<Timestamp>,
        section: &mut Section<'_>,
    ) -> Result<Option<Position>, Blocked> {
        let Some(l2) = self.disk.l2() else { return Ok(None) };
        let most = l2.geometry().segment_bytes() as usize / SEGMENT_SHARE;
        let mut end = None;
        // Bounded: by the labels of one call, in each namespace that it names.
        for labels in labels.chunks(most) {
            let labels = LabelHashes::new(labels);
            let record = match since {
                None => Record::LabelInvalidation { labels },
                Some(since) => {
                    let scope = ExpiryScope::Labels(labels);
                    Record::Expiry(Expiry { since_ns: since.0, scope })
                }
            };
            let change = Change::new(&record, 0, &[]);
            let Some(assigned) = self.disk.record(&record, &change)? else { return Ok(None) };
            section.sequence(Some(assigned.position.value()));
            end = Some(assigned.end);
        }
        Ok(end)
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;
    use crate::cache::BlobCache;
    use crate::config::BlobCacheConfig;
    use crate::put::BlobCachePut;

    /// More pairs than are looked at under the locks, and puts between the look and the locks.
    #[test]
    fn what_is_put_after_the_look_is_covered() {
        let cache = block_on(BlobCache::open(BlobCacheConfig::default())).unwrap();
        let put = |name: &str, key: &str, tag: &str| {
            block_on(cache.put(name, key, BlobCachePut::new("v").with_tags([tag]))).unwrap();
        };
        let names = ["a", "b", "c", "d"];
        names.iter().for_each(|name| put(name, "other", "kept"));
        put("a", "1", "t0");
        let tags: Vec<String> = (0..10).map(|number| format!("t{number}")).collect();
        let labels: Vec<&str> = tags.iter().map(String::as_str).collect();
        for scope in [NamespaceScope::All, NamespaceScope::Several(&names)] {
            let wanted = Wanted { scope, kind: LabelKind::Tag, labels: &labels, since: None };
            let labels = &cache.engine.invalidations().labels;
            let looks = labels.looks(wanted);
            assert_eq!(looks.len(), 4);
            put("a", "1", "t0");
            put("b", "2", "t9");
            block_on(cache.invalidate_namespace("c")).unwrap();
            put("c", "3", "t3");
            let Ok((made, _)) = labels.try_invalidate(wanted, &looks) else { panic!("{scope:?}") };
            assert_eq!(made.len(), 3, "{scope:?}");
            for (name, key) in [("a", "1"), ("b", "2"), ("c", "3")] {
                assert!(block_on(cache.get(name, key)).is_none(), "{scope:?}: {name}");
            }
            assert!(block_on(cache.get("d", "other")).is_some());
            let removed = block_on(cache.invalidate_tags(scope, &tags)).unwrap();
            assert_eq!(removed, 0, "{scope:?}");
        }
    }
}
