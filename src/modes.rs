//! What one may choose of the tiers: [`L1Admission`], [`CrashSafety`], [`L2Compression`],
//! [`L2PromotionPolicy`].

/// Whether an entry may live in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum L1Admission {
    /// Whatever its size, up to the whole of L1.
    Always,
    /// Unless it takes more than an eighth of L1.
    #[default]
    Auto,
    /// Not at all. In a cache without a disk tier such a put stores nothing, and removes what the
    /// key had before.
    Never,
}

/// What a crash may cost. None of them ever makes the cache serve what was overwritten or
/// invalidated; they differ in how much is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CrashSafety {
    /// The disk tier starts empty after every restart, and nothing waits for the disk.
    Cold,
    /// Warm after the process has been killed, empty after the machine has lost power. A mutation
    /// over something that is on disk returns when its record has been written.
    #[default]
    Process,
    /// Warm after a power loss as well. Such a mutation returns when its record has been synced.
    Power,
}

/// Whether memory of what has expired, was flushed or invalidated is given back in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackgroundSweep {
    /// By a thread that all caches of a process share: it works for at most a twentieth of the
    /// time, and sleeps where there is nothing to sweep.
    #[default]
    On,
    /// By the mutations that follow, and by
    /// [`sweep_expired`](crate::BlobCache::sweep_expired).
    Off,
}

/// Whether values are compressed on their way to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum L2Compression {
    /// With zstd at level 1, in the caller's polls, 256 KiB in each, but for values that are short,
    /// that their `content-type` says are compressed already, or that would keep 95 % of their size
    /// or more.
    #[default]
    On,
    /// Never. What is on disk compressed is still read.
    Off,
}

/// When a value that was read from disk is brought into memory. It is answered at once in any case;
/// a task of its own brings it in afterwards, without reading it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum L2PromotionPolicy {
    /// At its first hit on disk.
    #[default]
    Immediate,
    /// At the second one since it was written, found on file at open, or moved within the log. What
    /// is asked for once then pushes nothing out of memory.
    OnSecondHit,
}
