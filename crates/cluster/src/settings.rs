//! `Settings`: times of a node.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::error::ClusterError;

const LEASES: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_secs(3600);

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) lease: Duration,
    pub(crate) acknowledgement: Duration,
    pub(crate) coalescing: Duration,
    pub(crate) is_durable: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(2),
            acknowledgement: Duration::from_secs(5),
            coalescing: Duration::from_millis(1),
            is_durable: false,
        }
    }
}

impl Settings {
    pub(crate) fn check(&self) -> Result<(), ClusterError> {
        let refuse = |field, reason| Err(ClusterError::InvalidConfig { field, reason });
        if !LEASES.contains(&self.lease) {
            return refuse("lease", "it is from 20 ms to an hour");
        }
        if self.coalescing > Duration::from_millis(100) {
            return refuse("coalescing", "it is at most 100 ms");
        }
        Ok(())
    }

    /// How often the server is asked at least: three answers may be lost before the gate closes.
    pub(crate) fn interval(&self) -> Duration {
        self.lease / 4
    }

    /// How long an answer is waited for. One that comes later than the lease is of no use.
    pub(crate) fn patience(&self) -> Duration {
        self.lease.max(Duration::from_secs(1))
    }

    /// How often the place is saved, at most.
    pub(crate) fn saving(&self) -> Duration {
        self.lease.min(Duration::from_secs(1))
    }

    /// How long the server is left alone after it has failed.
    pub(crate) fn pause(&self) -> Duration {
        (self.lease / 8).min(Duration::from_millis(250))
    }
}
