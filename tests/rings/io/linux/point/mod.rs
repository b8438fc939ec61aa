//! The files of `src/io/linux/point`, beside a bell of this model.

#[path = "../../../../../src/io/linux/point/appointment.rs"]
mod appointment;
pub(crate) mod bell;
#[path = "../../../../../src/io/linux/point/point_reads.rs"]
mod point_reads;
#[path = "../../../../../src/io/linux/point/point_ring.rs"]
mod point_ring;
#[path = "../../../../../src/io/linux/point/reaper.rs"]
mod reaper;
#[path = "../../../../../src/io/linux/point/shared_ring.rs"]
mod shared_ring;
mod together;
#[path = "../../../../../src/io/linux/point/trust.rs"]
mod trust;
#[path = "../../../../../src/io/linux/point/watch.rs"]
mod watch;

pub(super) use self::point_reads::PointReads;
