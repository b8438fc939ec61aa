//! `measure`: processor time of a put over a full store, with and without what decides on disk.
//!
//! Puts of new keys, so that segments are reclaimed all the time. *Without* is
//! `L2Admission::Always` and a write amplification of 100 %, where no record is written twice. The
//! time is that of the whole process, threads of the disk tier included, over interleaved rounds.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use futures::executor::block_on;
use tamis::{BlobCache, BlobCacheConfig, L2Admission};

use crate::Failure;
use crate::spread::Spread;
use crate::values::Values;

const ROUNDS: usize = 7;

const L1_BYTES: usize = 16 << 20;

const L2_BYTES: u64 = 64 << 20;

/// Sizes of values, and puts that are timed: more than twice the file.
const LOADS: [(usize, u64); 2] = [(4096, 60_000), (200, 500_000)];

/// Of the kernel's clock for processes, which is 100 Hz in its interface.
const TICK_US: f64 = 10_000.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deciding {
    No,
    Yes,
}

/// A table with a line for each size.
pub(crate) fn measure(folder: Option<&Path>) -> Result<String, Failure> {
    let mut table = "| value | without | with | ratio |\n| --- | --- | --- | --- |\n".to_owned();
    for (bytes, puts) in LOADS {
        let value = Values::new(bytes as u64).of(0, bytes as u64);
        let [mut without, mut with, mut ratios]: [Spread; 3] = Default::default();
        for _ in 0..ROUNDS {
            let time = |deciding| round(&value, puts, deciding, folder);
            let (less, more) = (time(Deciding::No)?, time(Deciding::Yes)?);
            without.push(less);
            with.push(more);
            ratios.push(more / less);
        }
        let [without, with, ratio] = [without, with, ratios].map(|figures| figures.show(2));
        let _ = writeln!(table, "| {bytes} B | {without} us | {with} us | {ratio} |");
    }
    Ok(table)
}

/// Microseconds of a put.
#[allow(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn round(
    value: &Bytes,
    puts: u64,
    deciding: Deciding,
    folder: Option<&Path>,
) -> Result<f64, Failure> {
    let store = match folder {
        None => tempfile::tempdir()?,
        Some(folder) => tempfile::tempdir_in(folder)?,
    };
    let builder = BlobCacheConfig::builder()
        .l1_bytes_max(L1_BYTES)
        .l2_path(store.path())
        .l2_bytes_max(L2_BYTES)
        .l2_index_bytes_max(32 << 20);
    let config = match deciding {
        Deciding::Yes => builder,
        Deciding::No => {
            builder.l2_admission(L2Admission::Always).l2_write_amplification_pct_max(100)
        }
    };
    let cache = block_on(BlobCache::open(config.build()?))?;
    let put = async |keys: std::ops::Range<u64>| {
        for key in keys {
            cache.put("puts", key.to_le_bytes(), value.clone()).await?;
        }
        cache.sync().await
    };
    // The file is full before the time is taken.
    block_on(put(0..puts))?;
    let before = ticks()?;
    block_on(put(puts..2 * puts))?;
    let used = ticks()? - before;
    block_on(cache.close())?;
    Ok(used as f64 * TICK_US / puts as f64)
}

/// Processor time of this process.
fn ticks() -> Result<u64, Failure> {
    let text = fs::read_to_string("/proc/self/stat")?;
    // The name of the command, which may contain anything, ends with the last bracket.
    let (_, fields) = text.rsplit_once(')').ok_or("no name in /proc/self/stat")?;
    let field = |number: usize| fields.split_whitespace().nth(number).ok_or("a field is missing");
    Ok(field(11)?.parse::<u64>()? + field(12)?.parse::<u64>()?)
}
