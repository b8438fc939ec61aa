//! Copies the library's source, and replaces in the copy what a scheduler must control.

use std::path::{Path, PathBuf};
use std::{env, fs};

#[path = "bugs.rs"]
mod bugs;

/// What stands for what.
const STANDS: &[(&str, &str)] = &[
    ("std::sync::", "crate::stands::sync::"),
    ("std::thread", "crate::stands::thread"),
    ("std::hash::{BuildHasher, Hasher, RandomState}", "crate::stands::hash::*"),
    ("parking_lot::", "crate::stands::parking_lot::"),
    ("dashmap::", "crate::stands::dashmap::"),
];

/// What stays as it is, one step for the scheduler: counters, and the simulated disk.
const WHOLE: &[&str] = &[
    "io/",
    "batch.rs",
    "blocking.rs",
    "counters.rs",
    "events.rs",
    "failpoint.rs",
    "latency.rs",
    "meter.rs",
    "monitor.rs",
    "tallies.rs",
    "thread_number.rs",
    "wake.rs",
];

/// The modules that have one more module, which is in `inside/`.
const WITH_INSIDE: &[(&str, &str)] =
    &[("engine/mod.rs", "engine.rs"), ("io/mod.rs", "io.rs"), ("l1/mod.rs", "l1.rs")];

fn main() {
    println!("cargo::rustc-cfg=modelled");
    ["build.rs", "bugs.rs", "inside", "stands", "../../src"]
        .iter()
        .for_each(|path| println!("cargo::rerun-if-changed={path}"));
    let folder = |variable| PathBuf::from(env::var(variable).expect("cargo sets it"));
    let (here, to) = (folder("CARGO_MANIFEST_DIR"), folder("OUT_DIR").join("src"));
    // It may not be there yet.
    let _ = fs::remove_dir_all(&to);
    copy(&here, &here.join("../../src"), &to, "");
}

/// Copies a folder; `under` is its path in `src`.
fn copy(here: &Path, from: &Path, to: &Path, under: &str) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("a file");
        let file = entry.file_name().into_string().expect("its name is text");
        let name = format!("{under}{file}");
        if !entry.file_type().expect("a type").is_dir() {
            let text = fs::read_to_string(entry.path()).expect("text");
            fs::write(to.join(file), modelled(here, &name, text)).expect("written");
        } else if file != "tests" {
            copy(here, &entry.path(), &to.join(file), &format!("{name}/"));
        }
    }
}

/// The text of a file of the copy.
fn modelled(here: &Path, name: &str, mut text: String) -> String {
    match name {
        "sweeper.rs" => return fs::read_to_string(here.join("stands/sweeper.rs")).expect("text"),
        "docs.rs" => return String::new(),
        // An included file has no inner attributes.
        "lib.rs" => text = text.replace("//!", "//").replace("\n#![", "\n// #!["),
        "failpoint.rs" => text = bugs::with_bugs(&text),
        _ => {}
    }
    // The scheduler's atomics are larger.
    let is_size = |line: &str| line.starts_with("const _: () = assert!(size_of::<");
    text = text.split_inclusive('\n').filter(|line| !is_size(line)).collect();
    let is_whole = WHOLE.iter().any(|whole| name.starts_with(whole));
    let stands = STANDS.iter().filter(|(from, _)| match name {
        // Its lock is of the process, which runs several schedules at a time.
        "disposal/mod.rs" => *from == "std::thread",
        _ => !is_whole,
    });
    stands.for_each(|(from, to)| text = text.replace(from, to));
    text = bugs::planted(name, text);
    for (_, inside) in WITH_INSIDE.iter().filter(|(of, _)| *of == name) {
        let path = here.join("inside").join(inside);
        text.push_str(&format!("\n#[path = {path:?}]\npub(crate) mod modelled;\n"));
    }
    text
}
