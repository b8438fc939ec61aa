//! What the end of a process or of the machine may leave of a disk at this moment. The disk itself
//! goes on, so that one run can be cut at each of its moments.
//!
//! Each sector of an unsynced write is there or not, independent of all others, and so is each
//! sector of a write in flight. After a kill only the latter are in doubt. After a power loss the
//! length may be the one before all changes that are not durable.

// A simulated disk fits memory, so its places fit usize.
#![allow(clippy::cast_possible_truncation)]

use std::collections::BTreeMap;

use super::SimulatedDisk;
use super::fault::{Fault, FaultPlan};
use super::state::{DiskState, SECTOR_BYTES, Work};
use crate::io::simulation::Dice;

type Sector = [u8; SECTOR_BYTES];

/// What ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Process,
    Machine,
}

/// The disks that may be left.
pub(crate) struct Outcomes {
    image: Vec<u8>,
    /// The sectors in doubt, each with the contents that it may have.
    doubts: Vec<(usize, Vec<Sector>)>,
    /// The bytes that are kept if changes of the length are undone, and those behind them.
    undone: Option<(usize, Vec<u8>)>,
}

impl SimulatedDisk {
    /// What may be left if the process, or the machine, ends now.
    pub(crate) fn outcomes(&self, end: End) -> Outcomes {
        let state = self.state();
        let doubts = state.doubts(end);
        let undone = state.resized.as_ref().filter(|_| end == End::Machine);
        let undone = undone.map(|resized| (resized.kept, resized.behind.clone()));
        Outcomes { image: state.image.clone(), doubts: doubts.into_iter().collect(), undone }
    }

    /// Changes whenever another outcome becomes possible.
    pub(crate) fn moment(&self) -> (u64, u64) {
        let state = self.state();
        (state.stamp, state.next_operation)
    }
}

impl DiskState {
    fn doubts(&self, end: End) -> BTreeMap<usize, Vec<Sector>> {
        let mut doubts = BTreeMap::new();
        if end == End::Machine {
            for (&sector, contents) in &self.unsynced {
                let versions = contents.versions.iter().map(|(_, version)| *version);
                doubts.insert(
                    sector as usize,
                    [contents.durable].into_iter().chain(versions).collect(),
                );
            }
        }
        for operation in self.operations.values() {
            let Work::Write { offset, buffer, pending } = &operation.work else { continue };
            if operation.fault == Some(Fault::NoSpace) {
                continue;
            }
            for &number in pending {
                let sector = *offset as usize / SECTOR_BYTES + number;
                let now = || vec![sector_of(&self.image, sector)];
                let contents: &mut Vec<_> = doubts.entry(sector).or_insert_with(now);
                contents.push(sector_of(buffer, number));
            }
        }
        for contents in doubts.values_mut() {
            contents.sort_unstable();
            contents.dedup();
        }
        doubts.retain(|_, contents| contents.len() > 1);
        doubts
    }
}

impl Outcomes {
    /// How many there are.
    pub(crate) fn count(&self) -> u128 {
        let contents = self.doubts.iter().map(|(_, contents)| contents.len() as u128);
        let lengths = 1 + u128::from(self.undone.is_some());
        contents.fold(lengths, u128::saturating_mul)
    }

    /// The one with this number, below the count.
    pub(crate) fn numbered(&self, mut number: u128) -> SimulatedDisk {
        self.with(number as u64, |contents| {
            let chosen = number % contents as u128;
            number /= contents as u128;
            chosen as usize
        })
    }

    /// One by chance.
    pub(crate) fn drawn(&self, seed: u64) -> SimulatedDisk {
        let mut dice = Dice::new(seed);
        self.with(seed, |contents| dice.below(contents as u64) as usize)
    }

    /// Chooses one of so many contents for each sector. `seed`: of the disk that is left.
    fn with(&self, seed: u64, mut choose: impl FnMut(usize) -> usize) -> SimulatedDisk {
        let mut image = self.image.clone();
        for (sector, contents) in &self.doubts {
            let start = sector * SECTOR_BYTES;
            image[start..start + SECTOR_BYTES].copy_from_slice(&contents[choose(contents.len())]);
        }
        if let Some((kept, behind)) = self.undone.as_ref().filter(|_| choose(2) == 1) {
            image.truncate(*kept);
            image.extend(behind);
        }
        SimulatedDisk::with_image(Dice::new(seed), FaultPlan::default(), image)
    }
}

fn sector_of(bytes: &[u8], number: usize) -> Sector {
    let mut sector = [0; SECTOR_BYTES];
    sector.copy_from_slice(&bytes[number * SECTOR_BYTES..][..SECTOR_BYTES]);
    sector
}
