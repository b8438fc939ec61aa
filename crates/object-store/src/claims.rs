//! `Claim`: no two stores of a process use one namespace of one cache.

use parking_lot::Mutex;
use tamis::BlobCache;

/// The namespaces in use, with the caches that they are of.
// Bounded: by the stores of the process.
static CLAIMED: Mutex<Vec<(usize, String)>> = Mutex::new(Vec::new());

/// One store's right to a namespace, until it is dropped.
pub(crate) struct Claim {
    /// Keeps the place of the cache's configuration, which tells it from others, from being reused.
    cache: BlobCache,
    namespace: String,
}

/// Clones of a handle are one cache, which has one configuration.
fn place_of(cache: &BlobCache) -> usize {
    std::ptr::from_ref(cache.config()).addr()
}

impl Claim {
    /// None if the namespace is in use.
    pub(crate) fn new(cache: &BlobCache, namespace: &str) -> Option<Self> {
        let mut claimed = CLAIMED.lock();
        let place = place_of(cache);
        if claimed.iter().any(|(of, name)| *of == place && name == namespace) {
            return None;
        }
        claimed.push((place, namespace.to_owned()));
        Some(Self { cache: cache.clone(), namespace: namespace.to_owned() })
    }

    pub(crate) fn cache(&self) -> &BlobCache {
        &self.cache
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let place = place_of(&self.cache);
        CLAIMED.lock().retain(|(of, name)| *of != place || *name != self.namespace);
    }
}
