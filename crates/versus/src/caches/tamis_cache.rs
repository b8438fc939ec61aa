//! tamis, at its defaults but for the sizes.

use std::path::Path;

use tamis::{BlobCache, BlobCacheConfig, CrashSafety};

use super::setup::Setup;
use crate::Error;

pub(super) const NAMESPACE: &str = "thumbnails";

/// An upper bound of index bytes per entry.
const SLOT_BYTES: u64 = 40;

pub(super) async fn open(
    path: &Path,
    setup: &Setup,
    crash_safety: CrashSafety,
) -> Result<BlobCache, Error> {
    let config = BlobCacheConfig::builder()
        .l1_bytes_max(setup.memory_bytes)
        .l2_path(path)
        .l2_bytes_max(setup.file_bytes)
        .l2_index_bytes_max(usize::try_from(setup.entries * SLOT_BYTES + (1 << 20))?)
        .l2_compression(setup.compression)
        .crash_safety(crash_safety)
        .build()?;
    Ok(BlobCache::open(config).await?)
}
