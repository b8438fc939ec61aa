//! What stands for the standard library and for crates: the scheduler may run another thread at
//! each lock and at each atomic operation.

pub(crate) mod dashmap;
pub(crate) mod parking_lot;

/// Stands for `std::sync`.
pub(crate) mod sync {
    pub(crate) use std::sync::{Arc, LazyLock, OnceLock, PoisonError, Weak, mpsc};

    pub(crate) use shuttle::sync::{
        Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic,
    };
}

/// Stands for `std::thread`: no thread can be spawned, so whoever wants one does its work.
pub(crate) mod thread {
    use std::io::{Error, ErrorKind, Result};
    use std::num::NonZero;

    pub(crate) use shuttle::thread::yield_now;

    pub(crate) struct Builder;

    impl Builder {
        pub(crate) fn new() -> Self {
            Self
        }

        pub(crate) fn name(self, _name: String) -> Self {
            self
        }

        pub(crate) fn spawn<F: FnOnce()>(self, _run: F) -> Result<()> {
            Err(Error::from(ErrorKind::OutOfMemory))
        }
    }

    pub(crate) fn available_parallelism() -> Result<NonZero<usize>> {
        Ok(NonZero::<usize>::MIN)
    }
}

/// Stands for parts of `std::hash`: seeds that are the same in each schedule.
pub(crate) mod hash {
    use std::hash::DefaultHasher;
    pub(crate) use std::hash::{BuildHasher, Hasher};

    #[derive(Clone)]
    pub(crate) struct RandomState;

    impl RandomState {
        pub(crate) fn new() -> Self {
            Self
        }
    }

    impl BuildHasher for RandomState {
        type Hasher = DefaultHasher;

        fn build_hasher(&self) -> DefaultHasher {
            DefaultHasher::new()
        }
    }
}
