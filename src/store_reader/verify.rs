//! Checks every checksum of a store.

use super::StoreReader;
use super::error::{StoreReadError, not_read};
use super::facts::StoreState;
use crate::blocking::block_on;
use crate::l2::{Checked, Checker, Damage, Part, SegmentNumber};

/// A part of a store that is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreDamage {
    /// What it is.
    pub part: DamagedPart,
    /// The number of the segment; None for a superblock or the image.
    pub segment: Option<u64>,
    /// Where the damaged part begins in the file, in bytes, if that is known.
    pub offset: Option<u64>,
    /// The namespace of a damaged record, as far as it can be read.
    pub namespace: Option<String>,
    /// The key of a damaged record, likewise.
    pub key: Option<Vec<u8>>,
    /// How the damage shows.
    pub reason: String,
}

/// What is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DamagedPart {
    /// A copy of the superblock. The other one is good, and the next open writes both.
    Superblock,
    /// The header of a segment. An open drops the segment and all older ones.
    SegmentHeader,
    /// The directory of a segment. An open drops the segment and all older ones.
    Directory,
    /// The header of a frame, or what lies between its records. The records are good.
    Frame,
    /// A record: a get finds nothing.
    Record,
    /// A segment of which the device could not read all.
    Segment,
    /// The image of the index. The next open reads the directories instead, which takes longer; no
    /// entry is lost.
    IndexImage,
}

/// What a [`verify`](StoreReader::verify) tells while it works.
#[derive(Debug)]
#[non_exhaustive]
pub enum VerifyEvent {
    /// So many bytes of all that it looks at are done.
    Progress {
        /// Bytes that are done.
        done: u64,
        /// All bytes.
        total: u64,
    },
    /// Something is damaged.
    Damage(StoreDamage),
}

/// What a [`verify`](StoreReader::verify) has found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Segments that were checked.
    pub segments: u64,
    /// Good records in them.
    pub records: u64,
    /// Parts that are damaged.
    pub damaged: u64,
    /// Segments that the owner of a live store has overwritten meanwhile.
    pub overwritten: u64,
    /// Whether there is an image of the index.
    pub has_image: bool,
}

impl StoreReader {
    /// Reads every record of every segment, and checks every checksum of the store: of its
    /// superblocks, segments, directories, frames, records and of an image of the index. `tell` is
    /// called with the progress, and with each damage that is found, in the order of the file's
    /// segments from the oldest on.
    ///
    /// A record that is torn at the end of a store that was not closed is no damage. Memory: the
    /// directory of one segment, and a few MiB.
    ///
    /// # Errors
    ///
    /// [`Io`](StoreReadError::Io): the superblock cannot be read any more. What cannot be read of
    /// the rest is damage.
    pub fn verify(
        &self,
        mut tell: impl FnMut(VerifyEvent) + Send,
    ) -> Result<VerifyReport, StoreReadError> {
        let mut report = VerifyReport::default();
        let is_still = !self.facts.is_live && self.facts.state != StoreState::Unfinished;
        // Bounded: two.
        for (offset, reason) in self.store.bad_copies().filter(|_| is_still) {
            let part = DamagedPart::Superblock;
            report.damaged += 1;
            tell(VerifyEvent::Damage(damaged(part, offset, reason.to_string())));
        }
        let checker = block_on(Checker::new(&self.store));
        let numbers = checker.numbers();
        let total = numbers.len() as u64 * u64::from(self.facts.segment_bytes);
        let mut done = 0;
        // Bounded: by the segments, each read in steps.
        for number in numbers {
            let mut progress = |bytes| {
                done += bytes;
                tell(VerifyEvent::Progress { done, total });
            };
            let checked = block_on(checker.check(number, &mut progress));
            let checked = checked.map_err(|error| self.not_read(error))?;
            let Some(checked) = self.settled(number, checked)? else {
                report.overwritten += 1;
                continue;
            };
            report.segments += 1;
            report.records += checked.records;
            report.damaged += checked.damage.len() as u64;
            // Bounded: by the records of a segment.
            for damage in checked.damage {
                tell(VerifyEvent::Damage(StoreDamage::new(number, damage)));
            }
        }
        if let Some(checked) = block_on(self.store.check_image()) {
            report.has_image = true;
            if let Err(reason) = checked {
                report.damaged += 1;
                let offset = self.facts.store_bytes;
                let damage = damaged(DamagedPart::IndexImage, offset, reason);
                tell(VerifyEvent::Damage(damage));
            }
        }
        Ok(report)
    }

    /// What was found in a segment, once its owner, if it has one, is known to have had no part in
    /// it. None: the owner has overwritten it.
    fn settled(
        &self,
        number: SegmentNumber,
        mut checked: Checked,
    ) -> Result<Option<Checked>, StoreReadError> {
        let mut tries = 0;
        // Bounded: by the tries.
        while self.facts.is_live && !checked.damage.is_empty() {
            let not_read = |error| self.not_read(error);
            let head = block_on(self.store.head_now()).map_err(not_read)?;
            if head.is_none_or(|head| number < head) {
                return Ok(None);
            }
            if tries == super::TRIES {
                break;
            }
            tries += 1;
            // It may have been moved.
            let again = block_on(self.store.again()).map_err(not_read)?;
            let checker = block_on(Checker::new(&again));
            checked = block_on(checker.check(number, &mut |_| ())).map_err(not_read)?;
        }
        Ok(Some(checked))
    }

    fn not_read(&self, error: crate::l2::RecoveryError) -> StoreReadError {
        not_read(error, &self.facts.path)
    }
}

impl StoreDamage {
    fn new(number: SegmentNumber, damage: Damage) -> Self {
        Self {
            part: match damage.part {
                Part::Header => DamagedPart::SegmentHeader,
                Part::Directory => DamagedPart::Directory,
                Part::Frame => DamagedPart::Frame,
                Part::Record => DamagedPart::Record,
                Part::Unread => DamagedPart::Segment,
            },
            segment: Some(number.0),
            offset: damage.offset,
            namespace: damage.namespace.map(String::from),
            key: damage.key.map(Vec::from),
            reason: damage.reason,
        }
    }
}

fn damaged(part: DamagedPart, offset: u64, reason: String) -> StoreDamage {
    let offset = Some(offset);
    StoreDamage { part, segment: None, offset, namespace: None, key: None, reason }
}
