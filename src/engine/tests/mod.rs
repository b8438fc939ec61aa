//! What is checked from within, for the most part above a simulated disk: whole lives of a cache
//! against a model, concurrent histories, fetches, lifetimes, and the faults that were found.

mod accesses;
mod bench;
mod books;
mod errors;
mod fetches;
mod histories;
mod lifetimes;
mod lives;
mod places;
mod polls;
mod regressions;
mod totals;
mod wakers;
