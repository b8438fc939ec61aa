//! Expiries in a replay: since when older records are stale.

use super::super::directory_entry::Change;
use super::super::expiry::{Expiry, ExpiryScope};
use super::super::format::Position;
use super::super::listed_record::ListedRecord;
use super::super::replayed_expiries::note_earliest;
use super::super::segment_records::SegmentRecords;
use super::log::ReplayedLog;
use crate::batch::{BATCH_ENTRIES, Pacer};
use crate::clock::Timestamp;
use crate::failpoint::{Failpoint, failpoint};
use crate::sequence::Sequence;

impl ReplayedLog {
    /// Since when a record is stale, for expiries that were read before.
    pub(super) async fn expired_since(
        &self,
        segment: &SegmentRecords,
        record: &ListedRecord,
        of: usize,
        steps: &mut Pacer,
    ) -> Option<u64> {
        let (labels, expiries) = (&self.expired_labels, &self.namespaces[of].expiries);
        if (labels.is_empty() && expiries.is_empty()) || failpoint(Failpoint::ExpiryForgotten) {
            return None;
        }
        let entry = segment.entry(record).map(|entry| entry.change);
        let Some(Change::Blob(blob)) = entry else { return None };
        let mut since = expiries.since(blob.hash, blob.key);
        for batch in segment.labels(record).chunks(BATCH_ENTRIES) {
            steps.entries(batch.len()).await;
            let of_labels = batch.iter().filter_map(|label| labels.get(label)).copied();
            since = since.into_iter().chain(of_labels).min();
        }
        since
    }

    pub(super) async fn take_expiry(
        &mut self,
        expiry: &Expiry<'_>,
        position: Position,
        steps: &mut Pacer,
    ) {
        let since = expiry.since_ns;
        if let ExpiryScope::Labels(labels) = expiry.scope {
            for label in labels.iter() {
                steps.entry().await;
                self.used.beside_bytes += note_earliest(&mut self.expired_labels, label, since);
            }
        }
        let Some(named) = Change::Expiry(*expiry).namespace() else { return };
        let Some(&of) = self.names.get(named.name) else { return };
        let namespace = &mut self.namespaces[of];
        if !namespace.is_current(named.generation) {
            return;
        }
        match expiry.scope {
            ExpiryScope::Key { hash, .. } => {
                self.used.beside_bytes += namespace.expiries.insert_key(hash, since);
            }
            ExpiryScope::Prefix { prefix, .. } => {
                let insert = namespace.expiries.insert_prefix(prefix, since, steps);
                let (added, freed) = insert.await;
                self.used.beside_bytes = (self.used.beside_bytes + added).saturating_sub(freed);
            }
            ExpiryScope::Namespace(_) => {
                let before = Sequence(position.value());
                if !failpoint(Failpoint::ExpiryForgotten) {
                    namespace.expiries_of_all.add(before, Timestamp(since));
                }
            }
            ExpiryScope::Labels(_) => {}
        }
    }
}
