//! What a get answers, and what it asks of the inner store.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;

use super::object_store::path::Path;
use super::object_store::{
    Attribute, Attributes, Error, GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt,
    Result,
};
use super::origin::Origin;
use super::{KIB, content, memory, small};

const MINUTE: Duration = Duration::from_secs(60);

fn bounded(range: Range<u64>) -> Option<GetRange> {
    Some(GetRange::Bounded(range))
}

fn in_kib(range: Range<u64>) -> Option<GetRange> {
    bounded(range.start * KIB..range.end * KIB)
}

#[tokio::test]
async fn the_first_ranged_get_brings_along_what_is_known_of_the_object() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    origin.put_past(&path, content(1, 300 * KIB)).await;
    let store = small(origin.clone(), &cache).staleness(MINUTE).build().unwrap();
    let all = content(1, 300 * KIB);

    assert_eq!(store.get_range(&path, 10..20).await.unwrap(), all[10..20]);
    let asked = origin.asked();
    assert_eq!(asked.len(), 1);
    assert!(!asked[0].options.head);
    assert_eq!(asked[0].options.range, in_kib(0..64));

    // The block, the meta and the end beyond the size are known now.
    assert_eq!(store.get_range(&path, 20..30).await.unwrap(), all[20..30]);
    assert_eq!(store.head(&path).await.unwrap().size, 300 * KIB);
    assert!(origin.asked().is_empty());
    assert_eq!(store.get_range(&path, 299 * KIB..400 * KIB).await.unwrap(), all[299 << 10..]);
    let asked = origin.asked();
    assert_eq!((asked.len(), &asked[0].options.range), (1, &in_kib(256..300)));
    let e_tag = origin.inner.head(&path).await.unwrap().e_tag;
    assert!(e_tag.is_some() && asked[0].options.if_match == e_tag, "{asked:?}");
}

#[tokio::test]
async fn neighbouring_blocks_become_one_request_and_what_is_held_is_left_out() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    let all = content(1, 640 * KIB);
    origin.put_past(&path, all.clone()).await;
    let store = small(origin.clone(), &cache).staleness(MINUTE).build().unwrap();

    store.get_range(&path, 200 * KIB..200 * KIB + 1).await.unwrap();
    assert_eq!(origin.asked_ranges(), [in_kib(192..256)]);
    let part = store.get_range(&path, 0..512 * KIB).await.unwrap();
    assert_eq!(part, all[..512 << 10]);
    let mut asked = origin.asked_ranges();
    asked.sort_by_key(|range| format!("{range:?}").len());
    assert_eq!(asked, [in_kib(0..192), in_kib(256..512)]);

    // A request has 256 KiB at the most.
    let other = Path::from("b");
    origin.put_past(&other, all.clone()).await;
    store.head(&other).await.unwrap();
    assert_eq!(store.get(&other).await.unwrap().bytes().await.unwrap(), all);
    let asked = origin.asked_ranges();
    assert_eq!(asked, [None, in_kib(0..256), in_kib(256..512), in_kib(512..640)]);
}

#[tokio::test]
async fn the_whole_of_an_unknown_object_is_one_request_and_held_after_it() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    for length in [0, 1, 64 * KIB, 256 * KIB, 256 * KIB + 1, 1000 * KIB] {
        let all = content(length, length);
        origin.put_past(&path, all.clone()).await;
        let store = small(origin.clone(), &cache).staleness(MINUTE).build().unwrap();
        let answer = store.get(&path).await.unwrap();
        assert_eq!((answer.meta.size, answer.range.clone()), (length, 0..length));
        assert_eq!(answer.bytes().await.unwrap(), all);
        assert_eq!(origin.asked_ranges(), [None], "{length}");

        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), all);
        assert!(origin.asked().is_empty(), "{length}");
        store.delete(&path).await.unwrap();
    }
}

/// What an answer says, in a form that can be compared.
async fn told(answer: Result<GetResult>) -> std::result::Result<(Range<u64>, u64, Bytes), String> {
    let answer = answer.map_err(|error| format!("{error:?}"))?;
    let (range, size) = (answer.range.clone(), answer.meta.size);
    let chunks: Vec<Bytes> = answer.into_stream().try_collect().await.unwrap();
    Ok((range, size, chunks.concat().into()))
}

