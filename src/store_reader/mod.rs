//! `StoreReader`: looks at a store and never writes to it. The tool `tamis` is made of it.

mod contents;
mod copy;
mod copy_error;
mod error;
mod facts;
mod verify;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub use self::contents::{
    CountedNamespace, CountedSegment, LargeEntry, OpenStoreSegment, StoreCensus, StoreContents,
    StoreKeys,
};
pub use self::copy::CopyDamage;
use self::copy::Copying;
pub use self::copy_error::StoreCopyError;
pub use self::error::StoreReadError;
use self::error::{not_opened, not_read};
pub use self::facts::{NextOpen, StoreFacts, StoreSegment, StoreState};
pub use self::verify::{DamagedPart, StoreDamage, VerifyEvent, VerifyReport};
use crate::backup_report::BackupReport;
use crate::blocking::block_on;
use crate::engine::open_view;
use crate::io::{Disk, ReadDisk, owner_of};
use crate::l2::FoundStore;

/// Attempts to read what an owner may be moving.
const TRIES: usize = 4;

/// Whether a store may have an owner while it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreAccess {
    /// No: a store in use is refused, and as long as the reader lives, or contents or keys that
    /// come from it, no cache opens the store ([`L2Locked`](crate::CacheError::L2Locked)). Several
    /// readers may have it at one time.
    #[default]
    Alone,
    /// Yes: the store is shown as of its last sealed segment, and its owner is not disturbed. What
    /// the owner overwrites meanwhile, which is the oldest segments, is left out.
    Live,
}

/// A store that is looked at. Nothing is ever written: neither to its file nor beside it.
///
/// All methods block, and wait for the device: this is for tools, and not for the tasks of an
/// executor. Memory is bounded by the tables of segments and, with the
/// [contents](Self::contents), by their index.
///
/// ```no_run
/// use tamis::{KeysQuery, StoreAccess, StoreReader};
///
/// let store = StoreReader::open("/var/cache/pages", StoreAccess::Alone)?;
/// println!("opened {} times, {:?}", store.facts().opens, store.facts().state);
/// let contents = store.contents()?;
/// for namespace in contents.namespaces() {
///     for entry in contents.keys(&namespace, KeysQuery::default()) {
///         println!("{namespace} {} {}", entry.key().escape_ascii(), entry.bytes());
///     }
/// }
/// # Ok::<(), tamis::StoreReadError>(())
/// ```
pub struct StoreReader {
    store: FoundStore,
    facts: StoreFacts,
}

impl StoreReader {
    /// Opens the store in a directory, the one that a configuration calls
    /// [`l2_path`](crate::BlobCacheConfigBuilder::l2_path).
    ///
    /// # Errors
    ///
    /// Each [`StoreReadError`]. A store in use is refused after a second.
    pub fn open(directory: impl AsRef<Path>, access: StoreAccess) -> Result<Self, StoreReadError> {
        let directory = directory.as_ref();
        let is_live = access == StoreAccess::Live;
        let disk = ReadDisk::open(directory, !is_live)
            .map_err(|error| not_opened(error, directory, owner_of(directory)))?;
        let disk = Arc::new(disk);
        let found =
            block_on(FoundStore::read(Arc::<ReadDisk>::clone(&disk) as Arc<dyn Disk>, is_live));
        let store = found.map_err(|error| not_read(error, disk.path()))?;
        let facts = StoreFacts::new(&disk, &store);
        Ok(Self { store, facts })
    }

    /// What its superblock says.
    #[must_use]
    pub fn facts(&self) -> &StoreFacts {
        &self.facts
    }

    /// The segments in use, oldest first.
    pub fn segments(&self) -> impl Iterator<Item = StoreSegment> {
        StoreSegment::all(&self.store)
    }

    /// Finds the entries of the store, as an open does: from the image of the index that a close
    /// has left, or from the directories of the segments. They are shown even if the
    /// [next open](StoreFacts::next_open) would begin empty.
    ///
    /// # Errors
    ///
    /// [`Io`](StoreReadError::Io).
    pub fn contents(&self) -> Result<StoreContents, StoreReadError> {
        if self.facts.state == StoreState::Unfinished {
            return Ok(StoreContents::new(None, self.facts.is_live));
        }
        let not_read = |error| not_read(error, &self.facts.path);
        let mut view = block_on(open_view(&self.store)).map_err(not_read)?;
        let (mut tries, mut before) = (0, self.facts.store_bytes);
        // Bounded: by the tries.
        while self.facts.is_live && view.dropped > 0 && tries < TRIES {
            tries += 1;
            // An owner that makes the file shorter moves segments.
            let again = block_on(self.store.again()).map_err(not_read)?;
            let now = again.facts().geometry.file_bytes();
            if now == before {
                break;
            }
            before = now;
            view = block_on(open_view(&again)).map_err(not_read)?;
        }
        Ok(StoreContents::new(Some(view), self.facts.is_live))
    }

    /// Copies the store into another directory, which is made if it is missing. The copy is a store
    /// that was closed, as a [`backup`](crate::BlobCache::backup) makes it: open it with any
    /// `l2_bytes_max`, in the mode `Process` or `Power`. It ends with the last good frame of the
    /// log, or, if the store is looked at [live](StoreAccess::Live), with the last sealed
    /// segment; then entries may be missing in it, which reclaim was just moving.
    ///
    /// **The copy knows nothing of later changes**: flush what may have changed meanwhile once a
    /// cache has opened it.
    ///
    /// `tell` is called with the bytes that are done and all bytes. Both begin again if the owner
    /// of a live store has overwritten what was to be copied. Damage in the store is copied, but
    /// for segments without headers: [`verify`](Self::verify) it before. Memory: 4 MiB, and the
    /// tables of segments.
    ///
    /// The copy is refused by every open until it is whole and on its device. After an error, or
    /// the end of the process, it is left so, and replaced by the next copy to that directory.
    ///
    /// # Errors
    ///
    /// Each [`StoreCopyError`]. The store is as it was.
    pub fn copy_to(
        &self,
        directory: impl AsRef<Path>,
        damage: CopyDamage,
        tell: impl Fn(u64, u64) + Send + Sync,
    ) -> Result<BackupReport, StoreCopyError> {
        let copy = Copying { store: &self.store, facts: &self.facts, damage };
        copy.run(directory.as_ref(), &tell)
    }
}

impl fmt::Debug for StoreReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("StoreReader").field("facts", &self.facts).finish_non_exhaustive()
    }
}
