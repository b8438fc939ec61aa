//! How often a test repeats what it draws. Miri takes a thousand times as long as a processor, so
//! there it repeats less, and checks all the same.

/// The count of a test, or the one under Miri.
pub(crate) const fn rounds<T: Copy>(count: T, under_miri: T) -> T {
    if cfg!(miri) { under_miri } else { count }
}
