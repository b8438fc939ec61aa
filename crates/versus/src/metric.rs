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
    Seconds,
    RecordsPerSecond,
    /// Until a call returned.
    Returned,
    /// Until a call was in force for all gets that started later.
    InForce,
    /// The longest that one of the calls took.
    Worst,
    /// Of the values asked for, in percent.
    Hits,
    GetP50,
    GetP99,
    PutP50,
    PutP99,
    /// CPU time of all threads of the process, kernel time included, in microseconds per call.
    CpuPerCall,
    /// CPU time of all threads of the process, in percent of the time that passed.
    CpuShare,
    DiskReads,
    /// The most memory that the process ever held, as a factor of what it holds afterwards.
    PeakMemory,
    /// Memory of the index for each entry.
    IndexBytes,
}

impl Metric {
    /// The head of its column.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::CallsPerSecond => "calls/s",
            Self::MegabytesPerSecond => "MB/s",
            Self::NanosPerCall => "ns a call",
            Self::Seconds => "seconds",
            Self::RecordsPerSecond => "records/s",
            Self::Returned => "returned, us",
            Self::InForce => "in force, us",
            Self::Worst => "worst, us",
            Self::Hits => "hits, %",
            Self::GetP50 => "get p50, us",
            Self::GetP99 => "get p99, us",
            Self::PutP50 => "put p50, us",
            Self::PutP99 => "put p99, us",
            Self::CpuPerCall => "CPU us a call",
            Self::CpuShare => "CPU, %",
            Self::DiskReads => "disk reads",
            Self::PeakMemory => "peak memory / steady",
            Self::IndexBytes => "index bytes an entry",
        }
    }

    /// Decimal places worth showing.
    pub(crate) fn digits(self) -> usize {
        match self {
            Self::NanosPerCall | Self::Hits | Self::CpuPerCall | Self::Returned => 1,
            Self::InForce | Self::IndexBytes => 1,
            Self::PeakMemory => 2,
            Self::Seconds | Self::CpuShare => 3,
            _ => 0,
        }
    }
}

/// The figures of one contestant in one round.
pub(crate) type Sample = BTreeMap<Metric, f64>;
