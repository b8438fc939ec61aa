//! Bounds the copies of long values that puts make and compress.
//! All copies together stay within a share of the budgets; other puts wait in order. A value larger
//! than the share has it alone. Values of up to 256 KiB take effect in one poll, and need no share.

use crate::limiter::Limiter;
use crate::timer::Timer;

/// The share of the memory budget.
const L1_SHARE: usize = 8;

/// Besides, on their way to the disk tier.
const L2_BYTES: usize = 16 << 20;

pub(crate) fn limiter(l1_bytes_max: usize, has_l2: bool, timer: &Timer) -> Limiter {
    Limiter::reclaiming(bytes_max(l1_bytes_max, has_l2), timer.clone())
}

pub(crate) fn bytes_max(l1_bytes_max: usize, has_l2: bool) -> usize {
    l1_bytes_max / L1_SHARE + if has_l2 { L2_BYTES } else { 0 }
}
