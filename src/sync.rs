//! The mutex of code that is checked under every schedule: a model includes that code beside a
//! module of this name with the mutex of its own scheduler.

pub(crate) use parking_lot::Mutex;
