//! Opening a store of many small records: after its process was killed, and after it was closed.
//!
//! Each open is in a process of its own, so that its peak memory is known. foyer is left out: with
//! a block for each record it would take 40 GiB.

use crate::Error;
use crate::bar::Bar;
use crate::bench::Bench;
use crate::caches::Kind;
use crate::child::{Order, VALUE_BYTES, copy};
use crate::contest::{Contest, Contestant, Outcome};
use crate::metric::Metric::{PeakMemory, RecordsPerSecond, Seconds};
use crate::metric::Sample;

use super::store::remove;

const MEMORY_BYTES: usize = 8 << 20;

const AFTER_KILL: &str = "tamis, after a kill";
const CACHE2: &str = "cache2";
const AFTER_CLOSE: &str = "tamis, after a close";

pub(super) fn run(bench: &Bench) -> Result<Vec<Outcome>, Error> {
    let records = bench.pick(10_000_000, 100_000);
    let order = |kind: Kind, name: &str, fills, closes| {
        let setup = kind.roomy(MEMORY_BYTES, records, VALUE_BYTES);
        Order { kind, path: bench.path(name), setup, fills, closes }
    };
    bench.tell("fill a store in a process that is killed");
    order(Kind::Tamis, "killed", records, false).give()?;
    copy(&bench.path("killed"), &bench.path("closed"))?;
    let (killed, closed) =
        (order(Kind::Tamis, "killed", 0, false), order(Kind::Tamis, "closed", 0, true));
    // Copied from a killed store: closed for the first time here.
    closed.give()?;
    let cache2 = Kind::ALL.iter().find(|kind| kind.name() == CACHE2).copied();
    if let Some(kind) = cache2 {
        bench.tell("fill cache2");
        order(kind, CACHE2, records, true).give()?;
    }
    let cache2 = cache2.map(|kind| order(kind, CACHE2, 0, true));
    let mut contestants = vec![
        Contestant::new(AFTER_KILL, || measure(&killed, records)),
        Contestant::new(AFTER_CLOSE, || measure(&closed, records)),
    ];
    if let Some(cache2) = &cache2 {
        contestants.push(Contestant::new("cache2, after a close", || measure(cache2, records)));
    }
    let outcome = Contest::new(format!("{records} records"), Seconds, AFTER_KILL)
        .bar(Bar::at_least(4e6, RecordsPerSecond).by(AFTER_KILL))
        .bar(Bar::at_most(1.3, PeakMemory).by(AFTER_KILL))
        .bar(Bar::at_most(1.0, Seconds).by(AFTER_CLOSE))
        .bar(Bar::at_most(1.3, PeakMemory).by(AFTER_CLOSE))
        .run(bench, contestants)?;
    for name in ["killed", "closed", CACHE2] {
        remove(&bench.path(name))?;
    }
    Ok(vec![outcome])
}

fn measure(order: &Order, records: u64) -> Result<Sample, Error> {
    let answer = order.give()?;
    // A few records near the end may be lost in a kill.
    if answer.entries.is_some_and(|entries| entries < records / 100 * 99) {
        return Err(format!("only {:?} of {records} records were found", answer.entries).into());
    }
    let seconds = answer.open.as_secs_f64();
    Ok(Sample::from([
        (Seconds, seconds),
        (RecordsPerSecond, records as f64 / seconds),
        (PeakMemory, answer.peak_bytes as f64 / answer.steady_bytes as f64),
    ]))
}
