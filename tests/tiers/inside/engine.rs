//! Belongs to the copy of `src/engine/mod.rs`: opens a cache above a simulated disk, and counts its
//! memory again.

use super::*;
use crate::cache::BlobCache;
use crate::engine::invalidate::cleanup::Cleanup;
use crate::io::modelled::{ModelDisk, Runner};
use crate::stands::sync::atomic::{AtomicU64, Ordering};

/// Opens a cache with a new store.
pub(crate) async fn open_modelled(config: BlobCacheConfig, seed: u64) -> BlobCache {
    let geometry = geometry(&config).expect("it was built");
    let setup = DiskSetup {
        disk: Arc::new(ModelDisk::new(seed, geometry.file_bytes())),
        runner: Arc::new(Runner::start()),
        file: None,
        boot_id: [0; 16],
        identity: Identity { store_id: [7; 16], hash_key: 7 },
        void_mark: None,
    };
    let engine = open_on(config, geometry, setup).await.expect("a new store");
    BlobCache { engine }
}

/// Removes all that invalidations have left, and waits until no entry is being promoted.
pub(crate) async fn settle(engine: &Engine) {
    Cleanup::new(&engine.parts).finish_all().await;
    let promotions = &engine.parts.promotions;
    let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    while count(&promotions.queued) > count(&promotions.completed) + count(&promotions.dropped) {
        shuttle::future::yield_now().await;
    }
}

/// An error if what is counted is not what is there. No call may be under way.
pub(crate) fn audit(engine: &Engine, namespaces: &[&str]) -> Result<(), String> {
    let parts = &engine.parts;
    if parts.pending.any_pending() {
        return Err("an invalidation is still pending".to_owned());
    }
    let entries = parts.l1.audited()?;
    for name in namespaces {
        let Some(generation) = parts.namespaces.find(name) else { continue };
        let of = entries.iter().filter(|entry| Arc::ptr_eq(&entry.generation, &generation));
        let charges: Vec<usize> = of.map(|entry| entry.charge).collect();
        let found = (charges.len(), charges.iter().sum::<usize>());
        let counted = (generation.entries(), generation.bytes());
        if found != counted {
            return Err(format!("{name} has {found:?} entries and bytes, {counted:?} are counted"));
        }
    }
    match entries.iter().find(|entry| entry.generation.has_ended()) {
        Some(entry) => Err(format!("{entry:?} is left of a flushed namespace")),
        None => Ok(()),
    }
}
