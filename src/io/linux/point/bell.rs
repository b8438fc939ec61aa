//! `Bell`: an eventfd that the kernel rings at each completion.
//!
//! Its counter is never read: each ring triggers the edge again, and a counter that is full rings
//! as well.

// Unsafe here: a descriptor is registered with a runtime.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::event::{EventfdFlags, eventfd};
use tokio::io::unix::AsyncFd;

use crate::wake::contained;

pub(super) struct Bell(OwnedFd);

/// A bell within a runtime.
pub(super) struct Listener(AsyncFd<OwnedFd>);

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub(super) fn ring(&self) {
        // Any number but zero, in any order of bytes, rings.
        let _ = rustix::io::write(self.0.as_fd(), &1u64.to_le_bytes());
    }

    /// Another descriptor of the bell: a runtime takes each descriptor once.
    pub(super) fn duplicate(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Listens within the runtime of this task. None if it has no I/O, or no descriptors.
    pub(super) fn listen(self) -> Option<Listener> {
        // SAFETY: the listener owns the descriptor, which stays open and the same until the
        // listener is dropped.
        let register = || unsafe { AsyncFd::register(self.0) };
        // A runtime without I/O panics.
        contained(register)?.ok().map(Listener)
    }
}

impl Listener {
    /// Resolves when the bell has rung since the last call.
    pub(super) async fn rung(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}
