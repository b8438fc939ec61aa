//! `tamis dump`: the entries of a store.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use serde_json::{Value, json};
use tamis::{KeyEntry, KeysQuery, StoreCensus, StoreContents};

use super::arguments::Dump;
use super::failure::{DAMAGED, Failure};
use super::output::{date, set_key, shown, shown_bytes, unix_ms};

pub(super) fn run(dump: &Dump, is_json: bool) -> Result<ExitCode, Failure> {
    let store = dump.store.open()?;
    let contents = store.contents()?;
    let mut output = BufWriter::new(io::stdout().lock());
    let all = if dump.namespace.is_empty() { contents.namespaces() } else { Vec::new() };
    for namespace in all.iter().chain(&dump.namespace) {
        for entry in contents.keys(namespace, query(dump)) {
            if is_json {
                writeln!(output, "{}", object(namespace, &entry))?;
            } else {
                writeln!(output, "{}", line(namespace, &entry))?;
            }
        }
    }
    output.flush()?;
    Ok(tell_missing(&contents, &contents.census(0)))
}

/// Says how much is missing because of damage.
pub(super) fn tell_missing(contents: &StoreContents, census: &StoreCensus) -> ExitCode {
    let dropped = contents.segments_dropped();
    if dropped > 0 {
        eprintln!(
            "tamis: {dropped} segments are damaged or lie before damage, and would be dropped by \
             an open: their entries are missing"
        );
    }
    let unread = census.unread.len();
    if unread > 0 {
        eprintln!(
            "tamis: the directories of {unread} segments are damaged: entries of theirs are \
             missing; `tamis verify` says which"
        );
    }
    if dropped > 0 || unread > 0 { ExitCode::from(DAMAGED) } else { ExitCode::SUCCESS }
}

fn query(dump: &Dump) -> KeysQuery {
    let mut query = KeysQuery::default().prefix(dump.prefix.as_encoded_bytes());
    if !dump.tag.is_empty() || !dump.dependency.is_empty() {
        query = query.tags(&dump.tag).dependencies(&dump.dependency);
    }
    if dump.brief { query } else { query.details() }
}

fn object(namespace: &str, entry: &KeyEntry) -> Value {
    let details = entry.has_details();
    let mut object = json!({
        "namespace": namespace,
        "bytes": entry.bytes(),
        "written_unix_ms": unix_ms(entry.written_at()),
        "expires_unix_ms": unix_ms(entry.expires_at()),
        "gone_unix_ms": unix_ms(entry.gone_at()),
        "stale": entry.is_stale(),
        "absent": details.then(|| entry.is_absent()),
        "version": entry.version(),
        "tags": details.then(|| entry.tags().collect::<Vec<_>>()),
        "dependencies": details.then(|| entry.dependencies().collect::<Vec<_>>()),
    });
    set_key(&mut object, entry.key());
    object
}

fn line(namespace: &str, entry: &KeyEntry) -> String {
    let labels = |labels: Vec<String>| match labels.is_empty() {
        true => "-".to_owned(),
        false => labels.join(","),
    };
    let version = entry.version().map_or_else(|| "-".to_owned(), |version| version.to_string());
    [
        shown(namespace),
        shown_bytes(entry.key()),
        entry.bytes().to_string(),
        date(entry.written_at()),
        date(entry.expires_at()),
        date(entry.gone_at()),
        version,
        labels(entry.tags().map(shown).collect()),
        labels(entry.dependencies().map(shown).collect()),
    ]
    .join("\t")
}
