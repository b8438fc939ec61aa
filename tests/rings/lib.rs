//! The rings for point reads under many schedules: `src/io/linux/point` itself, on locks and a
//! kernel of a scheduler that chooses which thread runs next at each lock and each await.
//!
//! Callers of several runtimes, and of none, submit reads; some drop them. The device completes
//! reads in any order, some short. Runtimes are shut down, the rings are closed, and in some
//! scenes the disk's thread breaks down. Every caller that waits is answered, or the scheduler
//! reports a deadlock; the device never writes to a free buffer, no ring is freed with reads in
//! flight, and after a close all rings are freed.
//!
//! A failure prints its schedule, which `shuttle::replay` runs again.

// What the model lacks is not unsafe, has no drop, and is not all used.
#![allow(clippy::drop_non_drop, dead_code, unused_unsafe)]

extern crate self as io_uring;
extern crate self as parking_lot;
extern crate self as tokio;

mod io;
mod kernel;
mod locks;
#[path = "../../src/meter.rs"]
mod meter;
mod runtimes;
#[path = "../../src/telemetry.rs"]
mod telemetry;
#[path = "../../src/wake.rs"]
mod wake;

/// Stands for `src/batch.rs`: a batch is two entries.
mod batch {
    pub(crate) use shuttle::future::yield_now;
    pub(crate) const BATCH_ENTRIES: usize = 2;
}

/// Stands for `src/thread_number.rs`: each call prefers any ring.
mod thread_number {
    use shuttle::rand::{Rng, thread_rng};

    pub(crate) fn thread_number() -> usize {
        thread_rng().gen_range(0..4)
    }
}

pub use crate::io::linux::disk::{Mishap, scene};
pub(crate) use crate::kernel::{IoUring, opcode, types};
pub(crate) use crate::locks::{Mutex, MutexGuard, RwLock};
pub(crate) use crate::runtimes::{runtime, sync, time};
