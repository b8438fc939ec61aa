//! What each public call costs with more and more records on disk: a call should not pay for what
//! it does not touch.
//!
//! Half of the records are in one namespace, half in another one; each has a tag. A third namespace
//! has 1,000 keys. A repeated call counts as many rounds as it was made.

use crate::Error;
use crate::bar::Bar;
use crate::bench::Bench;
use crate::caches::Kind;
use crate::contest::{Contest, Outcome};
use crate::load::two_workers;
use crate::metric::Metric::{CallsPerSecond, RecordsPerSecond, Returned};
use crate::rows::store::remove;

use self::calls::Calls;
use self::store::{Store, VALUE_BYTES};
use super::device::{ONE_WRITE, one_write};

mod beside;
mod calls;
mod once;
mod repeated;
mod store;
mod verbs;

/// What a record and its tag take in the image of the index that a close writes.
const IMAGE_BYTES: f64 = 64.0;

/// What the device takes to write a MiB, in us, at 1 GB/s.
const MIB_WRITTEN: f64 = 1_000.0;

pub(super) fn run(bench: &Bench) -> Result<Vec<Outcome>, Error> {
    let sizes: &[(&str, u64)] = bench.pick(
        &[("100 k", 100_000), ("1 M", 1_000_000), ("10 M", 10_000_000)],
        &[("20 k", 20_000), ("40 k", 40_000)],
    );
    let mut calls = Calls::default();
    for (size, records) in sizes {
        measure(bench, size, *records, &mut calls)?;
    }
    let write = match one_write(bench) {
        Some(mut write) => Some(write.round()?),
        None => None,
    };
    let outcomes = calls
        .into_iter()
        .map(|(call, mut rounds)| {
            let flushes = [once::FLUSH, once::FLUSH_ALL].contains(&call);
            rounds.extend(write.clone().filter(|_| flushes));
            contest(call, sizes).judge(rounds)
        })
        .collect();
    Ok(outcomes)
}

pub(super) fn run_verbs(bench: &Bench) -> Result<Vec<Outcome>, Error> {
    Ok(vec![verbs::run(bench)?])
}

/// The bars of a call, at each size.
fn contest(call: &'static str, sizes: &[(&str, u64)]) -> Contest {
    let metric = if call == beside::OVERWRITES { CallsPerSecond } else { Returned };
    let contest = Contest::new(call, metric, sizes[0].0);
    sizes.iter().fold(contest, |contest, (size, records)| match call {
        once::FLUSH | once::FLUSH_ALL => {
            contest.bar(Bar::at_most(1_000.0, Returned).above(ONE_WRITE).by(size))
        }
        repeated::PREFIX => contest.bar(Bar::at_most(5_000.0, Returned).by(size)),
        once::OPEN => contest.bar(Bar::at_least(4e6, RecordsPerSecond).by(size)),
        once::CLOSE => {
            let image = (*records as f64) * IMAGE_BYTES / f64::from(1 << 20);
            contest.bar(Bar::at_most(100_000.0 + image * MIB_WRITTEN, Returned).by(size))
        }
        beside::OVERWRITES => contest
            .bar(Bar::at_least(0.8, CallsPerSecond).times(size).by(&beside::beside_prefixes(size))),
        _ => contest,
    })
}

/// All calls with that many records.
fn measure(bench: &Bench, size: &str, records: u64, calls: &mut Calls) -> Result<(), Error> {
    bench.tell(&format!("put {size} records"));
    let path = bench.path("growth");
    let runtime = two_workers()?;
    runtime.block_on(async {
        // Room for what the calls put.
        let room = records + records / 4 + 100_000;
        let mut setup = Kind::Tamis.roomy(8 << 20, room, VALUE_BYTES);
        setup.labels_each = 1;
        let store = Store::filled(path.clone(), setup, records / 2).await?;
        bench.tell(&format!("calls with {size} records"));
        repeated::measure(&store, size, calls).await?;
        beside::measure(bench, &store, size, calls).await?;
        once::measure(store, size, calls).await
    })?;
    remove(&path)
}
