//! Tests of the whole boundary: the simulated disk, and the rings on real files.

// Test disks fit memory.
#![allow(clippy::cast_possible_truncation)]

mod point;
mod point_failures;
mod refusal;
mod simulated;
mod unpolled;
mod uring;
