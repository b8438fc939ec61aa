//! Errors of the disk tier at open: the path, what was found and configured, what to do.

use crate::config::BlobCacheConfig;
use crate::error::CacheError;
use crate::io::{DiskError, FileDisk};
use crate::l2::{RecoveryError, SuperblockError};

const FORMAT: u32 = 1;

impl From<DiskError> for CacheError {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::Unavailable { reason } | DiskError::NoRing { reason } => {
                Self::L2Unavailable { reason }
            }
            DiskError::Locked { path } => Self::L2Locked { path },
            DiskError::NoSpace { path, needed_bytes, available_bytes } => {
                Self::L2Full { path, size: needed_bytes, max: available_bytes }
            }
            DiskError::Io { action, path, source } => {
                let context = format!("could not {action} {}", path.display());
                Self::L2Io { context, source: source.into() }
            }
        }
    }
}

/// Why a readable store cannot be opened.
pub(crate) fn not_opened(
    error: RecoveryError,
    config: &BlobCacheConfig,
    file: Option<&FileDisk>,
) -> CacheError {
    let path = file.map(|file| file.facts().path.clone());
    let path = path.or_else(|| config.l2_path.clone()).unwrap_or_default();
    if let Some((size, max)) = error.no_room() {
        return CacheError::L2Full { path, size, max };
    }
    match error {
        RecoveryError::Superblock(SuperblockError::Version { found, supported }) => {
            let reason = "another version of this library has made it".to_owned();
            CacheError::L2Format { path, reason, found, supported }
        }
        RecoveryError::Superblock(error @ SuperblockError::Unfinished) => {
            CacheError::L2Damaged { path, reason: error.to_string() }
        }
        RecoveryError::Superblock(_) | RecoveryError::Short { .. } => {
            let reason = format!("it is no store ({error})");
            CacheError::L2Format { path, reason, found: 0, supported: FORMAT }
        }
        RecoveryError::CutOff { .. } => CacheError::L2Damaged { path, reason: error.to_string() },
        RecoveryError::Grow { needed, source } => {
            let context = format!("could not make {} {needed} bytes longer", path.display());
            CacheError::L2Io { context, source: source.into() }
        }
        RecoveryError::Io(source) => {
            let context = format!("could not read or write {}", path.display());
            CacheError::L2Io { context, source: source.into() }
        }
    }
}
