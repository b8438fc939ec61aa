//! All tests, over object_store 0.14.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]
#![allow(clippy::single_range_in_vec_init, reason = "stores are asked for ranges")]

use std::sync::Arc;

use object_store::integration::{multipart_put_part_out_of_order, multipart_with_opts};
use object_store::memory::InMemory;
use object_store_014 as object_store;
use tamis_object_store::v014 as cached;

mod common;
mod recipes;
mod s3;

/// An answer as this version has it.
fn get_result(
    stream: futures::stream::BoxStream<'static, object_store::Result<bytes::Bytes>>,
    meta: object_store::ObjectMeta,
    range: std::ops::Range<u64>,
) -> object_store::GetResult {
    let payload = object_store::GetResultPayload::Stream(stream);
    let attributes = object_store::Attributes::default();
    object_store::GetResult { payload, meta, range, attributes, extensions: Default::default() }
}

/// The functions of the suite that 0.13 does not have, which write to the inner store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_that_are_written_past_the_wrapper() {
    let (cache, inner) = (common::integration::cache(None).await, InMemory::new());
    let store = cached::CachedObjectStore::builder(Arc::new(inner.clone()), &cache, "objects");
    let store = store.build().unwrap();
    for _ in 0..2 {
        multipart_with_opts(&store, &inner).await;
        multipart_put_part_out_of_order(&store, &inner).await;
    }
}
