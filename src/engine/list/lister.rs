//! `Lister`: makes the streams of keys, and leads each through its walks.
//!
//! First come the records that the log had when the stream was first polled, then what only memory
//! has. If there were mutations meanwhile, the part of the log that they have added is last: a key
//! may have come there from memory. So it is if a segment has left the log before it was listed,
//! since reclaim may have appended its records again.

use std::sync::Arc;

use futures::stream::unfold;

use crate::batch::{Pacer, sort_in_batches};
use crate::commit_lock::CommitLock;
use crate::engine::disk_tier::DiskTier;
use crate::engine::list::entries::EntryWalk;
use crate::engine::list::judge::{Judge, Listed};
use crate::engine::list::labelled::LabelWalk;
use crate::engine::list::records::RecordWalk;
use crate::engine::parts::Parts;
use crate::engine::read::read_limit::Reads;
use crate::failpoint::{Failpoint, failpoint};
use crate::key::{KeyHasher, LabelHash, LabelKind, NamespaceSeed};
use crate::keys::{BlobCacheKeys, KeyEntry, KeysQuery};
use crate::l1::L1;
use crate::l2::{L2, Position};
use crate::moment::Moment;
use crate::namespace::Namespaces;
use crate::sequence::Sequence;

/// Walks for what was missed, at most: a listing that takes longer than the log takes to come round
/// so often ends all the same.
const WALKS_MAX: usize = 4;

pub(crate) struct Lister {
    hasher: KeyHasher,
    commit_lock: Arc<CommitLock>,
    namespaces: Arc<Namespaces>,
    l1: Arc<L1>,
    disk: Arc<DiskTier>,
    reads: Arc<Reads>,
    judge: Judge,
}

/// A stream under way. It keeps the parts that it asks, but not the cache open.
struct Listing {
    lister: Arc<Lister>,
    listed: Listed,
    walk: Walk,
    steps: Pacer,
}

enum Walk {
    Labelled(LabelWalk),
    Tiers(Box<Tiers>),
}

struct Tiers {
    /// The last moment when it began, and the last sequence.
    begun: (Moment, Sequence),
    records: Option<RecordWalk>,
    /// None at its end.
    entries: Option<EntryWalk>,
    /// Those that were added.
    walks: usize,
}

impl Lister {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            hasher: parts.hasher.clone(),
            commit_lock: Arc::clone(&parts.commit_lock),
            namespaces: Arc::clone(&parts.namespaces),
            l1: Arc::clone(&parts.l1),
            disk: Arc::clone(&parts.disk),
            reads: Arc::clone(&parts.reads),
            judge: Judge::new(parts),
        }
    }

    pub(crate) fn list(self: &Arc<Self>, namespace: &str, query: KeysQuery) -> BlobCacheKeys {
        enum Course {
            New(Arc<Lister>, Box<str>, KeysQuery),
            Begun(Box<Listing>),
        }
        let new = Course::New(Arc::clone(self), namespace.into(), query);
        BlobCacheKeys::new(unfold(new, |course| async move {
            let mut listing = match course {
                Course::New(lister, name, query) => lister.begin(&name, query).await?,
                Course::Begun(listing) => listing,
            };
            let entry = listing.next().await?;
            Some((entry, Course::Begun(listing)))
        }))
    }

    /// None if the namespace has nothing.
    async fn begin(self: Arc<Self>, name: &str, query: KeysQuery) -> Option<Box<Listing>> {
        let generation = self.namespaces.find(name)?;
        let seed = self.hasher.namespace(name).seed;
        let KeysQuery { prefix, tags, dependencies, has_labels, is_detailed } = query;
        let listed = Listed { generation, seed, prefix, is_detailed };
        let mut steps = Pacer::at_once();
        let walk = if has_labels {
            let labels = self.labels(seed, (&tags, &dependencies), &mut steps).await;
            Walk::Labelled(LabelWalk::new(labels, &self.commit_lock))
        } else {
            Walk::Tiers(Box::new(self.tiers(&listed)))
        };
        Some(Box::new(Listing { lister: self, listed, walk, steps }))
    }

    /// Sorted, without duplicates. Other calls refuse too many labels, which a stream cannot.
    async fn labels(
        &self,
        seed: NamespaceSeed,
        (tags, dependencies): (&[String], &[String]),
        steps: &mut Pacer,
    ) -> Vec<LabelHash> {
        let tags = tags.iter().map(|tag| (LabelKind::Tag, tag));
        let all = tags.chain(dependencies.iter().map(|it| (LabelKind::Dependency, it)));
        let mut hashes = Vec::new();
        for (kind, label) in all {
            steps.entry().await;
            steps.bytes(label.len()).await;
            hashes.push(self.hasher.label(seed, kind, label));
        }
        let mut labels = Vec::new();
        for label in sort_in_batches(hashes, steps).await {
            steps.entry().await;
            if labels.last() != Some(&label) {
                labels.push(label);
            }
        }
        labels
    }

    fn tiers(&self, listed: &Listed) -> Tiers {
        let section = self.commit_lock.section();
        let begun = (section.now(), section.last_sequence());
        drop(section);
        // Before the end of the log: what reclaim appends again from here on lies behind that, or
        // its segment is one of these.
        let records = self.disk.l2().and_then(|l2| {
            let start = l2.geometry().start_of(l2.log.head_segment())?;
            Some(self.records(l2, listed, start, None))
        });
        let entries = EntryWalk::new(&self.l1, None);
        Tiers { begun, records, entries: Some(entries), walks: 0 }
    }

    /// A walk over the log from `start` to its present end.
    fn records(
        &self,
        l2: &L2,
        listed: &Listed,
        start: Position,
        after: Option<Box<[u8]>>,
    ) -> RecordWalk {
        let end = l2.log.tail();
        let segments = l2.geometry().segment_of(start).0..l2.geometry().segment_of(end).0 + 1;
        let parts = (&self.disk, &self.reads);
        RecordWalk::new(parts, listed, (start..end, segments), after)
    }
}

