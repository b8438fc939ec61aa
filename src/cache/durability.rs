//! When a mutation is acknowledged, and how the disk tier is opened and closed around that.

use std::sync::atomic::Ordering;

use crate::cache::shared::Shared;
use crate::error::CacheError;
use crate::flaw::{Flaw, planted};
use crate::l2::{Generation, Position};
use crate::modes::CrashSafety;

/// What a mutation that is in force waits for before it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acknowledgement {
    /// Nothing: what a crash would lose of it is as good as forgotten.
    Now,
    /// What others have recorded over something on file being there: nothing was left to do.
    Nothing,
    /// The log being on file up to there: it shadows something that is.
    Written(Position),
    /// The disk tier having been voided: it shadows something on file, and has no record.
    Voided,
}

impl Acknowledgement {
    /// Of a mutation that has been recorded up to `end`, if at all, over a hash that was held or
    /// not.
    pub(super) fn over(is_held: bool, end: Option<Position>) -> Self {
        match (is_held, end) {
            (false, _) => Self::Now,
            (true, Some(end)) => Self::Written(end),
            (true, None) => Self::Voided,
        }
    }
}

impl Shared {
    /// Returns when the mutation may be called done. Under an error it is in force all the same,
    /// in this process.
    pub(super) async fn acknowledge(
        &self,
        acknowledgement: Acknowledgement,
    ) -> Result<(), CacheError> {
        let Some(l2) = self.l2() else { return Ok(()) };
        if self.config.crash_safety == CrashSafety::Cold {
            // Whatever is on file, the next open serves none of it.
            return Ok(());
        }
        let flushed = self.flushed.load(Ordering::Acquire);
        let end = match acknowledgement {
            // What stands before it may have been refused its record. A flush: then what it flushed
            // could be found again. Anything else does not matter to a hash that is not on file.
            Acknowledgement::Nothing if l2.health().is_off() => None,
            Acknowledgement::Now if self.is_flush_unrecorded.load(Ordering::Relaxed) => None,
            Acknowledgement::Now if flushed == 0 => return Ok(()),
            Acknowledgement::Now if planted(Flaw::FlushNotAwaited) => return Ok(()),
            // What is put into a generation must not outlive the record that began it.
            Acknowledgement::Now => Position::new(flushed),
            Acknowledgement::Nothing => {
                Position::new(flushed.max(self.shadowed.load(Ordering::Acquire)))
            }
            Acknowledgement::Written(end) => Position::new(flushed.max(end.value())),
            Acknowledgement::Voided => None,
        };
        self.check_ours()?;
        let is_written = match end {
            Some(end) => l2.log.written(end).await.is_ok(),
            None => false,
        };
        if is_written || l2.health().is_voided() {
            return Ok(());
        }
        Err(self.device_error())
    }

    /// Later mutations of any key wait for the log up to here.
    pub(super) fn flushed_until(&self, end: Position) {
        self.flushed.fetch_max(end.value(), Ordering::AcqRel);
        self.shadowed_until(end);
    }

    /// What is found gone is so by a record that may end here. To be called in the section.
    pub(super) fn shadowed_until(&self, end: Position) {
        self.shadowed.fetch_max(end.value(), Ordering::AcqRel);
    }

    /// The number of a generation that begins now: above all that have records.
    pub(super) fn next_generation(&self) -> Generation {
        Generation(self.l2().map_or(0, |l2| l2.log.tail().value()))
    }

    /// Returns once all that was acknowledged is on the device.
    pub(super) async fn sync(&self) -> Result<(), CacheError> {
        self.check_open()?;
        let Some(l2) = self.l2() else { return Ok(()) };
        let written = l2.log.written(l2.log.tail()).await.is_ok();
        // What has been put since it was turned off is nowhere.
        if written && !l2.health().is_off() && l2.sync().await.is_ok() {
            return Ok(());
        }
        Err(self.device_error())
    }
}
