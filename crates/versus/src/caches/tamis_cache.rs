//! tamis, at its defaults but for the sizes.

use std::path::Path;

use tamis::{BlobCacheConfig, BlobCacheConfigBuilder, L2Compression};

use super::setup::Setup;
use crate::Error;

pub(super) const NAMESPACE: &str = "thumbnails";

/// Upper bounds of index bytes per entry, and per label of an entry.
const SLOT_BYTES: u64 = 40;
const LABEL_BYTES: u64 = 52;

pub(super) fn config(path: &Path, setup: &Setup) -> Result<BlobCacheConfigBuilder, Error> {
    let compression = if setup.compresses { L2Compression::On } else { L2Compression::Off };
    let each = SLOT_BYTES + LABEL_BYTES * setup.labels_each;
    let index_bytes = setup.entries * each + (1 << 20);
    Ok(BlobCacheConfig::builder()
        .l1_bytes_max(setup.memory_bytes)
        .l2_path(path)
        .l2_bytes_max(setup.file_bytes)
        .l2_index_bytes_max(usize::try_from(index_bytes)?)
        .l2_compression(compression))
}
