//! `Child`: another process of this program, for work that has to end with a kill, or whose peak
//! memory is measured.
//!
//! It gets its order as an argument in JSON, and answers with one line of JSON when it is done.
//! Then it waits to be killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::blobs::Blobs;
use crate::caches::{Kind, Setup};
use crate::load::{for_each, two_workers};
use crate::process::memory;

/// The values of stores that are opened.
pub(crate) const VALUE_BYTES: u64 = 8;

/// Concurrent tasks that fill a store.
const FILLERS: u64 = 8;

/// What a child does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) kind: Kind,
    pub(crate) path: PathBuf,
    pub(crate) setup: Setup,
    /// Entries to put after the open.
    pub(crate) fills: u64,
    /// Whether to close the store. Otherwise the kill finds it open.
    pub(crate) closes: bool,
}

/// What opening took.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) open: Duration,
    /// Entries found, if the cache tells.
    pub(crate) entries: Option<u64>,
    /// The most memory that was resident so far.
    pub(crate) peak_bytes: u64,
    /// The memory of the process before the open with that of the cache: as the cache tells, or as
    /// it is resident. An allocator may keep what was freed.
    pub(crate) steady_bytes: u64,
}

impl Order {
    /// Runs a child with this order until it has answered; kills it.
    pub(crate) fn give(&self) -> Result<Answer, Error> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--child", &serde_json::to_string(self)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let read = child.stdout.as_mut().map(|told| BufReader::new(told).read_line(&mut line));
        // It may have ended already.
        let _ = child.kill();
        child.wait()?;
        read.transpose()?;
        serde_json::from_str(&line).map_err(|_| format!("a child failed: {line}").into())
    }
}

/// The child's side.
pub(crate) fn obey(order: &str) -> Result<(), Error> {
    let order: Order = serde_json::from_str(order)?;
    let answer = two_workers()?.block_on(carry_out(order))?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", serde_json::to_string(&answer)?)?;
    out.flush()?;
    // Normally killed here. If the input ends, the parent is gone.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

async fn carry_out(order: Order) -> Result<Answer, Error> {
    let (_, before) = memory()?;
    let started = Instant::now();
    let cache = order.kind.open(&order.path, &order.setup).await?;
    let open = started.elapsed();
    // Freed memory goes back in the background.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (peak_bytes, resident) = memory()?;
    let steady_bytes = cache.memory_bytes().map_or(resident, |bytes| before + bytes);
    let entries = cache.entries();
    if order.fills > 0 {
        let (blobs, target) = (Blobs::of(VALUE_BYTES), cache.clone());
        for_each(order.fills, FILLERS, move |number| {
            let (cache, value) = (target.clone(), blobs.value(number));
            async move { cache.put(Blobs::key(number), value).await }
        })
        .await?;
        cache.settle().await?;
    }
    if order.closes {
        cache.close().await?;
    } else {
        // Dropped, it might be closed: the kill has to find it open.
        std::mem::forget(cache);
    }
    Ok(Answer { open, entries, peak_bytes, steady_bytes })
}

/// Copies the files of a closed or killed store.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
