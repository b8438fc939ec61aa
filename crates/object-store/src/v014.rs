//! `CachedObjectStore` for `object_store` 0.14.

use futures::stream::BoxStream;
pub(crate) use object_store_014 as object_store;

#[path = "store/mod.rs"]
mod store;

pub use store::{BuildError, CachedObjectStore, CachedObjectStoreBuilder};

/// An answer as this version has it.
pub(crate) fn get_result(
    stream: BoxStream<'static, object_store::Result<bytes::Bytes>>,
    meta: object_store::ObjectMeta,
    range: std::ops::Range<u64>,
    attributes: object_store::Attributes,
) -> object_store::GetResult {
    let (payload, extensions) =
        (object_store::GetResultPayload::Stream(stream), Default::default());
    object_store::GetResult { payload, meta, range, attributes, extensions }
}
