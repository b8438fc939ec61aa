//! Calls of the cache, each kind in a file: what they answer, in both tiers and over restarts.
//!
//! In one program, since each takes seconds to link. What changes its process has one of its own.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

#[path = "../engine/mod.rs"]
mod engine;

mod backup;
mod charges;
mod compression;
mod events;
mod figures;
mod keys;
mod many;
mod namespaces;
mod quota;
mod sizes;
mod upgrades;
