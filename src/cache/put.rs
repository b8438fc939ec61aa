//! Writing: `put`, from the limits down to the append section.

use std::sync::Arc;

use crate::cache::shared::Shared;
use crate::counters::Event;
use crate::entry::{Entry, Extras};
use crate::error::CacheError;
use crate::key::{LabelHash, LabelKind, NamespaceRef};
use crate::policy::{BlobCachePolicy, L1Admission};
use crate::put::BlobCachePut;
use crate::sequence::ReadPoint;

/// A put that has passed the limits. Only the append section can still refuse it.
struct Proposal<'a> {
    namespace: NamespaceRef<'a>,
    entry: Entry,
    version: Option<u64>,
    read_at: Option<ReadPoint>,
    /// False: it overwrites what is there, and is held nowhere.
    admitted: bool,
}

/// What the append section has made of a proposal.
enum Verdict {
    Done,
    /// Its namespace has ended since it was looked up.
    NamespaceEnded(Entry),
}

impl Shared {
    pub(super) async fn put(
        &self,
        namespace: NamespaceRef<'_>,
        key: &[u8],
        put: BlobCachePut,
        default: &BlobCachePolicy,
    ) -> Result<(), CacheError> {
        self.check_open()?;
        self.check_put(namespace.name, key, &put)?;
        let policy = put.policy.as_ref().unwrap_or(default);
        let life = policy.lifetime(namespace.name, key, self.clock.timestamp());
        let hash = self.hasher.key(namespace.seed, key);
        let labels = self.label_hashes(namespace, &put.tags, &put.dependencies);
        let metadata = put.content_metadata.into_iter().map(shrunk).collect();
        let extras = Extras::new(metadata, labels, policy.version, &life);
        let value = put.value.as_slice();
        let charge = match self.config.charge {
            Some(charge) => charge(key, value).max(1),
            None => Entry::footprint(key, value, extras.as_deref()),
        };
        let admitted = self.admits(policy, value.len(), charge)?;

        // Judged here as well as in the section, so that a put which is bound to fail does not
        // evict anything first.
        let current = self.visible(namespace, key, hash);
        self.judge_version(current.as_deref(), policy.version)?;
        let spare = current.map_or(0, |entry| entry.charge);

        let generation = self.namespaces.find_or_begin(namespace.name, &self.order)?;
        let mut entry = Entry::new(generation, (key, hash), &life, policy.priority, extras);
        entry.charge = charge;
        let reservation = admitted.then(|| self.l1.reserve(charge));
        if admitted {
            self.make_room(spare).await;
            entry.value = put.value.into_exact().await;
        }
        let (version, read_at) = (policy.version, put.read_at);
        let proposal = Proposal { namespace, entry, version, read_at, admitted };
        self.commit(proposal)?;
        drop(reservation);
        self.make_room(0).await;
        self.help();
        Ok(())
    }

    fn check_put(&self, namespace: &str, key: &[u8], put: &BlobCachePut) -> Result<(), CacheError> {
        self.check_namespace(namespace)?;
        self.check_key(key)?;
        self.check_labels(put.tags.iter().chain(&put.dependencies).map(String::as_str))?;
        let metadata = &put.content_metadata;
        let keys = metadata.len();
        let bytes = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        let max_keys = self.config.content_metadata_keys_max;
        let max_bytes = self.config.content_metadata_bytes_max;
        if keys > max_keys || bytes > max_bytes {
            return Err(CacheError::MetadataTooLarge { keys, bytes, max_keys, max_bytes });
        }
        Ok(())
    }

    /// Whether L1 takes a blob that counts `charge`. An error where it would, but for its size.
    fn admits(
        &self,
        policy: &BlobCachePolicy,
        value_bytes: usize,
        charge: usize,
    ) -> Result<bool, CacheError> {
        if let Some(max) = policy.blob_bytes_max.filter(|max| value_bytes > *max) {
            return Err(CacheError::BlobTooLarge { size: value_bytes, max });
        }
        let max = match policy.l1_admission {
            L1Admission::Never => return Ok(false),
            L1Admission::Auto => self.l1.bytes_max() / 8,
            L1Admission::Always => self.l1.bytes_max(),
        };
        if charge > max { Err(CacheError::BlobTooLarge { size: charge, max }) } else { Ok(true) }
    }