#[tokio::test]
async fn every_range_is_answered_as_the_inner_store_does() {
    let ((cache, _), origin) = (memory().await, Origin::new());
    let block = 64 * KIB;
    for size in [0, 1, block - 1, block, block + 1, 5 * block + 7] {
        let path = Path::from(format!("{size}"));
        origin.put_past(&path, content(size, size)).await;
        let edges = [0, 1, block - 1, block, block + 1, 4 * block, size.saturating_sub(1), size];
        let mut edges = [edges.as_slice(), &[size + 1, size + block, u64::MAX - 1]].concat();
        edges.sort_unstable();
        edges.dedup();
        let pairs = edges.iter().flat_map(|start| edges.iter().map(|end| *start..*end));
        let ranges = pairs.map(GetRange::Bounded);
        let ranges = ranges.chain(edges.iter().map(|edge| GetRange::Offset(*edge)));
        let ranges: Vec<_> = ranges.chain(edges.iter().map(|n| GetRange::Suffix(*n))).collect();

        let warm = small(origin.clone(), &cache).immutable(|_| true).build().unwrap();
        warm.head(&path).await.unwrap();
        for range in &ranges {
            let options = || GetOptions::new().with_range(Some(range.clone()));
            let expected = told(origin.inner.get_opts(&path, options()).await).await;
            let name = format!("cold {size} {range:?}");
            let cold = super::CachedObjectStore::builder(origin.clone(), &cache, &name);
            let cold = cold.block_bytes(block).request_bytes_max(4 * block).build().unwrap();
            for (store, how) in [(&cold, "cold"), (&warm, "warm")] {
                let answer = told(store.get_opts(&path, options()).await).await;
                match (&answer, &expected) {
                    // Cold, the inner store's error names the range that it was asked for.
                    (Err(_), Err(_)) if how == "cold" => {}
                    _ => assert_eq!(answer, expected, "{how} {size} {range:?}"),
                }
            }
            cache.invalidate_namespace(&name).await.unwrap();
        }
    }
}

#[tokio::test]
async fn many_ranges_are_answered_as_the_inner_store_does() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    let size = 20 * 64 * KIB + 9;
    origin.put_past(&path, content(1, size)).await;
    let cases: [&[Range<u64>]; 7] = [
        &[],
        &[0..1, 2..3, 0..5],
        &[70_000..70_001, 10..20, 500_000..900_000, 10..20, 65_535..65_537],
        &[0..size],
        &[size - 1..size, 0..1],
        &[0..10, 5..5],
        &[0..size + 1],
    ];
    for (number, ranges) in cases.into_iter().enumerate() {
        let store = super::CachedObjectStore::builder(origin.clone(), &cache, &number.to_string());
        let store = store.block_bytes(64 * KIB).request_bytes_max(256 * KIB).staleness(MINUTE);
        let store = store.build().unwrap();
        for _ in 0..2 {
            let expected =
                origin.inner.get_ranges(&path, ranges).await.map_err(|it| it.to_string());
            let answer = store.get_ranges(&path, ranges).await.map_err(|it| it.to_string());
            assert_eq!(answer, expected, "{ranges:?}");
        }
    }
    // Two neighbours and one that is not: what brings the meta along, and one more.
    let store = small(origin.clone(), &cache).staleness(MINUTE).build().unwrap();
    origin.asked();
    store.get_ranges(&path, &[700_000..700_001, 5..6, 65_540..65_541]).await.unwrap();
    assert_eq!(origin.asked_ranges(), [in_kib(0..128), in_kib(640..704)]);
}

