//! `density`: file bytes per payload byte (value and key), for incompressible blobs of 1 KiB under
//! keys of 32 bytes, with a ttl.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::Error;
use crate::arguments::Density;
use crate::report::{mib, progress};
use crate::store::{Blobs, Scratch, Store};
use crate::table::Table;

/// The limit of the ratio.
const RATIO_MAX: f64 = 1.15;

const VALUE_BYTES: u64 = 1 << 10;
const KEY_BYTES: u64 = 32;

/// Number of samples.
const STEPS: u64 = 8;

pub(crate) async fn run(scratch: &Scratch, options: &Density) -> Result<ExitCode, Error> {
    let mut blobs = Blobs::new("thumbnails", KEY_BYTES, VALUE_BYTES);
    blobs.policy = blobs.policy.ttl(Duration::from_secs(24 * 60 * 60));
    let payload = blobs.payload_bytes();
    let entries = options.bytes / VALUE_BYTES;
    let store = Store::roomy(&scratch.path("density"), blobs, entries).await?;
    let before = store.cache.stats().l2_bytes_in_use();
    let bar = progress("put", entries)?;
    let mut table = Table::new(&["blobs", "payload", "file", "ratio", "puts/s"]);
    let (mut done, mut ratio) = (0, f64::NAN);
    for step in 1..=STEPS {
        let (end, started) = (entries * step / STEPS, Instant::now());
        store.put(done..end, options.putters.get(), &bar).await?;
        let rate = (end - done) as f64 / started.elapsed().as_secs_f64();
        done = end;
        let file = store.cache.stats().l2_bytes_in_use().saturating_sub(before);
        let payload = done * payload;
        ratio = file as f64 / payload as f64;
        table.row([
            done.to_string(),
            mib(payload),
            mib(file),
            format!("{ratio:.4}"),
            format!("{rate:.0}"),
        ]);
    }
    bar.finish_and_clear();
    store.check_complete()?;
    store.cache.close().await?;
    println!("{table}");
    println!("file bytes per payload byte {ratio:.4}, limit {RATIO_MAX}");
    Ok(if ratio < RATIO_MAX { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
