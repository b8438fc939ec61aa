//! `CacheSize`: a size as it is given: a number, or a part of the working set.
//!
//! Shared with `examples/replay`.

use std::str::FromStr;

/// A cache size as given. A fraction is kept as a decimal, which is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheSize {
    Amount(u64),
    Part { numerator: u64, denominator: u64 },
}

impl CacheSize {
    pub(crate) const fn parts(numerator: u64, denominator: u64) -> Self {
        Self::Part { numerator, denominator }
    }

    /// The size for a given working set, rounded down.
    pub(crate) fn of(self, working_set: u64) -> u64 {
        match self {
            Self::Amount(amount) => amount,
            Self::Part { numerator, denominator } => {
                let part = u128::from(working_set) * u128::from(numerator);
                u64::try_from(part / u128::from(denominator)).unwrap_or(u64::MAX)
            }
        }
    }
}

impl FromStr for CacheSize {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const REASON: &str = "neither a whole number nor a decimal fraction";
        let Some((whole, digits)) = text.split_once('.') else {
            return text.parse().map(Self::Amount).map_err(|_| REASON);
        };
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !is_digits(digits) || (whole.is_empty() && digits.is_empty()) {
            return Err(REASON);
        }
        let numerator = format!("0{whole}{digits}").parse().map_err(|_| REASON)?;
        let places = u32::try_from(digits.len()).map_err(|_| REASON)?;
        let denominator = 10u64.checked_pow(places).ok_or(REASON)?;
        Ok(Self::Part { numerator, denominator })
    }
}
