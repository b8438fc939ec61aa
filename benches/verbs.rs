//! The time of each method, by criterion: `cargo bench -p tamis-benches --bench verbs`.
//! `benches/hit.rs` compares a hit with other caches.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use futures::executor::block_on;
use tamis::{BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, Plain};

const KEYS: u64 = 10_000;

fn key(number: u64) -> String {
    format!("/objects/{:016x}", number % KEYS)
}

/// A cache that holds all keys, each with a value of 1 KiB and two tags.
fn filled() -> BlobCache {
    let cache = block_on(BlobCache::open(BlobCacheConfig::default())).expect("a cache in memory");
    for number in 0..KEYS {
        block_on(cache.put("bench", key(number), put(number))).expect("room for all");
    }
    cache
}

fn put(number: u64) -> BlobCachePut {
    BlobCachePut::new(vec![7; 1024]).with_tags([format!("tag:{}", number % 100), "all".to_owned()])
}

fn reading(criterion: &mut Criterion) {
    let cache = filled();
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    let mut keys = keys.iter().cycle();
    let mut next = || keys.next().map_or("", String::as_str);
    criterion.bench_function("get, hit", |bencher| {
        bencher.iter(|| black_box(block_on(cache.get("bench", next()))));
    });
    let handle = cache.namespace("bench");
    criterion.bench_function("get, hit, by a handle", |bencher| {
        bencher.iter(|| black_box(block_on(handle.get(next()))));
    });
    let bytes = handle.typed::<Bytes, _>(Plain);
    criterion.bench_function("get, hit, typed as bytes", |bencher| {
        bencher.iter(|| black_box(block_on(bytes.get(next()))));
    });
    let text = handle.typed::<String, _>(Plain);
    criterion.bench_function("get, hit, typed as text of 1 KiB", |bencher| {
        bencher.iter(|| black_box(block_on(text.get(next()))));
    });
    criterion.bench_function("get, miss", |bencher| {
        bencher.iter(|| black_box(block_on(cache.get("other", next()))));
    });
    criterion.bench_function("exists", |bencher| {
        bencher.iter(|| black_box(cache.exists("bench", next())));
    });
}

fn writing(criterion: &mut Criterion) {
    let cache = filled();
    let mut number = 0;
    criterion.bench_function("put, 1 KiB over an entry", |bencher| {
        let prepare = || {
            number += 7;
            (key(number), BlobCachePut::from(vec![7; 1024]))
        };
        let run = |(key, put)| block_on(cache.put("bench", key, put));
        bencher.iter_batched(prepare, run, BatchSize::SmallInput);
    });
    criterion.bench_function("put, refused by its version", |bencher| {
        let versioned = |version| {
            BlobCachePut::new("v").with_policy(BlobCachePolicy::default().version(version))
        };
        block_on(cache.put("bench", "versioned", versioned(9))).expect("a free key");
        bencher.iter(|| black_box(block_on(cache.put("bench", "versioned", versioned(3)))));
    });
}

fn invalidating(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("invalidating 10,000 entries");
    group.sample_size(10);
    group.bench_function("by tag", |bencher| {
        let run = |cache: BlobCache| block_on(cache.invalidate_tags("bench", &["all"]));
        bencher.iter_batched(filled, run, BatchSize::PerIteration);
    });
    group.bench_function("by prefix", |bencher| {
        let run = |cache: BlobCache| block_on(cache.invalidate_prefix("bench", "/objects/"));
        bencher.iter_batched(filled, run, BatchSize::PerIteration);
    });
    group.bench_function("by namespace", |bencher| {
        let run = |cache: BlobCache| block_on(cache.invalidate_namespace("bench"));
        bencher.iter_batched(filled, run, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(verbs, reading, writing, invalidating);
criterion_main!(verbs);
