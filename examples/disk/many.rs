//! `many`: the verbs for many keys beside a loop of single calls, and for gets beside all of them
//! at once as futures of one task. Each is measured in alternation, by one caller.
//!
//! Puts are overwrites: each waits until the record that shadows the older one is written.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::Error;
use crate::arguments::Many;
use crate::process::processor_time;
use crate::report::progress;
use crate::spread::Spread;
use crate::store::{Blobs, Scratch, Store};
use crate::table::Table;

const PUTTERS: u64 = 8;

/// Ways to do the same work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    GetLoop,
    GetJoined,
    GetMany,
    PutLoop,
    PutMany,
    InvalidateLoop,
    InvalidateMany,
}

const WAYS: [(Way, &str); 7] = [
    (Way::GetLoop, "get, one after the other"),
    (Way::GetJoined, "get, join_all"),
    (Way::GetMany, "get_many"),
    (Way::PutLoop, "put, one after the other"),
    (Way::PutMany, "put_many"),
    (Way::InvalidateLoop, "invalidate_key, one after the other"),
    (Way::InvalidateMany, "invalidate_keys"),
];

#[derive(Default)]
struct Outcome {
    micros: Spread,
    processor: Spread,
}

pub(crate) async fn run(scratch: &Scratch, options: &Many) -> Result<ExitCode, Error> {
    let value_bytes = options.value_bytes.get();
    let entries = (options.bytes / value_bytes).max(1);
    let blobs = Blobs::new("thumbnails", 16, value_bytes);
    // Overwrites take room, too.
    let store = Store::roomy(&scratch.path("many"), blobs, 4 * entries).await?;
    let bar = progress("put", entries)?;
    store.put(0..entries, PUTTERS, &bar).await?;
    bar.finish_and_clear();
    store.cache.sync().await?;
    let mut table = Table::new(&["keys", "by", "us a batch", "us a key", "CPU us a key"]);
    for count in &options.keys {
        let mut outcomes = WAYS.map(|way| (way, Outcome::default()));
        let bar = progress("measure", options.rounds.get() * WAYS.len() as u64)?;
        for round in 0..options.rounds.get() {
            for (number, ((way, _), outcome)) in (0..).zip(&mut outcomes) {
                let random = StdRng::seed_from_u64(round << 32 | number);
                measure(&store, options, (*way, count.get(), entries), random, outcome).await?;
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        for ((_, name), Outcome { micros, processor }) in &outcomes {
            let mut each = Spread::default();
            micros.values().for_each(|micros| each.push(micros / count.get() as f64));
            let cells = [count.to_string(), (*name).to_owned(), micros.show(0)];
            table.row(cells.into_iter().chain([each.show(2), processor.show(2)]));
        }
    }
    store.cache.close().await?;
    println!("{entries} values of {value_bytes} bytes\n\n{table}");
    Ok(ExitCode::SUCCESS)
}

/// Batches for a while, of keys that are there. What is invalidated is put again, unmeasured.
async fn measure(
    store: &Store,
    options: &Many,
    (way, count, entries): (Way, u64, u64),
    mut random: StdRng,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let (mut spent, mut processor) = (Duration::ZERO, Duration::ZERO);
    let mut batches = 0.0;
    while spent < Duration::from_millis(options.millis.get()) {
        let numbers: Vec<u64> = (0..count).map(|_| random.random_range(0..entries)).collect();
        let (before, started) = (processor_time()?, Instant::now());
        batch(store, way, &numbers).await?;
        spent += started.elapsed();
        processor += processor_time()?.saturating_sub(before);
        batches += 1.0;
        if matches!(way, Way::InvalidateLoop | Way::InvalidateMany) {
            store.put_many(&numbers).await?;
        }
    }
    outcome.micros.push(spent.as_secs_f64() * 1e6 / batches);
    outcome.processor.push(processor.as_secs_f64() * 1e6 / batches / count as f64);
    Ok(())
}

async fn batch(store: &Store, way: Way, numbers: &[u64]) -> Result<(), Error> {
    let keys: Vec<String> = numbers.iter().map(|number| store.blobs.key(*number)).collect();
    let (cache, namespace) = (&store.cache, store.blobs.namespace);
    match way {
        Way::GetLoop => {
            for key in &keys {
                found(usize::from(cache.get(namespace, key).await.is_some()), 1)?;
            }
        }
        Way::GetJoined => {
            let hits = join_all(keys.iter().map(|key| cache.get(namespace, key))).await;
            found(hits.iter().flatten().count(), keys.len())?;
        }
        Way::GetMany => {
            let hits = cache.get_many(namespace, &keys).await;
            found(hits.iter().flatten().count(), keys.len())?;
        }
        Way::PutLoop => {
            for number in numbers {
                store.put_one(*number).await?;
            }
        }
        Way::PutMany => store.put_many(numbers).await?,
        Way::InvalidateLoop => {
            for key in &keys {
                cache.invalidate_key(namespace, key).await?;
            }
        }
        Way::InvalidateMany => {
            cache.invalidate_keys(namespace, &keys).await?;
        }
    }
    Ok(())
}

fn found(count: usize, expected: usize) -> Result<(), Error> {
    if count == expected { Ok(()) } else { Err(format!("{count} of {expected} are there").into()) }
}
