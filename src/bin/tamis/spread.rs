//! `Spread`: repeated measurements of one quantity.
//!
//! Shared with `examples/disk` and `crates/hit-ratio`.

#[derive(Debug, Clone, Default)]
pub(crate) struct Spread(Vec<f64>);

impl Spread {
    pub(crate) fn push(&mut self, value: f64) {
        let place = self.0.partition_point(|other| *other < value);
        self.0.insert(place, value);
    }

    /// Median, minimum and maximum, with that many digits; empty without measurements.
    pub(crate) fn show(&self, digits: usize) -> String {
        let (Some(least), Some(most)) = (self.0.first(), self.0.last()) else {
            return "-".to_owned();
        };
        let median = self.median();
        format!("{median:.digits$} ({least:.digits$}..{most:.digits$})")
    }

    /// Ascending.
    pub(crate) fn values(&self) -> impl Iterator<Item = f64> {
        self.0.iter().copied()
    }

    pub(crate) fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        let upper = self.0.get(middle).copied().unwrap_or(f64::NAN);
        match self.0.get(middle.wrapping_sub(1)) {
            Some(lower) if self.0.len() % 2 == 0 => f64::midpoint(*lower, upper),
            _ => upper,
        }
    }
}
