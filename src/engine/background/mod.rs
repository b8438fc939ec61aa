//! The tasks beside the callers, and what they share with them.

pub(crate) mod deadlines;
pub(crate) mod expired_records;
pub(crate) mod filter_rebuild;
pub(crate) mod filter_signal;
pub(crate) mod log_owner;
pub(crate) mod prefix_scan;
pub(crate) mod promotion;
pub(crate) mod promotion_queue;
pub(crate) mod sweep;
mod sweep_interval;
pub(crate) mod sweep_progress;
pub(crate) mod wakeup;
