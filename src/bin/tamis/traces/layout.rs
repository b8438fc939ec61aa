//! `Layout`: how a trace is to be read, as a command line says it.

use std::fmt;

use clap::{Args, ValueEnum};

use super::columns::Columns;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TraceFormat {
    /// By the first bytes, or the first line.
    #[default]
    Auto,
    /// A line `key,size` for each request.
    KeySize,
    /// libCacheSim's records of 24 bytes.
    OracleGeneral,
    /// Lines with any columns, as libCacheSim's csv.
    Csv,
}

impl fmt::Display for TraceFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Auto => "auto",
            Self::KeySize => "key-size",
            Self::OracleGeneral => "oracle-general",
            Self::Csv => "csv",
        })
    }
}

/// How a trace is to be read.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Layout {
    /// The format of the trace
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) format: TraceFormat,
    /// Which columns of a csv have the object's id and its size, counted from 1, as
    /// `id=2,size=3`; without a size all objects count alike [default: by the header, or 2 and 3]
    #[arg(long, value_name = "COLUMNS")]
    pub(crate) columns: Option<Columns>,
}
