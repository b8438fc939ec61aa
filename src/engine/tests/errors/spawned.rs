//! The errors of fetches in tasks.

use std::thread;
use std::time::Duration;

use futures::FutureExt;
use futures::executor::block_on;
use futures::future::BoxFuture;

use super::{Variants, documented, variant};
use crate::cache::BlobCache;
use crate::config::BlobCacheConfig;
use crate::error::FetchError;
use crate::fetch_policy::FetchPolicy;
use crate::hit::BlobCacheHit;
use crate::put::BlobCachePut;
use crate::spawn::FetchTask;

type Fetching = BoxFuture<'static, Result<BlobCachePut, &'static str>>;

type Call = fn(BlobCache, fn() -> Fetching) -> Asked;

type Asked = BoxFuture<'static, Result<BlobCacheHit, FetchError<&'static str>>>;

const CALLS: [(&str, Call); 4] = [
    ("BlobCache::get_or_fetch_spawned", |cache, fetch| {
        async move { cache.get_or_fetch_spawned("n", "k", fetch).await }.boxed()
    }),
    ("BlobCache::get_or_refresh_spawned", |cache, fetch| {
        async move { cache.get_or_refresh_spawned("n", "k", fetch).await }.boxed()
    }),
    ("BlobCacheNamespace::get_or_fetch_spawned", |cache, fetch| {
        async move { cache.namespace("n").get_or_fetch_spawned("k", fetch).await }.boxed()
    }),
    ("BlobCacheNamespace::get_or_refresh_spawned", |cache, fetch| {
        async move { cache.namespace("n").get_or_refresh_spawned("k", fetch).await }.boxed()
    }),
];

/// With a spawner, and without one.
pub(super) fn caches() -> [BlobCache; 2] {
    let brief = FetchPolicy::default().hard_timeout(Duration::from_millis(1));
    let spawner = |task: FetchTask| drop(thread::spawn(|| block_on(task)));
    let config = BlobCacheConfig::builder().spawner(spawner).fetch_policy(brief);
    [config.build().unwrap(), BlobCacheConfig::default()]
        .map(|config| block_on(BlobCache::open(config)).unwrap())
}

#[test]
fn the_errors_of_a_fetch_in_a_task_are_exactly_those_in_its_docs() {
    let [cache, without] = caches();
    let documented = documented();
    for (name, call) in CALLS {
        let outcomes = [
            block_on(call(cache.clone(), || async { Err("on purpose") }.boxed())),
            block_on(call(cache.clone(), || async { panic!("on purpose") }.boxed())),
            block_on(call(cache.clone(), || std::future::pending().boxed())),
            block_on(call(without.clone(), || async { Err("not called") }.boxed())),
        ];
        let errors = outcomes.map(|outcome| variant(&outcome.unwrap_err()));
        assert_eq!(Variants::from(errors), documented[name], "{name}, returned and documented");
    }
    assert_eq!(cache.stats().fetches_not_spawned(), 0, "each of a task ran in one");
}
