//! Renewals in a replay: the deadlines of older records.

use super::super::format::Position;
use super::super::listed_record::{ListedKind, ListedRecord};
use super::super::renewal::Renewal;
use super::super::replay_run::ReplayRun;
use super::super::replayed_renewals::RENEWAL_BYTES;
use super::super::segment_records::SegmentRecords;
use super::log::ReplayedLog;
use crate::batch::{BATCH_ENTRIES, Pacer};
use crate::failpoint::{Failpoint, failpoint};

/// Notes the deadlines of a record that is yet to be read.
pub(super) fn note(log: &mut ReplayedLog, renewal: &Renewal<'_>, touched_at: Position) {
    let of = log.names.get(renewal.namespace.name);
    let namespace = of.map(|of| &log.namespaces[*of]);
    let is_current = namespace.is_some_and(|it| it.is_current(renewal.namespace.generation));
    if is_current && !failpoint(Failpoint::RenewalForgotten) {
        log.used.beside_bytes += log.renewals.insert(renewal, touched_at);
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
    let Some(renewal) = log.renewals.take(position) else { return };
    log.used.beside_bytes = log.used.beside_bytes.saturating_sub(RENEWAL_BYTES);
    if record.kind == ListedKind::Tombstone {
        return;
    }
    // What is found beyond that is forgotten, as it would be in the running cache.
    if log.renewed >= log.renewed_max() {
        renewal.forget(record, log.now);
        return;
    }
    renewal.apply(record, log.now);
    if record.kind == ListedKind::Blob {
        log.renewed += 1;
        log.namespaces[of].renewed.push(renewal.of(record, position));
    }
}
