//! A writer process is killed at random moments; the next process never finds anything older than
//! the acknowledged mutations.
//!
//! The parent starts this test binary as the writer, whose tasks report each mutation on standard
//! output before it begins and after it is acknowledged. The parent kills it, reopens the store and
//! checks every key against the reports; sometimes it starts the next writer at once instead.
//! `TAMIS_KILLS` sets the number of kills, `TAMIS_SEED` the first seed.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod engine;

use std::collections::HashMap;
use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tamis::{
    BlobCache, BlobCacheConfig, BlobCachePut, CrashSafety, L1Admission, L2Compression, L2Engine,
};

use self::engine::engine;

/// Tasks of a writer, each with its own namespace.
const TASKS: u64 = 4;
const KEYS: u64 = 25;
const WRITER: &str = "TAMIS_KILL_WRITER";
const PUTTER: &str = "TAMIS_KILL_PUTTER";

fn config(path: &Path, seed: u64, engine: L2Engine) -> BlobCacheConfig {
    let crash_safety = if seed % 3 == 0 { CrashSafety::Power } else { CrashSafety::Process };
    BlobCacheConfig::builder()
        .l1_bytes_max(64 << 10)
        .l2_path(path)
        .l2_engine(engine)
        .l2_bytes_max(4 << 20)
        .l2_segment_bytes(256 << 10)
        // Compressed, the values would be so small that no segment is reclaimed.
        .l2_compression(L2Compression::Off)
        .crash_safety(crash_safety)
        .build()
        .unwrap()
}

/// The content of a key: a number, or nothing.
type Holding = Option<u64>;

fn value(number: u64) -> Vec<u8> {
    let length = 8 + usize::try_from(number * 7919 % 9000).unwrap();
    number.to_le_bytes().into_iter().cycle().take(length).collect()
}

fn space(task: u64) -> String {
    format!("space{task}")
}

fn report(line: &str) {
    let mut stdout = io::stdout().lock();
    stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).unwrap();
}

/// The writer: each task runs mutations one after the other, reports each before and after, and
/// gets keys in between.
fn write(path: &Path, seed: u64) {
    block_on(async {
        let cache = BlobCache::open(config(path, seed, engine(seed))).await.unwrap();
        futures::future::join_all((0..TASKS).map(|task| work(&cache, seed, task))).await;
    });
}

async fn work(cache: &BlobCache, seed: u64, task: u64) {
    let mut random = StdRng::seed_from_u64(seed * TASKS + task);
    let space = &space(task);
    for number in (seed * TASKS + task) * 1_000_000.. {
        let key = random.random_range(0..KEYS);
        let (name, tag) = (key.to_le_bytes(), format!("tag{}", key % 7));
        let told = match random.random_range(0..100) {
            0..30 => {
                drop(cache.get(space, name).await);
                continue;
            }
            30..80 => format!("{task} {key} {number}"),
            80..92 => format!("{task} {key} -"),
            92..96 => format!("{task} tag {}", key % 7),
            96..99 => format!("{task} {key} prefix"),
            _ => format!("{task} all"),
        };
        report(&format!("begin {told}\n"));
        if told.ends_with("prefix") {
            cache.invalidate_prefix(space, name).await.unwrap();
        } else if told.ends_with('-') {
            cache.invalidate_key(space, name).await.unwrap();
        } else if told.contains("tag") {
            cache.invalidate_tags(space, &[&tag]).await.unwrap();
        } else if told.ends_with("all") {
            cache.invalidate_namespace(space).await.unwrap();
        } else {
            let admission = [L1Admission::Auto, L1Admission::Never][random.random_range(0..2)];
            let policy = tamis::BlobCachePolicy::default().l1_admission(admission);
            let put = BlobCachePut::from(value(number)).with_tags([tag]).with_policy(policy);
            cache.put(space, name, put).await.unwrap();
        }
        report(&format!("end {told}\n"));
    }
}

/// For each key its last acknowledged content, and the mutations begun after that.
#[derive(Default)]
struct Journal {
    keys: HashMap<(u64, u64), (Holding, Vec<Holding>)>,
    acknowledged: u64,
}

impl Journal {
    fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let task = words[1].parse().unwrap();
        let covered: Vec<u64> = match words[2] {
            "all" => (0..KEYS).collect(),
            "tag" => (0..KEYS).filter(|key| (key % 7).to_string() == words[3]).collect(),
            key => vec![key.parse().unwrap()],
        };
        let holding = match words[2] {
            "all" | "tag" => None,
            _ => words[3].parse().ok(),
        };
        for key in covered {
            let (last, begun) = self.keys.entry((task, key)).or_default();
            if words[0] == "begin" {
                begun.push(holding);
            } else {
                (*last, *begun) = (holding, Vec::new());
            }
        }
        self.acknowledged += u64::from(words[0] == "end");
    }
}

