//! `bench` at tiny sizes: what it shows, that it leaves nothing and touches nothing, and what it
//! refuses.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::replay::texts_and_lines;
use super::{Outcome, contents, folder, stores, tamis};

const TINY: [&str; 7] = ["--gib", "0.015625", "--seconds", "0.05", "--rounds", "2", "--size"];

fn bench(directory: &Path, options: &[&str]) -> Outcome {
    let directory = directory.to_str().unwrap();
    tamis(["bench", directory].iter().chain(options))
}

fn names(rows: &Value) -> Vec<(u64, u64)> {
    let number = |row: &Value, name: &str| row[name].as_u64().unwrap();
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| (number(row, "size"), number(row, "depth"))).collect()
}

/// A figure, whose least and most lie around it.
fn median(row: &Value, name: &str) -> f64 {
    let of = |part: &str| row[name][part].as_f64().unwrap_or_else(|| panic!("{name}: {row}"));
    assert!(of("min") <= of("median") && of("median") <= of("max"), "{name}: {row}");
    of("median")
}

#[test]
fn every_size_and_depth_is_beside_the_raw_device() {
    let folder = folder();
    // A store that is there already.
    stores::closed(folder.path());
    let before = contents(folder.path());
    let plot = folder.path().parent().unwrap().join(format!("bench-{}.svg", std::process::id()));
    let rest = ["4096,20000", "--depth", "1,3", "--plot", plot.to_str().unwrap(), "--json"];
    let found = bench(folder.path(), &[&TINY[..], &rest].concat()).expect(0).json();
    assert!(before == contents(folder.path()), "it has changed something");
    let all = [(4096, 1), (4096, 3), (20_000, 1), (20_000, 3)];
    assert_eq!((names(&found["gets"]), names(&found["puts"])), (all.to_vec(), all.to_vec()));
    for row in found["gets"].as_array().unwrap() {
        for name in ["gets_per_second", "raw_reads_per_second", "p50_us", "p99_us", "raw_p50_us"] {
            assert!(median(row, name) > 0.0, "{name} of {row}");
        }
        let size = row["size"].as_f64().unwrap();
        let read = median(row, "read_bytes_per_get");
        assert!(read > size && read < 2.0 * size + 8192.0, "{read}: {row}");
        assert!(median(row, "p50_us") <= median(row, "p99_us"), "{row}");
    }
    for row in found["puts"].as_array().unwrap() {
        let bytes = median(row, "puts_per_second") * row["size"].as_f64().unwrap();
        assert!((median(row, "bytes_per_second") - bytes).abs() < bytes / 1000.0, "{row}");
        assert!(median(row, "raw_bytes_per_second") > 0.0 && median(row, "ratio") > 0.0);
    }
    let facts =
        ["directory", "file_system", "device", "free_bytes", "direct_io", "engine", "cores"];
    for name in facts.iter().chain(&["rounds", "seconds"]) {
        assert!(!found[name].is_null(), "{name} is missing in {found}");
    }
    for row in ["gets", "puts"].iter().flat_map(|name| found[name].as_array().unwrap()) {
        let size = row["size"].as_u64().unwrap();
        assert_eq!(row["store_bytes"], (16 << 20) / size * size, "{row}");
    }
    let (texts, lines) = texts_and_lines(&plot);
    fs::remove_file(&plot).unwrap();
    let titles = ["gets of 4.0 KiB, and raw reads", "puts of 19.5 KiB, and raw writes"];
    for text in titles.iter().chain(&["tamis", "raw device", "depth", "MB/s"]) {
        assert!(texts.iter().any(|it| it == text), "{text} is missing in {texts:?}");
    }
    assert!(lines >= 8, "{lines}");
}

#[test]
fn the_file_system_is_told_and_figures_in_memory_are_called_so() {
    let on_disk = folder();
    let memory = tempfile::tempdir_in("/dev/shm").ok();
    for folder in [Some(&on_disk), memory.as_ref()].into_iter().flatten() {
        let text = bench(folder.path(), &[&TINY[..], &["1000", "--depth", "2"]].concat());
        let text = text.expect(0).stdout;
        assert!(contents(folder.path()).is_empty());
        let directory = folder.path().to_str().unwrap();
        for part in [directory, "free", "are needed", "raw device", "1000 B", "engine"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        let is_in_memory = text.contains(": tmpfs on ");
        assert_eq!(text.contains("NO FIGURES OF A DEVICE"), is_in_memory, "{text}");
    }
}

#[test]
fn what_cannot_be_measured_is_refused_before_anything_is_made() {
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let before = contents(folder.path());
    let refused = |directory: &Path, options: &[&str], code, kind| {
        let outcome = bench(directory, &[options, &["--json"]].concat()).expect(code);
        let error = outcome.json()["error"].clone();
        assert_eq!(error["kind"], kind, "{error}");
        assert!(before == contents(folder.path()), "{options:?} has changed something");
        error["message"].as_str().unwrap().to_owned()
    };
    let full = refused(folder.path(), &["--gib", "65536"], 3, "no_room");
    assert!(full.contains("free space") && full.contains("bytes"), "{full}");
    refused(&folder.path().join("missing"), &[], 3, "io");
    refused(&file, &[], 3, "no_directory");
    refused(folder.path(), &["--plot", "plot.png"], 2, "usage");
    let large = refused(folder.path(), &["--gib", "0.02", "--size", "2000000"], 2, "usage");
    assert!(large.contains("--gib"), "{large}");
    refused(folder.path(), &["--size", "67108864", "--depth", "1024"], 2, "usage");
    for bad in [
        &["--size", "0"][..],
        &["--size", "x"],
        &["--depth", "0"],
        &["--depth", "1025"],
        &["--gib", "0"],
        &["--gib", "nan"],
        &["--seconds", "0"],
        &["--seconds", "inf"],
        &["--rounds", "0"],
    ] {
        bench(folder.path(), bad).expect(2);
    }
    tamis(["bench"]).expect(2);
    assert!(before == contents(folder.path()));
}
