//! The naive model: a list of entries, a list of all past mutations, and scans.
//!
//! It has no budget: the driver tells it which entries the cache has evicted; the rest is exact.
//! Two keys of one hash share a slot: the later put displaces the other, and the driver tells the
//! model which keys those are.

use std::collections::HashMap;

use tamis::{BlobLimit, CacheError, L1Admission};

use crate::operation::{
    FullKey, KEY_BYTES_MAX, LABEL_BYTES_MAX, LABELS_MAX, METADATA_BYTES_MAX, METADATA_KEYS_MAX,
    Over, Policy, Put,
};
use crate::seen::{Counts, Seen};

/// The charge of an entry if the test determines it.
pub(crate) fn charge(key: &[u8], value: &[u8]) -> usize {
    100 + key.len() + value.len()
}

#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) put: Put,
    pub(crate) policy: Policy,
    written: u64,
    /// `u64::MAX` for never.
    expires: u64,
    /// It was made stale before its time.
    is_expired: bool,
    last_access: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Fresh,
    Stale(u64),
    Expired,
    Idle,
}

/// A mutation that earlier read points conflict with.
#[derive(Debug)]
pub(crate) enum Mutation {
    Key(FullKey),
    Prefix(FullKey),
    TagsOver(Over, Vec<&'static str>),
    DependenciesOver(Over, Vec<&'static str>),
    Namespace(&'static str),
    All,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) now: u64,
    pub(crate) entries: Vec<Stored>,
    /// Namespaces with a slot.
    pub(crate) namespaces: Vec<&'static str>,
    pub(crate) max_namespaces: usize,
    /// Some if [`charge`] is in use, with this budget.
    pub(crate) charged_bytes_max: Option<usize>,
    /// The slot of each key; keys not listed have their own.
    pub(crate) slots: HashMap<FullKey, usize>,
    pub(crate) counts: Counts,
    pub(crate) log: Vec<Mutation>,
}

impl Stored {
    fn life(&self, now: u64) -> Life {
        // However far the clock steps back.
        let now = if self.is_expired { now.max(self.expires) } else { now };
        let end = self.expires.saturating_add(self.policy.stale_serve.unwrap_or(0));
        if now >= end && end != u64::MAX {
            return Life::Expired;
        }
        if now.saturating_sub(self.last_access) > self.policy.idle_ttl.unwrap_or(u64::MAX) {
            return Life::Idle;
        }
        let is_fresh = now < self.expires || self.expires == u64::MAX;
        if is_fresh { Life::Fresh } else { Life::Stale(end - now) }
    }

    pub(crate) fn is_gone(&self, now: u64) -> bool {
        matches!(self.life(now), Life::Expired | Life::Idle)
    }

    /// What a hit would say of it. None if it is gone.
    pub(crate) fn seen(&self, now: u64) -> Option<Seen> {
        let stale = match self.life(now) {
            Life::Fresh => None,
            Life::Stale(left) => Some(left),
            Life::Expired | Life::Idle => return None,
        };
        Some(Seen {
            value: self.put.value.clone(),
            metadata: self.put.metadata.clone(),
            version: self.policy.version,
            stale,
            written: self.written,
            expires: (self.expires != u64::MAX).then_some(self.expires),
        })
    }

    /// When it is gone, however often it is used. None for never.
    pub(crate) fn gone_at(&self) -> Option<u64> {
        let end = self.expires.saturating_add(self.policy.stale_serve.unwrap_or(0));
        (end != u64::MAX).then_some(end)
    }

    pub(crate) fn is_at(&self, full_key: &FullKey) -> bool {
        self.put.full_key == *full_key
    }
}

impl Model {
    /// The moment of a read point taken now.
    pub(crate) fn moment(&self) -> usize {
        self.log.len()
    }

    pub(crate) fn find(&self, full_key: &FullKey) -> Option<&Stored> {
        self.entries.iter().find(|entry| entry.is_at(full_key))
    }

    pub(crate) fn exists(&self, full_key: &FullKey) -> bool {
        self.find(full_key).is_some_and(|entry| !entry.is_gone(self.now))
    }

    pub(crate) fn entries_of(&self, namespace: &str) -> impl Iterator<Item = &Stored> {
        self.entries.iter().filter(move |entry| entry.put.full_key.namespace == namespace)
    }

    fn shares_slot(&self, one: &FullKey, other: &FullKey) -> bool {
        one == other || self.slots.get(one).is_some_and(|slot| self.slots.get(other) == Some(slot))
    }

    /// Whether an entry is held in the slot of this key.
    pub(crate) fn is_slot_taken(&self, full_key: &FullKey) -> bool {
        self.entries.iter().any(|entry| self.shares_slot(&entry.put.full_key, full_key))
    }

    /// Removes expired entries.
    pub(crate) fn sweep(&mut self) {
        let now = self.now;
        self.remove(|_, entry| entry.is_gone(now));
    }

    /// Removes entries; those already expired count as expirations.
    fn remove(&mut self, is_unwanted: impl Fn(&Self, &Stored) -> bool) {
        let entries = std::mem::take(&mut self.entries);
        let (removed, kept): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| is_unwanted(self, entry));
        self.entries = kept;
        for entry in removed.iter().filter(|entry| entry.is_gone(self.now)) {
            self.counts.expirations += 1;
            self.counts.idle_expirations += u64::from(entry.life(self.now) == Life::Idle);
        }
    }

    pub(crate) fn get(&mut self, full_key: &FullKey) -> Option<Seen> {
        let now = self.now;
        let Some(at) = self.entries.iter().position(|entry| entry.is_at(full_key)) else {
            self.counts.misses += 1;
            return None;
        };
        let entry = &mut self.entries[at];
        let Some(seen) = entry.seen(now) else {
            let is_idle = entry.life(now) == Life::Idle;
            self.entries.remove(at);
            self.counts.misses += 1;
            self.counts.expirations += 1;
            self.counts.idle_expirations += u64::from(is_idle);
            return None;
        };
        entry.last_access = entry.last_access.max(now);
        self.counts.hits += 1;
        self.counts.stale_serves += u64::from(seen.stale.is_some());
        Some(seen)
    }

    /// Every reason to refuse the put. If there are several, which one is returned is not
    /// specified.
    pub(crate) fn refusals(&self, put: &Put, policy: &Policy) -> Vec<CacheError> {
        let mut refusals: Vec<_> = check_key(&put.full_key.key).err().into_iter().collect();
        let labels: Vec<_> = put.tags.iter().chain(&put.dependencies).copied().collect();
        refusals.extend(check_labels(&labels).err());
        let metadata = &put.metadata;
        let (keys, max_keys, max_bytes) = (metadata.len(), METADATA_KEYS_MAX, METADATA_BYTES_MAX);
        let bytes = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        if keys > max_keys || bytes > max_bytes {
            refusals.push(CacheError::MetadataTooLarge { keys, bytes, max_keys, max_bytes });
        }
        let size = put.value.len();
        if let Some(max) = policy.blob_bytes_max.filter(|max| size > *max) {
            let limit = BlobLimit::Policy;
            refusals.push(CacheError::BlobTooLarge { size, max, limit });
        }
        let size = charge(&put.full_key.key, &put.value);
        let max = match (policy.admission, self.charged_bytes_max) {
            (L1Admission::Auto, Some(max)) => max / 8,
            (L1Admission::Always, Some(max)) => max,
            (L1Admission::Never, _) | (_, None) => usize::MAX,
        };
        if size > max {
            let limit = match policy.admission {
                L1Admission::Always => BlobLimit::Memory,
                _ => BlobLimit::ShareOfMemory,
            };
            refusals.push(CacheError::BlobTooLarge { size, max, limit });
        }
        let held = self.find(&put.full_key).filter(|entry| !entry.is_gone(self.now));
        let existing = held.and_then(|entry| entry.policy.version);
        if let (Some(existing), Some(attempted)) = (existing, policy.version) {
            if existing >= attempted {
                refusals.push(CacheError::VersionMismatch { existing, attempted });
            }
        }
        if !self.has_room_for(put.full_key.namespace) {
            refusals.push(CacheError::TooManyNamespaces { max: self.max_namespaces });
        }
        refusals
    }

    /// Whether another namespace has to give up its slot for this one.
    pub(crate) fn needs_a_slot(&self, namespace: &str) -> bool {
        !self.namespaces.contains(&namespace) && self.namespaces.len() >= self.max_namespaces
    }

    fn has_room_for(&self, namespace: &str) -> bool {
        self.namespaces.contains(&namespace)
            || self.namespaces.len() < self.max_namespaces
            || !self.empty_namespaces().is_empty()
    }

    pub(crate) fn empty_namespaces(&self) -> Vec<&'static str> {
        let is_empty = |name: &&'static str| self.entries_of(name).next().is_none();
        self.namespaces.iter().copied().filter(is_empty).collect()
    }

