//! `Bar`: what a contestant is to reach, alone or beside another one.

use serde::Serialize;

use crate::metric::Metric;
use crate::rounds::Rounds;
use crate::spread::Spread;

#[derive(Debug, Clone, Copy)]
enum Bound {
    AtLeast,
    AtMost,
}

/// What the limit is relative to.
#[derive(Debug, Clone)]
enum Reference {
    None,
    /// That many times the peer's figure.
    Times(String),
    /// That much more than the peer's figure.
    Above(String),
}

/// A limit for one figure of one contestant, tamis unless said otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    who: String,
    metric: Metric,
    bound: Bound,
    limit: f64,
    reference: Reference,
    /// A plain figure that does as well.
    enough: Option<f64>,
}

/// A bar, and how far the contestant came.
#[derive(Debug, Serialize)]
pub(crate) struct Judged {
    /// The bar in words.
    pub(crate) bar: String,
    /// In the bar's terms, a ratio for instance. None if one of the two is not there.
    pub(crate) reached: Option<Spread>,
    /// Whether the median reached it.
    pub(crate) is_met: Option<bool>,
    digits: usize,
}

impl Bar {
    fn new(metric: Metric, bound: Bound, limit: f64) -> Self {
        let who = "tamis".to_owned();
        Self { who, metric, bound, limit, reference: Reference::None, enough: None }
    }

    pub(crate) fn at_least(limit: f64, metric: Metric) -> Self {
        Self::new(metric, Bound::AtLeast, limit)
    }

    pub(crate) fn at_most(limit: f64, metric: Metric) -> Self {
        Self::new(metric, Bound::AtMost, limit)
    }

    /// Makes the limit a factor of a peer's figure.
    pub(crate) fn times(self, peer: &str) -> Self {
        Self { reference: Reference::Times(peer.to_owned()), ..self }
    }

    /// Makes the limit a distance from a peer's figure.
    pub(crate) fn above(self, peer: &str) -> Self {
        Self { reference: Reference::Above(peer.to_owned()), ..self }
    }

    /// So much is enough, whatever the peer's figure.
    pub(crate) fn or_at_least(self, enough: f64) -> Self {
        Self { enough: Some(enough), ..self }
    }

    /// Judges this contestant, in place of tamis.
    pub(crate) fn by(self, who: &str) -> Self {
        Self { who: who.to_owned(), ..self }
    }

    /// Compares round by round.
    pub(crate) fn judge(&self, contestants: &[Rounds]) -> Judged {
        let reached = self.reached(contestants);
        let is_met = reached.map(|spread| match self.bound {
            Bound::AtLeast => spread.median >= self.limit || self.has_enough(contestants),
            Bound::AtMost => spread.median <= self.limit,
        });
        let digits = match self.reference {
            Reference::Times(_) => 2,
            _ => self.metric.digits(),
        };
        Judged { bar: self.in_words(), reached, is_met, digits }
    }

    fn has_enough(&self, contestants: &[Rounds]) -> bool {
        let own = contestants.iter().find(|one| one.name == self.who);
        let own = own.and_then(|own| Spread::of(own.figures(self.metric)));
        self.enough.zip(own).is_some_and(|(enough, own)| own.median >= enough)
    }

    fn reached(&self, contestants: &[Rounds]) -> Option<Spread> {
        let of = |name: &str| contestants.iter().find(|one| one.name == name);
        let own = of(&self.who)?.figures(self.metric);
        match &self.reference {
            Reference::None => Spread::of(own),
            Reference::Times(peer) => {
                let others = of(peer)?.figures(self.metric);
                Spread::of(own.zip(others).map(|(own, other)| own / other))
            }
            Reference::Above(peer) => {
                let others = of(peer)?.figures(self.metric);
                Spread::of(own.zip(others).map(|(own, other)| own - other))
            }
        }
    }

    fn in_words(&self) -> String {
        let bound = match self.bound {
            Bound::AtLeast => ">=",
            Bound::AtMost => "<=",
        };
        let (who, title, limit) = (&self.who, self.metric.title(), self.limit);
        let enough = self.enough.map(|enough| format!(", or {bound} {enough}")).unwrap_or_default();
        match &self.reference {
            Reference::None => format!("{who}: {title} {bound} {limit}"),
            Reference::Times(peer) => format!("{who}: {title} {bound} {limit} x {peer}{enough}"),
            Reference::Above(peer) => format!("{who}: {title} {bound} {peer} + {limit}"),
        }
    }
}

impl Judged {
    /// What was reached, and the verdict.
    pub(crate) fn verdict(&self) -> String {
        match (&self.reached, self.is_met) {
            (Some(spread), Some(true)) => format!("{}  met", spread.show(self.digits)),
            (Some(spread), _) => format!("{}  MISSED", spread.show(self.digits)),
            _ => "not measured".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Bar;
    use crate::metric::{Metric, Sample};
    use crate::rounds::Rounds;

    fn rounds(name: &str, figures: &[f64]) -> Rounds {
        let samples = figures.iter().map(|figure| Sample::from([(Metric::GetP50, *figure)]));
        Rounds { name: name.to_owned(), samples: samples.collect() }
    }

    #[test]
    fn ratios_and_distances_are_of_single_rounds() {
        let both = [rounds("tamis", &[10.0, 90.0, 20.0]), rounds("fio", &[5.0, 90.0, 10.0])];
        let ratio = Bar::at_most(1.9, Metric::GetP50).times("fio").judge(&both);
        assert_eq!((ratio.is_met, ratio.reached.unwrap().median), (Some(false), 2.0));
        let distance = Bar::at_most(5.0, Metric::GetP50).above("fio").judge(&both);
        assert_eq!((distance.is_met, distance.reached.unwrap().median), (Some(true), 5.0));
        let either = Bar::at_least(3.0, Metric::GetP50).times("fio");
        assert_eq!(either.clone().judge(&both).is_met, Some(false));
        assert_eq!(either.clone().or_at_least(20.0).judge(&both).is_met, Some(true));
        assert_eq!(either.or_at_least(20.5).judge(&both).is_met, Some(false));
        let plain = Bar::at_least(20.0, Metric::GetP50).judge(&both);
        assert_eq!(plain.is_met, Some(true));
        let absent = Bar::at_least(1.0, Metric::GetP50).times("foyer").judge(&both);
        assert_eq!((absent.is_met, absent.verdict()), (None, "not measured".to_owned()));
    }
}
