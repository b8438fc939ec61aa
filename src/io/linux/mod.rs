//! The real disk: one locked file, read and written through io_uring or by threads.
//!
//! Callers submit point reads, and two threads everything else, either through rings ([point],
//! [ring]) or, where the kernel refuses rings, on a [pool] of threads. Both engines have the queues
//! ([server], [task_server]), the pump ([pump]) and the transfers ([transfer]) in common.

mod boot;
mod closing;
mod device;
mod file;
mod file_disk;
mod limits;
mod origin;
#[cfg(any(test, feature = "cli"))]
mod owner;
mod piece;
mod point;
mod pool;
mod probe;
mod pump;
#[cfg(any(test, feature = "cli"))]
mod read_disk;
mod request;
mod resize;
mod ring;
mod server;
mod servers;
mod share;
mod status;
mod store_lock;
mod task_server;
mod termination;
mod transfer;
mod turns;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod thread_runner;

pub(crate) use file_disk::FileDisk;
#[cfg(any(test, feature = "cli"))]
pub(crate) use owner::owner_of;
pub(crate) use point::together;
#[cfg(any(test, feature = "cli"))]
pub(crate) use read_disk::ReadDisk;
#[cfg(any(test, feature = "cli"))]
pub(crate) use status::{StatusConnection, is_socket_left};
pub(crate) use store_lock::{hold, is_surely_empty};
pub(crate) use termination::Termination;
