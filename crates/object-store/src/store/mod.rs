//! `CachedObjectStore`: the handle, and the core that its parts share. Compiled for each version of
//! `object_store`; what names that version is in the module above.
//!
//! ```text
//! trait_impl     every method of the trait
//! builder        settings
//! read, ranges   a get, and a get of many ranges: what is known, then blocks, begun anew once
//! answer         the stream of an answer: from the hand, from the rest, from blocks
//! opening, ask   the request that finds out about an object and brings blocks along
//! hand           what it brought
//! blocks, batch  blocks by generation and index: from the cache, or fetched in runs
//! write          guards of writes; delete, upload: the two that are not one call
//! meta           what the cache holds of an object, and its form in bytes
//! object         one version of an object, and its blocks
//! moment         when something happened
//! error          errors
//! ```

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tamis::{BlobCacheNamespace, BlobCachePolicy, Spawn, TypedNamespace};

mod answer;
mod ask;
mod batch;
mod blocks;
mod builder;
mod delete;
mod error;
mod hand;
mod meta;
mod moment;
mod object;
mod opening;
mod ranges;
mod read;
#[cfg(test)]
mod tests;
mod trait_impl;
mod upload;
mod write;

use self::meta::{Found, MetaCodec};
use self::moment::{Moment, Order};
use self::object::Object;
use super::{get_result, object_store};
use crate::ahead::Ahead;
use crate::claims::Claim;
use crate::keys::Keys;
use crate::settings::Settings;
use crate::stats::{CachedObjectStoreStats, Counts};
use crate::unsettled::Unsettled;
use object_store::ObjectStore;
use object_store::path::Path;

pub use self::builder::CachedObjectStoreBuilder;
pub use self::error::BuildError;

/// An object store that answers gets from a cache, and asks the store inside for what is missing.
/// Cheap to clone; all clones are one store. Made by [`builder`](Self::builder).
///
/// It has every method of the trait. Gets are cached, as blocks; puts, multipart uploads, deletes,
/// copies and renames go through, and make the cache forget the objects that they change; listings
/// go through.
///
/// **What a get answers** is one version of the object, whole, that the store inside had at most
/// the permitted [`staleness`](CachedObjectStoreBuilder::staleness) before the get was called. Once
/// a write through this store has returned, no get that starts later answers anything older,
/// whatever the staleness. A write whose future is dropped, or that fails without saying whether it
/// has happened, leaves its paths uncached for a
/// [while](CachedObjectStoreBuilder::unknown_writes).
///
/// Each answer is a stream, which holds the blocks of one
/// [request](CachedObjectStoreBuilder::request_bytes_max) in memory, whatever the object's size. If
/// the object changes while a long answer is read, and the rest of it is not cached, the stream
/// ends with `Precondition`.
///
/// Futures and streams do nothing until polled, and can be dropped at any await. Nobody's progress
/// depends on them: what one of them was fetching, others fetch after 100 ms.
#[derive(Clone)]
pub struct CachedObjectStore {
    core: Arc<Core>,
}

/// How long blocks stay to which no cached metadata leads any more: enough for answers under way.
const BRIEF: Duration = Duration::from_secs(60);

/// Which paths have objects that never change.
type IsImmutable = Box<dyn Fn(&Path) -> bool + Send + Sync>;

/// What all parts of a store share.
struct Core {
    inner: Arc<dyn ObjectStore>,
    /// The cache and its namespace, which is this store's alone.
    claim: Claim,
    blobs: BlobCacheNamespace,
    /// The same namespace.
    metas: TypedNamespace<Found, MetaCodec>,
    keys: Keys,
    settings: Settings,
    is_immutable: Option<IsImmutable>,
    /// Some if anything is read ahead.
    spawner: Option<Arc<dyn Spawn>>,
    /// Random: tells its moments from those before a restart.
    instance: u64,
    moments: AtomicU64,
    unsettled: Unsettled,
    ahead: Arc<Ahead>,
    counts: Counts,
}

impl CachedObjectStore {
    /// The store inside.
    #[must_use]
    pub fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.core.inner
    }

    /// What this store has done since it was built.
    #[must_use]
    pub fn stats(&self) -> CachedObjectStoreStats {
        self.core.counts.snapshot()
    }
}

impl Core {
    /// Now, after all earlier ones.
    fn moment(&self) -> Moment {
        let time = self.claim.cache().config().clock().now();
        let number = self.moments.fetch_add(1, Ordering::SeqCst);
        Moment { time, order: Order { store: self.instance, number } }
    }

    /// Blocks stay until they are evicted, unless nothing will lead to them once the metadata is
    /// too old: an object that cannot be asked about is another one then.
    fn policy_of_blocks(
        &self,
        location: &Path,
        version: Option<&str>,
        object: &Object,
    ) -> BlobCachePolicy {
        let can_be_asked_about = version.is_none() && object.strong_e_tag().is_some();
        let policy = BlobCachePolicy::default();
        if can_be_asked_about || self.is_immutable(location) {
            policy
        } else {
            policy.ttl(self.settings.staleness.saturating_add(BRIEF))
        }
    }

    fn is_immutable(&self, location: &Path) -> bool {
        self.is_immutable.as_ref().is_some_and(|is_immutable| is_immutable(location))
    }
}

impl fmt::Display for CachedObjectStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CachedObjectStore({})", self.core.inner)
    }
}

impl fmt::Debug for CachedObjectStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CachedObjectStore")
            .field("inner", &self.core.inner)
            .field("namespace", &self.core.claim.namespace())
            .field("settings", &self.core.settings)
            .field("stats", &self.stats())
            .finish()
    }
}
