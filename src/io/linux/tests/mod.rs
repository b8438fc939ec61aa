//! Tests of disks on real files, on rings and on threads.

// Test disks fit memory.
#![allow(clippy::cast_possible_truncation)]

mod file_disk;
mod idle;
mod point;
mod point_failures;
mod refusal;
mod unpolled;
