//! The README's store for slatedb.

use crate::common::{is_held, memory};
use crate::object_store;
use crate::object_store::memory::InMemory;

use std::sync::Arc;

use object_store::ObjectStore;
use tamis::BlobCache;
use tamis_object_store::{BuildError, CachedObjectStore};

fn db(s3: Arc<dyn ObjectStore>, cache: &BlobCache) -> Result<Arc<dyn ObjectStore>, BuildError> {
    let store = CachedObjectStore::builder(s3, cache, "db")
        .immutable(|path| path.as_ref().contains("/compacted/"));
    Ok(Arc::new(store.build()?))
}

#[tokio::test]
async fn compacted_tables_are_held_and_the_manifest_is_asked_for() {
    let ((cache, _), inner) = (memory().await, InMemory::new());
    let store = db(Arc::new(inner.clone()), &cache).unwrap();
    assert!(is_held(&store, &inner, "db/compacted/01J79C21YKR31J2BS1EFXJZ7MR.sst").await);
    assert!(!is_held(&store, &inner, "db/manifest/00000000000000000001.manifest").await);
    // A database that is made anew at the same path begins with the same number.
    assert!(!is_held(&store, &inner, "db/wal/00000000000000000001.sst").await);
}
