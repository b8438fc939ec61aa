//! All tests, over object_store 0.14.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]
#![allow(clippy::single_range_in_vec_init, reason = "stores are asked for ranges")]

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
