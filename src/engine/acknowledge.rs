//! `Acknowledger`: when a mutation that is in force may return to its caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::engine::disk_tier::DiskTier;
use crate::error::CacheError;
use crate::failpoint::{Failpoint, failpoint};
use crate::l2::Position;
use crate::modes::CrashSafety;

pub(crate) struct Acknowledger {
    crash_safety: CrashSafety,
    disk: Arc<DiskTier>,
    /// The end of the last flush's record: every later mutation waits for it.
    flushed: AtomicU64,
    /// A flush found the log ended, and is in force in this process only.
    is_flush_unrecorded: AtomicBool,
    /// The end of the last record that shadows something on file. A call that finds nothing to do
    /// may owe that to it, and waits.
    shadowed: AtomicU64,
}

impl Acknowledger {
    pub(crate) fn new(crash_safety: CrashSafety, disk: Arc<DiskTier>) -> Self {
        Self {
            crash_safety,
            disk,
            flushed: AtomicU64::new(0),
            is_flush_unrecorded: AtomicBool::new(false),
            shadowed: AtomicU64::new(0),
        }
    }

    /// Waits until the mutation may return. On an error it is still in force in this process.
    pub(crate) async fn acknowledge(
        &self,
        acknowledgement: Acknowledgement,
    ) -> Result<(), CacheError> {
        self.acknowledge_behind(self.earlier(), acknowledgement).await
    }

    /// To be called when the mutations that wait for it are in force.
    pub(crate) fn earlier(&self) -> Earlier {
        Earlier {
            flushed: self.flushed.load(Ordering::Acquire),
            shadowed: self.shadowed.load(Ordering::Acquire),
        }
    }

    pub(crate) async fn acknowledge_behind(
        &self,
        Earlier { flushed, shadowed }: Earlier,
        acknowledgement: Acknowledgement,
    ) -> Result<(), CacheError> {
        let Some(l2) = self.disk.l2() else { return Ok(()) };
        if let Some(cover) = self.disk.cover() {
            // In every mode: that of the store is not known.
            return cover.covered(|| self.disk.cover().is_some()).await;
        }
        if self.crash_safety == CrashSafety::Cold {
            // The next open serves nothing of the file.
            return Ok(());
        }
        let end = match acknowledgement {
            // An earlier flush may have no record; a restart would find what it flushed.
            Acknowledgement::Nothing if l2.health().is_off() => None,
            Acknowledgement::Now if self.is_flush_unrecorded.load(Ordering::Relaxed) => None,
            Acknowledgement::Now if flushed == 0 => return Ok(()),
            Acknowledgement::Now if failpoint(Failpoint::FlushNotAwaited) => return Ok(()),
            // An entry must not outlive the record that began its generation.
            Acknowledgement::Now => Position::new(flushed),
            Acknowledgement::Nothing => Position::new(flushed.max(shadowed)),
            Acknowledgement::Written(end) => Position::new(flushed.max(end.value())),
            Acknowledgement::Voided => None,
        };
        self.disk.check_ours()?;
        let is_written = match end {
            Some(end) => l2.log.written(end).await.is_ok(),
            None => false,
        };
        if is_written || l2.health().is_voided() {
            return Ok(());
        }
        Err(self.disk.device_error())
    }

    /// Waits until all mutations of a call may return. Then each of them may. What others flush or
    /// shadow meanwhile is not waited for.
    pub(crate) async fn acknowledge_all(
        &self,
        earlier: Earlier,
        all: Acknowledgements,
    ) -> Result<(), CacheError> {
        let Acknowledgements { written, nothing, now, voided } = all;
        let each = [written.map(Acknowledgement::Written), nothing, now, voided];
        // Bounded: by the kinds.
        for one in each.into_iter().flatten() {
            self.acknowledge_behind(earlier, one).await?;
        }
        Ok(())
    }

    /// A flush has taken effect, with a record that ends at `end`, or without one.
    pub(crate) fn note_flush(&self, end: Option<Position>) {
        match end {
            Some(end) => self.flushed_until(end),
            None => self.is_flush_unrecorded.store(true, Ordering::Relaxed),
        }
    }

    /// The disk tier begins anew, without what the flush should have removed. To be called in the
    /// section.
    pub(crate) fn forget_unrecorded_flush(&self) {
        self.is_flush_unrecorded.store(false, Ordering::Relaxed);
    }

    fn flushed_until(&self, end: Position) {
        self.flushed.fetch_max(end.value(), Ordering::AcqRel);
        self.shadowed_until(end);
    }

    /// A record that ends here shadows something on file. To be called in the section.
    pub(crate) fn shadowed_until(&self, end: Position) {
        self.shadowed.fetch_max(end.value(), Ordering::AcqRel);
    }

    pub(crate) async fn sync(&self) -> Result<(), CacheError> {
        let Some(l2) = self.disk.l2() else { return Ok(()) };
        let restarts = l2.health().restarts();
        let written = l2.log.written(l2.log.tail()).await.is_ok();
        // Puts after the tier was turned off have no record, and a restart drops all records.
        let is_on = || !l2.health().is_off() && l2.health().restarts() == restarts;
        if written && is_on() && l2.sync().await.is_ok() && is_on() {
            return Ok(());
        }
        Err(self.disk.device_error())
    }
}

/// The ends of what was in force before: later flushes are none of a mutation's business.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Earlier {
    flushed: u64,
    shadowed: u64,
}

/// What a mutation waits for before it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acknowledgement {
    /// Nothing: a crash would only forget it.
    Now,
    /// The records of earlier mutations: it found nothing to do.
    Nothing,
    /// The log up to here: its record shadows something on file.
    Written(Position),
    /// The store being marked void: it shadows something on file and has no record.
    Voided,
}

impl Acknowledgement {
    /// `had_slot`: the hash had a slot. `end`: where the record ends, if there is one.
    pub(crate) fn over(had_slot: bool, end: Option<Position>) -> Self {
        match (had_slot, end) {
            (false, _) => Self::Now,
            (true, Some(end)) => Self::Written(end),
            (true, None) => Self::Voided,
        }
    }
}

/// What the mutations of one call wait for.
#[derive(Debug, Default)]
pub(crate) struct Acknowledgements {
    /// The last end.
    written: Option<Position>,
    nothing: Option<Acknowledgement>,
    now: Option<Acknowledgement>,
    voided: Option<Acknowledgement>,
}

impl Acknowledgements {
    pub(crate) fn add(&mut self, one: Acknowledgement) {
        match one {
            Acknowledgement::Written(_) if failpoint(Failpoint::ManyNotAwaited) => {}
            Acknowledgement::Written(end) => self.written = self.written.max(Some(end)),
            Acknowledgement::Nothing => self.nothing = Some(one),
            Acknowledgement::Now => self.now = Some(one),
            Acknowledgement::Voided => self.voided = Some(one),
        }
    }
}
