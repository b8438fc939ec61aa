//! `tamis verify`: every checksum of a store.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::{Value, json};
use tamis::{DamagedPart, StoreDamage, StoreReader, VerifyEvent, VerifyReport};

use super::arguments::Store;
use super::failure::{DAMAGED, Failure};
use super::output::{set_key, shown, shown_bytes};
use super::progress::bar;

pub(super) fn run(store: &Store, is_json: bool) -> Result<ExitCode, Failure> {
    let (report, failed) = check(&store.open()?, is_json)?;
    let summary = if is_json { report_object(&report).to_string() } else { summary(&report) };
    match failed.map_or_else(|| writeln!(io::stdout(), "{summary}"), Err) {
        // Nobody wants to read it, but the exit code may be asked for.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    Ok(if report.damaged == 0 { ExitCode::SUCCESS } else { ExitCode::from(DAMAGED) })
}

/// Checks all of a store, with a line for each damage; and why a line was not written.
pub(super) fn check(
    store: &StoreReader,
    is_json: bool,
) -> Result<(VerifyReport, Option<io::Error>), Failure> {
    let bar = bar();
    let mut failed = None;
    let verified = store.verify(|event| match event {
        VerifyEvent::Progress { done, total } => {
            bar.set_length(total);
            bar.set_position(done);
        }
        VerifyEvent::Damage(damage) if failed.is_none() => {
            let line = if is_json { object(&damage).to_string() } else { line(&damage) };
            bar.suspend(|| failed = writeln!(io::stdout(), "{line}").err());
        }
        _ => {}
    });
    bar.finish_and_clear();
    Ok((verified?, failed))
}

fn part(part: DamagedPart) -> &'static str {
    match part {
        DamagedPart::Superblock => "superblock",
        DamagedPart::SegmentHeader => "segment_header",
        DamagedPart::Directory => "directory",
        DamagedPart::Frame => "frame",
        DamagedPart::Record => "record",
        DamagedPart::IndexImage => "index_image",
        _ => "segment",
    }
}

fn object(damage: &StoreDamage) -> Value {
    let mut object = json!({
        "part": part(damage.part),
        "segment": damage.segment,
        "offset": damage.offset,
        "namespace": damage.namespace,
        "key": null,
        "reason": damage.reason,
    });
    damage.key.iter().for_each(|key| set_key(&mut object, key));
    json!({ "damage": object })
}

fn report_object(report: &VerifyReport) -> Value {
    json!({ "report": {
        "segments": report.segments,
        "records": report.records,
        "damaged": report.damaged,
        "overwritten": report.overwritten,
        "index_image": report.has_image,
    }})
}

fn line(damage: &StoreDamage) -> String {
    let known = |figure: Option<u64>| figure.map_or_else(|| "-".to_owned(), |it| it.to_string());
    [
        part(damage.part).to_owned(),
        known(damage.segment),
        known(damage.offset),
        damage.namespace.as_deref().map_or_else(|| "-".to_owned(), shown),
        damage.key.as_deref().map_or_else(|| "-".to_owned(), shown_bytes),
        damage.reason.clone(),
    ]
    .join("\t")
}

fn summary(report: &VerifyReport) -> String {
    let VerifyReport { segments, records, damaged, overwritten, .. } = report;
    let found = match damaged {
        0 => "nothing is damaged".to_owned(),
        _ => format!("DAMAGED: {damaged} parts, listed above"),
    };
    let meanwhile = match overwritten {
        0 => String::new(),
        _ => format!("; the owner has overwritten {overwritten} segments meanwhile"),
    };
    format!("{segments} segments with {records} good records: {found}{meanwhile}")
}