#[tokio::test]
async fn attributes_and_meta_are_those_of_the_object() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    let attributes = Attributes::from_iter([
        (Attribute::ContentType, "text/plain"),
        (Attribute::Metadata("who".into()), "tamis"),
    ]);
    let store = small(origin.clone(), &cache).staleness(MINUTE).build().unwrap();
    store.put_opts(&path, "sieve".into(), attributes.clone().into()).await.unwrap();
    let expected = origin.inner.get(&path).await.unwrap().meta;
    for head in [false, true, false] {
        let options = GetOptions::new().with_head(head);
        let answer = store.get_opts(&path, options).await.unwrap();
        assert_eq!((&answer.meta, &answer.attributes), (&expected, &attributes));
        let body = if head { "" } else { "sieve" };
        assert_eq!(answer.bytes().await.unwrap(), body);
    }
    assert_eq!(origin.asked().len(), 1);
}

#[tokio::test]
async fn preconditions_are_judged_on_what_is_known_while_it_is_fresh() {
    let ((cache, clock), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    origin.put_past(&path, content(1, 10)).await;
    let store = small(origin.clone(), &cache).staleness(MINUTE).build().unwrap();
    let old = store.head(&path).await.unwrap().e_tag;
    origin.asked();

    let unless = |e_tag: &Option<String>| GetOptions::new().with_if_none_match(e_tag.clone());
    let only = |e_tag: &Option<String>| GetOptions::new().with_if_match(e_tag.clone());
    let error = store.get_opts(&path, unless(&old)).await.unwrap_err();
    assert!(matches!(error, Error::NotModified { .. }), "{error}");
    assert!(origin.asked().is_empty());

    // Who names a version that is not the known one has heard of a newer one.
    origin.put_past(&path, content(2, 10)).await;
    let new = origin.inner.head(&path).await.unwrap().e_tag;
    let answer = store.get_opts(&path, only(&new)).await.unwrap();
    assert_eq!(answer.bytes().await.unwrap(), content(2, 10));
    let error = store.get_opts(&path, only(&old)).await.unwrap_err();
    assert!(matches!(error, Error::Precondition { .. }), "{error}");

    origin.put_past(&path, content(3, 10)).await;
    clock.advance(MINUTE);
    let answer = store.get_opts(&path, unless(&new)).await.unwrap();
    assert_eq!(answer.bytes().await.unwrap(), content(3, 10));
}

/// Cold and warm: who has the object is told that it is the same, whatever the range.
#[tokio::test]
async fn preconditions_are_judged_before_ranges() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    origin.put_past(&path, content(1, 10)).await;
    let e_tag = origin.inner.head(&path).await.unwrap().e_tag;
    let beyond = || GetOptions::new().with_range(bounded(100..200));
    for staleness in [Duration::ZERO, MINUTE] {
        let store = small(origin.clone(), &cache).staleness(staleness).build().unwrap();
        for _ in 0..2 {
            let unless = beyond().with_if_none_match(e_tag.clone());
            let error = store.get_opts(&path, unless).await.unwrap_err();
            assert!(matches!(error, Error::NotModified { .. }), "{error}");
            let only = beyond().with_if_match(Some("another".to_owned()));
            let error = store.get_opts(&path, only).await.unwrap_err();
            assert!(matches!(error, Error::Precondition { .. }), "{error}");
            store.head(&path).await.unwrap();
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Span(u32);

#[tokio::test]
async fn extensions_travel_with_every_request() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    origin.put_past(&path, content(1, 640 * KIB)).await;
    let store = small(origin.clone(), &cache).staleness(MINUTE).build().unwrap();
    for (number, range) in [(1, 0..1), (2, 128 * KIB..300 * KIB)] {
        let mut options = GetOptions::new().with_range(bounded(range));
        options.extensions.insert(Span(number));
        store.get_opts(&path, options).await.unwrap().bytes().await.unwrap();
        let asked = origin.asked();
        assert!(!asked.is_empty());
        for asked in asked {
            assert_eq!(asked.options.extensions.get::<Span>(), Some(&Span(number)));
        }
    }
}

#[tokio::test]
async fn a_version_that_is_asked_for_is_an_object_of_its_own() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    let store = small(origin.clone(), &cache).staleness(MINUTE).build().unwrap();
    let of = |version: &str| GetOptions::new().with_version(Some(version));
    let read = async |options| store.get_opts(&path, options).await?.bytes().await;

    // A store without versions answers what it has now: that is not the version's.
    origin.put_past(&path, content(9, 100)).await;
    assert_eq!(read(of("7")).await.unwrap(), content(9, 100));
    origin.put_past(&path, content(8, 100)).await;
    assert_eq!(read(of("7")).await.unwrap(), content(8, 100));

    origin.has_versions.store(true, Ordering::SeqCst);
    origin.put_past(&path, content(0, 100)).await;
    origin.put_past(&path, content(1, 100)).await;
    origin.asked();
    for _ in 0..2 {
        assert_eq!(read(of("0")).await.unwrap(), content(0, 100));
        assert_eq!(read(of("1")).await.unwrap(), content(1, 100));
        assert_eq!(read(GetOptions::new()).await.unwrap(), content(1, 100));
    }
    assert_eq!(origin.asked().len(), 3);

    // A write of the path may have removed its versions, too.
    store.put(&path, content(2, 100).into()).await.unwrap();
    assert_eq!(read(of("0")).await.unwrap(), content(0, 100));
    assert_eq!(read(GetOptions::new()).await.unwrap(), content(2, 100));
    let asked: Vec<_> = origin.asked().into_iter().map(|asked| asked.options.version).collect();
    assert_eq!(asked, [Some("0".to_owned()), None]);
}

#[tokio::test]
async fn absences_are_cached_on_request_only() {
    let ((cache, clock), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    let plain = small(origin.clone(), &cache).staleness(MINUTE).build().unwrap();
    for _ in 0..2 {
        assert!(matches!(plain.get(&path).await, Err(Error::NotFound { .. })));
    }
    assert_eq!(origin.asked().len(), 2);
    drop(plain);

    let store = small(origin.clone(), &cache).absences(MINUTE).build().unwrap();
    for _ in 0..2 {
        assert!(matches!(store.get(&path).await, Err(Error::NotFound { .. })));
        assert!(matches!(store.get_ranges(&path, &[0..1]).await, Err(Error::NotFound { .. })));
    }
    assert_eq!(origin.asked().len(), 1);
    store.put(&path, "here".into()).await.unwrap();
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "here");

    store.delete(&path).await.unwrap();
    assert!(matches!(store.get(&path).await, Err(Error::NotFound { .. })));
    origin.put_past(&path, content(1, 8)).await;
    assert!(matches!(store.get(&path).await, Err(Error::NotFound { .. })));
    clock.advance(MINUTE);
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), content(1, 8));
}

