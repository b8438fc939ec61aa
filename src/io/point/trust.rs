//! `Trust`: which runtimes may reap.
//!
//! A runtime that did not reap in time is not asked for a while; one without I/O never is. If a
//! panic aborts the process, no runtime is asked, because one without I/O would panic.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Id;

/// How long a runtime that was late is not asked.
const PENANCE: Duration = Duration::from_secs(1);

/// The most runtimes that are remembered.
const REMEMBERED_MAX: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Trust {
    is_anyone_distrusted: AtomicBool,
    /// Until when; None: for ever.
    distrusted: Mutex<Vec<(Id, Option<Instant>)>>,
}

impl Trust {
    pub(super) fn trusts(&self, runtime: Id) -> bool {
        if cfg!(panic = "abort") {
            return false;
        }
        if !self.is_anyone_distrusted.load(Ordering::Relaxed) {
            return true;
        }
        let mut distrusted = self.distrusted.lock();
        let now = Instant::now();
        // Bounded: by those remembered.
        distrusted.retain(|(_, until)| until.is_none_or(|until| until > now));
        self.is_anyone_distrusted.store(!distrusted.is_empty(), Ordering::Relaxed);
        // Bounded: by those remembered.
        !distrusted.iter().any(|(id, _)| *id == runtime)
    }

    /// Does not trust the runtime for a while.
    pub(super) fn withdraw(&self, runtime: Id) {
        self.distrust(runtime, Some(Instant::now() + PENANCE));
    }

    /// Does not trust the runtime any more.
    pub(super) fn exclude(&self, runtime: Id) {
        self.distrust(runtime, None);
    }

    fn distrust(&self, runtime: Id, until: Option<Instant>) {
        let mut distrusted = self.distrusted.lock();
        if distrusted.len() == REMEMBERED_MAX {
            distrusted.remove(0);
        }
        distrusted.push((runtime, until));
        self.is_anyone_distrusted.store(true, Ordering::Relaxed);
    }
}
