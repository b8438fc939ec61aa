//! `tamis backup` and `tamis restore`: copies of a store.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;
use tamis::{BackupReport, CopyDamage, StoreAccess, StoreCopyError, StoreReadError, StoreReader};

use super::arguments::{Backup, Restore};
use super::failure::Failure;
use super::output::size;
use super::progress::bar;
use super::verify;

const FLUSH: &str = "\
The copy knows nothing of what was changed since the backup: a cache that opens it may SERVE WHAT IS
OUT OF DATE, until ttls end it. Flush what may have changed once it is open.";

pub(super) fn back_up(backup: &Backup, is_json: bool) -> Result<ExitCode, Failure> {
    let store = backup.store.open()?;
    let copied = copy(&store, &backup.to, CopyDamage::Refuse)?;
    tell(&copied, &backup.to, is_json, None)
}

pub(super) fn restore(restore: &Restore, is_json: bool) -> Result<ExitCode, Failure> {
    // There is no `--live` that the message could speak of.
    let store = StoreReader::open(&restore.from, StoreAccess::Alone);
    let store = store.map_err(StoreCopyError::Source)?;
    let (report, failed) = verify::check(&store, is_json)?;
    if report.damaged > 0 && !restore.damaged {
        let path = store.facts().path.clone();
        let reason = format!(
            "{} parts, listed above; nothing was copied (--damaged copies it all the same)",
            report.damaged
        );
        return Err(StoreReadError::Damaged { path, reason }.into());
    }
    if let Some(error) = failed.filter(|error| error.kind() != io::ErrorKind::BrokenPipe) {
        return Err(error.into());
    }
    let damage = if restore.damaged { CopyDamage::Drop } else { CopyDamage::Refuse };
    let copied = copy(&store, &restore.to, damage)?;
    tell(&copied, &restore.to, is_json, Some(report.damaged))
}

fn copy(
    store: &StoreReader,
    to: &Path,
    damage: CopyDamage,
) -> Result<BackupReport, StoreCopyError> {
    let bar = bar();
    let copied = store.copy_to(to, damage, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    copied
}

/// `damaged`: the parts of a restored store that are damaged.
fn tell(
    copied: &BackupReport,
    to: &Path,
    is_json: bool,
    damaged: Option<u64>,
) -> Result<ExitCode, Failure> {
    let mut output = io::stdout().lock();
    if is_json {
        let object = json!({ "copy": {
            "directory": to.to_string_lossy(),
            "segments": copied.segments(),
            "bytes": copied.bytes(),
            "shared_bytes": copied.shared_bytes(),
            "damaged": damaged,
            "flush_after_open": damaged.is_some(),
        }});
        writeln!(output, "{object}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let (segments, bytes) = (copied.segments(), size(copied.bytes()));
    writeln!(output, "{segments} segments copied to {}: {bytes}", to.display())?;
    if copied.shared_bytes() > 0 {
        let shared = size(copied.shared_bytes());
        writeln!(output, "{shared} of these are shared with the store, and take no room yet")?;
    }
    if let Some(damaged) = damaged {
        if damaged > 0 {
            writeln!(
                output,
                "DAMAGED: {damaged} parts of the backup, listed above: what they held is missing \
                 or damaged in the copy"
            )?;
        }
        writeln!(output, "{FLUSH}")?;
    }
    Ok(ExitCode::SUCCESS)
}
