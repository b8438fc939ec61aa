//! Touches, which change the deadlines of the model's entry and nothing else.

use futures::executor::block_on;
use tamis::{BlobCacheNamespace, CachePresence};

use crate::driver::Driver;
use crate::operation::{FullKey, Policy};

impl Driver<'_> {
    pub(crate) fn touch(
        &mut self,
        full_key: &FullKey,
        policy: &Policy,
        handle: Option<BlobCacheNamespace>,
    ) {
        let built = policy.build();
        let touched = block_on(async {
            match handle {
                Some(handle) => handle.touch(&full_key.key, &built).await,
                None => self.cache.touch(full_key.namespace, &full_key.key, &built).await,
            }
        });
        let is_live = self.model.is_live(full_key);
        if self.setting.is_tiny && touched == Ok(false) && is_live == Ok(true) {
            // Its own room was made at its cost.
            let presence = self.cache.exists(full_key.namespace, &full_key.key);
            assert_eq!(presence, CachePresence::Absent, "{full_key:?} is there");
            return;
        }
        assert_eq!(touched, is_live, "touch of {full_key:?}");
        if touched == Ok(true) {
            let expires = self.jitter.expiry(full_key, self.model.now, policy);
            self.model.touch(full_key, policy, expires);
        }
    }
}
