//! Tests with access to internals, mostly above a simulated disk.

mod access_times;
mod accounting;
mod backups;
mod bench;
mod clock_steps;
mod crash_model;
mod crash_points;
mod degraded_lives;
mod device_faults;
mod disk_admission;
mod endurance;
mod errors;
mod events;
mod fetches;
mod gates;
mod histories;
mod hostile;
mod images;
mod in_use;
mod keys;
mod leases;
mod lifetimes;
mod many;
mod namespace_slots;
#[cfg(all(any(test, feature = "cli"), feature = "disk", target_os = "linux"))]
mod outside_copies;
mod polls;
mod promotions;
mod reclaim;
mod regressions;
mod saved_positions;
mod settings;
mod sizes;
mod telemetry;
mod totals;
mod wakers;
