//! `Contest`: the same work by several contestants, in alternation.

use std::fmt;

use serde::Serialize;

use crate::Error;
use crate::bar::{Bar, Judged};
use crate::bench::Bench;
use crate::metric::{Metric, Sample};
use crate::rounds::Rounds;
use crate::spread::Spread;
use crate::table::Table;

/// Measures once.
type Measure<'a> = Box<dyn FnMut() -> Result<Sample, Error> + 'a>;

/// A way to do the work.
pub(crate) struct Contestant<'a> {
    name: String,
    measure: Measure<'a>,
}

impl<'a> Contestant<'a> {
    pub(crate) fn new(name: &str, measure: impl FnMut() -> Result<Sample, Error> + 'a) -> Self {
        Self { name: name.to_owned(), measure: Box::new(measure) }
    }

    /// A single measurement, outside a contest.
    pub(crate) fn round(&mut self) -> Result<Rounds, Error> {
        Ok(Rounds { name: self.name.clone(), samples: vec![(self.measure)()?] })
    }
}

/// The work in words, the figure that ratios compare, and the bars.
pub(crate) struct Contest {
    title: String,
    metric: Metric,
    base: String,
    rounds: Option<usize>,
    bars: Vec<Bar>,
}

/// All that a contest has found.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) title: String,
    pub(crate) metric: Metric,
    pub(crate) base: String,
    pub(crate) contestants: Vec<Rounds>,
    pub(crate) bars: Vec<Judged>,
}

impl Contest {
    /// Ratios compare this figure with that of the contestant named `base`.
    pub(crate) fn new(title: impl Into<String>, metric: Metric, base: &str) -> Self {
        let (title, base) = (title.into(), base.to_owned());
        Self { title, metric, base, rounds: None, bars: Vec::new() }
    }

    /// That many rounds, in place of what the command line says.
    pub(crate) fn rounds(self, rounds: usize) -> Self {
        Self { rounds: Some(rounds), ..self }
    }

    pub(crate) fn bar(mut self, bar: Bar) -> Self {
        self.bars.push(bar);
        self
    }

    pub(crate) fn run(
        self,
        bench: &Bench,
        mut contestants: Vec<Contestant<'_>>,
    ) -> Result<Outcome, Error> {
        let names = contestants.iter().map(|one| one.name.clone());
        let mut results: Vec<_> = names.map(|name| Rounds { name, samples: Vec::new() }).collect();
        for first in 0..self.rounds.unwrap_or(bench.rounds) {
            for turn in 0..contestants.len() {
                let place = (first + turn) % contestants.len();
                let contestant = &mut contestants[place];
                bench.tell(&format!("{}, round {}: {}", self.title, first + 1, contestant.name));
                let sample = (contestant.measure)();
                let named = |error| format!("{}, {}: {error}", self.title, contestant.name);
                results[place].samples.push(sample.map_err(named)?);
            }
        }
        Ok(self.judge(results))
    }

    /// Judges what was measured elsewhere.
    pub(crate) fn judge(self, contestants: Vec<Rounds>) -> Outcome {
        let bars = self.bars.iter().map(|bar| bar.judge(&contestants)).collect();
        let Self { title, metric, base, .. } = self;
        Outcome { title, metric, base, contestants, bars }
    }
}

impl Outcome {
    /// The ratio to the base, if that is there.
    fn ratio(&self, rounds: &Rounds) -> Option<Spread> {
        let base = self.contestants.iter().find(|one| one.name == self.base)?;
        let pairs = rounds.figures(self.metric).zip(base.figures(self.metric));
        Spread::of(pairs.map(|(own, base)| own / base))
    }

    fn metrics(&self) -> Vec<Metric> {
        let samples = self.contestants.iter().flat_map(|one| &one.samples);
        let mut metrics: Vec<_> = samples.flat_map(|sample| sample.keys().copied()).collect();
        metrics.sort_unstable();
        metrics.dedup();
        metrics
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metrics = self.metrics();
        let (mut head, beside) = (vec![&*self.title], format!("x {}", self.base));
        for metric in &metrics {
            head.push(metric.title());
            if *metric == self.metric {
                head.push(&beside);
            }
        }
        let mut table = Table::new(&head);
        for rounds in &self.contestants {
            let mut cells = vec![rounds.name.clone()];
            let show = |spread: Option<Spread>, digits| match spread {
                Some(spread) => spread.show(digits),
                None => "-".to_owned(),
            };
            for &metric in &metrics {
                cells.push(show(Spread::of(rounds.figures(metric)), metric.digits()));
                if metric == self.metric {
                    cells.push(show(self.ratio(rounds), 2));
                }
            }
            table.row(cells);
        }
        write!(formatter, "{table}")?;
        let mut bars = Table::new(&[]);
        for judged in &self.bars {
            bars.row([format!("  {}", judged.bar), judged.verdict()]);
        }
        write!(formatter, "{bars}")
    }
}
