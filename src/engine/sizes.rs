//! `Sizes`: changes the budgets of a cache that is open.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::batch::yield_now;
use crate::config::check_l1_bytes_max;
use crate::engine::admission::Admission;
use crate::engine::background::promotion_queue::Promotions;
use crate::engine::disk_tier::DiskTier;
use crate::engine::eviction::Eviction;
use crate::engine::parts::Parts;
use crate::engine::write::copy_limit;
use crate::error::CacheError;
use crate::failpoint::{Failpoint, failpoint};
use crate::l1::{L1, Room};
use crate::l2::SizeRefusal;
use crate::limiter::Limiter;

/// Numbers of segments that a store may have.
const SEGMENTS: RangeInclusive<u64> = 4..=1 << 20;

pub(crate) struct Sizes {
    admission: Admission,
    eviction: Eviction,
    l1: Arc<L1>,
    copies: Arc<Limiter>,
    promotions: Arc<Promotions>,
    disk: Arc<DiskTier>,
}

impl Sizes {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            admission: Admission::new(parts),
            eviction: Eviction::new(parts),
            l1: Arc::clone(&parts.l1),
            copies: Arc::clone(&parts.copies),
            promotions: Arc::clone(&parts.promotions),
            disk: Arc::clone(&parts.disk),
        }
    }

    /// Changes the size of the disk tier's file. Dropped, it leaves that to the writer.
    ///
    /// # Errors
    /// It is out of its range, there is no disk tier, it was closed or is off, or there is no room,
    /// or the operating system refuses it.
    pub(crate) async fn set_l2_bytes_max(&self, bytes: u64) -> Result<(), CacheError> {
        self.admission.check_open()?;
        let invalid = |reason| CacheError::InvalidConfig { field: "l2_bytes_max", reason };
        let Some(l2) = self.disk.l2() else {
            return Err(invalid("the cache has no disk tier".to_owned()));
        };
        let segment = u64::from(l2.geometry().segment_bytes());
        let segments = u32::try_from(bytes / segment).ok();
        let Some(segments) = segments.filter(|&it| SEGMENTS.contains(&it.into())) else {
            let (least, most) = (SEGMENTS.start() * segment, SEGMENTS.end() * segment);
            return Err(invalid(format!(
                "{bytes} is not within {least} to {most}: the store's segments have {segment} bytes"
            )));
        };
        l2.log.set_segments(segments).await.map_err(|refusal| match refusal {
            SizeRefusal::Closed => CacheError::Closed,
            SizeRefusal::Off => self.disk.device_error(),
            SizeRefusal::NoRoom { needed_bytes, available_bytes } => {
                let path = self.disk.path().to_owned();
                CacheError::L2Full { path, size: needed_bytes, max: available_bytes }
            }
            SizeRefusal::Refused { needed_bytes, kind, errno } => {
                let path = self.disk.path().display();
                let context = format!("could not make {path} {needed_bytes} bytes longer");
                let source = errno.map_or_else(|| kind.into(), io::Error::from_raw_os_error);
                CacheError::L2Io { context, source: source.into() }
            }
        })
    }

    /// Changes the budget of memory, and what is a share of it. Evicts what exceeds it.
    ///
    /// Dropped, it leaves the new budget in force: the next puts evict the rest.
    ///
    /// # Errors
    /// It is out of its range, or the cache is closed.
    pub(crate) async fn set_l1_bytes_max(&self, bytes: usize) -> Result<(), CacheError> {
        self.admission.check_open()?;
        check_l1_bytes_max(bytes)?;
        self.l1.set_bytes_max(bytes);
        let has_l2 = self.disk.l2().is_some();
        let mut present = bytes;
        // Bounded: by the calls at once, of which the last one wins.
        loop {
            self.copies.set_bytes_max(copy_limit::bytes_max(present, has_l2));
            self.promotions.fit(present).await;
            let latest = self.l1.bytes_max();
            if latest == present {
                break;
            }
            present = latest;
        }
        if failpoint(Failpoint::ExcessKept) {
            return Ok(());
        }
        self.eviction.make_room(Room::default(), u8::MAX).await;
        // Bounded: by the puts that had reserved room before. Until their entries are in memory
        // they are in the midst of a poll, or of a promotion's batch.
        while self.l1.exceeds_budget() {
            yield_now().await;
            self.eviction.make_room(Room::default(), u8::MAX).await;
        }
        Ok(())
    }
}
