//! `tamis inspect`: what a store is.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use serde_json::{Value, json};
use tamis::{
    CrashSafety, NextOpen, StoreCensus, StoreFacts, StoreReader, StoreSegment, StoreState,
};

use super::arguments::Store;
use super::dump::tell_missing;
use super::failure::Failure;
use super::output::{date, hex, shown, size, unix_ms};

/// A segment, with what lives in it.
struct Row {
    segment: StoreSegment,
    records: Option<u64>,
    live_entries: u64,
    live_bytes: u64,
    dead_bytes: Option<u64>,
}

pub(super) fn run(store: &Store, is_json: bool) -> Result<ExitCode, Failure> {
    let store = store.open()?;
    let contents = store.contents()?;
    let census = contents.census(0);
    let rows = rows(&store, &census);
    let mut output = BufWriter::new(io::stdout().lock());
    if is_json {
        let object = object(store.facts(), &rows, &census, contents.segments_dropped());
        writeln!(output, "{object}")?;
    } else {
        write_facts(&mut output, store.facts())?;
        write_segments(&mut output, &rows)?;
        write_namespaces(&mut output, &census)?;
    }
    output.flush()?;
    Ok(tell_missing(&contents, &census))
}

fn rows(store: &StoreReader, census: &StoreCensus) -> Vec<Row> {
    let live: BTreeMap<_, _> = census.segments.iter().map(|it| (it.number, it)).collect();
    let rows = store.segments().map(|segment| {
        let (live_entries, live_bytes) =
            live.get(&segment.number).map_or((0, 0), |it| (it.entries, it.bytes));
        let open = census.open_segment.filter(|open| open.number == segment.number);
        // Announced for what comes next.
        let is_empty = census.open_segment.is_some_and(|open| open.number < segment.number);
        let empty = (is_empty && !segment.is_sealed).then_some(0);
        let used = segment.used_bytes.or(open.map(|open| open.used_bytes)).or(empty);
        Row {
            segment,
            records: segment.records.or(open.map(|open| open.records)).or(empty),
            live_entries,
            live_bytes,
            dead_bytes: used.map(|used| used.saturating_sub(live_bytes)),
        }
    });
    rows.collect()
}

fn totals(census: &StoreCensus) -> (u64, u64, u64) {
    let sum = |of: fn(&tamis::CountedNamespace) -> u64| census.namespaces.iter().map(of).sum();
    (sum(|it| it.entries), sum(|it| it.bytes), sum(|it| it.postings))
}

fn object(facts: &StoreFacts, rows: &[Row], census: &StoreCensus, dropped: u64) -> Value {
    let (entries, entry_bytes, _) = totals(census);
    let labels: u64 = census.namespaces.iter().map(|it| it.labels).sum();
    json!({
        "path": facts.path.to_string_lossy(),
        "format_version": facts.format_version,
        "store_id": hex(&facts.store_id),
        "crash_safety": mode(facts.crash_safety),
        "state": state(facts.state).0,
        "next_open": next_open(facts.next_open).0,
        "opens": facts.opens,
        "created_unix_ms": unix_ms(facts.created),
        "file_bytes": facts.file_bytes,
        "store_bytes": facts.store_bytes,
        "segment_bytes": facts.segment_bytes,
        "segment_count": facts.segment_count,
        "log_bytes": facts.log_bytes,
        "live": facts.is_live,
        "segments_dropped": dropped,
        "entries": entries,
        "entry_bytes": entry_bytes,
        "labels": labels,
        "segments": rows.iter().map(segment_object).collect::<Vec<_>>(),
        "namespaces": census.namespaces.iter().map(|it| json!({
            "name": it.name,
            "entries": it.entries,
            "bytes": it.bytes,
            "labels": it.labels,
            "postings": it.postings,
        })).collect::<Vec<_>>(),
    })
}

fn segment_object(row: &Row) -> Value {
    json!({
        "number": row.segment.number,
        "place": row.segment.place,
        "offset": row.segment.offset,
        "sealed": row.segment.is_sealed,
        "records": row.records,
        "live_entries": row.live_entries,
        "live_bytes": row.live_bytes,
        "dead_bytes": row.dead_bytes,
    })
}

