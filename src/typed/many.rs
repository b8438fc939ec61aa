//! The verbs for many keys of a namespace at once, with values that have a type.

use std::future::Future;

use super::{Codec, TypedError, TypedHit, TypedNamespace, TypedPut};
use crate::batch::Pacer;
use crate::engine::read::get_many::find_many;
use crate::error::CacheError;
use crate::wake::discard;

impl<T, C: Codec<T>> TypedNamespace<T, C> {
    /// The values of many keys, in the order of the keys: see
    /// [`BlobCache::get_many`](crate::BlobCache::get_many). A value that does not decode is a miss,
    /// and stays where it is.
    ///
    /// All are decoded once the last one is read, up to 256 KiB in each poll, or one that is
    /// longer.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use tamis::*;
    /// # let cache = BlobCache::open(BlobCacheConfig::default()).await.unwrap();
    /// let names = cache.namespace("names").typed::<String, _>(Plain);
    /// names.put_many([("7", "ada".to_owned()), ("9", "grace".to_owned())]).await;
    /// let found = names.get_many(&["7", "8", "9"]).await;
    /// assert_eq!(found[0].as_ref().unwrap().value().unwrap(), "ada");
    /// assert!(found[1].is_none());
    /// assert_eq!(names.invalidate_keys(&["7", "9"]).await?, 2);
    /// # Ok::<(), CacheError>(())
    /// # }).unwrap();
    /// ```
    pub async fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Option<TypedHit<T>>> {
        let (engine, namespace, _) = self.namespace.parts();
        let found = find_many(engine.gets(), namespace, keys).await;
        let mut decoded = Vec::with_capacity(found.len());
        // The last poll has looked up as much as it may.
        let mut steps = Pacer::default();
        for hit in found {
            steps.entry().await;
            let hit = match hit {
                Some(hit) => {
                    steps.bytes(hit.value().len()).await;
                    self.take(&hit).map(|value| TypedHit::new(value, hit))
                }
                None => None,
            };
            engine.gets().count_found(namespace, hit.as_ref().map(TypedHit::hit));
            decoded.push(hit);
        }
        decoded
    }

    /// Encodes and puts many values: see [`BlobCache::put_many`](crate::BlobCache::put_many). A put
    /// without a policy gets the handle's.
    ///
    /// All are encoded before the first is put, up to 256 KiB of bytes in each poll, or one that is
    /// longer.
    ///
    /// # Errors
    ///
    /// Those of [`put`](Self::put), for each put by itself: one that cannot be encoded does not
    /// keep the others from being put.
    pub fn put_many<K: AsRef<[u8]>, P: Into<TypedPut<T>>>(
        &self,
        items: impl IntoIterator<Item = (K, P)>,
    ) -> impl Future<Output = Vec<Result<(), TypedError<C::Error>>>> {
        // Bounded: by the caller's items; no lock is held.
        let items: Vec<(K, TypedPut<T>)> =
            items.into_iter().map(|(key, put)| (key, put.into())).collect();
        async move {
            let mut refused = Vec::with_capacity(items.len());
            let mut puts = Vec::with_capacity(items.len());
            let mut steps = Pacer::at_once();
            for (key, mut put) in items {
                steps.entry().await;
                let encoded = put.encode(&*self.codec);
                let TypedPut { value, put } = put;
                discard(value);
                steps.bytes(put.value.as_slice().len()).await;
                refused.push(encoded.err());
                // In order: what is refused leaves a gap.
                if refused.last().is_some_and(Option::is_none) {
                    puts.push((key, put));
                }
            }
            let mut stored = self.namespace.put_many(puts).await.into_iter();
            let mut answers = Vec::with_capacity(refused.len());
            for refusal in refused {
                steps.entry().await;
                answers.push(match refusal {
                    Some(failure) => Err(failure.into()),
                    None => stored.next().unwrap_or(Ok(())).map_err(TypedError::Cache),
                });
            }
            answers
        }
    }

    /// See [`BlobCache::invalidate_keys`](crate::BlobCache::invalidate_keys).
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::invalidate_keys`](crate::BlobCache::invalidate_keys).
    pub async fn invalidate_keys<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<usize, CacheError> {
        self.namespace.invalidate_keys(keys).await
    }
}
