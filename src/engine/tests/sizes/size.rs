//! Settings and sizes of a store whose size changes.

use rand::RngExt;
use rand::rngs::StdRng;

use crate::config::BlobCacheConfig;
use crate::io::End;
use crate::modes::{CrashSafety, L2Admission, L2Compression};

pub(super) const SEGMENT: u64 = 32 << 10;

#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) crash_safety: CrashSafety,
    pub(super) end: End,
    /// Bits are flipped between processes.
    pub(super) is_damaged: bool,
}

pub(super) const POWER: Setting =
    Setting { crash_safety: CrashSafety::Power, end: End::Machine, is_damaged: false };
pub(super) const KILL: Setting =
    Setting { crash_safety: CrashSafety::Process, end: End::Process, is_damaged: false };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) segments: u64,
    pub(super) segment_bytes: u64,
}

impl Size {
    pub(super) fn draw(random: &mut StdRng) -> Self {
        let segment_bytes = if random.random_bool(0.1) { 2 * SEGMENT } else { SEGMENT };
        Self { segments: random.random_range(4..20) * SEGMENT / segment_bytes, segment_bytes }
            .at_least(4)
    }

    fn at_least(self, segments: u64) -> Self {
        Self { segments: self.segments.max(segments), ..self }
    }

    pub(super) fn bytes(self) -> u64 {
        self.segments * self.segment_bytes
    }
}

pub(super) fn config(setting: Setting, size: Size) -> BlobCacheConfig {
    BlobCacheConfig::builder()
        .l1_bytes_max(64 << 10)
        .l2_path("simulated")
        .l2_bytes_max(size.bytes())
        .l2_segment_bytes(size.segment_bytes as u32)
        .l2_compression(L2Compression::Off)
        .l2_admission(L2Admission::Always)
        // Records stay in the order in which they were put.
        .l2_second_chances(false)
        .crash_safety(setting.crash_safety)
        .build()
        .unwrap()
}
