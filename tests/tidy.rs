//! Structural rules that the compiler does not check: which module may import which, file sizes,
//! bounded loops, and references in the documents, to features too. Other rules are lints, in
//! `Cargo.toml`.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first. A module imports only from lower layers. Each new module is listed
/// here; `docs/architecture.md` explains the order.
const LAYERS: &[&[&str]] = &[
    &[
        "backup_report",
        "blocking",
        "docs",
        "failpoint",
        "figures",
        "json_text",
        "label_texts",
        "meter",
        "monitor",
        "quota",
        "rounds",
        "spawn",
        "thread_number",
        "wake",
        "write_rate",
    ],
    &["batch", "helpers", "l2_state", "latency", "modes", "tallies", "telemetry"],
    &["queue", "waiters"],
    &[
        "clock",
        "counters",
        "error",
        "footprint",
        "hits",
        "io",
        "key",
        "moment",
        "scope",
        "sequence",
        "stats",
        "sweep",
        "sweeper",
        "sync",
    ],
    &[
        "boot_clock",
        "disposal",
        "expiries",
        "fetch_policy",
        "labels",
        "policy",
        "record_table",
        "timer",
    ],
    &["gate", "limiter", "remote", "timeout"],
    &["codec", "config", "flight", "l2", "synopsis", "watermarks"],
    &["commit_lock", "disk_admission", "put"],
    &["namespace"],
    &["entry"],
    &["access_times", "hit", "l1", "renewals"],
    &["events", "keys", "pending"],
    &["engine"],
    &["cache", "sizing", "status_client", "store_reader"],
    &["backup", "expire", "namespaced", "reopen", "sizes"],
    &["listing", "position", "touch"],
    &["publish", "spawned", "typed"],
    &["many"],
    &["fuzz"],
    &["lib"],
];

/// Lines per file, unit tests excluded.
const FILE_LINES_MAX: usize = 500;

const COLUMNS_MAX: usize = 100;

/// Marks of unfinished work, split so that this file does not match itself.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(&folder).unwrap() {
            let path = item.unwrap().path();
            // Workspaces within have builds of their own.
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                files.push(path);
            }
        }
    }
    assert!(!files.is_empty(), "no code in {folder}");
    files
}

/// A source file without its unit tests.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

/// The module of `src/` that a file belongs to: its first folder, or its own name.
fn module_of(path: &Path) -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let inside = path.strip_prefix(source).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn layer_of(module: &str) -> usize {
    let layer = LAYERS.iter().position(|layer| layer.contains(&module));
    layer.unwrap_or_else(|| panic!("src/{module} has no place in LAYERS (tests/tidy.rs)"))
}

#[test]
fn imports_point_downwards() {
    for path in rust_files("src") {
        // The tests of a layer may use the handle above it.
        if path.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let module = module_of(&path);
        for import in without_tests(&text).split("crate::").skip(1) {
            let name = |letter: char| {
                letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_'
            };
            let imported = import.split(|letter| !name(letter)).next().unwrap();
            // Links in docs name what lib.rs exports, and begin with a capital.
            if imported.is_empty() || imported == module {
                continue;
            }
            assert!(
                layer_of(imported) < layer_of(&module),
                "{}: {module} must not import {imported}, which is not below it",
                path.display()
            );
        }
    }
}

#[test]
fn every_module_of_the_list_exists() {
    let modules: Vec<_> = rust_files("src").iter().map(|path| module_of(path)).collect();
    for module in LAYERS.iter().flat_map(|layer| layer.iter()) {
        assert!(modules.iter().any(|found| found == module), "src/{module} does not exist");
    }
}

#[test]
fn files_stay_readable() {
    let folders = ["src", "tests", "benches", "crates", "examples"];
    for path in folders.iter().flat_map(|folder| rust_files(folder)) {
        let text = fs::read_to_string(&path).unwrap();
        let shown = path.display();
        assert!(text.starts_with("//!"), "{shown} does not open with its contract");
        let lines = without_tests(&text).lines().count();
        assert!(lines <= FILE_LINES_MAX, "{shown} has {lines} lines: split it");
        for (number, line) in (1..).zip(text.lines()) {
            let columns = line.chars().count();
            assert!(columns <= COLUMNS_MAX, "{shown}:{number} has {columns} columns");
            let unfinished = UNFINISHED.iter().find(|mark| line.contains(**mark));
            assert!(unfinished.is_none(), "{shown}:{number} is unfinished: {line}");
        }
    }
}

/// Files whose loops delay no caller: the command-line tool, the simulated disk, the targets of
/// fuzzers, the meter and tests.
const UNMETERED: &[&str] =
    &["src/bin/", "src/io/simula", "/fuzz", "src/meter.rs", "/tests/", "/tests.rs"];

