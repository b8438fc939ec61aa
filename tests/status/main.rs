//! The status socket of a cache: what it answers to other processes, that no client delays the
//! cache, and that it is there exactly as long as its owner has the store.

#![cfg(all(feature = "disk", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod answers;
mod clients;
mod lives;
#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../recorder/mod.rs"]
mod recorder;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::executor::block_on;
use tamis::{BlobCache, BlobCacheConfig, BlobCacheConfigBuilder};
use tempfile::TempDir;

const BYTES: u64 = 8 << 20;

/// The most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// One test at a time: they count threads, and one forks.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn builder(path: &Path) -> BlobCacheConfigBuilder {
    BlobCacheConfig::builder().l1_bytes_max(4 << 20).l2(path, |l2| l2.bytes_max(BYTES))
}

/// A cache with a socket.
fn open(path: &Path) -> BlobCache {
    block_on(BlobCache::open(builder(path).l2_status_socket(true).build().unwrap())).unwrap()
}

fn close(cache: &BlobCache) {
    block_on(cache.close()).unwrap();
}

fn socket(path: &Path) -> std::path::PathBuf {
    path.join("status.sock")
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket(path)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// The line that answers a request, without its end.
fn ask_on(mut stream: &UnixStream, request: &str) -> String {
    stream.write_all(format!("{request}\n").as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    assert!(line.len() <= ANSWER_BYTES_MAX, "{} bytes", line.len());
    line.strip_suffix('\n').unwrap().to_owned()
}

fn ask(path: &Path, request: &str) -> String {
    ask_on(&connect(path), request)
}

fn is_over(mut stream: &UnixStream) -> bool {
    stream.read(&mut [0; 64]).map_or(true, |bytes| bytes == 0)
}

/// The value of a member of an object of JSON that is a number.
fn number(answer: &str, member: &str) -> f64 {
    let (_, rest) = answer.split_once(&format!("\"{member}\":")).unwrap();
    rest.split([',', '}', ']']).next().unwrap().parse().unwrap()
}

/// The threads of this process with a name.
fn threads(name: &str) -> Vec<std::path::PathBuf> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let named = |task: &std::path::PathBuf| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|found| found.trim() == name)
    };
    tasks.filter(named).collect()
}
