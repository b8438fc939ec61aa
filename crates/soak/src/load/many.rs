//! Calls for many keys of one namespace: a caller's own ones, or those of another task.

use std::sync::atomic::Ordering;

use rand::RngExt;
use tamis::BlobCache;

use super::{Caller, Outcome};
use crate::blobs::{Key, NAMESPACES, prefix};

/// Most keys of one call: few enough for their values to have room together.
const KEYS_MAX: u32 = 16;

impl Caller {
    /// This key and others of its namespace, each once.
    fn many(&mut self, first: Key) -> Vec<Key> {
        let step = u32::try_from(NAMESPACES.len()).unwrap_or(1);
        // There are 16 keys at least.
        let count = self.random.random_range(2..=KEYS_MAX).min(self.keys / step);
        let whole = self.keys - self.keys % step;
        let number = |place| (first.number + place * step) % whole;
        (0..count).map(|place| Key { number: number(place), ..first }).collect()
    }

    pub(super) async fn get_many(&mut self, cache: &BlobCache, own: Key) {
        let task = self.own_or_another();
        let keys = self.many(Key { task, ..own });
        let bytes: Vec<_> = keys.iter().map(|key| key.bytes()).collect();
        let hits = cache.get_many(NAMESPACES[keys[0].namespace()], &bytes).await;
        for (key, hit) in keys.into_iter().zip(hits) {
            if let Some(hit) = hit {
                self.totals.hits.fetch_add(1, Ordering::Relaxed);
                self.check(key, &hit, None);
            }
        }
    }

    pub(super) async fn put_many(&mut self, cache: &BlobCache, own: Key) -> Outcome {
        let keys = self.many(own);
        let (mut puts, mut numbers) = (Vec::new(), Vec::new());
        for &key in &keys {
            let (put, number) = self.put(key);
            puts.push((key.bytes(), put));
            numbers.push(number);
        }
        let stored = cache.put_many(NAMESPACES[keys[0].namespace()], puts).await;
        let mut outcome = Ok(());
        for ((key, number), stored) in keys.into_iter().zip(numbers).zip(stored) {
            // Each counts by itself: those behind one that failed are stored.
            match stored {
                Ok(()) => self.ledger.put(key.number, number),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }

    pub(super) async fn invalidate_many(&mut self, cache: &BlobCache, own: Key) -> Outcome {
        let keys = self.many(own);
        let bytes: Vec<_> = keys.iter().map(|key| key.bytes()).collect();
        cache.invalidate_keys(NAMESPACES[keys[0].namespace()], &bytes).await?;
        for key in keys {
            self.ledger.removed(key.number);
        }
        Ok(())
    }

    /// The keys of a group.
    pub(super) async fn list(&mut self, cache: &BlobCache, own: Key) {
        let prefix = prefix(own.group());
        let mut listed = cache.keys(NAMESPACES[own.namespace()], &prefix);
        while let Some(entry) = listed.next().await {
            self.totals.checked.fetch_add(1, Ordering::Relaxed);
            if !entry.key().starts_with(prefix.as_bytes()) {
                self.totals.wrong.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
