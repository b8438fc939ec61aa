//! Choices of a configuration or a policy: [`L1Admission`], [`CrashSafety`], [`BackgroundSweep`],
//! [`L2Admission`], [`L2Compression`], [`L2Engine`], [`L2PromotionPolicy`]. Each displays as its
//! name in lower case.

use std::fmt;

use crate::figures::Measured;

/// Whether an entry may live in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum L1Admission {
    /// Yes, whatever its size, up to the whole of L1.
    Always,
    /// Yes, unless it takes more than an eighth of L1, or more than half of it if the disk tier
    /// does not take it ([`L2Admission`]).
    #[default]
    Auto,
    /// No. In a cache without a disk tier such a put stores nothing, and removes the older entry of
    /// its key.
    Never,
}

impl fmt::Display for L1Admission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Always => "always",
            Self::Auto => "auto",
            Self::Never => "never",
        })
    }
}

/// How much survives a crash. In no mode does the cache serve an entry that was overwritten or
/// invalidated before the crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CrashSafety {
    /// The disk tier starts empty after every restart, and nothing waits for the disk.
    Cold,
    /// Warm after the process is killed, empty after a power loss. A mutation of an entry that is
    /// on disk returns when its record is written.
    #[default]
    Process,
    /// Warm after a power loss as well. Such a mutation returns when its record is synced.
    Power,
}

impl fmt::Display for CrashSafety {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Cold => "cold",
            Self::Process => "process",
            Self::Power => "power",
        })
    }
}

/// Whether memory of expired, flushed and invalidated entries is freed in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BackgroundSweep {
    /// By a thread that all caches of a process share. It works for at most a twentieth of the
    /// time, and sleeps while there is nothing to sweep.
    #[default]
    On,
    /// By the mutations that follow, and by
    /// [`sweep_expired`](crate::BlobCache::sweep_expired).
    Off,
}

impl fmt::Display for BackgroundSweep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

/// Whether values are compressed on their way to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum L2Compression {
    /// With zstd at level 1, in the caller's polls, 256 KiB in each. Values under 1024 bytes,
    /// values whose `content-type` is a compressed format, and values that compression shrinks by 5
    /// % or less are stored uncompressed.
    #[default]
    On,
    /// Never. Values compressed before are still read.
    Off,
}

impl fmt::Display for L2Compression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

/// Which new values the disk tier takes. While it has room it takes all, but for `OnSecondSight`.
///
/// ```
/// # use tamis::*;
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path();
/// # futures::executor::block_on(async {
/// let builder = BlobCacheConfig::builder().l2_path(path).l2_bytes_max(16 << 20);
/// let cache = BlobCache::open(builder.l2_admission(L2Admission::OnSecondSight).build()?).await?;
/// // The first put of a key stays in memory, the second is written.
/// cache.put("pages", "/", "<html>").await?;
/// assert_eq!(cache.stats().l2_not_admitted(), 1);
/// cache.put("pages", "/", "<html>").await?;
/// assert_eq!(cache.stats().l2_not_admitted(), 1);
/// cache.close().await
/// # }).unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum L2Admission {
    /// If many values are never asked for again, only those whose key was put or held not long
    /// before; otherwise all. The cache watches a sample of its keys to tell. A value that the disk
    /// does not take is in memory alone. Values that memory must not hold, has no room for, or that
    /// take more than half of it, are always taken, and so are overwrites of what is on disk.
    #[default]
    Adaptive,
    /// All of them.
    Always,
    /// Whether the disk is full or not, only those whose key was put before, or left either tier
    /// not long before: the first put of a key stays in memory. It spares the flash, at the cost of
    /// hits. A few bytes a key, within an eighth of the index budget, remember the keys: as many
    /// as the disk has records, at least about 200,000 if the budget has room for them; none after
    /// a restart. The same values as with `Adaptive` are always taken.
    OnSecondSight,
}

impl fmt::Display for L2Admission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Adaptive => "adaptive",
            Self::Always => "always",
            Self::OnSecondSight => "on second sight",
        })
    }
}

/// When a value read from disk is promoted to memory, without reading it again. A get inserts a
/// short value itself, unless another call is committing or room is scarce; a background task
/// inserts the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum L2PromotionPolicy {
    /// At its first hit on disk.
    #[default]
    Immediate,
    /// At the second hit since it was written, recovered at open, or moved within the log. Hits in
    /// memory before it left that count as one, and so does an earlier put of its key that the disk
    /// has lost or refused lately. A value that is read only once then pushes nothing out of
    /// memory.
    OnSecondHit,
}

impl fmt::Display for L2PromotionPolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Immediate => "immediate",
            Self::OnSecondHit => "on second hit",
        })
    }
}

/// What transfers the file of the disk tier. The store is the same: each opens what another has
/// written.
///
/// ```
/// # use tamis::*;
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path();
/// # futures::executor::block_on(async {
/// let config = BlobCacheConfig::builder().l2(path, |l2| l2.bytes_max(16 << 20)).build()?;
/// let cache = BlobCache::open(config).await?;
/// if cache.stats().l2_engine() == Some(L2Engine::Threads) {
///     eprintln!("the kernel refuses io_uring; gets from disk take more of the processor");
/// }
/// # cache.close().await
/// # }).unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum L2Engine {
    /// io_uring if the kernel grants it, else threads. A warning in the log then says why, and what
    /// would have to change. Too few descriptors are an error instead.
    ///
    /// To find out, `open` asks the kernel for a ring. Where a seccomp filter kills the process for
    /// that instead of refusing it, take [`Threads`](Self::Threads), which never ask.
    #[default]
    Auto,
    /// io_uring. Without it `open` answers [`L2Unavailable`](crate::CacheError::L2Unavailable).
    IoUring,
    /// Threads with plain reads and writes: 16 for reads that callers wait for, 8 for everything
    /// else. They need nothing that the default seccomp profiles of container engines refuse, and
    /// take more of the processor for each read. They sleep while there is no I/O.
    ///
    /// So at most 16 reads are in flight, and at most 8 of more than 256 KiB, which leaves the
    /// other threads to short ones. Further reads wait. A ring has no such ceiling: for a device
    /// that wants more at once, let the kernel grant io_uring.
    Threads,
}

impl fmt::Display for L2Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Auto => "auto",
            Self::IoUring => "io_uring",
            Self::Threads => "threads",
        })
    }
}

/// The engine of a disk tier, if there is one.
impl Measured for Option<L2Engine> {
    fn measured(&self) -> f64 {
        match self {
            None | Some(L2Engine::Auto) => 0.0,
            Some(L2Engine::IoUring) => 1.0,
            Some(L2Engine::Threads) => 2.0,
        }
    }
}
