//! The README's store for DataFusion, which is on 0.13.

use crate::common::{is_held, memory};
use crate::object_store;
use crate::object_store::memory::InMemory;

use std::sync::Arc;

use object_store::ObjectStore;
use tamis::BlobCache;
use tamis_object_store::v013::{BuildError, CachedObjectStore};

fn lake(s3: Arc<dyn ObjectStore>, cache: &BlobCache) -> Result<Arc<dyn ObjectStore>, BuildError> {
    let store = CachedObjectStore::builder(s3, cache, "lake").immutable(|_| true);
    Ok(Arc::new(store.build()?))
}

#[tokio::test]
async fn files_of_a_lake_are_held() {
    let ((cache, _), inner) = (memory().await, InMemory::new());
    let store = lake(Arc::new(inner.clone()), &cache).unwrap();
    assert!(is_held(&store, &inner, "sales/part-0.parquet").await);
}