impl Listing {
    async fn next(&mut self) -> Option<KeyEntry> {
        let Self { lister, listed, walk, steps } = self;
        if lister.commit_lock.is_closed() || listed.generation.has_ended() {
            return None;
        }
        let judge = &lister.judge;
        let tiers = match walk {
            Walk::Labelled(walk) => {
                let found = walk.next((judge, listed), &lister.commit_lock, steps).await;
                return found.filter(|_| !lister.commit_lock.is_closed());
            }
            Walk::Tiers(tiers) => tiers,
        };
        // Bounded: by the walks.
        loop {
            let found = tiers.next(lister, listed, steps).await;
            if lister.commit_lock.is_closed() {
                return None;
            }
            if found.is_some() || !tiers.go_on(lister, listed) {
                return found;
            }
        }
    }
}

impl Tiers {
    async fn next(
        &mut self,
        lister: &Lister,
        listed: &Listed,
        steps: &mut Pacer,
    ) -> Option<KeyEntry> {
        let judge = &lister.judge;
        if let Some(records) = &mut self.records {
            if let Some(entry) = records.next((judge, listed), steps).await {
                return Some(entry);
            }
        }
        let records = &self.records;
        let is_listed =
            |entry: &_| records.as_ref().is_some_and(|records| records.has_listed(entry));
        let entries = self.entries.as_mut()?;
        entries.next((&lister.l1, judge, listed), is_listed, steps).await
    }

    /// Whether there is another walk, once one over the records and that over memory are over.
    fn go_on(&mut self, lister: &Lister, listed: &Listed) -> bool {
        let entries = self.entries.take();
        let is_first = entries.is_some();
        if self.walks < WALKS_MAX / 2 && entries.is_some_and(|it| it.has_passed_over(&lister.l1)) {
            self.walks += 1;
            // One that went to another list was put again.
            let after = Some(self.begun.1).filter(|_| !failpoint(Failpoint::ListedTwice));
            self.entries = Some(EntryWalk::new(&lister.l1, after));
            return true;
        }
        let is_quiet = lister.commit_lock.read_point().moment == self.begun.0;
        let Some((records, l2)) = self.records.as_ref().zip(lister.disk.l2()) else { return false };
        let has_gone = records.unlisted().has_gone();
        let is_wanted = (has_gone || (is_first && !is_quiet)) && !failpoint(Failpoint::ListedGone);
        if !is_wanted || self.walks == WALKS_MAX || l2.log.tail() == records.end() {
            return false;
        }
        self.walks += 1;
        let after = records.unlisted().behind().filter(|_| is_quiet);
        self.records = Some(lister.records(l2, listed, records.end(), after));
        true
    }
}
