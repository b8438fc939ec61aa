//! Listings: those entries of the model, with what it says of them, and no others.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use futures::executor::block_on;
use rand::RngExt;
use rand::rngs::StdRng;
use tamis::{BlobCacheNamespace, CacheTier, KeyEntry, KeysQuery};

use crate::driver::Driver;
use crate::naive::{Stored, charge};
use crate::operation::{FullKey, labels, namespace};

/// What is listed of a namespace.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    pub(crate) namespace: &'static str,
    prefix: Vec<u8>,
    tags: Option<Vec<&'static str>>,
    dependencies: Option<Vec<&'static str>>,
    is_detailed: bool,
}

/// What a listing says of an entry. Times are nanoseconds.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Listed {
    key: Vec<u8>,
    version: Option<u64>,
    written: u64,
    expires: Option<u64>,
    gone: Option<u64>,
    /// The rest of the stale window.
    stale: Option<u64>,
    tags: BTreeSet<String>,
    dependencies: BTreeSet<String>,
    /// If the test determines it.
    bytes: Option<usize>,
}

fn texts<'a>(labels: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    labels.into_iter().map(str::to_owned).collect()
}

impl Listing {
    pub(crate) fn random(random: &mut StdRng) -> Self {
        // All, those of a prefix, or those of a key.
        let key = FullKey::random(random).key;
        let length = [0, 0, 1, key.len()][random.random_range(0..4)].min(key.len());
        Self {
            namespace: namespace(random),
            prefix: key[..length].to_vec(),
            tags: random.random_bool(0.3).then(|| labels(random)),
            dependencies: random.random_bool(0.2).then(|| labels(random)),
            is_detailed: random.random(),
        }
    }

    fn query(&self) -> KeysQuery {
        let mut query = KeysQuery::default().prefix(&self.prefix);
        if let Some(tags) = &self.tags {
            query = query.tags(tags.iter().copied());
        }
        if let Some(dependencies) = &self.dependencies {
            query = query.dependencies(dependencies.iter().copied());
        }
        if self.is_detailed { query.details() } else { query }
    }

    fn matches(&self, entry: &Stored) -> bool {
        let carries = |of: &[&str], asked: &Option<Vec<&str>>| {
            asked.iter().flatten().any(|label| of.contains(label))
        };
        let put = &entry.put;
        let is_labelled = self.tags.is_some() || self.dependencies.is_some();
        put.full_key.namespace == self.namespace
            && put.full_key.key.starts_with(&self.prefix)
            && (!is_labelled
                || carries(&put.tags, &self.tags)
                || carries(&put.dependencies, &self.dependencies))
    }
}

impl Listed {
    /// None if it is gone.
    fn of_model(entry: &Stored, now: u64, is_charged: bool) -> Option<Self> {
        let (put, seen) = (&entry.put, entry.seen(now)?);
        Some(Self {
            key: put.full_key.key.clone(),
            version: seen.version,
            written: seen.written,
            expires: seen.expires,
            gone: entry.gone_at(),
            stale: seen.stale,
            tags: texts(put.tags.iter().copied()),
            dependencies: texts(put.dependencies.iter().copied()),
            bytes: is_charged.then(|| charge(&put.full_key.key, &put.value)),
        })
    }

    fn of_cache(entry: KeyEntry, is_charged: bool) -> Self {
        let span = |span: Duration| u64::try_from(span.as_nanos()).expect("it ends in 2554");
        let nanos = |time: SystemTime| span(time.duration_since(UNIX_EPOCH).expect("since 1970"));
        assert!(entry.tier() == CacheTier::L1 && entry.has_details() && !entry.is_absent());
        assert_eq!(entry.is_stale(), Some(entry.stale_window_remaining().is_some()));
        Self {
            version: entry.version(),
            written: nanos(entry.written_at().expect("it has details")),
            expires: entry.expires_at().map(nanos),
            gone: entry.gone_at().map(nanos),
            stale: entry.stale_window_remaining().map(span),
            tags: texts(entry.tags()),
            dependencies: texts(entry.dependencies()),
            bytes: is_charged.then(|| entry.bytes()),
            key: entry.into_key(),
        }
    }
}

impl Driver<'_> {
    pub(crate) fn list(&mut self, listing: &Listing, handle: Option<BlobCacheNamespace>) {
        let is_charged = self.model.charged_bytes_max.is_some();
        let keys = match handle {
            Some(handle) => handle.keys(listing.query()),
            None => self.cache.keys(listing.namespace, listing.query()),
        };
        let listed = keys.map(|entry| Listed::of_cache(entry, is_charged));
        let mut listed: Vec<Listed> = block_on(listed.collect());
        listed.sort();
        let matching = self.model.entries.iter().filter(|entry| listing.matches(entry));
        let now = self.model.now;
        let mut expected: Vec<Listed> =
            matching.filter_map(|entry| Listed::of_model(entry, now, is_charged)).collect();
        expected.sort();
        assert_eq!(listed, expected, "{listing:?}");
        self.tally.listed += listed.len() as u64;
    }
}