    fn label_hashes(
        &self,
        namespace: NamespaceRef<'_>,
        tags: &[String],
        dependencies: &[String],
    ) -> Box<[LabelHash]> {
        let hash = |kind| move |label: &String| self.hasher.label(namespace.seed, kind, label);
        let tags = tags.iter().map(hash(LabelKind::Tag));
        let dependencies = dependencies.iter().map(hash(LabelKind::Dependency));
        let mut labels: Vec<_> = tags.chain(dependencies).collect();
        labels.sort_unstable();
        labels.dedup();
        labels.into()
    }

    fn judge_version(
        &self,
        current: Option<&Entry>,
        version: Option<u64>,
    ) -> Result<(), CacheError> {
        let Some(attempted) = version else { return Ok(()) };
        let Some(current) = current else { return Ok(()) };
        match current.version() {
            Some(existing) if existing >= attempted && !self.freshness(current).is_gone() => {
                self.counters.count(Event::VersionMismatch);
                Err(CacheError::VersionMismatch { existing, attempted })
            }
            _ => Ok(()),
        }
    }

    /// Enters the append section, again if the namespace was flushed just before.
    fn commit(&self, mut proposal: Proposal<'_>) -> Result<(), CacheError> {
        loop {
            let namespace = proposal.namespace;
            let (version, read_at) = (proposal.version, proposal.read_at);
            let admitted = proposal.admitted;
            match self.append(proposal)? {
                Verdict::Done => return Ok(()),
                Verdict::NamespaceEnded(mut entry) => {
                    entry.namespace = self.namespaces.find_or_begin(namespace.name, &self.order)?;
                    proposal = Proposal { namespace, entry, version, read_at, admitted };
                }
            }
        }
    }

    /// The append section of a put. Nothing in it waits, and what it replaces is freed behind it.
    fn append(&self, proposal: Proposal<'_>) -> Result<Verdict, CacheError> {
        let Proposal { namespace, mut entry, version, read_at, admitted } = proposal;
        let (key, hash) = (&entry.key, entry.hash);
        let slot = self.l1.slot(hash);
        let mut section = self.order.section();
        if section.is_closed() {
            return Err(CacheError::Closed);
        }
        if entry.namespace.has_ended() {
            return Ok(Verdict::NamespaceEnded(entry));
        }
        let is_current = |held: &&Arc<Entry>| {
            held.is_of(namespace.name, key) && self.rules.covering(held).is_none()
        };
        let current = slot.entry().filter(is_current);
        self.judge_version(current.map(Arc::as_ref), version)?;
        if let Some(point) = read_at {
            let latest = section.watermarks().latest(namespace.seed, key, hash, entry.labels());
            if !section.covers(point, latest) {
                self.counters.count(Event::StaleSetRefused);
                return Ok(Verdict::Done);
            }
        }
        entry.sequence = section.deal();
        section.watermarks().key_mutated(hash, entry.sequence);
        let replaced = if admitted {
            for &label in entry.labels() {
                section.labels().insert(label, hash, entry.sequence);
            }
            entry.namespace.grow(entry.charge);
            self.counters.count(Event::Insertion);
            slot.put(Arc::new(entry))
        } else {
            slot.remove()
        };
        if let Some(replaced) = &replaced {
            self.settle(replaced, &mut section);
        }
        drop(section);
        Ok(Verdict::Done)
    }
}

/// A pair of strings that own no more than their bytes.
fn shrunk((mut key, mut value): (String, String)) -> (String, String) {
    key.shrink_to_fit();
    value.shrink_to_fit();
    (key, value)
}
