//! Device faults of a process.

use rand::RngExt;
use rand::rngs::StdRng;

use super::setting::Setting;
use crate::io::{Fault, OperationKind, SimulatedDisk};

pub(super) fn begin(disk: &SimulatedDisk, setting: Setting, random: &mut StdRng) {
    let delay = [2, 8, 60][random.random_range(0..3)];
    disk.plan(|plan| plan.delay_polls_max = delay);
    if !setting.has_faults {
        return;
    }
    if random.random_bool(0.2) {
        let fault = [Fault::Io, Fault::NoSpace][random.random_range(0..2)];
        let kind = [OperationKind::Write, OperationKind::Sync][random.random_range(0..2)];
        disk.fail(kind, random.random_range(0..80), fault, true);
    }
    let (write, sync) = (random.random_bool(0.3), random.random_bool(0.1));
    let (flip, read) = (random.random_bool(0.5), random.random_bool(0.3));
    disk.plan(|plan| {
        plan.write_failure = if write { 0.1 } else { 0.0 };
        plan.sync_failure = if sync { 0.1 } else { 0.0 };
        plan.read_bit_flip = if flip { 0.2 } else { 0.0 };
        plan.read_failure = if read { 0.1 } else { 0.0 };
    });
}

/// Of an open.
pub(super) fn of_open(disk: &SimulatedDisk, setting: Setting, random: &mut StdRng) {
    if !setting.has_faults {
        return;
    }
    if random.random_bool(0.3) {
        // An unreadable segment is lost for good, or the open fails.
        disk.plan(|plan| plan.read_failure = 0.1);
    } else if random.random_bool(0.5) {
        disk.fail(OperationKind::Read, random.random_range(0..25), Fault::BitFlip, false);
    }
}

pub(super) fn end(disk: &SimulatedDisk) {
    disk.heal();
    disk.plan(|plan| {
        plan.write_failure = 0.0;
        plan.sync_failure = 0.0;
        plan.read_bit_flip = 0.0;
        plan.read_failure = 0.0;
    });
}
