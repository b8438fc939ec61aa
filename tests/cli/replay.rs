//! `replay`: traces of all formats, all budgets, both tiers, its plot, and what it refuses.

use std::fs;
use std::path::{Path, PathBuf};

use roxmltree::Document;
use serde_json::Value;
use tempfile::TempDir;

use super::{Outcome, contents, folder, tamis};

const KIB: u64 = 1 << 10;

/// Four objects again and again, and then one more.
const REQUESTS: [(&str, u64); 10] = [
    ("a", 16 * KIB),
    ("b", 16 * KIB),
    ("c", 16 * KIB),
    ("d", 16 * KIB),
    ("a", 16 * KIB),
    ("b", 16 * KIB),
    ("c", 16 * KIB),
    ("d", 16 * KIB),
    ("e", 16 * KIB),
    ("a", 16 * KIB),
];

fn written(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn key_size() -> String {
    REQUESTS.iter().map(|(key, size)| format!("{key},{size}\n")).collect()
}

/// Many objects of some sizes, some of them more popular than others.
fn skewed(requests: u64) -> String {
    let request = |number: u64| {
        let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let key = (random % 400) * (random / 400 % 400) / 400;
        format!("{key},{}\n", 1000 + key * 37 % 5000)
    };
    (0..requests).map(request).collect()
}

fn replay(trace: &Path, options: &[&str]) -> Outcome {
    let trace = trace.to_str().unwrap();
    tamis(["replay", trace].iter().chain(options))
}

fn found(trace: &Path, options: &[&str]) -> Value {
    replay(trace, &[options, &["--json"]].concat()).expect(0).json()
}

/// The misses of one policy, budget by budget.
fn misses_of(found: &Value, policy: &str) -> Vec<u64> {
    let of = |budget: &Value| {
        let others = budget["others"].as_array().unwrap().iter();
        let misses = others.filter(|it| it["policy"] == policy).map(|it| it["misses"].as_u64());
        misses.flatten().sum()
    };
    found["budgets"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn every_budget_is_beside_the_other_policies() {
    let folder = folder();
    let trace = written(folder.path(), "trace.csv", key_size());
    let found = found(&trace, &["--budgets", "1048576,1.0,65536"]);
    for (name, figure) in [("requests", 10), ("objects", 5), ("bytes", 80 * KIB)] {
        assert_eq!(found[name], figure, "{name}");
    }
    assert_eq!((&found["format"], &found["is_estimated"]), (&"key-size".into(), &false.into()));
    let budgets = found["budgets"].as_array().unwrap();
    let sizes: Vec<_> = budgets.iter().map(|it| it["budget_bytes"].as_u64().unwrap()).collect();
    assert_eq!(sizes, [64 * KIB, 80 * KIB, 1024 * KIB]);
    // The fifth object evicts the first of four from a queue, what LRU has not seen for the longest
    // is the same, and SIEVE's hand begins there, too, after it has cleared all marks.
    assert_eq!(misses_of(&found, "fifo"), [6, 5, 5]);
    assert_eq!(misses_of(&found, "lru"), [6, 5, 5]);
    assert_eq!(misses_of(&found, "sieve"), [6, 5, 5]);
    for budget in budgets {
        let of = |name: &str| budget[name].as_u64().unwrap();
        assert_eq!(of("l1_hits") + of("misses"), 10, "{budget}");
        assert_eq!(of("requested_bytes"), 160 * KIB);
        assert_eq!(of("missed_bytes"), of("misses") * 16 * KIB);
        for name in ["l2_bytes", "l2_hits", "written_bytes", "write_amplification", "index_bytes"] {
            assert!(budget[name].is_null(), "{name} of {budget}");
        }
    }
    // The cache counts more than the sizes, so that three of four fit at first.
    let misses: Vec<_> = budgets.iter().map(|it| it["misses"].as_u64().unwrap()).collect();
    assert!(misses[0] > 6 && misses[2] == 5, "{misses:?}");
    let text = replay(&trace, &["--budgets", "0.9,1.0"]).expect(0).stdout;
    for part in ["10 requests", "5 objects", "80.0 KiB", "SIEVE", "LRU", "FIFO", "50.00 %"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

/// Records of libCacheSim.
fn records() -> Vec<u8> {
    let record = |&(key, size): &(&str, u64)| {
        let (key, size) = (u64::from(key.as_bytes()[0]), u32::try_from(size).unwrap());
        let (time, next) = (1_700_000_000_u32.to_le_bytes(), (-1_i64).to_le_bytes());
        [&time[..], &key.to_le_bytes(), &size.to_le_bytes(), &next].concat()
    };
    REQUESTS.iter().flat_map(record).collect()
}

#[test]
fn formats_make_no_difference() {
    let folder = folder();
    let of = |name: &str, bytes: &[u8], options: &[&str]| {
        let trace = written(folder.path(), name, bytes);
        let mut found = found(&trace, &[&["--budgets", "65536,1048576"], options].concat());
        let format = found["format"].take().as_str().unwrap().to_owned();
        found["trace"].take();
        (format, found)
    };
    let lines = key_size();
    let (format, expected) = of("lines", lines.as_bytes(), &[]);
    assert_eq!(format, "key-size");
    let same = |(format, found): (String, Value), name: &str| {
        assert_eq!(format, name);
        assert_eq!(found, expected, "{name}");
    };
    let compressed = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    same(of("lines.zst", &compressed(lines.as_bytes()), &[]), "key-size");
    same(of("records", &records(), &[]), "oracle-general");
    let given = ["--format", "oracle-general"];
    same(of("records.csv", &compressed(&records()), &given), "oracle-general");
    let timed: String = REQUESTS.iter().map(|(key, size)| format!("9,{key},{size},-1\n")).collect();
    same(of("timed", timed.as_bytes(), &[]), "csv");
    let named = format!("time,obj_id,obj_size,next\n{timed}");
    same(of("named", named.as_bytes(), &[]), "csv");
    let turned: String = REQUESTS.iter().map(|(key, size)| format!("{size},-,{key}\n")).collect();
    same(of("turned", turned.as_bytes(), &["--columns", "id=3,size=1"]), "csv");
    // Without sizes all objects have the same.
    let keys: String = REQUESTS.iter().map(|(key, _)| format!("{key}\n")).collect();
    let options = ["--columns", "id=1", "--object-bytes", "16384"];
    same(of("keys", keys.as_bytes(), &options), "csv");
    let ones: String = REQUESTS.iter().map(|(key, _)| format!("{key},1\n")).collect();
    same(of("ones", ones.as_bytes(), &["--object-bytes", "16384"]), "key-size");
}

#[test]
fn both_tiers_share_a_budget_and_leave_nothing() {
    let (folder, disk) = (folder(), folder());
    let trace = written(folder.path(), "trace.csv", skewed(3000));
    let path = disk.path().to_str().unwrap();
    let options = ["--l2", path, "--budgets", "524288,4194304", "--l1-share", "25"];
    let found = found(&trace, &options);
    assert!(contents(disk.path()).is_empty());
    let budgets = found["budgets"].as_array().unwrap();
    for budget in budgets {
        let of = |name: &str| budget[name].as_u64().unwrap_or_else(|| panic!("{name}: {budget}"));
        assert_eq!(of("l1_bytes") * 4, of("budget_bytes"));
        assert_eq!(of("l1_bytes") + of("l2_bytes"), of("budget_bytes"));
        assert_eq!(of("l1_hits") + of("l2_hits") + of("misses"), 3000);
        assert!(of("l1_hits") > 0 && of("l2_hits") > 0, "{budget}");
        assert!(of("written_bytes") > 0 && of("read_bytes") > 0 && of("put_bytes") > 0);
        assert!(of("index_bytes") > 0);
        assert!(budget["write_amplification"].as_f64().unwrap() > 0.1, "{budget}");
    }
    let misses = |place: usize| budgets[place]["misses"].as_u64().unwrap();
    assert!(misses(1) < misses(0), "{found}");
    // Everything fits.
    assert_eq!(misses(1), found["objects"].as_u64().unwrap());
    let text = replay(&trace, &options).expect(0).stdout;
    for part in [path, "free", "are needed", "hits on disk", "write ampl."] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn objects_of_any_size_are_replayed() {
    let (folder, disk) = (folder(), folder());
    let lines = format!("a,1\nb,0\nhuge,{}\na,9000\nlarge,300000000\nhuge,1\n", u64::MAX);
    let trace = written(folder.path(), "trace.csv", lines);
    let budgets = ["--budgets", "1048576"];
    let l2 = ["--l2", disk.path().to_str().unwrap()];
    for options in [&budgets[..], &[budgets, l2].concat()] {
        let budget = &found(&trace, options)["budgets"][0];
        let of = |name: &str| budget[name].as_u64().unwrap();
        // The last one has a size that fits, which nobody knew before.
        assert_eq!((of("requests"), of("misses"), of("too_large")), (6, 5, 2), "{budget}");
    }
    assert!(contents(disk.path()).is_empty());
}

/// The texts of a plot, and the number of its lines. It is parsed, so it is well-formed.
pub(crate) fn texts_and_lines(plot: &Path) -> (Vec<String>, usize) {
    let text = fs::read_to_string(plot).unwrap();
    let document = Document::parse(&text).unwrap_or_else(|error| panic!("{error} in\n{text}"));
    assert_eq!(document.root_element().tag_name().name(), "svg");
    let named = |name: &'static str| {
        document
            .descendants()
            .filter(move |node| node.has_tag_name(("http://www.w3.org/2000/svg", name)))
    };
    let texts = named("text").filter_map(|node| node.text()).map(|text| text.trim().to_owned());
    (texts.collect(), named("polyline").count())
}

#[test]
fn the_plot_has_a_curve_for_each_policy() {
    let folder = folder();
    let trace = written(folder.path(), "<&\"trace\u{7}>.csv", skewed(2000));
    let plot = folder.path().join("misses.svg");
    let options = ["--plot", plot.to_str().unwrap(), "--budgets"];
    let budgets = "65536,131072,262144,1048576";
    replay(&trace, &[&options[..], &[budgets]].concat()).expect(0);
    let (texts, lines) = texts_and_lines(&plot);
    for text in ["tamis", "SIEVE", "LRU", "FIFO", "<&\"trace\\u{7}>.csv, memory"] {
        assert!(texts.iter().any(|it| it == text), "{text} is missing in {texts:?}");
    }
    assert!(texts.iter().any(|it| it == "512.0 KiB"), "{texts:?}");
    assert!(lines >= 4, "{lines}");
    // One size is a point, and an older plot is replaced.
    let before = fs::read(&plot).unwrap();
    replay(&trace, &[&options[..], &["65536"]].concat()).expect(0);
    assert_ne!(fs::read(&plot).unwrap(), before);
    texts_and_lines(&plot);
}

/// Refused with a code and a kind, and nothing in a folder has changed.
fn refused(folder: &TempDir, trace: &Path, options: &[&str], code: i32, kind: &str) -> String {
    let before = contents(folder.path());
    let outcome = replay(trace, &[options, &["--json"]].concat()).expect(code);
    assert!(before == contents(folder.path()), "{options:?} has changed something");
    let error = &outcome.json()["error"];
    assert_eq!(error["kind"], kind, "{error}");
    error["message"].as_str().unwrap().to_owned()
}

#[test]
fn bad_traces_are_refused_with_their_place() {
    let folder = folder();
    let mut cut = records();
    cut.truncate(cut.len() - 5);
    let zstd = zstd::encode_all(key_size().repeat(1000).as_bytes(), 3).unwrap();
    let mut damaged = zstd.clone();
    damaged[20] ^= 0xff;
    for (name, bytes, told) in [
        ("empty", &b""[..], "holds nothing"),
        ("header", b"key,size\n", "holds nothing"),
        ("words", b"a,1\nb,two\n", "words:2: the size is not a whole number"),
        ("prose", b"Once upon a time\n", "prose:1: not key,size"),
        ("cut", &cut, "cut: offset 216: the last record is cut off"),
        ("noise", b"\0\x01\x02noise\xff", "neither lines of text nor records"),
        ("half.zst", &zstd[..zstd.len() / 2], "half.zst"),
        ("damaged.zst", &damaged, "damaged.zst"),
    ] {
        let trace = written(folder.path(), name, bytes);
        let message = refused(&folder, &trace, &[], 3, "trace");
        assert!(message.contains(told), "{message}, not {told}");
    }
    let missing = refused(&folder, &folder.path().join("missing"), &[], 3, "trace");
    assert!(missing.contains("missing"), "{missing}");
    for no_file in [folder.path(), Path::new("/dev/null")] {
        let message = refused(&folder, no_file, &[], 3, "trace");
        assert!(message.contains("is no file"), "{message}");
    }
}

#[test]
fn what_cannot_be_replayed_is_refused_before_anything_is_made() {
    let folder = folder();
    let trace = written(folder.path(), "trace.csv", skewed(100));
    let directory = folder.path().to_str().unwrap();
    let refused = |options: &[&str], code, kind| refused(&folder, &trace, options, code, kind);
    let small = refused(&["--budgets", "0.001"], 2, "usage");
    assert!(small.contains("too small") && small.contains("64.0 KiB"), "{small}");
    refused(&["--budgets", "100000", "--l2", directory], 2, "usage");
    let petabyte = (1_u64 << 50).to_string();
    let full = refused(&["--budgets", &petabyte, "--l2", directory], 3, "no_room");
    assert!(full.contains("free space") && full.contains(directory), "{full}");
    let missing = format!("{directory}/missing");
    refused(&["--budgets", "1000000", "--l2", &missing], 3, "io");
    refused(&["--budgets", "1000000", "--l2", trace.to_str().unwrap()], 3, "no_directory");
    refused(&["--plot", trace.to_str().unwrap()], 2, "usage");
    refused(&["--plot", &format!("{missing}/a.svg")], 3, "plot");
    for bad in [
        &["--budgets", "many"][..],
        &["--budgets", ""],
        &["--l1-share", "50"],
        &["--l1-share", "0", "--l2", directory],
        &["--l1-share", "100", "--l2", directory],
        &["--columns", "id"],
        &["--columns", "id=0"],
        &["--format", "pcap"],
        &["--object-bytes", "0"],
        &["--jobs", "0"],
    ] {
        replay(&trace, bad).expect(2);
    }
    tamis(["replay"]).expect(2);
}

/// The misses of other policies, as a simulator has counted them on published traces.
#[test]
fn other_policies_miss_as_published_simulations() {
    let Some(traces) = std::env::var_os("TAMIS_TRACES").map(PathBuf::from) else {
        println!("skipped: TAMIS_TRACES names no folder of traces");
        return;
    };
    let reference = fs::read_to_string(traces.join("reference.csv")).unwrap();
    let rows: Vec<Vec<_>> = reference.lines().map(|line| line.split(',').collect()).collect();
    let column = |name: &str| rows[0].iter().position(|it| *it == name).unwrap();
    let names = ["trace", "mode", "cache_size", "algo", "n_miss"].map(column);
    let mut compared = 0;
    for (trace, mode, unit) in [
        ("adaptsize_web", "byte", 1),
        ("tencentBlock_ns2706", "byte", 1),
        ("mooncake_conv", "obj", 4096),
    ] {
        let of_trace = || rows.iter().filter(|row| row[names[0]] == trace && row[names[1]] == mode);
        let size = |row: &Vec<&str>| row[names[2]].parse::<u64>().unwrap() * unit;
        let mut sizes: Vec<_> = of_trace().map(size).filter(|size| *size >= 64 * KIB).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let budgets: Vec<_> = sizes.iter().map(u64::to_string).collect();
        let path = traces.join(format!("{trace}.csv.zst"));
        let found = found(&path, &["--budgets", &budgets.join(",")]);
        for policy in ["sieve", "lru", "fifo"] {
            for (size_found, misses) in sizes.iter().zip(misses_of(&found, policy)) {
                let row =
                    of_trace().find(|row| size(row) == *size_found && row[names[3]] == policy);
                let Some(row) = row.filter(|row| !row[names[4]].is_empty()) else { continue };
                let expected: u64 = row[names[4]].parse().unwrap();
                assert_eq!(misses, expected, "{policy} on {trace} at {size_found}");
                compared += 1;
            }
        }
    }
    assert!(compared > 20, "{compared} figures were compared");
}
