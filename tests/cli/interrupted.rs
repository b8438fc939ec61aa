//! A `backup` that is killed leaves a copy that every open refuses, and the next one replaces it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use tamis::{BlobCache, BlobCacheConfig, CacheError, L2Compression};

use super::{folder, tamis};

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
