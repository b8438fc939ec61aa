//! How much puts may copy and compress at one time.
//!
//! A put of a long value holds its caller's bytes and its own copy of them over many polls, until
//! it has taken effect. However many puts are under way, the copies stay within a share of the
//! budgets: the others wait, in the order in which they came. A value that is larger than the share
//! has it alone. Values of up to 256 KiB are copied and take effect in one poll, and need none of
//! it.

use crate::limiter::Limiter;
use crate::timer::Timer;

/// The part of the memory tier's budget that copies may take.
const L1_SHARE: usize = 8;

/// What they may take besides, on their way to the disk tier.
const L2_BYTES: usize = 16 << 20;

pub(crate) fn limiter(l1_bytes_max: usize, has_l2: bool, timer: &Timer) -> Limiter {
    let bytes = l1_bytes_max / L1_SHARE + if has_l2 { L2_BYTES } else { 0 };
    Limiter::reclaiming(bytes, timer.clone())
}
