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

impl ReplayedLog {
    pub(super) fn take_renewal(&mut self, renewal: &Renewal<'_>, touched_at: Position) {
        let of = self.names.get(renewal.namespace.name);
        let namespace = of.map(|of| &self.namespaces[*of]);
        let is_current = namespace.is_some_and(|it| it.is_current(renewal.namespace.generation));
        if is_current && !failpoint(Failpoint::RenewalForgotten) {
            self.used.beside_bytes += self.renewals.insert(renewal, touched_at);
        }
    }

    /// The records of a run with the deadlines that were read before, if there are any.
    pub(super) async fn renewed(
        &mut self,
        segment: &SegmentRecords,
        run: &[ListedRecord],
        state: &ReplayRun,
        steps: &mut Pacer,
    ) -> Option<Vec<ListedRecord>> {
        if self.renewals.is_empty() {
            return None;
        }
        let mut renewed = Vec::with_capacity(run.len());
        for batch in run.chunks(BATCH_ENTRIES) {
            steps.entries(batch.len()).await;
            for record in batch {
                let mut record = *record;
                if let Some(of) = state.namespace_of(&record) {
                    let position = segment.position(&record);
                    self.renew(&mut record, position, of);
                }
                renewed.push(record);
            }
        }
        Some(renewed)
    }

    fn renew(&mut self, record: &mut ListedRecord, position: Position, of: usize) {
        let Some(renewal) = self.renewals.take(position) else { return };
        self.used.beside_bytes = self.used.beside_bytes.saturating_sub(RENEWAL_BYTES);
        if record.kind == ListedKind::Tombstone {
            return;
        }
        // What is found beyond that is forgotten, as it would be in the running cache.
        if self.renewed >= self.renewed_max() {
            renewal.forget(record, self.now);
            return;
        }
        renewal.apply(record, self.now);
        if record.kind == ListedKind::Blob {
            self.renewed += 1;
            self.namespaces[of].renewed.push(renewal.of(record, position));
        }
    }
}