    /// Whether a conflicting mutation has happened since `moment`.
    pub(crate) fn is_outdated(&self, put: &Put, moment: usize) -> bool {
        let any = |of: &[&str], labels: &[&str]| labels.iter().any(|label| of.contains(label));
        let full_key = &put.full_key;
        self.log[moment..].iter().any(|mutation| match mutation {
            Mutation::Key(of) => self.shares_slot(of, full_key),
            Mutation::Prefix(of) => {
                of.namespace == full_key.namespace && full_key.key.starts_with(&of.key)
            }
            Mutation::DependenciesOver(of, labels) => {
                of.covers(full_key.namespace) && any(&put.dependencies, labels)
            }
            Mutation::TagsOver(of, tags) => of.covers(full_key.namespace) && any(&put.tags, tags),
            Mutation::Namespace(of) => *of == full_key.namespace,
            Mutation::All => true,
        })
    }

    /// Applies a put that nothing refuses.
    pub(crate) fn put(&mut self, put: Put, policy: Policy, jittered_expiry: u64) {
        self.displace(&put.full_key);
        self.log.push(Mutation::Key(put.full_key.clone()));
        if policy.admission != L1Admission::Never {
            let expires = jittered_expiry.min(policy.expires_at.unwrap_or(u64::MAX));
            let (written, last_access) = (self.now, self.now);
            let is_expired = false;
            self.entries.push(Stored { put, policy, written, expires, is_expired, last_access });
            self.counts.insertions += 1;
        }
    }

