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
        // Bounded: by those remembered.
        let known = distrusted.iter().position(|(id, _)| *id == runtime);
        let known = known.map(|known| distrusted.remove(known).1);
        if distrusted.len() == REMEMBERED_MAX {
            distrusted.remove(0);
        }
        // For ever outlasts a while.
        distrusted.push((runtime, if known == Some(None) { None } else { until }));
        self.is_anyone_distrusted.store(true, Ordering::Relaxed);
    }
}

#[cfg(not(modelled))]
#[cfg(test)]
mod tests {
    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn runtime() -> Runtime {
        Builder::new_current_thread().build().expect("runtime")
    }

    #[test]
    fn a_runtime_takes_one_place_however_often_it_is_late() {
        let (without_io, late) = (runtime(), runtime());
        let (without_io, late) = (without_io.handle().id(), late.handle().id());
        let trust = Trust::default();
        trust.exclude(without_io);
        for _ in 0..2 * REMEMBERED_MAX {
            trust.withdraw(late);
        }
        assert!(!trust.trusts(without_io) && !trust.trusts(late));
        trust.withdraw(without_io);
        let known = trust.distrusted.lock().clone();
        assert!(known.contains(&(without_io, None)), "for ever outlasts a while");
        assert_eq!(known.len(), 2);
        // It has served its time.
        trust.distrusted.lock()[0].1 = Some(Instant::now());
        assert!(trust.trusts(late) && !trust.trusts(without_io));
    }

    #[test]
    fn the_oldest_runtime_is_forgotten() {
        let runtimes: Vec<_> = (0..=REMEMBERED_MAX).map(|_| runtime()).collect();
        let trust = Trust::default();
        for runtime in &runtimes {
            trust.exclude(runtime.handle().id());
        }
        assert!(trust.trusts(runtimes[0].handle().id()));
        assert!(runtimes[1..].iter().all(|runtime| !trust.trusts(runtime.handle().id())));
    }
}
