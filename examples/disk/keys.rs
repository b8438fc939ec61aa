//! `keys`: a listing of all keys of a namespace, from the directories on disk and with the details
//! of each record, beside gets of the same keys one after the other.

use std::process::ExitCode;
use std::time::Instant;

use tamis::KeysQuery;

use crate::Error;
use crate::arguments::Keys;
use crate::report::progress;
use crate::spread::Spread;
use crate::store::{Blobs, Scratch, Store};
use crate::table::Table;

/// Gets that a round makes, and details that it lists.
const SOME: u64 = 20_000;

pub(crate) async fn run(scratch: &Scratch, options: &Keys) -> Result<ExitCode, Error> {
    let entries = options.entries.get();
    let blobs = Blobs::new("thumbnails", 32, options.value_bytes.get());
    let store = Store::roomy(&scratch.path("keys"), blobs, entries).await?;
    let bar = progress("put", entries)?;
    store.put(0..entries, 8, &bar).await?;
    bar.finish_and_clear();
    store.cache.sync().await?;
    store.check_complete()?;
    let mut rows = [(); 3].map(|()| (Spread::default(), Spread::default()));
    for _ in 0..options.rounds.get() {
        let all = Listing::of(&store, KeysQuery::default(), u64::MAX).await?;
        if all.keys != entries {
            return Err(format!("{} of {entries} keys are listed", all.keys).into());
        }
        let details = Listing::of(&store, KeysQuery::default().details(), SOME).await?;
        let gets = Listing::by_gets(&store, SOME.min(entries)).await?;
        for (row, listing) in rows.iter_mut().zip([all, details, gets]) {
            row.0.push(listing.keys as f64 / listing.seconds);
            row.1.push(listing.read_bytes as f64 / listing.keys as f64);
        }
    }
    let mut table = Table::new(&[&format!("{entries} keys on disk"), "keys/s", "bytes read a key"]);
    let names = ["keys", "keys, with details", "get of each"];
    for (name, (keys, bytes)) in names.iter().zip(&rows) {
        table.row([(*name).to_owned(), keys.show(0), bytes.show(0)]);
    }
    println!("{table}");
    store.cache.close().await?;
    Ok(ExitCode::SUCCESS)
}

struct Listing {
    keys: u64,
    seconds: f64,
    read_bytes: u64,
}

impl Listing {
    /// The first keys that a query lists.
    async fn of(store: &Store, query: KeysQuery, most: u64) -> Result<Self, Error> {
        let read_before = store.cache.stats().l2_read_bytes();
        let begun = Instant::now();
        let mut stream = store.cache.keys(store.blobs.namespace, query);
        let mut keys = 0;
        while keys < most {
            let Some(entry) = stream.next().await else { break };
            if u64::try_from(entry.key().len())? != store.blobs.key_bytes {
                return Err("a key that was never put".into());
            }
            keys += 1;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let read_bytes = store.cache.stats().l2_read_bytes() - read_before;
        Ok(Self { keys, seconds, read_bytes })
    }

    async fn by_gets(store: &Store, keys: u64) -> Result<Self, Error> {
        let read_before = store.cache.stats().l2_read_bytes();
        let begun = Instant::now();
        for number in 0..keys {
            if !store.holds(number).await? {
                return Err(format!("{number} is missing").into());
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        let read_bytes = store.cache.stats().l2_read_bytes() - read_before;
        Ok(Self { keys, seconds, read_bytes })
    }
}
