//! What a replay has found: as text, as JSON, and as a plot.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::super::chart::{BLUE, Curve, GREEN, GREY, ORANGE, Panel, Point};
use super::super::number::float;
use super::super::output::{shown, size};
use super::super::table::Table;
use super::run::Outcome;
use super::simulated::{Policy, Simulated};
use super::subject::Subject;

pub(super) fn write(subject: &Subject<'_>, outcomes: &[Outcome]) -> io::Result<()> {
    let mut output = io::stdout().lock();
    let scan = &subject.scan;
    let about = if scan.is_estimated() { "about " } else { "" };
    writeln!(
        output,
        "{} ({}): {} requests, {about}{} objects, {about}{}; the largest {}\n",
        shown(&subject.asked.trace.to_string_lossy()),
        subject.format,
        scan.requests,
        scan.objects(),
        size(subject.working_set()),
        size(subject.largest()),
    )?;
    let has_disk = outcomes.iter().any(|outcome| outcome.budget.l2_bytes.is_some());
    let mut header = vec!["budget", "tamis"];
    header.extend(Policy::ALL.map(Policy::title));
    header.push("hits in memory");
    if has_disk {
        header.extend(["hits on disk", "memory", "disk", "not admitted", "read", "written"]);
        header.push("write ampl.");
    }
    let mut table = Table::new(&header);
    for outcome in outcomes {
        let tally = &outcome.tally;
        let percent = |count: u64| format!("{:.2} %", 100.0 * ratio(count, tally.requests));
        let mut row = vec![size(outcome.budget.bytes), percent(tally.misses)];
        row.extend(outcome.others.iter().map(|other| percent(other.misses)));
        row.push(percent(tally.l1_hits));
        if has_disk {
            row.push(percent(tally.l2_hits));
            row.push(size(outcome.budget.l1_bytes));
            row.push(outcome.budget.l2_bytes.map_or_else(|| "-".to_owned(), size));
            row.push(percent(outcome.stats.l2_not_admitted()));
            row.push(size(outcome.stats.l2_read_bytes()));
            row.push(size(outcome.stats.l2_write_bytes()));
            row.push(amplification(outcome).map_or("-".to_owned(), |it| format!("{it:.2}")));
        }
        table.row(row);
    }
    write!(output, "Misses of tamis, and of other policies:\n{table}")
}

pub(super) fn write_json(subject: &Subject<'_>, outcomes: &[Outcome]) -> io::Result<()> {
    let scan = &subject.scan;
    let object = json!({
        "trace": subject.asked.trace.to_string_lossy(),
        "format": subject.format.to_string(),
        "requests": scan.requests,
        "objects": scan.objects(),
        "bytes": subject.working_set(),
        "is_estimated": scan.is_estimated(),
        "largest_bytes": subject.largest(),
        "budgets": outcomes.iter().map(budget).collect::<Vec<_>>(),
    });
    writeln!(io::stdout(), "{object}")
}

fn budget(outcome: &Outcome) -> Value {
    let Outcome { budget, tally, stats, others } = outcome;
    let index = stats.memory_index_bytes() + stats.memory_synopsis_bytes();
    let on_disk = |figure: u64| budget.l2_bytes.map(|_| figure);
    let other = |other: &Simulated| {
        json!({
            "policy": other.policy().name(),
            "misses": other.misses,
            "miss_ratio": ratio(other.misses, tally.requests),
            "missed_bytes": other.missed_bytes,
            "byte_miss_ratio": ratio(other.missed_bytes, tally.requested_bytes),
        })
    };
    json!({
        "budget_bytes": budget.bytes,
        "l1_bytes": budget.l1_bytes,
        "l2_bytes": budget.l2_bytes,
        "requests": tally.requests,
        "l1_hits": tally.l1_hits,
        "l2_hits": on_disk(tally.l2_hits),
        "misses": tally.misses,
        "miss_ratio": ratio(tally.misses, tally.requests),
        "requested_bytes": tally.requested_bytes,
        "missed_bytes": tally.missed_bytes,
        "byte_miss_ratio": ratio(tally.missed_bytes, tally.requested_bytes),
        "too_large": tally.too_large,
        "not_admitted": on_disk(stats.l2_not_admitted()),
        "put_bytes": tally.put_bytes,
        "read_bytes": on_disk(stats.l2_read_bytes()),
        "written_bytes": on_disk(stats.l2_write_bytes()),
        "write_amplification": amplification(outcome),
        "index_bytes": budget.l2_bytes.map(|_| index),
        "others": others.iter().map(other).collect::<Vec<_>>(),
    })
}

/// Misses over sizes.
pub(super) fn panel(subject: &Subject<'_>, outcomes: &[Outcome]) -> Panel {
    let curve = |name: &str, colour, width, misses: &dyn Fn(&Outcome) -> u64| {
        let point = |outcome: &Outcome| Point {
            x: float(outcome.budget.bytes),
            y: 100.0 * ratio(misses(outcome), outcome.tally.requests),
            range: None,
        };
        let points = outcomes.iter().map(point).collect();
        Curve { name: name.to_owned(), colour, width, points }
    };
    let colours = [ORANGE, GREY, GREEN];
    let mut curves = vec![curve("tamis", BLUE, 2, &|outcome| outcome.tally.misses)];
    for (place, (policy, colour)) in Policy::ALL.into_iter().zip(colours).enumerate() {
        curves.push(curve(policy.title(), colour, 1, &|outcome| outcome.others[place].misses));
    }
    let name = subject.asked.trace.file_name().unwrap_or_default().to_string_lossy();
    let tiers = if subject.asked.l2.is_some() { "memory and disk" } else { "memory" };
    Panel {
        title: format!("{}, {tiers}", shown(&name)),
        x_title: "size",
        y_title: "misses, % of the requests",
        x_label: |bytes| size(whole(bytes)),
        x_base: 2.0,
        is_from_zero: false,
        curves,
    }
}

/// Bytes written for each byte put. None without a disk tier, or without puts.
fn amplification(outcome: &Outcome) -> Option<f64> {
    let put = Some(outcome.tally.put_bytes).filter(|put| *put > 0)?;
    outcome.budget.l2_bytes.map(|_| ratio(outcome.stats.l2_write_bytes(), put))
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { float(part) / float(whole) }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
fn whole(figure: f64) -> u64 {
    figure as u64
}
