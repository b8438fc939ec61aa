//! Which engine the disk tiers of a test have: the one that `TAMIS_L2_ENGINE` names, or else the
//! default and threads in turn.

use std::env;

use tamis::L2Engine;

/// The engine of the store with this number.
pub(crate) fn engine(number: u64) -> L2Engine {
    match env::var("TAMIS_L2_ENGINE").as_deref() {
        Ok("threads") => L2Engine::Threads,
        Ok("io_uring") => L2Engine::IoUring,
        Ok(other) => panic!("{other} is no engine: threads or io_uring"),
        Err(_) if number % 2 == 0 => L2Engine::Auto,
        Err(_) => L2Engine::Threads,
    }
}
