//! `DiskOptions`: how a file is opened, and `FileFacts`: what became of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use super::buffer::AlignedBuffer;

/// What transfers a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskEngine {
    /// Rings of io_uring.
    IoUring,
    /// Plain calls, on threads.
    Threads,
}

/// Options for opening a [`FileDisk`](super::FileDisk).
#[derive(Clone, Debug)]
pub(crate) struct DiskOptions {
    /// The directory of the data file; created when missing.
    pub(crate) directory: PathBuf,
    /// The length of a data file that is created, in bytes; a positive multiple of 4096.
    pub(crate) bytes: u64,
    /// What a data file that is created begins with, from the moment when it has its name: whole
    /// blocks. Default nothing, which leaves zeroes.
    pub(crate) first: Arc<AlignedBuffer>,
    /// Bypass the page cache if the file system supports it. Default true.
    pub(crate) direct: bool,
    /// What transfers the file; None: rings, or threads if the kernel refuses rings. Default None.
    pub(crate) engine: Option<DiskEngine>,
    /// The size of each submission queue, 16 to 4096; smaller rings are tried if the kernel
    /// has no memory. Default 256.
    pub(crate) ring_entries: u32,
    /// The number of rings into which callers submit reads; fewer if the kernel grants no more.
    /// Default one for each core, at most 16.
    pub(crate) read_rings: usize,
}

impl DiskOptions {
    /// The defaults, for a data file of `bytes` in `directory`.
    pub(crate) fn new(directory: impl Into<PathBuf>, bytes: u64) -> Self {
        let directory = directory.into();
        let read_rings = thread::available_parallelism().map_or(1, usize::from).min(16);
        let first = Arc::default();
        Self { directory, bytes, first, direct: true, engine: None, ring_entries: 256, read_rings }
    }
}

/// Facts about an open data file.
#[derive(Clone, Debug)]
pub(crate) struct FileFacts {
    /// Its path.
    pub(crate) path: PathBuf,
    /// Its length when it was opened, in bytes, rounded down to whole blocks.
    pub(crate) length: u64,
    /// Whether this opening created it; it then holds zeroes behind what it was to begin with.
    pub(crate) created: bool,
    /// Whether transfers bypass the page cache (O_DIRECT). On a file system without it they are
    /// buffered, which costs memory and speed, and is logged.
    pub(crate) direct: bool,
    /// Whether its space is reserved. If the file system cannot reserve space, later writes may
    /// find it full.
    pub(crate) preallocated: bool,
    /// Whether a mark beside it says that its contents are void.
    pub(crate) marked_void: bool,
    /// The kind of file system, if it is in memory, where nothing survives a power loss.
    pub(crate) passing: Option<&'static str>,
}
