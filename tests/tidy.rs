//! What the compiler does not check of the code's shape: who may import whom, and how large a file
//! may grow. Function length, unsafe code and missing docs are lints, in `Cargo.toml`.

#![allow(clippy::unwrap_used, reason = "whatever fails, fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

/// The layers from the ground up: a module imports from lower layers, and of its own layer only
/// itself. A new module finds its place here, which is the design; `docs/architecture.md` says why.
const LAYERS: &[&[&str]] = &[
    &["meter", "quota", "wake"],
    &["step"],
    &["queue", "waiters"],
    &[
        "clock",
        "counters",
        "error",
        "flaw",
        "footprint",
        "io",
        "key",
        "modes",
        "moment",
        "sequence",
        "stats",
        "sweep",
        "sweeper",
        "sync",
    ],
    &["disposal", "labels", "policy", "timer"],
    &["limiter"],
    &["codec", "config", "flight", "l2", "synopsis", "watermarks"],
    &["order", "put"],
    &["namespace"],
    &["entry"],
    &["accesses", "hit", "l1"],
    &["invalidation"],
    &["cache"],
    &["lib"],
];

/// Lines of a file, without its unit tests.
const FILE_LINES_MAX: usize = 500;

const COLUMNS_MAX: usize = 100;

/// Marks of unfinished work. Spelled so that this file does not find itself.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(&folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                files.push(path);
            }
        }
    }
    assert!(!files.is_empty(), "no code in {folder}");
    files
}

/// The part of a source file that is not its unit tests.
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
        assert!(modules.iter().any(|found| found == module), "src/{module} is gone");
    }
}

#[test]
fn files_stay_readable() {
    for path in ["src", "tests", "benches", "examples"].iter().flat_map(|folder| rust_files(folder))
    {
        let text = fs::read_to_string(&path).unwrap();
        let shown = path.display();
        assert!(text.starts_with("//!"), "{shown} does not open with its contract");
        let lines = without_tests(&text).lines().count();
        assert!(lines <= FILE_LINES_MAX, "{shown} has {lines} lines: it holds more than one noun");
        for (number, line) in (1..).zip(text.lines()) {
            let columns = line.chars().count();
            assert!(columns <= COLUMNS_MAX, "{shown}:{number} has {columns} columns");
            let unfinished = UNFINISHED.iter().find(|mark| line.contains(**mark));
            assert!(unfinished.is_none(), "{shown}:{number} is unfinished: {line}");
        }
    }
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
    assert!(readme.contains(&format!("```rust\n{code}```")), "README.md shows another program");
}
