//! Stands for `src/io/linux/point/together.rs`: some reads are held, and their callers do not call
//! the kernel for them. Another read, or the watch, does.

use std::sync::Arc;

use shuttle::rand::{Rng, thread_rng};

use super::point_ring::PointRing;

pub(super) fn is_holding() -> bool {
    thread_rng().gen_range(0..3) == 0
}

pub(super) fn hold(_: &Arc<PointRing>) {}