#[tokio::test]
async fn who_reads_in_sequence_finds_the_next_blocks_held() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    let size = 2048 * KIB;
    origin.put_past(&path, content(1, size)).await;
    let builder = small(origin.clone(), &cache).staleness(MINUTE).read_ahead(512 * KIB);
    let store = builder.build().unwrap();
    let step = 32 * KIB;
    let mut fetched_by_reader = 0;
    for start in (0..size).step_by(usize::try_from(step).unwrap()) {
        let before = store.stats();
        let part = store.get_range(&path, start..start + step).await.unwrap();
        assert_eq!(part, content(1, size)[usize::try_from(start).unwrap()..][..32 << 10]);
        fetched_by_reader += store.stats().blocks_missed - before.blocks_missed;
        // The tasks run.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let stats = store.stats();
    assert_eq!(stats.blocks_ahead, 31, "{stats:?}");
    assert_eq!(fetched_by_reader, 0, "{stats:?}");
    assert_eq!(stats.inner_bytes, size);

    // Who jumps about does not.
    let other = Path::from("b");
    origin.put_past(&other, content(2, size)).await;
    for start in [5, 900, 100, 1500, 700] {
        store.get_range(&other, start * KIB..start * KIB + 1).await.unwrap();
    }
    assert_eq!(store.stats().blocks_ahead, 31);
}

#[tokio::test]
async fn small_parts_do_not_keep_their_blocks_in_memory() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    origin.put_past(&path, content(1, 64 * KIB)).await;
    let store = small(origin.clone() as Arc<dyn ObjectStore>, &cache).staleness(MINUTE);
    let store = store.build().unwrap();
    for _ in 0..2 {
        let part = store.get_range(&path, 100..200).await.unwrap();
        assert!(part.is_unique(), "it is a slice of something larger");
    }
}
