//! `share`: the part of the file that is in use, and the part that holds live keys and values, at
//! default settings, after twice as much was put as fits.

use std::process::ExitCode;

use tamis::{BlobCache, BlobCacheConfig};

use crate::Error;
use crate::arguments::Share;
use crate::report::progress;
use crate::store::{Blobs, Scratch, Store};
use crate::table::Table;

const KEY_BYTES: u64 = 32;

pub(crate) async fn run(scratch: &Scratch, options: &Share) -> Result<ExitCode, Error> {
    let header = ["value bytes", "blobs", "in use", "live", "index bytes", "of budget"];
    let mut table = Table::new(&header);
    for value_bytes in [100, 1 << 10, 64 << 10] {
        let blobs = Blobs::new("thumbnails", KEY_BYTES, value_bytes);
        let payload = blobs.payload_bytes();
        let path = scratch.path(&format!("share-{value_bytes}"));
        let mut config = BlobCacheConfig::builder().l2_path(path).l2_bytes_max(options.bytes);
        if let Some(bytes) = options.index_bytes {
            config = config.l2_index_bytes_max(usize::try_from(bytes)?);
        }
        let store = Store::over(BlobCache::open(config.build()?).await?, blobs);
        let entries = 2 * options.bytes / payload;
        let bar = progress("put", entries)?;
        store.put(0..entries, 8, &bar).await?;
        bar.finish_and_clear();
        store.cache.sync().await?;
        let stats = store.cache.stats();
        let live = stats.l2_entries() as u64;
        let index = stats.memory_index_bytes() + stats.memory_synopsis_bytes();
        let budget = store.cache.config().l2_index_bytes_max();
        let percent = |part: f64, whole: f64| format!("{:.1} %", part / whole * 100.0);
        table.row([
            value_bytes.to_string(),
            live.to_string(),
            percent(stats.l2_bytes_in_use() as f64, stats.l2_bytes_max() as f64),
            percent((live * payload) as f64, stats.l2_bytes_max() as f64),
            index.to_string(),
            percent(index as f64, budget as f64),
        ]);
        store.cache.close().await?;
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}
