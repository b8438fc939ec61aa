//! Tests with access to internals, mostly above a simulated disk.

mod access_times;
mod accounting;
mod bench;
mod clock_steps;
mod crash_model;
mod crash_points;
mod device_faults;
mod disk_admission;
mod endurance;
mod errors;
mod events;
mod fetches;
mod histories;
mod hostile;
mod images;
mod in_use;
mod lifetimes;
mod many;
mod namespace_slots;
mod polls;
mod promotions;
mod reclaim;
mod regressions;
mod telemetry;
mod totals;
mod wakers;
