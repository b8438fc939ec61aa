//! What the tool refuses, how it says so, and its exit codes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::stores;
use super::{Outcome, folder, on, tamis};

/// Commands that read a store.
const COMMANDS: &[&str] = &["inspect", "verify", "dump", "top"];

/// Every command is refused in the same way.
fn refused(folder: &Path, code: i32, kind: &str) -> String {
    let mut told = String::new();
    for command in COMMANDS {
        let Outcome { stderr, .. } = on(folder, command, &[]).expect(code);
        assert!(stderr.starts_with("tamis: "), "{stderr}");
        let error = on(folder, command, &["--json"]).expect(code).json();
        assert_eq!(error["error"]["kind"], kind);
        told = error["error"]["message"].as_str().unwrap().to_owned();
        assert!(stderr.contains(&told));
    }
    told
}

#[test]
fn a_directory_without_a_store_is_named() {
    let folder = folder();
    for missing in [folder.path(), &folder.path().join("missing")] {
        let told = refused(missing, 3, "no_store");
        assert!(told.contains(missing.to_str().unwrap()), "{told}");
    }
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    refused(&file, 3, "no_store");
}

#[test]
fn files_that_are_no_stores_are_refused() {
    for bytes in [vec![], vec![7; 100], vec![7; 100_000]] {
        let folder = folder();
        fs::write(folder.path().join("data"), bytes).unwrap();
        refused(folder.path(), 3, "not_a_store");
    }
    let folder = folder();
    fs::create_dir(folder.path().join("data")).unwrap();
    refused(folder.path(), 3, "not_a_store");
}

#[test]
fn a_store_of_a_newer_version_is_told_from_damage() {
    let folder = folder();
    stores::closed(folder.path());
    let path = folder.path().join("data");
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 9;
    let check = xxh3_64(&bytes[..12]).to_le_bytes();
    bytes[12..16].copy_from_slice(&check[..4]);
    fs::write(&path, bytes).unwrap();
    let told = refused(folder.path(), 3, "version");
    assert!(told.contains("format 9, and 1 is supported"), "{told}");
}

#[test]
fn a_store_without_a_good_superblock_or_that_was_cut_off_is_damaged() {
    let folder = folder();
    stores::closed(folder.path());
    let path = folder.path().join("data");
    let bytes = fs::read(&path).unwrap();
    let mut flipped = bytes.clone();
    (flipped[100], flipped[4196]) = (!flipped[100], !flipped[4196]);
    fs::write(&path, flipped).unwrap();
    refused(folder.path(), 1, "damaged");
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    refused(folder.path(), 1, "damaged");
}

#[test]
fn a_store_in_use_is_refused_with_its_owner() {
    let folder = folder();
    let cache = stores::open(folder.path());
    stores::fill(&cache);
    for command in COMMANDS {
        let store = folder.path().to_str().unwrap();
        let Outcome { stderr, .. } = tamis([command, store]).expect(4);
        assert!(stderr.contains("--live"), "{stderr}");
        let error = tamis([command, store, "--json"]).expect(4).json();
        assert_eq!(error["error"]["kind"], "in_use");
        assert_eq!(error["error"]["owner"], json!(std::process::id()));
        tamis([command, store, "--live"]).expect(0);
    }
    stores::close(&cache);
    on(folder.path(), "inspect", &[]).expect(0);
}

#[test]
fn a_file_that_may_not_be_written_can_be_read_all_the_same() {
    let folder = folder();
    stores::closed(folder.path());
    let path = folder.path().join("data");
    let set = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    set(0o400);
    for command in COMMANDS {
        on(folder.path(), command, &[]).expect(0);
    }
    set(0o000);
    // Root may read everything.
    if fs::File::open(&path).is_err() {
        refused(folder.path(), 3, "io");
    }
    set(0o600);
}

#[test]
fn a_command_line_that_makes_no_sense_is_told() {
    for arguments in [&["frobnicate"][..], &["dump"], &["inspect", ".", "--frobnicate"], &[]] {
        tamis(arguments).expect(2);
    }
}

#[test]
fn every_page_of_help_tells_exit_codes_and_examples() {
    let all = COMMANDS.iter().chain(&["size", "stat", "backup", "restore", "bench", "replay"]);
    let pages = all.map(|command| tamis([command, "--help"]).expect(0).stdout);
    for page in pages {
        for part in ["Exit codes:", "Examples:", "JSON", "--json"] {
            assert!(page.contains(part), "{part} is missing in\n{page}");
        }
    }
    let page = tamis(["--help"]).expect(0).stdout;
    for part in COMMANDS.iter().chain(&["Exit codes:", "  4  ", "KiB", "UTC"]) {
        assert!(page.contains(part), "{part} is missing in\n{page}");
    }
}
