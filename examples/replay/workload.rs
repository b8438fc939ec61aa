//! `Workload`: a generator of requests. Popular objects are asked for by Zipf's law, and now and
//! then a scan goes once over objects that nobody asks for again.
//!
//! The same workload and seed give the same requests.

use rand::distr::Distribution;
use rand::distr::weighted::{Error, WeightedIndex};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::trace::{Request, Trace};

/// Where a number of bytes may lie.
type Bytes = std::ops::RangeInclusive<u64>;

#[derive(Debug)]
pub(crate) struct Workload {
    /// At least so many; a scan is not cut short.
    pub(crate) requests: usize,
    /// How many objects are popular. At least one.
    pub(crate) objects: usize,
    /// The exponent of Zipf's law: 0 makes all alike, 1 is steep.
    pub(crate) skew: f64,
    /// How many requests in a thousand begin a scan.
    pub(crate) scans_per_mille: u32,
    /// The most objects that a scan goes over. At least one.
    pub(crate) scan_length_max: usize,
    /// An object's size: of any magnitude between, with equal chances.
    pub(crate) sizes: Bytes,
}

impl Workload {
    /// A workload in which scans make a third of the requests. Its working set is 8 KB a request.
    pub(crate) fn of(requests: usize) -> Self {
        Self {
            requests,
            objects: (requests / 5).max(1),
            skew: 0.9,
            scans_per_mille: 1,
            scan_length_max: 1000,
            sizes: 256..=64 << 10,
        }
    }

    /// The requests that `seed` makes of it.
    pub(crate) fn generate(&self, seed: u64) -> Result<Trace, Error> {
        let mut random = StdRng::seed_from_u64(seed);
        let ranks = (1..=self.objects).map(|rank| (rank as f64).powf(-self.skew));
        let popularity = WeightedIndex::new(ranks)?;
        let popular: Vec<_> = (0u64..)
            .take(self.objects)
            .map(|key| Request { key, size: size(&self.sizes, &mut random) })
            .collect();
        let mut unheard_of = self.objects as u64;
        let mut requests = Vec::with_capacity(self.requests + self.scan_length_max);
        while requests.len() < self.requests {
            if random.random_ratio(self.scans_per_mille.min(1000), 1000) {
                for _ in 0..random.random_range(1..=self.scan_length_max.max(1)) {
                    let size = size(&self.sizes, &mut random);
                    requests.push(Request { key: unheard_of, size });
                    unheard_of += 1;
                }
            } else {
                requests.push(popular[popularity.sample(&mut random)]);
            }
        }
        Ok(Trace::new(format!("zipf-scan-{seed}"), requests))
    }
}

/// A size within `sizes`. Small ones are as likely as large ones: first the magnitude is drawn.
fn size(sizes: &Bytes, random: &mut StdRng) -> u64 {
    let (least, most) = (*sizes.start(), *sizes.end());
    let bits = random.random_range(least.max(1).ilog2()..=most.max(1).ilog2());
    let magnitude = 1u64 << bits;
    random.random_range(magnitude..=magnitude.saturating_mul(2) - 1).clamp(least, most)
}
