//! A store whose directory is deleted, or whose file is cut off, while it is open.

use std::fs::{self, OpenOptions};

use futures::executor::block_on;
use rand::RngExt;
use tamis::{CacheError, L2State};

use crate::model::Model;
use crate::{folder, open};

const BYTES: u64 = 4 << 20;

#[test]
fn a_store_whose_directory_is_deleted_goes_on_and_harms_no_new_one() {
    let folder = folder();
    let store = folder.path().join("store");
    let cache = open(&store, BYTES).unwrap();
    let mut model = Model::new(1);
    model.run(&cache, 2000);
    fs::remove_dir_all(&store).unwrap();
    model.run(&cache, 2000);
    assert_eq!(cache.stats().l2_state(), L2State::Healthy);
    assert!(cache.stats().l2_hits() > 0 && model.errors == 0);
    // Another store takes its place while the first one is open.
    let second = open(&store, BYTES).unwrap();
    let mut other = Model::new(2);
    assert_eq!(other.get_all(&second), 0, "a new store is empty");
    other.run(&second, 1000);
    model.run(&cache, 1000);
    block_on(cache.close()).unwrap();
    other.run(&second, 1000);
    block_on(second.close()).unwrap();
    let third = open(&store, BYTES).unwrap();
    assert!(other.get_all(&third) > 0, "the closed store is warm");
    block_on(third.close()).unwrap();
}

#[test]
fn a_store_whose_file_is_cut_off_serves_nothing_older() {
    let (mut opened, mut refused, mut found, mut failed, mut hits) = (0, 0, 0, 0, 0);
    let cases = std::env::var("TAMIS_CASES").map_or(4, |cases| cases.parse().unwrap());
    for seed in 0..cases {
        println!("seed {seed}");
        let folder = folder();
        let data = folder.path().join("data");
        let mut cache = open(folder.path(), BYTES).unwrap();
        let mut model = Model::new(seed);
        for _ in 0..3 {
            let calls = model.random.random_range(0..1000);
            model.run(&cache, calls);
            let file = OpenOptions::new().write(true).open(&data).unwrap();
            let length = file.metadata().unwrap().len();
            let kept = match model.random.random_range(0..4) {
                0 => 0,
                1 => model.random.random_range(0..3) * 4096,
                2 => model.random.random_range(0..length),
                _ => model.random.random_range(0..length) / 4096 * 4096,
            };
            file.set_len(kept).unwrap();
            let is_grown_again = model.random.random_bool(0.5);
            if is_grown_again {
                file.set_len(length).unwrap();
            }
            let calls = model.random.random_range(0..500);
            model.run(&cache, calls);
            model.get_all(&cache);
            failed += cache.stats().l2_io_errors() + cache.stats().l2_corruptions();
            if model.random.random_bool(0.5) {
                let _ = block_on(cache.close());
            }
            drop(cache);
            cache = match open(folder.path(), BYTES) {
                Ok(cache) => cache,
                Err(error) => {
                    let is_typed =
                        matches!(error, CacheError::L2Damaged { .. } | CacheError::L2Format { .. });
                    assert!(is_typed, "{error:?}");
                    refused += 1;
                    fs::remove_file(&data).unwrap();
                    open(folder.path(), BYTES).unwrap()
                }
            };
            opened += 1;
            found += model.get_all(&cache);
        }
        hits += model.hits;
    }
    println!("{opened} opens, {refused} refused, {found} hits after, {hits} in all");
    assert!(failed > 0 && refused > 0 && found > 0, "{failed}, {refused}, {found}");
}
