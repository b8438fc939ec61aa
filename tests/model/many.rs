//! Calls for many keys, which are to the model what a call for each would be.

use futures::executor::block_on;
use tamis::BlobCacheNamespace;

use crate::driver::{Driver, offer};
use crate::operation::{FullKey, Policy, Put};
use crate::seen::Seen;

impl Driver<'_> {
    pub(crate) fn get_many(
        &mut self,
        namespace: &'static str,
        keys: &[Vec<u8>],
        handle: Option<BlobCacheNamespace>,
    ) {
        let hits = block_on(async {
            match handle {
                Some(handle) => handle.get_many(keys).await,
                None => self.cache.get_many(namespace, keys).await,
            }
        });
        assert_eq!(hits.len(), keys.len());
        for (key, hit) in keys.iter().zip(&hits) {
            let expected = self.model.get(&FullKey { namespace, key: key.clone() });
            assert_eq!(hit.as_ref().map(Seen::from), expected, "of many: {namespace:?}, {key:?}");
        }
    }

    /// Puts of one namespace without read points, one after the other as far as the model goes.
    pub(crate) fn put_many(
        &mut self,
        puts: Vec<Put>,
        handle: Option<BlobCacheNamespace>,
        default: Option<Policy>,
    ) {
        let Some(name) = puts.first().map(|put| put.full_key.namespace) else { return };
        let items = puts.iter().map(|put| (put.full_key.key.clone(), offer(put, None)));
        let results = block_on(async {
            match handle {
                Some(handle) => handle.put_many(items).await,
                None => self.cache.put_many(name, items).await,
            }
        });
        assert_eq!(results.len(), puts.len());
        let default = default.or_else(|| self.defaults.get(name).cloned());
        for (put, result) in puts.into_iter().zip(results) {
            let policy = put.policy.clone().or_else(|| default.clone()).unwrap_or_default();
            let refusals = self.model.refusals(&put, &policy);
            self.apply((put, policy), &refusals, result);
        }
    }
}
