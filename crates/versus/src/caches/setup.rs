//! `Setup`: what a cache is opened with.

use serde::{Deserialize, Serialize};

/// The size of a cache.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) memory_bytes: usize,
    pub(crate) file_bytes: u64,
    /// About how many entries the file is going to hold.
    pub(crate) entries: u64,
    /// Tags of each entry, in tamis.
    pub(crate) labels_each: u64,
    /// Whether tamis may compress. The others do not.
    pub(crate) compresses: bool,
}
