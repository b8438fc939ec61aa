//! `Model`: the newest value of each key. A hit must have it, a miss is always right.

use std::collections::HashMap;

use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tamis::{BlobCache, BlobCachePolicy, BlobCachePut, CacheError, L1Admission};

/// What each key had last, and how often a call gave it back or an error.
pub(crate) struct Model {
    pub(crate) random: StdRng,
    newest: HashMap<u32, u64>,
    puts: u64,
    pub(crate) hits: u64,
    pub(crate) errors: u64,
}

impl Model {
    pub(crate) fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { random, newest: HashMap::new(), puts: 0, hits: 0, errors: 0 }
    }

    fn value(key: u32, put: u64) -> Vec<u8> {
        // Noise, so that compression leaves its length.
        let mut noise = StdRng::seed_from_u64(put << 32 | u64::from(key));
        let mut value = vec![0; 16 + usize::try_from(put * 977 % 9000).unwrap()];
        noise.fill_bytes(&mut value);
        value
    }

    /// Calls by chance. A mutation is in force in this process even if it answers an error.
    pub(crate) fn run(&mut self, cache: &BlobCache, calls: usize) {
        for _ in 0..calls {
            let key = self.random.random_range(0..300_u32);
            let answer = match self.random.random_range(0..10) {
                0..4 => {
                    self.puts += 1;
                    self.newest.insert(key, self.puts);
                    let mut put = BlobCachePut::new(Self::value(key, self.puts));
                    if self.random.random_bool(0.5) {
                        let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
                        put = put.with_policy(policy);
                    }
                    block_on(cache.put("space", key.to_le_bytes(), put))
                }
                4 => {
                    self.newest.remove(&key);
                    block_on(cache.invalidate_key("space", key.to_le_bytes())).map(drop)
                }
                5 if self.random.random_bool(0.1) => block_on(cache.sync()),
                _ => {
                    self.get(cache, key);
                    Ok(())
                }
            };
            if let Err(error) = answer {
                assert!(matches!(error, CacheError::L2Io { .. }), "{error:?}");
                self.errors += 1;
            }
        }
    }

    fn get(&mut self, cache: &BlobCache, key: u32) {
        if let Some(hit) = block_on(cache.get("space", key.to_le_bytes())) {
            let newest = self.newest.get(&key).map(|&put| Self::value(key, put));
            assert!(newest.is_some_and(|newest| newest == hit.value()), "key {key}");
            self.hits += 1;
        }
    }

    pub(crate) fn get_all(&mut self, cache: &BlobCache) -> u64 {
        let before = self.hits;
        (0..300).for_each(|key| self.get(cache, key));
        self.hits - before
    }
}
