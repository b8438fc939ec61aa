//! The errors of calls that open a store.

use std::env;
use std::fs;
use std::process::Command;

use futures::executor::block_on;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Variants, documented, folder, on_file, variant, words_after};
use crate::cache::BlobCache;
use crate::config::BlobCacheConfig;
use crate::error::CacheError;

/// Set in the child that opens a store under a limit, which holds for a whole process.
const CHILD: &str = "TAMIS_LIMITED_CHILD";

const LIMITED: &str = "refused under a limit: ";

/// The errors of a call that opens a store, under every fault. None in the child, which was to
/// print one.
fn errors_of_opening(test: &str, open: impl Fn(BlobCacheConfig) -> CacheError) -> Option<Variants> {
    if env::var_os(CHILD).is_some() {
        let folder = folder();
        let limit = Rlimit { current: Some(4096), ..getrlimit(Resource::Fsize) };
        setrlimit(Resource::Fsize, limit).unwrap();
        println!("{LIMITED}{}", variant(&open(on_file(folder.path()))));
        return None;
    }
    let mut errors = Variants::new();
    let made = folder();
    let config = on_file(made.path());
    let cache = block_on(BlobCache::open(config.clone())).unwrap();
    errors.insert(variant(&open(config.clone())));
    block_on(cache.close()).unwrap();
    let data = made.path().join("data");
    fs::OpenOptions::new().write(true).open(&data).unwrap().set_len(512 << 10).unwrap();
    errors.insert(variant(&open(config.clone())));
    fs::write(&data, vec![7; 2 << 20]).unwrap();
    errors.insert(variant(&open(config.clone())));
    errors.insert(variant(&open(on_file(&data))));
    let vast = BlobCacheConfig { l2_bytes_max: 12 << 40, l2_segment_bytes: 256 << 20, ..config };
    let elsewhere = folder();
    errors
        .insert(variant(&open(BlobCacheConfig { l2_path: Some(elsewhere.path().into()), ..vast })));

    let path = module_path!()
        .split_once("::")
        .map_or(test.to_owned(), |(_, module)| format!("{module}::{test}"));
    let mut command = Command::new(env::current_exe().unwrap());
    let output = command.args(["--exact", &path, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}");
    errors.append(&mut words_after(&told, LIMITED));
    Some(errors)
}

#[test]
fn the_errors_of_open_are_exactly_those_in_its_docs() {
    let name = "the_errors_of_open_are_exactly_those_in_its_docs";
    let open = |config| block_on(BlobCache::open(config)).unwrap_err();
    if let Some(errors) = errors_of_opening(name, open) {
        assert_eq!(errors, documented()["BlobCache::open"], "returned and documented");
    }
}

#[test]
fn the_errors_of_a_reopening_are_exactly_those_in_its_docs() {
    let name = "the_errors_of_a_reopening_are_exactly_those_in_its_docs";
    let reopen = |config: BlobCacheConfig| {
        let config = BlobCacheConfig { l2_required: false, ..config };
        let cache = block_on(BlobCache::open(config)).unwrap();
        block_on(cache.reopen_l2()).unwrap_err()
    };
    let Some(mut errors) = errors_of_opening(name, reopen) else { return };
    let cache = block_on(BlobCache::open(BlobCacheConfig::default())).unwrap();
    errors.insert(variant(&block_on(cache.reopen_l2()).unwrap_err()));
    block_on(cache.close()).unwrap();
    errors.insert(variant(&block_on(cache.reopen_l2()).unwrap_err()));
    assert_eq!(errors, documented()["BlobCache::reopen_l2"], "returned and documented");
}
