//! `Workload`: a generator of requests: popular objects by Zipf's law, and sometimes a scan over
//! objects that are requested only once.
//!
//! The same workload and seed give the same requests.

use rand::distr::Distribution;
use rand::distr::weighted::{Error, WeightedIndex};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::trace::Trace;
use crate::traces::Request;

/// A range of byte counts.
type Bytes = std::ops::RangeInclusive<u64>;

#[derive(Debug)]
pub(crate) struct Workload {
    /// The least number; a scan is not cut short.
    pub(crate) requests: usize,
    /// Popular objects. At least one.
    pub(crate) objects: usize,
    /// The exponent of Zipf's law: 0 is uniform, 1 is steep.
    pub(crate) skew: f64,
    /// Requests per thousand that begin a scan.
    pub(crate) scans_per_mille: u32,
    /// The longest scan, in objects. At least one.
    pub(crate) scan_length_max: usize,
    /// The range of object sizes, log-uniform.
    pub(crate) sizes: Bytes,
}

impl Workload {
    /// A workload in which a third of the requests are scans. Its working set is 8 KB per request.
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

    /// The requests for `seed`.
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

/// A size within `sizes`, log-uniform: the magnitude is drawn first.
fn size(sizes: &Bytes, random: &mut StdRng) -> u64 {
    let (least, most) = (*sizes.start(), *sizes.end());
    let bits = random.random_range(least.max(1).ilog2()..=most.max(1).ilog2());
    let magnitude = 1u64 << bits;
    random.random_range(magnitude..=magnitude.saturating_mul(2) - 1).clamp(least, most)
}
