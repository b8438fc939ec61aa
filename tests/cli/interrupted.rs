//! A `backup` that is killed leaves a copy that every open refuses, and the next one replaces it. A
//! `bench` or a `replay` that is asked to stop removes what it has made.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rustix::process::{Pid, Signal, kill_process};
use tamis::{BlobCache, BlobCacheConfig, CacheError, L2Compression};

use super::{Outcome, contents, folder, tamis};

const VALUES: usize = 48;

fn open(folder: &Path) -> Result<BlobCache, CacheError> {
    let builder = BlobCacheConfig::builder()
        .l1_bytes_max(1 << 20)
        .l2_path(folder)
        .l2_bytes_max(128 << 20)
        .l2_segment_bytes(2 << 20)
        .l2_compression(L2Compression::Off);
    block_on(BlobCache::open(builder.build().unwrap()))
}

fn value(number: usize) -> Vec<u8> {
    (number as u64 + 1).to_le_bytes().repeat(128 << 10)
}

fn back_up(from: &Path, to: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tamis"));
    let command = command.arg("backup").arg(from).arg(to);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// A block of a copy that is not finished, as a backup that fails for want of room leaves it.
pub(crate) fn mark() -> [u8; 4096] {
    let mut block = [0; 4096];
    block[..8].copy_from_slice(b"tamisCPY");
    block
}

fn is_whole(copy: &Path) -> bool {
    match open(copy) {
        Ok(cache) => {
            for number in 0..VALUES {
                let hit = block_on(cache.get("space", number.to_string())).unwrap();
                assert!(hit.value() == value(number), "{number}");
            }
            block_on(cache.close()).unwrap();
            true
        }
        Err(CacheError::L2Damaged { reason, .. }) => {
            assert!(reason.contains("not finished"), "{reason}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_copy_that_was_interrupted_is_refused_and_replaced() {
    let (folder, parent) = (folder(), folder());
    let cache = open(folder.path()).unwrap();
    for number in 0..VALUES {
        block_on(cache.put("space", number.to_string(), value(number))).unwrap();
    }
    block_on(cache.close()).unwrap();
    let to = parent.path().join("to");
    let begun = Instant::now();
    assert!(back_up(folder.path(), &to).wait().unwrap().success());
    let longest = begun.elapsed();
    assert!(is_whole(&to));
    fs::remove_dir_all(&to).unwrap();

    let (mut none, mut refused, mut whole) = (0, 0, 0);
    for _ in 0..30 {
        let mut child = back_up(folder.path(), &to);
        thread::sleep(longest.mul_f64(rand::random_range(0.0..1.0)).min(Duration::from_secs(5)));
        child.kill().unwrap();
        child.wait().unwrap();
        if !to.join("data").exists() {
            none += 1;
        } else if is_whole(&to) {
            whole += 1;
            fs::remove_dir_all(&to).unwrap();
        } else {
            refused += 1;
        }
    }
    println!("{longest:?}: {none} none, {refused} refused, {whole} whole");
    assert!(refused >= 5, "{none} none, {refused} refused, {whole} whole");
    if to.exists() {
        let paths = [folder.path(), &to].map(|path| path.to_str().unwrap());
        tamis(["backup", paths[0], paths[1]]).expect(0);
        tamis(["verify", paths[1]]).expect(0);
        assert!(is_whole(&to));
    }
}

/// A command is asked to stop once its folder is there, and after some more time.
fn interrupted(folder: &Path, arguments: &[&str], signal: Signal, wait: Duration) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tamis"));
    let command = command.args(arguments).arg("--json").stdout(Stdio::piped());
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while fs::read_dir(folder).unwrap().next().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{arguments:?} makes no folder");
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(wait);
    kill_process(Pid::from_child(&child), signal).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(contents(folder).is_empty(), "{arguments:?} {wait:?}");
    let outcome = Outcome {
        code: output.status.code().expect("it was not killed"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    assert_eq!(outcome.expect(130).json()["error"]["kind"], "interrupted");
}

#[test]
fn a_bench_and_a_replay_that_are_asked_to_stop_leave_nothing() {
    let (disk, traces) = (folder(), folder());
    let directory = disk.path().to_str().unwrap();
    let lines: String =
        (0..2_000_000_u64).map(|number| format!("{},4096\n", number * 7919 % 100_000)).collect();
    let trace = traces.path().join("trace.csv");
    fs::write(&trace, lines).unwrap();
    let replay =
        ["replay", trace.to_str().unwrap(), "--l2", directory, "--budgets", "10000000,20000000"];
    let bench = ["bench", directory, "--gib", "0.1", "--seconds", "5", "--size", "4096"];
    // While it fills, and while it measures.
    for (signal, millis) in [(Signal::INT, 0), (Signal::TERM, 100), (Signal::INT, 3000)] {
        let wait = Duration::from_millis(millis);
        interrupted(disk.path(), &bench, signal, wait);
        interrupted(disk.path(), &replay, signal, wait.min(Duration::from_millis(500)));
    }
}
