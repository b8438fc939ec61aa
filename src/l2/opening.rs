//! `Opening`: what an open knows before it reads the store.

use super::format::Geometry;
use super::replay::Limits;
use super::superblock::{CrashSafety, Superblock};
use crate::failpoint::{Failpoint, failpoint};

/// What an image takes beside the index, and a killed writer of one has reserved.
const IMAGE_BYTES_BESIDE: u64 = 128 << 20;

#[derive(Debug, Clone)]
pub(crate) struct Opening {
    /// Of a store that is created, or begins anew.
    pub(crate) geometry: Geometry,
    /// The most bytes of segments, whatever their size.
    pub(crate) bytes_max: u64,
    /// The least size of a segment that takes every invalidation.
    pub(crate) segment_bytes_min: u64,
    pub(crate) crash_safety: CrashSafety,
    /// The current boot of the machine; a store from another boot may have lost writes.
    pub(crate) boot_id: [u8; 16],
    pub(crate) now_ns: u64,
    /// Random: the identity of a store, if it is created.
    pub(crate) store_id: [u8; 16],
    /// Random: the hash key of a store, if it is created.
    pub(crate) hash_key: u64,
    /// A mark beside the store says that nothing in it may be served.
    pub(crate) is_void: bool,
    pub(crate) key_hash_bits: u32,
    pub(crate) limits: Limits,
    pub(crate) write_amplification_pct_max: u32,
    /// Threads that decode segments.
    pub(crate) helpers: usize,
}

impl Opening {
    /// A store that was closed has at most about so many bytes behind its segments.
    pub(super) fn image_bytes_max(&self) -> u64 {
        self.limits.index_bytes_max as u64 + IMAGE_BYTES_BESIDE
    }

    /// Whether the contents of a store may be served: its mode and its last end allow it.
    pub(super) fn is_warm(&self, superblock: &Superblock) -> bool {
        let survives = match superblock.crash_safety {
            CrashSafety::Cold => false,
            CrashSafety::Process => {
                let is_boot =
                    superblock.boot_id == self.boot_id || failpoint(Failpoint::BootIgnored);
                superblock.clean || is_boot
            }
            CrashSafety::Power => true,
        };
        survives && !superblock.void && !self.is_void && self.crash_safety != CrashSafety::Cold
    }
}
