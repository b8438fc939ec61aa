//! Stands for `parking_lot`: the scheduler may run another thread at each lock.

use std::ops::{Deref, DerefMut};

pub(crate) use shuttle::sync::MutexGuard;
use shuttle::sync::{RwLockReadGuard, RwLockWriteGuard};

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect("no thread panics")
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().expect("no thread panics")
    }
}

#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(shuttle::sync::RwLock<T>);

pub(crate) struct Reading<'a, T>(RwLockReadGuard<'a, T>);

pub(crate) struct Writing<'a, T>(RwLockWriteGuard<'a, T>);

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttle::sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> Reading<'_, T> {
        Reading(self.0.read().expect("no thread panics"))
    }

    pub(crate) fn try_read(&self) -> Option<Reading<'_, T>> {
        self.0.try_read().ok().map(Reading)
    }

    pub(crate) fn try_write(&self) -> Option<Writing<'_, T>> {
        self.0.try_write().ok().map(Writing)
    }
}

impl<T> Deref for Reading<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Deref for Writing<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Writing<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}