pub(super) fn mode(mode: CrashSafety) -> &'static str {
    match mode {
        CrashSafety::Cold => "cold",
        CrashSafety::Process => "process",
        CrashSafety::Power => "power",
    }
}

fn state(state: StoreState) -> (&'static str, &'static str) {
    match state {
        StoreState::Clean => ("clean", "it was closed"),
        StoreState::Unclean => ("unclean", "it has an owner, or that ended without a close"),
        StoreState::Void => ("void", "it was turned off, and nothing in it may be served"),
        _ => ("unfinished", "its creation was never finished"),
    }
}

fn next_open(next: NextOpen) -> (&'static str, &'static str) {
    match next {
        NextOpen::Warm => ("warm", "finds the entries"),
        NextOpen::EmptyCold => ("empty_cold", "begins EMPTY: the mode is Cold"),
        NextOpen::EmptyOtherBoot => {
            ("empty_other_boot", "begins EMPTY: another boot of the machine since, in mode Process")
        }
        NextOpen::EmptyVoid => ("empty_void", "begins EMPTY: the store is void"),
        NextOpen::EmptyMarked => {
            ("empty_marked", "begins EMPTY: a cache that could not open it has left a void mark")
        }
        _ => ("empty_unfinished", "begins EMPTY: there was never anything"),
    }
}

fn write_facts(output: &mut impl Write, facts: &StoreFacts) -> io::Result<()> {
    let StoreFacts { segment_count, opens, format_version, .. } = facts;
    let (state, left) = state(facts.state);
    let segment_bytes = size(facts.segment_bytes.into());
    writeln!(output, "store       {}", shown(&facts.path.to_string_lossy()))?;
    writeln!(output, "format      {format_version}")?;
    writeln!(output, "id          {}", hex(&facts.store_id))?;
    writeln!(output, "mode        {}", mode(facts.crash_safety))?;
    writeln!(output, "state       {state}: {left}")?;
    writeln!(output, "next open   {}", next_open(facts.next_open).1)?;
    writeln!(output, "opens       {opens}, created {}", date(facts.created))?;
    writeln!(
        output,
        "file        {} ({} bytes), {segment_count} segments of {segment_bytes}",
        size(facts.file_bytes),
        facts.file_bytes,
    )?;
    writeln!(
        output,
        "log         {} ({} bytes) written since the store was created; its write amplification \
         is not on file",
        size(facts.log_bytes),
        facts.log_bytes,
    )?;
    if facts.is_live {
        writeln!(output, "shown       as of the last sealed segment (--live)")?;
    }
    if !facts.next_open.is_warm() {
        writeln!(output, "\nWhat follows is in the file, though the next open does not find it.")?;
    }
    Ok(())
}

fn write_segments(output: &mut impl Write, rows: &[Row]) -> io::Result<()> {
    let known = |figure: Option<u64>| figure.map_or_else(|| "-".to_owned(), |it| it.to_string());
    writeln!(
        output,
        "\n{:>10} {:>8} {:>8} {:>10} {:>10} {:>14} {:>14}",
        "segment", "place", "sealed", "records", "live", "live bytes", "dead bytes"
    )?;
    for row in rows {
        writeln!(
            output,
            "{:>10} {:>8} {:>8} {:>10} {:>10} {:>14} {:>14}",
            row.segment.number,
            known(row.segment.place),
            if row.segment.is_sealed { "yes" } else { "no" },
            known(row.records),
            row.live_entries,
            row.live_bytes,
            known(row.dead_bytes),
        )?;
    }
    Ok(())
}

fn write_namespaces(output: &mut impl Write, census: &StoreCensus) -> io::Result<()> {
    writeln!(
        output,
        "\n{:>12} {:>14} {:>10} {:>10}  namespace",
        "entries", "bytes", "labels", "postings"
    )?;
    for it in &census.namespaces {
        let name = shown(&it.name);
        writeln!(
            output,
            "{:>12} {:>14} {:>10} {:>10}  {name}",
            it.entries, it.bytes, it.labels, it.postings
        )?;
    }
    let (entries, bytes, postings) = totals(census);
    writeln!(output, "{entries:>12} {bytes:>14} {:>10} {postings:>10}  (all)", "")
}
