//! `Typing`: what a fetch of typed values adds to one of bytes.

use std::any::TypeId;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::entry::Mark;
use crate::hit::BlobCacheHit;
use crate::wake::contained;

/// Whether the value of a hit decodes.
type Accept = dyn Fn(&BlobCacheHit) -> bool + Send + Sync;

pub(crate) struct Typing {
    /// Of value, codec and error: flights are shared by callers that have all in common.
    pub(crate) identity: TypeId,
    accept: Box<Accept>,
    has_refused: AtomicBool,
}

impl Typing {
    /// `accept` may be foreign code. A value that it refuses is a miss.
    pub(crate) fn new(
        identity: TypeId,
        accept: impl Fn(&BlobCacheHit) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { identity, accept: Box::new(accept), has_refused: false.into() }
    }

    pub(crate) fn accepts(&self, hit: &BlobCacheHit) -> bool {
        // There are no bytes of a value that was not encoded.
        let accepts =
            !hit.entry.is(Mark::Unencoded) && contained(|| (self.accept)(hit)).unwrap_or_default();
        self.has_refused.fetch_or(!accepts, Ordering::Relaxed);
        accepts
    }

    /// A value was refused before the fetch began.
    pub(crate) fn refuse(&self) {
        self.has_refused.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_refused(&self) -> bool {
        self.has_refused.load(Ordering::Relaxed)
    }
}
