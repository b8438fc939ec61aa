//! A forked child has a copy of the cache but none of its threads, so no call may wait for them.

use futures::FutureExt;
use futures::executor::block_on;

use crate::cache::BlobCache;
use crate::config::BlobCacheConfig;
use crate::error::CacheError;
use crate::modes::L1Admission;
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;

fn below(value: &'static str) -> BlobCachePut {
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    BlobCachePut::new(value).with_tags(["tag"]).with_policy(policy)
}

#[test]
fn no_call_in_a_forked_child_waits_for_missing_threads() {
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let builder = BlobCacheConfig::builder().l2_path(folder.path()).l2_bytes_max(8 << 20);
    let cache = block_on(BlobCache::open(builder.build().unwrap())).unwrap();
    block_on(cache.put("a", "below", below("one"))).unwrap();
    block_on(cache.put("a", "both", "one")).unwrap();
    block_on(cache.sync()).unwrap();
    let file = cache.engine.parts.disk.file().unwrap();
    file.set_forked(true);
    let refused = |result: Option<Result<(), CacheError>>| match result {
        Some(Err(CacheError::L2Unavailable { reason })) => {
            assert!(reason.contains("fork"), "{reason}");
            assert!(reason.contains(folder.path().to_str().unwrap()), "{reason}");
        }
        other => panic!("{other:?}"),
    };
    refused(cache.put("a", "below", below("two")).now_or_never());
    refused(cache.put("a", "fresh", "two").now_or_never());
    refused(cache.invalidate_key("a", "below").now_or_never().map(|told| told.map(drop)));
    refused(cache.invalidate_prefix("a", "b").now_or_never().map(|told| told.map(drop)));
    refused(cache.invalidate_tags("a", &["tag"]).now_or_never().map(|told| told.map(drop)));
    refused(cache.invalidate_namespace("a").now_or_never().map(|told| told.map(drop)));
    refused(cache.invalidate_all().now_or_never());
    refused(cache.sync().now_or_never());
    refused(cache.reopen_l2().now_or_never());
    assert!(cache.get("a", "below").now_or_never().unwrap().is_none(), "a miss at once");
    assert_eq!(cache.get("a", "both").now_or_never().unwrap().unwrap().value(), b"one");
    file.set_forked(false);
    block_on(cache.put("a", "below", below("three"))).unwrap();
    file.set_forked(true);
    refused(cache.close().now_or_never());
    file.set_forked(false);
    assert_eq!(block_on(cache.close()), Err(CacheError::Closed));
}
