//! An invalidation and the opening of a gate behind it, beside a get that began before.

use std::time::Duration;

use shuttle::future::block_on;
use shuttle::thread;
use tamis_tiers::{
    BackgroundSweep, BlobCache, BlobCacheConfig, BootClock, Gate, WhileClosed, open_on_disk,
};

use crate::scene::Tiers;

/// The gate was closed when the entry was put, and is opened once that is invalidated: no get has
/// it.
pub(crate) fn gated(tiers: Tiers) {
    let clock = BootClock::manual(Duration::from_secs(1));
    let gate = Gate::with_clock(clock);
    let config = BlobCacheConfig::builder()
        .l1_bytes_max(1 << 20)
        .background_sweep(BackgroundSweep::Off)
        .namespace("n", |own| own.gate(&gate, WhileClosed::Miss));
    let cache = block_on(async {
        if tiers == Tiers::Disk {
            let config = config.l2_path("modelled").l2_bytes_max(1 << 20).l2_segment_bytes(1 << 17);
            return open_on_disk(config.build().expect("a configuration"), 0).await;
        }
        BlobCache::open(config.build().expect("a configuration")).await.expect("it opens")
    });
    block_on(cache.put("n", "k", "old")).expect("there is room");
    let (reader, its_gate) = (cache.clone(), gate.clone());
    let get = thread::spawn(move || {
        let hit = block_on(reader.get("n", "k"));
        assert!(hit.is_none(), "a gate that was opened behind an invalidation lets {hit:?} pass");
    });
    block_on(cache.invalidate_key("n", "k")).expect("it returns");
    its_gate.open_until(Duration::from_secs(2));
    get.join().expect("no thread panics");
    block_on(cache.close()).expect("it closes");
}
