//! The mutex of code that is checked under every schedule: the model includes that code next to a
//! module of this name with the mutex of its own scheduler.

pub(crate) use parking_lot::Mutex;
