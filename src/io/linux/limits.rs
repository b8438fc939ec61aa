//! Limits of the process that stop a store: checked in advance, and named in errors.

// Unsafe here: the limit on the size of files. For rustix that call has no errors, so where a
// sandbox refuses it a release build reads memory that nobody has written.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use rustix::io::dup;

use crate::io::error::{DiskError, is_out_of_descriptors};

/// Descriptors of one ring's runtime: the ring, its poll, a handle on that, a waker and, if the
/// process uses tokio's signals, a socket.
pub(super) const RING_DESCRIPTORS: usize = 5;

/// Descriptors of the process once it uses tokio's signals.
const SIGNAL_DESCRIPTORS: usize = 2;

/// Descriptors of a store on rings: two rings, its file three times, and one or two temporarily.
/// Rings of point reads, of two descriptors each and one for their reapers, are not necessary.
pub(super) const RINGS_DESCRIPTORS: usize = 2 * RING_DESCRIPTORS + SIGNAL_DESCRIPTORS + 5;

/// Descriptors of a store on threads: its file five times, and one or two temporarily.
pub(super) const POOLS_DESCRIPTORS: usize = 7;

/// Checks that `count` descriptors can be opened, by opening and closing them. A runtime that runs
/// out half-way would leak those that it has opened.
///
/// # Errors
///
/// `Unavailable`, which names the limit.
pub(super) fn check_descriptors(count: usize) -> Result<(), DiskError> {
    let spare = || -> io::Result<()> {
        let first = File::open("/dev/null")?;
        // Bounded: by a handful of descriptors.
        let others = (1..count).map(|_| dup(&first)).collect::<Result<Vec<_>, _>>()?;
        drop(others);
        Ok(())
    };
    match spare() {
        Err(error) if is_out_of_descriptors(&error) => Err(DiskError::out_of_descriptors(&error)),
        // Without that device the check tells nothing.
        _ => Ok(()),
    }
}

/// The largest size of a file that this process may write (`ulimit -f`); None: any, or a sandbox
/// does not let it ask.
///
/// A write beyond it kills the process by a signal, even within a larger file.
pub(super) fn file_bytes_max() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the pointer is to such a structure, which is this function's own and outlives it.
    let answer = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    // Its type has 32 bits on some systems.
    #[allow(clippy::useless_conversion)]
    let bytes = u64::from(limit.rlim_cur);
    (answer == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(bytes)
}

/// Refuses a store that the limit on the size of files does not allow.
///
/// # Errors
///
/// `Unavailable`, which names the limit.
pub(super) fn check_file_bytes(bytes: u64) -> Result<(), DiskError> {
    match file_bytes_max() {
        Some(max) if max < bytes => Err(DiskError::Unavailable {
            reason: format!(
                "files may have {max} bytes and the store's has {bytes}; raise fsize \
                 (ulimit -f, LimitFSIZE=) or lower l2_bytes_max"
            ),
        }),
        _ => Ok(()),
    }
}

/// Why a thread could not be started.
pub(super) fn no_thread(error: &io::Error) -> DiskError {
    DiskError::Unavailable {
        reason: format!(
            "no thread could be started; raise nproc (ulimit -u, LimitNPROC=), TasksMax= or \
             pids.max, or the memory limit ({error})"
        ),
    }
}
