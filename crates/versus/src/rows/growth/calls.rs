//! `Calls`: the figures of each call, size by size.

use crate::metric::Sample;
use crate::rounds::Rounds;

/// In the order in which they were measured first.
#[derive(Default)]
pub(super) struct Calls(Vec<(&'static str, Vec<Rounds>)>);

impl Calls {
    /// Adds what a call took; `size` may say more than the size.
    pub(super) fn add(&mut self, call: &'static str, size: &str, samples: Vec<Sample>) {
        let rounds = Rounds { name: size.to_owned(), samples };
        match self.0.iter_mut().find(|(known, _)| *known == call) {
            Some((_, sizes)) => sizes.push(rounds),
            None => self.0.push((call, vec![rounds])),
        }
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = (&'static str, Vec<Rounds>)> {
        self.0.into_iter()
    }
}
