//! The errors of settings are those in their docs, as those of calls are (`errors`).

use std::time::Duration;

use futures::executor::block_on;

use super::errors::{Variants, documented, variant};
use crate::cache::BlobCache;
use crate::config::BlobCacheConfig;
use crate::fetch_policy::FetchPolicy;

#[test]
fn the_errors_of_build_are_exactly_those_in_its_docs() {
    let error = BlobCacheConfig::builder().l1_bytes_max(1).build().unwrap_err();
    let errors = Variants::from([variant(&error)]);
    assert_eq!(errors, documented()["BlobCacheConfigBuilder::build"], "returned and documented");
}

#[test]
fn the_errors_of_a_fetch_policy_are_exactly_those_in_its_docs() {
    let cache = block_on(BlobCache::open(BlobCacheConfig::default())).unwrap();
    let policy = FetchPolicy::default().hard_timeout(Duration::ZERO);
    let error = cache.namespace("n").with_fetch_policy(policy).unwrap_err();
    let errors = Variants::from([variant(&error)]);
    assert_eq!(errors, documented()["BlobCacheNamespace::with_fetch_policy"]);
}
