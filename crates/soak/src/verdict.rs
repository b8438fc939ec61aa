//! What must hold of a soak, whatever the machine.

use crate::report::{Report, middle};
use crate::verb::Verb;

/// Resident memory as a multiple of the bound, and late memory as a multiple of early memory.
const RATIO_MAX: f64 = 1.15;

/// Samples below which memory that grows says nothing: the store is still being filled.
const SAMPLES_MIN: usize = 60;

/// Everything that is wrong; empty if nothing is.
pub(crate) fn complaints(report: &Report) -> Vec<String> {
    let (bounds, counts) = (report.bounds, report.counts);
    let mut complaints = Vec::new();
    let mut expect = |holds: bool, complaint: &str| {
        if !holds {
            complaints.push(complaint.to_owned());
        }
    };
    expect(counts.wrong == 0, "a hit had a value that was never put under its key");
    expect(counts.stale == 0, "a hit had an older value than the newest");
    expect(counts.failed == 0, "a call returned an error");
    expect(counts.io_errors + counts.corruptions == 0, "the file had errors");
    expect(report.samples.iter().all(|sample| sample.is_on), "the disk tier was turned off");
    let of = |verb: Verb| report.samples.iter().map(move |it| it.verbs[verb.place()].calls);
    expect(Verb::ALL.iter().all(|&verb| of(verb).sum::<u64>() > 0), "a verb was never called");
    let most = report.samples.iter().map(|sample| sample.resources.resident).max().unwrap_or(0);
    expect(report.share(most) <= RATIO_MAX, "resident memory was above the stated bounds");
    let resources = || report.samples.iter().map(|sample| sample.resources);
    expect(resources().all(|it| it.descriptors <= bounds.descriptors), "too many descriptors");
    expect(resources().all(|it| it.threads <= bounds.threads), "too many threads");
    let idle = (report.idle.descriptors, report.idle.threads);
    let is_idle = report.closed.iter().all(|it| (it.descriptors, it.threads) == idle);
    expect(is_idle, "a close left descriptors or threads behind");
    if report.samples.len() >= SAMPLES_MIN {
        let residents: Vec<_> = resources().map(|it| it.resident).collect();
        let quarter = residents.len() / 4;
        let early = middle(residents[quarter..2 * quarter].iter().copied());
        let late = middle(residents[3 * quarter..].iter().copied());
        expect(late as f64 <= early as f64 * RATIO_MAX, "resident memory has grown");
    }
    complaints
}