    /// Empties the slot of a key.
    fn displace(&mut self, full_key: &FullKey) {
        self.remove(|model, entry| model.shares_slot(&entry.put.full_key, full_key));
    }

    /// Whether there is an entry to touch.
    pub(crate) fn is_live(&self, full_key: &FullKey) -> Result<bool, CacheError> {
        check_key(&full_key.key)?;
        let is_live = |entry: &Stored| !entry.is_expired && !entry.is_gone(self.now);
        Ok(self.find(full_key).is_some_and(is_live))
    }

    /// Gives an entry other deadlines. It is no mutation.
    pub(crate) fn touch(&mut self, full_key: &FullKey, policy: &Policy, jittered_expiry: u64) {
        let now = self.now;
        for entry in self.entries.iter_mut().filter(|entry| entry.is_at(full_key)) {
            // Since the put, accesses counted only if there was an idle ttl.
            let has_counted = entry.policy.idle_ttl.is_some_and(|idle_ttl| idle_ttl < u64::MAX);
            let before = if has_counted { entry.last_access } else { entry.written };
            entry.last_access = before.max(now);
            entry.expires = jittered_expiry.min(policy.expires_at.unwrap_or(u64::MAX));
            (entry.policy.stale_serve, entry.policy.idle_ttl) =
                (policy.stale_serve, policy.idle_ttl);
            self.counts.touches += 1;
        }
    }

