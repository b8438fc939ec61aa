//! The files of `src/io/point`, beside a bell of this model.

#[path = "../../../../src/io/point/appointment.rs"]
mod appointment;
pub(crate) mod bell;
#[path = "../../../../src/io/point/point_reads.rs"]
mod point_reads;
#[path = "../../../../src/io/point/point_ring.rs"]
mod point_ring;
#[path = "../../../../src/io/point/reaper.rs"]
mod reaper;
#[path = "../../../../src/io/point/shared_ring.rs"]
mod shared_ring;
mod together;
#[path = "../../../../src/io/point/trust.rs"]
mod trust;
#[path = "../../../../src/io/point/watch.rs"]
mod watch;

pub(super) use self::point_reads::PointReads;
