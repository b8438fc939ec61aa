//! `tamis size`: what a cache needs for so many entries.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::json;
use tamis::{SizeEstimate, SizeQuery};

use super::arguments::Size;
use super::failure::{Failure, USAGE};
use super::output::size;

pub(super) fn run(asked: &Size, is_json: bool) -> Result<ExitCode, Failure> {
    let query = SizeQuery {
        entries: asked.entries,
        key_bytes: asked.key,
        value_bytes: asked.value,
        stored_bytes: asked.stored.unwrap_or(asked.value),
        labels: asked.labels,
        label_bytes: asked.label,
        l1_share_pct: asked.l1_share,
        has_ttl: !asked.no_ttl,
    };
    let Some(estimate) = query.estimate() else {
        eprintln!("tamis: no store takes records of that size");
        return Ok(ExitCode::from(USAGE));
    };
    let SizeEstimate { l1_entry_bytes, l1_bytes_max, l2_entry_bytes, .. } = estimate;
    let SizeEstimate { l2_bytes_max, l2_segment_bytes, l2_segments, .. } = estimate;
    let SizeEstimate { index_entry_bytes, l2_index_bytes_max, .. } = estimate;
    let default = estimate.default_index_bytes_max;
    let mut output = io::stdout().lock();
    if is_json {
        let object = json!({
            "l1_entry_bytes": l1_entry_bytes,
            "l1_bytes_max": l1_bytes_max,
            "l2_entry_bytes": l2_entry_bytes,
            "l2_bytes_max": l2_bytes_max,
            "l2_segment_bytes": l2_segment_bytes,
            "l2_segments": l2_segments,
            "index_entry_bytes": index_entry_bytes,
            "l2_index_bytes_max": l2_index_bytes_max,
            "default_index_bytes_max": default,
        });
        writeln!(output, "{object}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let share = asked.l1_share;
    let is_default = l2_index_bytes_max <= default;
    let setting = if is_default { "the default is enough" } else { "set it: the default is less" };
    writeln!(
        output,
        "memory  l1_bytes_max        {l1_bytes_max:>16}  {:>11}  {share} % of the entries, \
         {l1_entry_bytes} bytes each",
        size(l1_bytes_max),
    )?;
    writeln!(
        output,
        "disk    l2_bytes_max        {l2_bytes_max:>16}  {:>11}  all of them, {l2_entry_bytes} \
         bytes each; {l2_segments} segments of {}",
        size(l2_bytes_max),
        size(l2_segment_bytes.into()),
    )?;
    writeln!(
        output,
        "index   l2_index_bytes_max  {l2_index_bytes_max:>16}  {:>11}  {index_entry_bytes} bytes \
         each; {setting} ({})",
        size(l2_index_bytes_max),
        size(default),
    )?;
    let resident = l1_bytes_max.saturating_add(l2_index_bytes_max);
    writeln!(output, "\nresident memory: {}, and l2_read_bytes_max beside it", size(resident))?;
    Ok(ExitCode::SUCCESS)
}
