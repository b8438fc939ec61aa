//! The README's wrapper for lance.

use crate::common::{is_held, memory};
use crate::object_store;
use crate::object_store::memory::InMemory;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use object_store::{ObjectStore, path::Path};
use tamis::BlobCache;
use tamis_object_store::CachedObjectStore;

struct Wrapper {
    cache: BlobCache,
    /// One for each prefix: a namespace is one store's.
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl Wrapper {
    fn wrap(&self, prefix: &str, inner: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(prefix) {
            return store.clone();
        }
        let store = CachedObjectStore::builder(inner.clone(), &self.cache, prefix)
            .block_bytes(64 << 10)
            .immutable(has_unique_name);
        let Ok(store) = store.build() else { return inner };
        stores.entry(prefix.to_owned()).or_insert(Arc::new(store)).clone()
    }
}

fn has_unique_name(path: &Path) -> bool {
    let is_of_index = |part: &str| part == "_indices" || part == "_deletions";
    path.as_ref().ends_with(".lance") || path.as_ref().split('/').any(is_of_index)
}

#[tokio::test]
async fn files_with_unique_names_are_held_and_versions_are_asked_for() {
    let ((cache, _), inner) = (memory().await, InMemory::new());
    let wrapper = Wrapper { cache, stores: Mutex::default() };
    let store = wrapper.wrap("s3$vectors", Arc::new(inner.clone()));
    for held in ["data/0a.lance", "_indices/0b/index.idx", "_deletions/1-2-3.arrow"] {
        assert!(is_held(&store, &inner, &format!("a/items.lance/{held}")).await, "{held}");
    }
    let may_change = ["_versions/1.manifest", "_versions/latest_version_hint.json"];
    for asked in may_change.into_iter().chain(["_latest.manifest", "_refs/tags/best.json"]) {
        assert!(!is_held(&store, &inner, &format!("a/items.lance/{asked}")).await, "{asked}");
    }
    // Each dataset that is opened wraps.
    assert!(Arc::ptr_eq(&store, &wrapper.wrap("s3$vectors", Arc::new(inner.clone()))));
    let other = wrapper.wrap("s3$other", Arc::new(inner));
    assert!(!Arc::ptr_eq(&store, &other) && other.to_string() == "CachedObjectStore(InMemory)");
}
