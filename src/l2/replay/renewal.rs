//! Renewals in a replay: the deadlines of older records.

use super::super::format::Position;
use super::super::listed_record::{ListedKind, ListedRecord};
use super::super::renewal::Renewal;
use super::super::replay_run::ReplayRun;
use super::super::replayed_renewals::Touched;
use super::super::segment_records::SegmentRecords;
use super::log::ReplayedLog;
use crate::batch::{BATCH_ENTRIES, Pacer};
use crate::failpoint::{Failpoint, failpoint};

/// Notes the deadlines of a record that is yet to be read, if it will be: those before `head` are
/// not.
pub(super) fn note(
    log: &mut ReplayedLog,
    renewal: &Renewal<'_>,
    (touched_at, head): (Position, Position),
) {
    let of = log.names.get(renewal.namespace.name);
    let Some(namespace) = of.map(|of| &log.namespaces[*of]) else { return };
    let is_current = namespace.is_current(renewal.namespace.generation);
    let counts = is_current && renewal.position >= head;
    if counts && !failpoint(Failpoint::RenewalForgotten) {
        let (before, renewed_max) = (log.renewals.bytes(), log.renewed_max());
        log.renewals.insert(renewal, touched_at, renewed_max);
        log.used.beside_bytes += log.renewals.bytes() - before;
    }
}

/// The records of a run with the deadlines that were noted, if there are any.
pub(super) async fn renewed(
    log: &mut ReplayedLog,
    segment: &SegmentRecords,
    run: &[ListedRecord],
    state: &ReplayRun,
    steps: &mut Pacer,
) -> Option<Vec<ListedRecord>> {
    if log.renewals.is_empty() {
        return None;
    }
    let mut renewed = Vec::with_capacity(run.len());
    for batch in run.chunks(BATCH_ENTRIES) {
        steps.entries(batch.len()).await;
        for record in batch {
            let mut record = *record;
            if let Some(of) = state.namespace_of(&record) {
                let position = segment.position(&record);
                renew(log, &mut record, (position, of));
            }
            renewed.push(record);
        }
    }
    Some(renewed)
}

fn renew(log: &mut ReplayedLog, record: &mut ListedRecord, (position, of): (Position, usize)) {
    let before = log.renewals.bytes();
    let Some(touched) = log.renewals.take(position) else { return };
    let freed = before - log.renewals.bytes();
    log.used.beside_bytes = log.used.beside_bytes.saturating_sub(freed);
    if record.kind == ListedKind::Tombstone {
        return;
    }
    match touched {
        Touched::Renewed(renewed) if log.renewed < log.renewed_max() => {
            renewed.apply(record, log.now);
            if record.kind == ListedKind::Blob {
                log.renewed += 1;
                log.namespaces[of].renewed.push(renewed.of(record, position));
            }
        }
        // What is found beyond that is forgotten, as it would be in the running cache.
        _ => touched.forget(record, log.now),
    }
}
