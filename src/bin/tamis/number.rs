//! Decimal numbers, in arguments and in figures.

use std::ops::RangeInclusive;

/// A number of a range, in an argument.
pub(super) fn within(
    range: RangeInclusive<f64>,
) -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync {
    move |text| {
        let number = text.parse().map_err(|error| format!("{error}"))?;
        if range.contains(&number) {
            Ok(number)
        } else {
            Err(format!("it is not within {} to {}", range.start(), range.end()))
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "for people, and 53 bits are enough for them")]
pub(super) fn float(figure: u64) -> f64 {
    figure as f64
}
