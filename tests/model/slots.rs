//! Which keys share a slot, if the hash has few bits.

use std::collections::HashMap;

use futures::executor::block_on;
use tamis::{BlobCache, BlobCachePut, CachePresence, SweepLimit};

use crate::operation::{FullKey, KEY_BYTES_MAX, KEYS, NAMESPACES, Policy};

/// Puts every key in turn: a key that vanishes shares the slot of the one just put.
pub(crate) fn shared_slots(cache: &BlobCache) -> HashMap<FullKey, usize> {
    let long = vec![b'k'; KEY_BYTES_MAX];
    let keys = || KEYS.iter().map(|key| key.to_vec()).chain([long.clone()]);
    let mut slots: HashMap<FullKey, usize> = HashMap::new();
    let mut held: Vec<FullKey> = Vec::new();
    for full_key in
        NAMESPACES.iter().flat_map(|name| keys().map(|key| FullKey { namespace: name, key }))
    {
        // Whatever the namespace's policy.
        let put = BlobCachePut::new("").with_policy(Policy::default().build());
        block_on(cache.put(full_key.namespace, &full_key.key, put)).expect("all namespaces fit");
        let is_absent =
            |held: &FullKey| cache.exists(held.namespace, &held.key) == CachePresence::Absent;
        let displaced = held.iter().position(is_absent).map(|at| held.remove(at));
        assert!(!held.iter().any(is_absent), "a put replaces at most one entry");
        let slot = displaced.map_or(slots.len(), |displaced| slots[&displaced]);
        slots.insert(full_key.clone(), slot);
        held.push(full_key);
    }
    block_on(cache.invalidate_all()).expect("the cache is open");
    block_on(cache.sweep_expired(SweepLimit::Entries(usize::MAX)));
    slots
}
