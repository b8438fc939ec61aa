//! `Monitor`: a lock with threads that wait for a change of what is under it.
//!
//! Threads without work sleep here, and not in the table of sleepers that parking_lot has for the
//! whole process: after a fork the child has a copy of that table with threads that it has not, and
//! its own threads would follow them into stacks that are used anew. The standard library's waiting
//! leaves nothing behind.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

#[derive(Default)]
pub(crate) struct Monitor<T> {
    state: Mutex<T>,
    changed: Condvar,
    /// Changed under the lock. It spares the call of the kernel where nobody waits.
    waiting: AtomicUsize,
}

pub(crate) struct MonitorGuard<'a, T> {
    monitor: &'a Monitor<T>,
    state: MutexGuard<'a, T>,
}

impl<T> Monitor<T> {
    pub(crate) const fn new(state: T) -> Self {
        Self { state: Mutex::new(state), changed: Condvar::new(), waiting: AtomicUsize::new(0) }
    }

    pub(crate) fn lock(&self) -> MonitorGuard<'_, T> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        MonitorGuard { monitor: self, state }
    }

    pub(crate) fn try_lock(&self) -> Option<MonitorGuard<'_, T>> {
        let state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(MonitorGuard { monitor: self, state })
    }

    /// After a change under the lock, which may be held still.
    pub(crate) fn wake_one(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.changed.notify_one();
        }
    }

    /// As [`wake_one`](Self::wake_one).
    pub(crate) fn wake_all(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.changed.notify_all();
        }
    }
}

impl<'a, T> MonitorGuard<'a, T> {
    /// May return without a change.
    pub(crate) fn wait(self) -> Self {
        self.wait_by(|changed, state| changed.wait(state).unwrap_or_else(PoisonError::into_inner))
    }

    /// At most until `due`.
    pub(crate) fn wait_until(self, due: Instant) -> Self {
        let rest = due.saturating_duration_since(Instant::now());
        self.wait_by(|changed, state| {
            changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0
        })
    }

    fn wait_by(self, wait: impl FnOnce(&Condvar, MutexGuard<'a, T>) -> MutexGuard<'a, T>) -> Self {
        let monitor = self.monitor;
        monitor.waiting.fetch_add(1, Ordering::Relaxed);
        let state = wait(&monitor.changed, self.state);
        monitor.waiting.fetch_sub(1, Ordering::Relaxed);
        Self { monitor, state }
    }

    /// Lets go of the lock while `act` runs.
    pub(crate) fn unlocked<R>(self, act: impl FnOnce() -> R) -> (Self, R) {
        let monitor = self.monitor;
        drop(self);
        let result = act();
        (monitor.lock(), result)
    }
}

impl<T> Deref for MonitorGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.state
    }
}

impl<T> DerefMut for MonitorGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.state
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// A wake that is lost leaves a thread asleep for ever.
    #[test]
    fn threads_that_wait_for_each_other_s_changes_all_end() {
        for round in 0..200 {
            let monitor = Arc::new(Monitor::new(0_u32));
            let threads: Vec<_> = (0..4)
                .map(|own| {
                    let monitor = Arc::clone(&monitor);
                    thread::spawn(move || {
                        let mut count = monitor.lock();
                        while *count < 100 {
                            if *count % 4 == own {
                                *count += 1;
                                drop(count);
                                monitor.wake_all();
                                count = monitor.lock();
                            } else {
                                count = count.wait();
                            }
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(*monitor.lock(), 100, "{round}");
            assert_eq!(monitor.waiting.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn one_wake_ends_one_wait_and_a_due_time_ends_it_too() {
        let monitor = Arc::new(Monitor::new(0_u32));
        let taking = Arc::clone(&monitor);
        let thread = thread::spawn(move || {
            let mut count = taking.lock();
            while *count == 0 {
                count = count.wait();
            }
            *count -= 1;
        });
        while monitor.waiting.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        *monitor.lock() += 1;
        monitor.wake_one();
        thread.join().unwrap();
        let due = Instant::now() + Duration::from_millis(20);
        let mut count = monitor.lock();
        while Instant::now() < due {
            count = count.wait_until(due);
        }
        assert_eq!(*count, 0);
    }

    #[test]
    fn it_goes_on_after_a_panic_under_it() {
        let monitor = Monitor::new(1);
        let panicked = catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _held = monitor.lock();
            panic!("as planned");
        }));
        assert!(panicked.is_err() && *monitor.lock() == 1);
        let (count, ()) = monitor.lock().unlocked(|| assert!(monitor.try_lock().is_some()));
        assert!(*count == 1 && monitor.try_lock().is_none());
    }
}
