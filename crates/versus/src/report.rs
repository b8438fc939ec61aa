//! `Report`: all outcomes, with the machine that they belong to.

use serde::Serialize;

use crate::Error;
use crate::bench::Bench;
use crate::contest::Outcome;
use crate::machine::Machine;

/// The outcome of one contest of a row.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    pub(crate) row: &'static str,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

/// All that a run has found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    is_quick: bool,
    notes: Vec<String>,
    pub(crate) entries: Vec<Entry>,
}

impl Report {
    pub(crate) fn new(bench: &Bench) -> Result<Self, Error> {
        let machine = Machine::describe(bench.directory())?;
        Ok(Self { machine, is_quick: bench.quick, notes: Vec::new(), entries: Vec::new() })
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(crate) fn add(&mut self, row: &'static str, outcome: Outcome) {
        self.entries.push(Entry { row, outcome });
    }

    /// Adds what was left out, and why.
    pub(crate) fn finish(&mut self, notes: Vec<String>) {
        self.notes = notes;
    }

    pub(crate) fn json(&self) -> Result<String, Error> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// How many bars were met, and the notes.
    pub(crate) fn summary(&self) -> String {
        let bars = self.entries.iter().flat_map(|entry| &entry.outcome.bars);
        let verdicts: Vec<_> = bars.map(|judged| judged.is_met).collect();
        let count = |verdict| verdicts.iter().filter(|is_met| **is_met == verdict).count();
        let (met, missed) = (count(Some(true)), count(Some(false)));
        let mut lines = vec![format!(
            "{met} bars met, {missed} missed, {} not measured",
            verdicts.len() - met - missed
        )];
        if self.is_quick {
            lines.push("--quick: these figures mean nothing".to_owned());
        }
        lines.extend(self.notes.iter().cloned());
        lines.join("\n")
    }
}
