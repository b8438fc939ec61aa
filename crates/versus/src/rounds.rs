//! `Rounds`: what one contestant has done in a contest.

use serde::Serialize;

use crate::metric::{Metric, Sample};

/// Its samples, one for each round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Rounds {
    pub(crate) name: String,
    pub(crate) samples: Vec<Sample>,
}

impl Rounds {
    /// One figure of each round.
    pub(crate) fn figures(&self, metric: Metric) -> impl Iterator<Item = f64> {
        self.samples.iter().filter_map(move |sample| sample.get(&metric).copied())
    }
}
