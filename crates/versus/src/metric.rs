//! `Metric`: a kind of figure. `Sample`: the figures of one contestant in one round.

use std::collections::BTreeMap;

use serde::Serialize;

/// The order is the order of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    CallsPerSecond,
    MegabytesPerSecond,
    /// CPU time of the calling thread, for each call.
    NanosPerCall,
    /// Of the values asked for, in percent.
    Hits,
    GetP50,
    GetP99,
    PutP50,
    PutP99,
    /// CPU time of all threads of the process, kernel time included, in microseconds per call.
    CpuPerCall,
}

impl Metric {
    /// The head of its column.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::CallsPerSecond => "calls/s",
            Self::MegabytesPerSecond => "MB/s",
            Self::NanosPerCall => "ns a call",
            Self::Hits => "hits, %",
            Self::GetP50 => "get p50, us",
            Self::GetP99 => "get p99, us",
            Self::PutP50 => "put p50, us",
            Self::PutP99 => "put p99, us",
            Self::CpuPerCall => "CPU us a call",
        }
    }

    /// Decimal places worth showing.
    pub(crate) fn digits(self) -> usize {
        match self {
            Self::CallsPerSecond | Self::MegabytesPerSecond => 0,
            Self::GetP50 | Self::GetP99 | Self::PutP50 | Self::PutP99 => 0,
            Self::NanosPerCall | Self::Hits | Self::CpuPerCall => 1,
        }
    }
}

/// The figures of one contestant in one round.
pub(crate) type Sample = BTreeMap<Metric, f64>;
