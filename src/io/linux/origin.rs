//! `Origin`: tells whether this process was forked from the one that opened the disk.
//!
//! A forked child has a copy of the memory, but none of the threads. To ask the kernel for the
//! process at each read would cost a call; instead there is a page that the kernel empties in a
//! child.

// Unsafe here: the page is mapped.
#![allow(unsafe_code)]

use std::process;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

const PAGE_BYTES: usize = 4096;

pub(super) struct Origin {
    /// The process, within a page that is empty in a forked child. None if the kernel has no such
    /// pages.
    page: Option<NonNull<AtomicU32>>,
    process: AtomicU32,
}

// SAFETY: the page is mapped as long as the value lives, and is accessed through an atomic.
unsafe impl Send for Origin {}
// SAFETY: as above.
unsafe impl Sync for Origin {}

impl Origin {
    /// This process is the origin.
    pub(super) fn new() -> Self {
        let process = process::id();
        let page = map().inspect(|page| {
            // SAFETY: the page was just mapped, is aligned and holds zeroes.
            unsafe { page.as_ref() }.store(process, Ordering::Relaxed);
        });
        Self { page, process: process.into() }
    }

    pub(super) fn is_here(&self) -> bool {
        match self.page {
            // SAFETY: the page is mapped until the value is dropped.
            Some(page) => unsafe { page.as_ref() }.load(Ordering::Relaxed) != 0,
            None => self.process.load(Ordering::Relaxed) == process::id(),
        }
    }

    /// Makes this process look like a forked child, or normal again.
    #[cfg(test)]
    pub(super) fn set_here(&self, is_here: bool) {
        let process = if is_here { process::id() } else { 0 };
        self.process.store(process, Ordering::Relaxed);
        if let Some(page) = self.page {
            // SAFETY: the page is mapped until the value is dropped.
            unsafe { page.as_ref() }.store(process, Ordering::Relaxed);
        }
    }
}

fn map() -> Option<NonNull<AtomicU32>> {
    let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a new mapping at a place of the kernel's choice touches no other memory.
    let page = unsafe { mmap_anonymous(ptr::null_mut(), PAGE_BYTES, access, flags) }.ok()?;
    // SAFETY: it is the mapping made above, and nobody uses it yet.
    if unsafe { madvise(page, PAGE_BYTES, Advice::LinuxWipeOnFork) }.is_err() {
        // SAFETY: as above.
        let _ = unsafe { munmap(page, PAGE_BYTES) };
        return None;
    }
    NonNull::new(page.cast())
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(page) = self.page {
            // SAFETY: it was mapped with this length, and nobody else knows it.
            let _ = unsafe { munmap(page.as_ptr().cast(), PAGE_BYTES) };
        }
    }
}
