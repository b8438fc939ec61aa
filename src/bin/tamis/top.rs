//! `tamis top`: what takes most of a store.

use std::cmp::Reverse;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use serde_json::{Value, json};
use tamis::{CountedNamespace, StoreCensus};

use super::arguments::Top;
use super::dump::tell_missing;
use super::failure::Failure;
use super::output::{set_key, shown, shown_bytes};

pub(super) fn run(top: &Top, is_json: bool) -> Result<ExitCode, Failure> {
    let store = top.store.open()?;
    let contents = store.contents()?;
    let census = contents.census(top.count);
    let by_bytes = first(&census, top.count, |it| it.bytes);
    let by_entries = first(&census, top.count, |it| it.entries);
    let mut output = BufWriter::new(io::stdout().lock());
    if is_json {
        let objects = |of: &[&CountedNamespace]| of.iter().map(|it| object(it)).collect::<Vec<_>>();
        let largest = census.largest.iter().map(|it| {
            let mut object = json!({ "namespace": it.namespace, "bytes": it.bytes });
            set_key(&mut object, &it.key);
            object
        });
        let found = json!({
            "by_bytes": objects(&by_bytes),
            "by_entries": objects(&by_entries),
            "largest": largest.collect::<Vec<_>>(),
            "segments_dropped": contents.segments_dropped(),
        });
        writeln!(output, "{found}")?;
    } else {
        write_namespaces(&mut output, "namespaces by bytes", &by_bytes)?;
        write_namespaces(&mut output, "\nnamespaces by entries", &by_entries)?;
        writeln!(output, "\nlargest entries\n{:>14}  namespace  key", "bytes")?;
        for it in &census.largest {
            let (namespace, key) = (shown(&it.namespace), shown_bytes(&it.key));
            writeln!(output, "{:>14}  {namespace}  {key}", it.bytes)?;
        }
    }
    output.flush()?;
    Ok(tell_missing(&contents, &census))
}

fn first(
    census: &StoreCensus,
    count: usize,
    figure: fn(&CountedNamespace) -> u64,
) -> Vec<&CountedNamespace> {
    let mut all: Vec<_> = census.namespaces.iter().collect();
    all.sort_by_key(|it| Reverse(figure(it)));
    all.truncate(count);
    all
}

fn object(namespace: &CountedNamespace) -> Value {
    json!({
        "name": namespace.name,
        "entries": namespace.entries,
        "bytes": namespace.bytes,
    })
}

fn write_namespaces(
    output: &mut impl Write,
    title: &str,
    namespaces: &[&CountedNamespace],
) -> io::Result<()> {
    writeln!(output, "{title}\n{:>14} {:>12}  namespace", "bytes", "entries")?;
    for it in namespaces {
        writeln!(output, "{:>14} {:>12}  {}", it.bytes, it.entries, shown(&it.name))?;
    }
    Ok(())
}