/// Whether a line starts a loop or calls an iterator consumer that loops.
fn is_loop(line: &str) -> bool {
    let code = line.trim_start();
    let is_statement = (code.starts_with("for ") && code.contains(" in "))
        || code.starts_with("while ")
        || code.starts_with("loop {")
        || code.contains("= loop {");
    let consumers = [
        ".for_each(",
        ".retain(",
        ".extend(",
        ".fold(",
        ".sum()",
        ".collect()",
        ".collect::<",
        "iter().any(",
        "iter().all(",
        "iter().find(",
        "iter().find_map(",
        "iter().position(",
    ];
    // The `sum` of a checksum takes no iterator.
    let is_consumer = |it: &&str| code.contains(*it) && !code.contains(".await.sum()");
    !code.starts_with("//") && (is_statement || consumers.iter().any(is_consumer))
}

/// Whether the comment above the last statement of `lines` states a bound.
fn is_bounded(lines: &[&str]) -> bool {
    let above = lines.iter().rev().map(|line| line.trim());
    let is_before = |line: &&str| line.is_empty() || line.ends_with([';', '{', '}']);
    let mut above = above.take_while(|line| line.starts_with("//") || !is_before(line));
    above.any(|line| line.starts_with("// Bounded: "))
}

/// Whether the function around a line calls the meter.
fn passes_meter(lines: &[&str], number: usize) -> bool {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let is_head = |line: &&str| {
        let code = line.trim_start();
        !code.starts_with("//") && code.contains("fn ") && indent(line) < indent(lines[number])
    };
    let Some(head) = lines[..number].iter().rposition(is_head) else { return false };
    let body = lines[head..].iter();
    let is_inside = |line: &&&str| line.trim() != "}" || indent(line) > indent(lines[head]);
    // `Pacer` calls the meter.
    let marks = ["meter::", "steps.entry(", "steps.entries(", "steps.bytes("];
    body.take_while(is_inside).any(|line| marks.iter().any(|mark| line.contains(mark)))
}

