//! `Arguments`: the command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Parser;
use clap::builder::PossibleValuesParser;

use crate::rows;

/// Measures tamis beside foyer, moka, quick_cache, dashmap, and the device.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// Tiny sizes, a single short round: shows that all of it works, and measures nothing.
    #[arg(long)]
    pub(crate) quick: bool,

    /// The rows to measure. [default: all]
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(rows::names()))]
    pub(crate) rows: Vec<String>,

    /// Where the temporary directory of all stores is made. [default: beside this program]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,

    /// Rounds of each contest. [default: 5, or 1 with --quick]
    #[arg(long)]
    pub(crate) rounds: Option<NonZeroUsize>,

    /// Where to write all samples as JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,

    /// The order of a child process.
    #[arg(long, hide = true)]
    pub(crate) child: Option<String>,

    /// Where to draw the medians and their spread as SVG.
    #[arg(long)]
    pub(crate) svg: Option<PathBuf>,
}

impl Arguments {
    /// Whether a row is to be measured.
    pub(crate) fn includes(&self, row: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|name| name == row)
    }
}
