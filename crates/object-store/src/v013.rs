//! `CachedObjectStore` for `object_store` 0.13.

use futures::stream::BoxStream;
pub(crate) use object_store_013 as object_store;

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
    let payload = object_store::GetResultPayload::Stream(stream);
    object_store::GetResult { payload, meta, range, attributes }
}
