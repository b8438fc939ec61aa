//! `RingSetup`: the best ring that this kernel grants, found by building one.
//!
//! The runtime panics or leaks if the kernel refuses a ring, or refuses to enter one. So a plain
//! ring is built first, sent one no-op and dropped. Newer set-up flags are tried before older ones,
//! larger rings before smaller ones; a final refusal becomes [`DiskError::NoRing`] with a
//! reason that an operator can act on.

// Unsafe here: a raw ring takes its entries unchecked.
#![allow(unsafe_code)]

use std::fs;
use std::io;

use io_uring_06::{self as io_uring, IoUring, opcode};
use rustix::io::Errno;

use crate::io::error::{DiskError, is_out_of_descriptors};

/// The smallest submission queue worth having, in entries.
pub(super) const ENTRIES_MIN: u32 = 16;

/// Set-up flags, newest first. DEFER_TASKRUN is not among them: its completions are posted only
/// when the ring is entered to fetch them, and the runtime sleeps in epoll instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flags {
    /// Linux 6.0: one thread submits; completions do not interrupt it.
    SingleIssuer,
    /// Linux 5.19: completions do not interrupt the thread.
    CoopTaskrun,
    /// Any.
    Plain,
}

/// A ring that this kernel grants.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingSetup {
    flags: Flags,
    /// The submission queue's size; the completion queue has twice as many.
    pub(super) entries: u32,
}

impl RingSetup {
    /// Finds the best ring of at most `entries`, by building it on this thread.
    ///
    /// # Errors
    ///
    /// `NoRing` when there is none, `Unavailable` if descriptors have run out.
    pub(super) fn probe(entries: u32) -> Result<Self, DiskError> {
        let mut setup = Self { flags: Flags::SingleIssuer, entries: entries.max(ENTRIES_MIN) };
        // Bounded: by the entries of a probe.
        loop {
            let Err(error) = setup.build() else { return Ok(setup) };
            let weaker = match (error.raw_os_error().map(Errno::from_raw_os_error), setup.flags) {
                (Some(Errno::INVAL), Flags::SingleIssuer) => {
                    Some(Self { flags: Flags::CoopTaskrun, ..setup })
                }
                (Some(Errno::INVAL), Flags::CoopTaskrun) => {
                    Some(Self { flags: Flags::Plain, ..setup })
                }
                (Some(Errno::NOMEM), _) if setup.entries > ENTRIES_MIN => {
                    Some(Self { entries: (setup.entries / 2).max(ENTRIES_MIN), ..setup })
                }
                _ => None,
            };
            match weaker {
                Some(weaker) => setup = weaker,
                // Threads would run out of them later.
                None if is_out_of_descriptors(&error) => {
                    return Err(DiskError::out_of_descriptors(&error));
                }
                None => return Err(DiskError::NoRing { reason: explain(&error) }),
            }
        }
    }

    /// The builder of a ring with these flags.
    pub(super) fn builder(&self) -> io_uring::Builder {
        let mut builder = IoUring::builder();
        match self.flags {
            Flags::SingleIssuer => builder.setup_single_issuer().setup_coop_taskrun(),
            Flags::CoopTaskrun => builder.setup_coop_taskrun(),
            Flags::Plain => &mut builder,
        };
        builder
    }

    /// Builds the ring, sends a no-op through it and drops it.
    fn build(&self) -> io::Result<()> {
        let mut ring: IoUring = self.builder().build(self.entries)?;
        let no_op = opcode::Nop::new().build();
        // SAFETY: a no-op refers to no memory and no descriptor.
        let pushed = unsafe { ring.submission().push(&no_op) };
        pushed.map_err(|_| io::Error::other("a fresh submission queue was full"))?;
        // Bounded: a wait in the kernel in each turn.
        while let Err(error) = ring.submit_and_wait(1) {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        match ring.completion().next() {
            Some(entry) if entry.result() == 0 => Ok(()),
            Some(entry) => Err(io::Error::from_raw_os_error(-entry.result())),
            None => Err(io::Error::other("the no-op did not complete")),
        }
    }
}

/// Names the cause of the refusal and the remedy.
fn explain(error: &io::Error) -> String {
    let sysctl = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    explain_with(error, sysctl.trim())
}

fn explain_with(error: &io::Error, sysctl: &str) -> String {
    let advice = match (error.raw_os_error().map(Errno::from_raw_os_error), sysctl) {
        (Some(Errno::PERM | Errno::ACCESS), "2") => {
            "sysctl kernel.io_uring_disabled is 2; set it to 0, or to 1 and put this process into \
             the group kernel.io_uring_group"
        }
        (Some(Errno::PERM | Errno::ACCESS), "1") => {
            "sysctl kernel.io_uring_disabled is 1; set it to 0, put this process into the group \
             kernel.io_uring_group, or give it CAP_SYS_ADMIN; else a seccomp filter refuses it"
        }
        (Some(Errno::PERM | Errno::ACCESS), _) => {
            "a seccomp filter or security module refuses it, as the default profiles of container \
             engines do; allow io_uring_setup, io_uring_enter and io_uring_register (sysctl \
             kernel.io_uring_disabled does not forbid it)"
        }
        (Some(Errno::NOSYS), _) => {
            "the kernel was built without io_uring, is older than 5.6, or a seccomp filter hides \
             it; allow io_uring_setup, io_uring_enter and io_uring_register"
        }
        (Some(Errno::NOMEM), _) => {
            "no memory even for the smallest ring; raise memlock (ulimit -l, LimitMEMLOCK= in \
             systemd, --ulimit memlock in containers) or the memory limit"
        }
        _ => "the set-up of the ring failed",
    };
    format!("{advice} ({error})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_name_the_cause() {
        let explained = |errno: Errno, sysctl| explain_with(&errno.into(), sysctl);
        assert!(explained(Errno::PERM, "2").contains("kernel.io_uring_disabled is 2"));
        assert!(explained(Errno::PERM, "1").contains("kernel.io_uring_group"));
        assert!(explained(Errno::PERM, "0").contains("seccomp"));
        assert!(explained(Errno::NOSYS, "").contains("seccomp"));
        assert!(explained(Errno::NOMEM, "0").contains("memlock"));
    }

    #[test]
    fn finds_a_ring_here() {
        let setup = RingSetup::probe(256).expect("a ring");
        assert_eq!(setup.entries, 256);
    }
}
