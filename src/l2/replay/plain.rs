//! Takes segments whose records may come in any order.

use std::cmp::Reverse;
use std::io;

use super::super::format::Position;
use super::super::plain_records::{PlainRecords, PlainRow};
use super::Replay;
use super::log::NAMESPACE_BYTES;
use crate::batch::{BATCH_ENTRIES, Pacer};
use crate::footprint::{POSTING_BYTES, SLOT_BYTES};
use crate::helpers::Helpers;

impl Replay {
    /// Takes the records of the next older segment, as [`Replay::take`] does, if all of them fit
    /// and nothing depends on their order. False if it has taken none.
    ///
    /// # Errors
    /// If a helper fails.
    pub(crate) async fn take_plain(
        &mut self,
        plain: &PlainRecords,
        outline_bytes: usize,
        (head, older): (Position, u64),
        helpers: &Helpers,
    ) -> io::Result<bool> {
        let mut steps = Pacer::default();
        let is_cut = plain.oldest().is_none_or(|oldest| oldest < head);
        let has_labels = !(self.log.labels.is_empty() && self.log.expired_labels.is_empty());
        let is_free = !has_labels && self.log.renewals.is_empty();
        let is_certain = self.log.collects && !self.is_over && is_free;
        if is_cut || !is_certain || !self.has_room(plain, &mut steps).await {
            return Ok(false);
        }
        let slots = self.log.used.slots;
        let Some(rows) = self.begin_rows(plain, &mut steps).await else { return Ok(false) };
        for batch in plain.records().chunks(BATCH_ENTRIES) {
            steps.entries(batch.len()).await;
            for record in batch {
                if let Some(of) = rows[record.row()] {
                    self.log.namespaces[of].index.prefetch_end(record.hash);
                }
            }
            for &record in batch {
                if let Some(of) = rows[record.row()] {
                    self.log.namespaces[of].collect(record.hash, plain.slot(record));
                    self.log.used.slots += 1;
                    self.log.collected += 1;
                }
            }
        }
        for batch in plain.postings().chunks(BATCH_ENTRIES) {
            steps.entries(batch.len()).await;
            for posting in batch {
                if let Some(of) = rows[posting.row as usize] {
                    let sequence = plain.sequence(posting);
                    self.log.namespaces[of].postings.push(posting.label, posting.key, sequence);
                    self.log.used.postings += 1;
                }
            }
        }
        self.oldest = plain.oldest();
        self.log.end_segment(slots, (outline_bytes, older), helpers).await?;
        Ok(true)
    }

    /// Whether all records certainly fit.
    async fn has_room(&self, plain: &PlainRecords, steps: &mut Pacer) -> bool {
        let mut bytes = plain.records().len() * SLOT_BYTES + plain.postings().len() * POSTING_BYTES;
        let mut largest = 0;
        for row in plain.rows() {
            steps.entry().await;
            if self.log.namespaces.len() + plain.rows().len() >= self.log.limits.namespaces_max {
                let name_bytes = NAMESPACE_BYTES + row.name.len();
                bytes += name_bytes;
                largest = largest.max(name_bytes);
            }
        }
        // Each record has to fit together with a name.
        bytes += largest;
        self.log.used.bytes() + bytes <= self.log.used.bytes_max()
    }

    /// The namespaces of all rows whose records count. None if the order of records matters.
    async fn begin_rows(
        &mut self,
        plain: &PlainRecords,
        steps: &mut Pacer,
    ) -> Option<Vec<Option<usize>>> {
        for row in plain.rows() {
            steps.entry().await;
            let is_known = |of: &usize| {
                let namespace = &self.log.namespaces[*of];
                let covers_some = !(namespace.prefixes.is_empty() && namespace.expiries.is_empty());
                namespace.collects && !covers_some
            };
            let has_quota = || {
                let quota = self.log.limits.quotas.of(&row.name);
                quota.is_some_and(|quota| quota.limits.l2_bytes_max.is_some())
            };
            let is_any = self.log.names.get(&row.name).map_or_else(|| !has_quota(), is_known);
            if !is_any {
                return None;
            }
        }
        steps.entries(BATCH_ENTRIES).await;
        let mut newest_first: Vec<(Position, &PlainRow)> =
            plain.rows().iter().filter_map(|row| Some((plain.newest_of(row)?, row))).collect();
        // At most 255.
        newest_first.sort_unstable_by_key(|(newest, _)| Reverse(*newest));
        for (newest, row) in newest_first {
            steps.entry().await;
            self.log.begin(&row.name, row.generation, newest);
        }
        let mut rows = Vec::with_capacity(plain.rows().len());
        for row in plain.rows() {
            steps.entry().await;
            let of = self.log.names.get(&row.name).copied();
            let of = of.filter(|of| self.log.namespaces[*of].is_current(row.generation));
            if let Some(of) = of {
                self.log.namespaces[of].extend_life(row.ends);
            }
            rows.push(of);
        }
        Some(rows)
    }
}
