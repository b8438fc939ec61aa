//! Random callers on real threads that are dropped, fail and panic, under concurrent puts and
//! invalidations. All that are not dropped complete, and none is given a value removed before it
//! came.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tamis::BlobCachePut;

use crate::{Answer, open, threads};

/// The value of the key: a growing number. Each increase is followed by an invalidation of the key.
#[derive(Default)]
struct Origin {
    version: AtomicU64,
    /// The last version whose invalidation has returned.
    told: AtomicU64,
}

async fn yield_some(times: u32) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

#[test]
fn all_callers_complete_and_see_nothing_stale() {
    let seed = std::env::var("TAMIS_SEED").map_or_else(|_| rand::random(), |s| s.parse().unwrap());
    println!("TAMIS_SEED={seed}");
    let runtime = threads();
    let mut random = StdRng::seed_from_u64(seed);
    let mut given = 0;
    for _ in 0..40 {
        let (cache, origin) = (open(), Arc::new(Origin::default()));
        let tasks: Vec<_> = (0..200)
            .map(|_| {
                let (cache, origin) = (cache.clone(), Arc::clone(&origin));
                let (what, wait) = (random.random_range(0..100), random.random_range(0..20));
                let (work, patience) = (random.random_range(0..6), random.random_range(0..60));
                runtime.spawn(async move {
                    yield_some(wait).await;
                    if what < 10 {
                        let version = origin.version.fetch_add(1, Ordering::SeqCst) + 1;
                        cache.invalidate_tags("n", &["origin"]).await.unwrap();
                        origin.told.fetch_max(version, Ordering::SeqCst);
                        return 0;
                    }
                    let least = origin.told.load(Ordering::SeqCst);
                    let of_origin = Arc::clone(&origin);
                    let fetch = || async move {
                        let version = of_origin.version.load(Ordering::SeqCst);
                        yield_some(work).await;
                        if what < 20 {
                            // A panic without its message.
                            std::panic::resume_unwind(Box::new(()));
                        }
                        if what < 30 {
                            return Answer::Err("on purpose");
                        }
                        let put = BlobCachePut::from(version.to_le_bytes().to_vec());
                        Ok(put.with_tags(["origin"]))
                    };
                    let call = cache.get_or_fetch("n", "key", fetch);
                    let outcome = if what < 50 {
                        let impatient = tokio::select! {
                            biased;
                            outcome = call => Some(outcome),
                            () = yield_some(patience) => None,
                        };
                        let Some(outcome) = impatient else { return 0 };
                        outcome
                    } else {
                        call.await
                    };
                    let Ok(hit) = outcome else { return 0 };
                    let version = u64::from_le_bytes(hit.value().try_into().unwrap());
                    assert!(version >= least, "{version} is older than {least}");
                    1
                })
            })
            .collect();
        let minute = Duration::from_secs(60);
        let ended = runtime.block_on(async { tokio::time::timeout(minute, join_all(tasks)).await });
        let ended = ended.expect("no caller hangs");
        given += ended.into_iter().map(|task| task.expect("no task panics")).sum::<u64>();
    }
    assert!(given > 1000, "{given}");
}