    pub(crate) fn invalidate_key(&mut self, full_key: &FullKey) -> Result<usize, CacheError> {
        check_key(&full_key.key)?;
        let live = usize::from(self.exists(full_key));
        self.displace(full_key);
        self.log.push(Mutation::Key(full_key.clone()));
        self.counts.invalidations += live as u64;
        Ok(live)
    }

    pub(crate) fn invalidate_keys(
        &mut self,
        namespace: &'static str,
        keys: &[Vec<u8>],
    ) -> Result<usize, CacheError> {
        for (index, key) in keys.iter().enumerate() {
            check_key(key)
                .map_err(|source| CacheError::AtIndex { index, source: Box::new(source) })?;
        }
        keys.iter().map(|key| self.invalidate_key(&FullKey { namespace, key: key.clone() })).sum()
    }

    pub(crate) fn invalidate_prefix(&mut self, of: &FullKey) -> Result<usize, CacheError> {
        check_key(&of.key)?;
        self.log.push(Mutation::Prefix(of.clone()));
        Ok(self.invalidate(|entry| {
            let full_key = &entry.put.full_key;
            full_key.namespace == of.namespace && full_key.key.starts_with(&of.key)
        }))
    }

    pub(crate) fn invalidate_tags(
        &mut self,
        namespace: &'static str,
        tags: &[&'static str],
    ) -> Result<usize, CacheError> {
        self.invalidate_tags_over(Over::Two([namespace; 2]), tags)
    }

    pub(crate) fn invalidate_tags_over(
        &mut self,
        over: Over,
        tags: &[&'static str],
    ) -> Result<usize, CacheError> {
        check_labels(tags)?;
        self.log.push(Mutation::TagsOver(over, tags.to_vec()));
        Ok(self.invalidate(|Stored { put, .. }| {
            over.covers(put.full_key.namespace) && put.tags.iter().any(|tag| tags.contains(tag))
        }))
    }

    pub(crate) fn invalidate_dependencies(
        &mut self,
        namespace: &'static str,
        dependencies: &[&'static str],
    ) -> Result<usize, CacheError> {
        self.invalidate_dependencies_over(Over::Two([namespace; 2]), dependencies)
    }

    pub(crate) fn invalidate_dependencies_over(
        &mut self,
        over: Over,
        of: &[&'static str],
    ) -> Result<usize, CacheError> {
        check_labels(of)?;
        self.log.push(Mutation::DependenciesOver(over, of.to_vec()));
        Ok(self.invalidate(|Stored { put, .. }| {
            over.covers(put.full_key.namespace) && put.dependencies.iter().any(|it| of.contains(it))
        }))
    }

    /// Makes covered entries stale, or removes them, and counts those that were fresh.
    fn expire(&mut self, covers: impl Fn(&Self, &Stored) -> bool) -> usize {
        let now = self.now;
        let has_window = |entry: &Stored| entry.policy.stale_serve.is_some_and(|window| window > 0);
        let (covered, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.entries).into_iter().partition(|entry| covers(self, entry));
        self.entries = others;
        let mut counted = 0;
        for mut entry in covered {
            let is_live = !entry.is_gone(now);
            if has_window(&entry) {
                counted += usize::from(is_live && !entry.is_expired && entry.expires > now);
                (entry.is_expired, entry.expires) = (true, entry.expires.min(now));
                self.entries.push(entry);
            } else if is_live {
                counted += 1;
                self.counts.invalidations += 1;
            } else {
                self.counts.expirations += 1;
                self.counts.idle_expirations += u64::from(entry.life(now) == Life::Idle);
            }
        }
        counted
    }

    pub(crate) fn expire_key(&mut self, full_key: &FullKey) -> Result<usize, CacheError> {
        check_key(&full_key.key)?;
        let others = self.entries.iter().filter(|entry| !entry.is_at(full_key));
        let mut others = others.filter(|entry| self.shares_slot(&entry.put.full_key, full_key));
        let is_other = others.next().is_some();
        let invalidations = self.counts.invalidations;
        let expired = self.expire(|model, entry| model.shares_slot(&entry.put.full_key, full_key));
        self.log.push(Mutation::Key(full_key.clone()));
        if is_other {
            // What another key of its hash loses is not counted.
            self.counts.invalidations = invalidations;
            return Ok(0);
        }
        Ok(expired)
    }

    pub(crate) fn expire_prefix(&mut self, of: &FullKey) -> Result<usize, CacheError> {
        check_key(&of.key)?;
        self.log.push(Mutation::Prefix(of.clone()));
        Ok(self.expire(|_, entry| {
            let full_key = &entry.put.full_key;
            full_key.namespace == of.namespace && full_key.key.starts_with(&of.key)
        }))
    }

    pub(crate) fn expire_tags(
        &mut self,
        over: Over,
        tags: &[&'static str],
    ) -> Result<usize, CacheError> {
        check_labels(tags)?;
        self.log.push(Mutation::TagsOver(over, tags.to_vec()));
        Ok(self.expire(|_, Stored { put, .. }| {
            over.covers(put.full_key.namespace) && put.tags.iter().any(|tag| tags.contains(tag))
        }))
    }

    pub(crate) fn expire_dependencies(
        &mut self,
        over: Over,
        of: &[&'static str],
    ) -> Result<usize, CacheError> {
        check_labels(of)?;
        self.log.push(Mutation::DependenciesOver(over, of.to_vec()));
        Ok(self.expire(|_, Stored { put, .. }| {
            over.covers(put.full_key.namespace) && put.dependencies.iter().any(|it| of.contains(it))
        }))
    }

    pub(crate) fn expire_namespace(&mut self, namespace: &'static str) -> bool {
        self.log.push(Mutation::Namespace(namespace));
        self.expire(|_, entry| entry.put.full_key.namespace == namespace);
        self.namespaces.contains(&namespace)
    }

    /// Removes covered entries, and counts those that were alive.
    fn invalidate(&mut self, covers: impl Fn(&Stored) -> bool) -> usize {
        let now = self.now;
        let live = self.entries.iter().filter(|entry| covers(entry) && !entry.is_gone(now));
        let live = live.count();
        self.remove(|_, entry| covers(entry));
        self.counts.invalidations += live as u64;
        live
    }

    pub(crate) fn invalidate_namespace(&mut self, namespace: &'static str) -> bool {
        self.log.push(Mutation::Namespace(namespace));
        self.entries.retain(|entry| entry.put.full_key.namespace != namespace);
        let known = self.namespaces.contains(&namespace);
        self.namespaces.retain(|name| *name != namespace);
        self.counts.namespace_flushes += u64::from(known);
        known
    }

    pub(crate) fn invalidate_all(&mut self) {
        self.log.push(Mutation::All);
        self.entries.clear();
        self.counts.namespace_flushes += self.namespaces.len() as u64;
        self.namespaces.clear();
    }
}

fn check_key(key: &[u8]) -> Result<(), CacheError> {
    let (size, max) = (key.len(), KEY_BYTES_MAX);
    if size > max { Err(CacheError::KeyTooLarge { size, max }) } else { Ok(()) }
}

fn check_labels(of: &[&str]) -> Result<(), CacheError> {
    let (labels, bytes) = (of.len(), of.iter().map(|label| label.len()).sum());
    let (max_labels, max_bytes) = (LABELS_MAX, LABEL_BYTES_MAX);
    if labels > max_labels || bytes > max_bytes {
        return Err(CacheError::LabelsTooLarge { labels, bytes, max_labels, max_bytes });
    }
    Ok(())
}