#[test]
fn every_loop_is_metered_or_states_its_bound() {
    let mut bare = Vec::new();
    for path in rust_files("src") {
        let shown = path.display().to_string();
        if UNMETERED.iter().any(|part| shown.contains(part)) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = without_tests(&text).split("\n#[cfg(test)]\nimpl ").next().unwrap();
        let lines: Vec<&str> = code.lines().collect();
        let is_for_tests = |number: usize| {
            let head = lines[..number].iter().rposition(|line| line.contains(" fn "));
            let above = head.and_then(|head| head.checked_sub(1));
            above.is_some_and(|above| lines[above].trim() == "#[cfg(test)]")
        };
        for (number, line) in lines.iter().enumerate() {
            let is_told = || is_bounded(&lines[..number]) || passes_meter(&lines, number);
            if is_loop(line) && !is_told() && !is_for_tests(number) {
                bare.push(format!("{shown}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(
        bare.is_empty(),
        "{} loops neither call the meter nor say `// Bounded: <by what>.`:\n{}",
        bare.len(),
        bare.join("\n")
    );
}

#[test]
fn the_loop_check_recognizes_unbounded_loops() {
    let bare = ["fn f() {", "    let a = 1;", "    for b in c {", "        d(b);", "    }", "}"];
    assert!(is_loop(bare[2]) && !is_bounded(&bare[..2]) && !passes_meter(&bare, 2));
    let metered = ["fn f() {", "    for b in c {", "        meter::entries(1);", "    }", "}"];
    assert!(passes_meter(&metered, 1));
    let bounded = ["fn f() {", "    // Bounded: by two.", "    for b in c {}", "}"];
    assert!(is_bounded(&bounded[..2]));
    let chained = ["    // Bounded: one.", "    a.into_iter()", "        .for_each(b);"];
    assert!(is_loop(chained[2]) && is_bounded(&chained[..2]));
    assert!(!is_loop("// for each in turn") && !is_loop("impl TaskRunner for TaskRunnerHandle {"));
}

#[test]
fn unsafe_code_stays_in_io() {
    for path in rust_files("src") {
        let text = fs::read_to_string(&path).unwrap();
        let allows = text.contains("allow(unsafe_code)");
        assert!(!allows || module_of(&path) == "io", "{}", path.display());
    }
}

#[test]
fn the_readme_shows_the_quickstart() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = fs::read_to_string(root.join("examples/quickstart.rs")).unwrap();
    let code = example.split_once("\n\n").unwrap().1;
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    assert!(
        readme.contains(&format!("```rust\n{code}```")),
        "README.md and examples/quickstart.rs differ"
    );
}

/// Whether a word is a name like `FlushNotAwaited`.
fn is_camel(word: &str) -> bool {
    let mut pairs = word.bytes().zip(word.bytes().skip(1));
    word.len() > "KiB".len()
        && word.starts_with(|letter: char| letter.is_ascii_uppercase())
        && pairs.any(|(left, right)| left.is_ascii_lowercase() && right.is_ascii_uppercase())
}

/// The proof cites tests and failpoints by name; each of them must exist.
#[test]
fn the_proof_cites_tests_and_failpoints_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let proof = fs::read_to_string(root.join("docs/proof.md")).unwrap();
    let files = ["src", "tests"].iter().flat_map(|folder| rust_files(folder));
    let code: String = files.map(|path| fs::read_to_string(path).unwrap()).collect();
    let (mut tests, mut failpoints) = (0, 0);
    for (number, span) in proof.split('`').enumerate() {
        if number % 2 == 0 {
            let words = span.split(|letter: char| !letter.is_ascii_alphanumeric());
            for word in words.filter(|word| is_camel(word)) {
                assert!(code.contains(&format!("    {word},\n")), "no failpoint {word}");
                failpoints += 1;
            }
        } else if let Some(name) = span.split('…').next().filter(|name| name.contains('_')) {
            if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
                assert!(code.contains(&format!("fn {name}")), "no test {name}");
                tests += 1;
            }
        }
    }
    assert!(tests >= 15 && failpoints >= 30, "{tests} tests and {failpoints} failpoints are cited");
}

/// Files and folders that a document names: targets of links, and paths in `code`.
fn places_in(text: &str) -> Vec<&str> {
    let inline = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let defined = text.lines().filter(|line| line.starts_with('[') && line.contains("]: "));
    let links = inline.chain(defined.filter_map(|line| line.split("]: ").nth(1)));
    let links =
        links.filter(|link| !link.starts_with("http")).filter_map(|it| it.split('#').next());
    let is_path = |it: &&str| {
        ["src/", "tests/", "docs/"].iter().any(|folder| it.starts_with(folder)) && !it.contains(' ')
    };
    links.chain(text.split('`').skip(1).step_by(2).filter(is_path)).collect()
}

#[test]
fn paths_in_documents_exist_and_documents_are_rustdoc_pages() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = fs::read_to_string(root.join("src/docs.rs")).unwrap();
    let mut documents = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    for item in fs::read_dir(root.join("docs")).unwrap() {
        let path = item.unwrap().path();
        // Plots belong to pages.
        if path.extension().is_some_and(|ending| ending == "svg") {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        let page = format!("include_str!(\"../docs/{name}\")");
        assert!(pages.contains(&page), "src/docs.rs has no page for {name}");
        documents.push(path);
    }
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for place in places_in(&text).into_iter().filter(|place| !place.is_empty()) {
            // A file may be named without its extension.
            let beside = document.parent().unwrap().join(place);
            let found = [beside, root.join(place), root.join(format!("{place}.rs"))];
            let is_there = found.iter().any(|path| path.exists());
            assert!(is_there, "{}: there is no {place}", document.display());
        }
    }
}

/// The README names all that users may switch on; docs.rs and `.ci/run` build with it.
#[test]
fn every_feature_is_told_documented_and_checked() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let (manifest, readme, checks) = (read("Cargo.toml"), read("README.md"), read(".ci/run"));
    let table = |name: &str| {
        let rest = manifest.split_once(&format!("\n[{name}]\n")).unwrap().1;
        rest.split("\n[").next().unwrap().to_owned()
    };
    let names = table("features");
    let names = names.lines().filter_map(|line| line.split_once(" = [")).map(|(name, _)| name);
    let own: BTreeSet<_> = names.filter(|name| !["default", "simulation"].contains(name)).collect();
    assert!(own.len() >= 8, "{own:?}");
    let untold: Vec<_> = own.iter().filter(|name| !readme.contains(&format!("`{name}`"))).collect();
    assert!(untold.is_empty(), "README.md does not name {untold:?}");
    // Switched on unless a user does not want it.
    let optional = own.into_iter().filter(|name| *name != "disk");
    let optional: BTreeSet<_> = optional.map(str::to_owned).collect();
    let page = table("package.metadata.docs.rs");
    let page = page.lines().find_map(|line| line.strip_prefix("features = [")).unwrap();
    let page = page.split('"').skip(1).step_by(2).map(str::to_owned);
    assert_eq!(page.collect::<BTreeSet<_>>(), optional, "for docs.rs");
    let checked = checks.lines().find_map(|line| line.strip_prefix("features=")).unwrap();
    assert_eq!(checked.split(',').map(str::to_owned).collect::<BTreeSet<_>>(), optional, ".ci/run");
}
