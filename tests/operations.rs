//! What `docs/operations.md` says of figures, log lines, threads and constants is in the code.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tamis::{BlobCacheStats, Figure, NamespaceStats};

const DOCUMENT: &str = include_str!("../docs/operations.md");

/// The rows of the tables below a heading of the second level, without their heads.
fn rows(heading: &str) -> Vec<&'static str> {
    let (_, section) = DOCUMENT.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let is_head = |row: &&str| row.starts_with("| ---") || row.starts_with("| name |");
    section
        .lines()
        .filter(|line| line.starts_with('|') && !is_head(line) && !line.starts_with("| target |"))
        .collect()
}

fn all_figures() -> impl Iterator<Item = Figure> {
    BlobCacheStats::default().figures().chain(NamespaceStats::default().figures())
}

#[test]
fn the_table_of_figures_is_that_of_the_code() {
    let row = |figure: Figure| {
        let (name, kind, unit) = (figure.export_name(), figure.kind(), figure.unit());
        format!("| `{name}` | {kind} | {unit} | {} |", figure.help())
    };
    let expected: Vec<_> = all_figures().map(row).collect();
    assert!(rows("Figures") == expected, "the table has to be\n{}", expected.join("\n"));
}

/// A rule with a wrong name never fires.
#[test]
fn every_figure_that_is_named_exists() {
    let mut names: BTreeSet<_> = all_figures().map(|figure| figure.export_name()).collect();
    let figures = names.len();
    for source in sources() {
        let found = source.match_indices("\"tamis_").filter_map(|(at, _)| literal(&source[at..]));
        names.extend(found.map(|(name, _)| name).filter(|name| name.ends_with("_seconds")));
    }
    assert_eq!(names.len(), figures + 4, "histograms");
    let words = DOCUMENT.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let named: BTreeSet<_> = words.filter(|word| word.starts_with("tamis_")).collect();
    assert!(named.len() > figures);
    for name in named {
        assert!(names.contains(name), "there is no figure {name}");
    }
}

/// The code of the library, without tests that are files.
fn sources() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut sources) = (vec![root.join("src")], Vec::new());
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(folder).unwrap() {
            let path: PathBuf = item.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && name != "tests" {
                folders.push(path);
            } else if name.ends_with(".rs") && name != "tests.rs" {
                sources.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    sources
}

/// The literal that a text begins with, and what follows it.
fn literal(text: &str) -> Option<(String, &str)> {
    let inside = text.strip_prefix('"')?;
    let mut is_escaped = false;
    let end = inside.find(|letter| {
        let is_end = letter == '"' && !is_escaped;
        is_escaped = letter == '\\' && !is_escaped;
        is_end
    })?;
    // It goes on behind the indentation of the next line.
    let mut lines = inside[..end].split("\\\n");
    let first = lines.next().unwrap().to_owned();
    Some((lines.fold(first, |text, line| text + line.trim_start()), &inside[end + 1..]))
}

/// The literals up to the parenthesis that ends a call.
fn literals(mut text: &str) -> Vec<String> {
    let (mut literals, mut depth) = (Vec::new(), 1);
    while depth > 0 {
        if let Some((found, rest)) = literal(text) {
            literals.push(found);
            text = rest;
            continue;
        }
        let first = text.chars().next().unwrap();
        depth += i32::from(first == '(') - i32::from(first == ')');
        text = &text[first.len_utf8()..];
    }
    literals
}

/// Target, level and text of each event in a source.
fn events(source: &str) -> Vec<[String; 3]> {
    let event = |(at, _): (usize, &str)| {
        let call = &source[at + "tell!(".len()..];
        let level = call.trim_start().split(',').next().unwrap().to_owned();
        let literals = literals(call);
        let mut text = literals.last().unwrap().clone();
        // A text, or a word of it, that was chosen before.
        if let Some((name, rest)) = text.strip_prefix('{').and_then(|it| it.split_once('}')) {
            let binding = format!("let {name} = ");
            let bound = &source[source[..at].rfind(&binding).unwrap() + binding.len()..];
            let word = literal(bound).map_or("…".to_owned(), |(word, _)| word);
            text = word + rest;
        }
        [format!("tamis::{}", literals[0]), level, text]
    };
    source.match_indices("tell!(").map(event).collect()
}

#[test]
fn the_table_of_log_lines_is_that_of_the_code() {
    let in_code: BTreeSet<_> = sources().iter().flat_map(|source| events(source)).collect();
    let cells = |row: &str| {
        let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`').to_owned());
        [(); 3].map(|()| cells.by_ref().find(|cell| !cell.is_empty()).unwrap())
    };
    let in_table: BTreeSet<_> = rows("Log lines").into_iter().map(cells).collect();
    assert!(in_code.len() > 30, "{in_code:?}");
    let missing: Vec<_> = in_code.difference(&in_table).collect();
    let gone: Vec<_> = in_table.difference(&in_code).collect();
    assert!(missing.is_empty() && gone.is_empty(), "not in the table: {missing:?}; gone: {gone:?}");
}

#[test]
fn the_table_of_threads_has_them_all() {
    let (mut named, table) = (0, rows("Threads").join("\n"));
    for source in sources() {
        for (at, _) in source.match_indices("\"tamis-") {
            let (name, _) = literal(&source[at..]).unwrap();
            // The runner of tests, and pools of tests within a file.
            if source.contains("struct ThreadRunner") || name == "tamis-test" {
                continue;
            }
            assert!(table.contains(&format!("`{name}`")), "{name} is missing");
            named += 1;
        }
    }
    assert!(named >= 10, "{named} names were found");
}

/// A constant of a source.
fn constant(path: &str, name: &str) -> usize {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = fs::read_to_string(root.join(path)).unwrap();
    let (_, value) = source.split_once(&format!("const {name}: usize = ")).unwrap();
    value.split(';').next().unwrap().parse().unwrap()
}

#[test]
fn the_limits_of_the_status_socket_are_those_of_the_code() {
    let clients = constant("src/io/linux/status/server.rs", "CLIENTS_MAX");
    let bytes = constant("src/io/linux/status/client.rs", "REQUEST_BYTES_MAX");
    let slots = constant("src/engine/status/mod.rs", "SLOTS_AT_ONCE");
    for stated in [
        format!("{clients} clients\nare served at one time"),
        format!("at most {bytes} bytes"),
        format!("in the first {slots} slots"),
        format!("those in the next {slots};"),
    ] {
        assert!(DOCUMENT.contains(&stated), "the document does not say: {stated}");
    }
}

#[test]
fn documents_state_the_memory_of_the_index_as_the_code_counts_it() {
    let slot = constant("src/footprint.rs", "SLOT_BYTES");
    let label = constant("src/footprint.rs", "POSTING_BYTES");
    let free = constant("src/engine/index_budget.rs", "CROWDED_SHARE");
    let outlines = constant("src/l2/outlines.rs", "SHARE");
    let (of, used) = (free * outlines, free * outlines - free - outlines);
    let formula = format!("`entries × ({slot} + {label} × labels) × {of} / {used}`");
    assert!(DOCUMENT.contains(&formula), "{formula}");
    let setters =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/builder.rs"));
    let stated = format!("{slot} for each blob, {label} for each of its labels");
    assert!(setters.unwrap().contains(&stated), "the setter does not say: {stated}");
}
