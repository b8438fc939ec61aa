//! `Spread`: repeated measurements of one quantity.

use serde::Serialize;

/// Median, minimum and maximum.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// None without measurements.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let (least, most) = (*figures.first()?, *figures.last()?);
        let (lower, upper) = (figures[(figures.len() - 1) / 2], figures[figures.len() / 2]);
        Some(Self { median: f64::midpoint(lower, upper), least, most })
    }

    /// With that many decimal places.
    pub(crate) fn show(&self, digits: usize) -> String {
        let Self { median, least, most } = self;
        if least == most {
            format!("{median:.digits$}")
        } else {
            format!("{median:.digits$} ({least:.digits$}..{most:.digits$})")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        let spread = Spread::of([4.0, 1.0, 9.0, 3.0]).unwrap();
        assert_eq!(spread.show(1), "3.5 (1.0..9.0)");
        assert_eq!(Spread::of([7.0]).unwrap().show(0), "7");
        assert!(Spread::of([]).is_none());
    }
}
