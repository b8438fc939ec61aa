//! Point reads: the reads that callers wait for, submitted by the callers themselves.
//!
//! The first poll of a read submits it to a shared ring, without another thread. There are as
//! many rings as cores, and a thread prefers one of them, so threads seldom share. The completion
//! is taken by the ring's [reaper], a task in the runtime of a caller, and the [watch] on the
//! disk's thread takes what no reaper takes in time. What a ring has no room for, and what ends
//! short or with an error, is carried out by the disk's thread, which has a ring of its own.

mod appointment;
mod bell;
mod point_reads;
mod point_ring;
mod reaper;
mod shared_ring;
mod together;
mod trust;
mod watch;

pub(super) use self::point_reads::PointReads;
pub(crate) use self::together::together;
