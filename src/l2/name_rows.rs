//! `NameRows`: the newest row of each name in the directory of the open segment.
//!
//! A growing table is rebuilt under the lock of the log. So the names are spread over many small
//! tables; even with the most names allowed, each holds only about a thousand.

use std::collections::HashMap;
use std::hash::BuildHasher;

use super::format::GenerationNumber;
use crate::key::NameHasher;

const TABLES: usize = 64;

#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) index: u32,
    pub(super) generation: GenerationNumber,
}

pub(super) struct NameRows {
    /// None before the first name.
    tables: Vec<HashMap<Box<str>, Row, NameHasher>>,
    bytes: usize,
}

impl NameRows {
    pub(super) fn new() -> Self {
        Self { tables: Vec::new(), bytes: 0 }
    }

    pub(super) fn get(&self, name: &str) -> Option<Row> {
        self.tables.get(self.table_of(name)?)?.get(name).copied()
    }

    pub(super) fn insert(&mut self, name: &str, row: Row) {
        if self.tables.is_empty() {
            self.tables.resize_with(TABLES, HashMap::default);
        }
        let Some(number) = self.table_of(name) else { return };
        let table = &mut self.tables[number];
        let before = table.capacity();
        if table.insert(name.into(), row).is_none() {
            self.bytes += name.len();
        }
        // A row includes its table entry and the slack of the table.
        let entry = size_of::<(Box<str>, Row)>() + 1;
        self.bytes += (table.capacity() - before) * entry * 8 / 7;
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes + self.tables.len() * size_of::<HashMap<Box<str>, Row, NameHasher>>()
    }

    /// None before the first name.
    fn table_of(&self, name: &str) -> Option<usize> {
        // Not by the bits that order the names of a table.
        let hash = self.tables.first()?.hasher().hash_one(name) >> 32;
        // Below sixty-four, so it fits.
        Some(usize::try_from(hash % TABLES as u64).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_table_grows_by_more_than_a_step_of_names() {
        let mut rows = NameRows::new();
        for number in 0..65_536 {
            let row = Row { index: number, generation: GenerationNumber(u64::from(number)) };
            rows.insert(&format!("{number:0>50}"), row);
        }
        assert!(rows.tables.iter().all(|table| table.len() < 1280));
        for number in 0..65_536 {
            let row = rows.get(&format!("{number:0>50}"));
            assert_eq!(row.map(|row| row.index), Some(number));
        }
        let least = 65_536 * (50 + size_of::<(Box<str>, Row)>());
        assert!((least..3 * least).contains(&rows.memory_bytes()));
    }
}