/// Runs a writer, kills it, and collects its reports.
fn kill_once(path: &Path, seed: u64, journal: &mut Journal) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut writer = Command::new(env::current_exe().unwrap())
        .args(["--exact", "killed_writers_leave_nothing_stale", "--nocapture"])
        .env(WRITER, format!("{seed} {}", path.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(writer.stdout.take().unwrap());
    let patience = Duration::from_millis(random.random_range(30..250));
    let killer = std::thread::spawn(move || {
        std::thread::sleep(patience);
        writer.kill().unwrap();
        writer.wait().unwrap();
    });
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).unwrap() > 0 {
        let text = std::str::from_utf8(&line).unwrap();
        // The test harness prints as well; an incomplete line was never acknowledged.
        if let Some(text) = text.strip_suffix('\n') {
            let told = text.find("begin ").or_else(|| text.find("end "));
            if let Some(told) = told.filter(|at| *at == 0 || text[..*at].ends_with("... ")) {
                journal.take(&text[told..]);
            }
        }
        line.clear();
    }
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    killer.join().unwrap();
}

/// Checks every key against the reports. Returns the number of hits.
fn check(path: &Path, seed: u64, journal: &mut Journal) -> u64 {
    let mut hits = 0;
    block_on(async {
        // Not the one that wrote it.
        let config = config(path, seed, engine(seed + 1));
        let cache = BlobCache::open(config).await.unwrap();
        for (task, key) in (0..TASKS).flat_map(|task| (0..KEYS).map(move |key| (task, key))) {
            let hit = cache.get(&space(task), key.to_le_bytes()).await;
            let (last, begun) = journal.keys.entry((task, key)).or_default();
            let found = hit.map(|hit| {
                let number = u64::from_le_bytes(hit.value()[..8].try_into().unwrap());
                assert_eq!(hit.value(), value(number), "TAMIS_SEED={seed} key {key}: wrong bytes");
                number
            });
            if found.is_some() {
                hits += 1;
                assert!(
                    found == *last || begun.contains(&found),
                    "TAMIS_SEED={seed} key {key}: {found:?} is stale: {last:?}, then {begun:?}"
                );
            }
            // The next writer begins with the state seen here.
            (*last, *begun) = (found, Vec::new());
        }
        assert_eq!(cache.stats().l2_corruptions(), 0, "TAMIS_SEED={seed}");
        cache.close().await.unwrap();
    });
    hits
}

#[test]
fn killed_writers_leave_nothing_stale() {
    if let Ok(order) = env::var(WRITER) {
        let (seed, path) = order.split_once(' ').unwrap();
        return write(Path::new(path), seed.parse().unwrap());
    }
    let number = |name, default| env::var(name).map_or(default, |text| text.parse().unwrap());
    let (first, kills) = (number("TAMIS_SEED", 1), number("TAMIS_KILLS", 30));
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut journal = Journal::default();
    let mut hits = 0;
    for seed in first..first + kills {
        kill_once(folder.path(), seed, &mut journal);
        if seed % 4 != 1 {
            hits += check(folder.path(), seed, &mut journal);
        }
    }
    println!("{kills} kills, {} acknowledged mutations, {hits} hits", journal.acknowledged);
    assert!(hits > kills * 5, "a cache that forgets everything is never stale: {hits} hits");
    assert!(journal.acknowledged > kills * 20, "{} mutations", journal.acknowledged);
}

fn sparse(path: &Path, life: u64) -> BlobCacheConfig {
    BlobCacheConfig::builder()
        .l1_bytes_max(64 << 10)
        .l2_path(path)
        .l2_engine(engine(life))
        .l2_bytes_max(16 << 20)
        .l2_segment_bytes(1 << 20)
        .l2_compression(L2Compression::Off)
        .build()
        .unwrap()
}

/// Puts an entry named after the run, reports when it is on file, and continues until it is killed.
fn put_until_killed(path: &Path, life: u64) {
    block_on(async {
        let cache = BlobCache::open(sparse(path, life)).await.unwrap();
        cache.put("n", format!("{life}"), "kept").await.unwrap();
        cache.sync().await.unwrap();
        report("end\n");
        for _ in 0.. {
            cache.put("n", "torn", vec![7; 700]).await.unwrap();
            cache.sync().await.unwrap();
            std::thread::sleep(Duration::from_micros(500));
        }
    });
}

#[test]
fn repeated_kills_lose_only_unwritten_tails() {
    if let Ok(order) = env::var(PUTTER) {
        let (life, path) = order.split_once(' ').unwrap();
        return put_until_killed(Path::new(path), life.parse().unwrap());
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // Three times the number of segments.
    let lives = 48;
    for life in 0..lives {
        let mut putter = Command::new(env::current_exe().unwrap())
            .args(["--exact", "repeated_kills_lose_only_unwritten_tails", "--nocapture"])
            .env(PUTTER, format!("{life} {}", folder.path().display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(putter.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with("end")), "run {life} has put nothing");
        std::thread::sleep(Duration::from_micros(life * 137 % 3000));
        putter.kill().unwrap();
        putter.wait().unwrap();
    }
    block_on(async {
        let cache = BlobCache::open(sparse(folder.path(), lives)).await.unwrap();
        for life in 0..lives {
            assert!(
                cache.get("n", format!("{life}")).await.is_some(),
                "the entry of run {life} is missing"
            );
        }
        assert_eq!(cache.stats().recovery_dropped(), 0);
        assert!(cache.stats().l2_bytes_in_use() < 2 << 20, "it is sparse");
        cache.close().await.unwrap();
    });
}
